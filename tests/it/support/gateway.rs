//! The gateway under test: the program itself, from a configuration file.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use ravelin::control::{self, Answer};
use tempfile::TempDir;

use super::{certificates::Authority, eventually};

/// A directory with certificates, policies and users for one gateway; removed at the end.
pub(crate) struct Site {
    directory: TempDir,
    /// Signs everything in this test.
    pub(crate) authority: Authority,
}

impl Site {
    /// A site with an authority, a certificate for the gateway and its apps, and alice and bob.
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("ravelin-it-")
            .tempdir()
            .unwrap();
        let authority = Authority::new(directory.path(), "ca");
        // wrk asks TLS for localhost, whatever it asks HTTP for.
        authority.issue("gw", &["gw.ravelin.test", "*.apps.test", "localhost"]);
        let site = Self {
            directory,
            authority,
        };
        site.write(
            "users",
            &format!(
                "alice:sales:{}\nbob:contractors:{}\n",
                hash(ALICE),
                hash(BOB)
            ),
        );
        fs::set_permissions(
            site.path("users"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        site
    }

    /// A path inside the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file inside the site.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).unwrap();
        }
        fs::write(&path, text).unwrap();
        path
    }

    /// The start of every configuration: listener, certificate, users, log, control socket.
    pub(crate) fn base(&self) -> String {
        r#"
host = "gw.ravelin.test"
demo = true

[listener.public]
addresses = ["127.0.0.1:0"]
certificates = ["gw"]

[certificate.gw]
chain = "gw.pem"
key = "file:gw.key"

[directory.local]
type = "users"
file = "users"

[policy]
files = ["policies/*.cedar"]

[admin]
address = "127.0.0.1:0"
control = "control.sock"

[log]
access = "file:access.log"
level = "debug"
"#
        .to_owned()
    }
}

/// alice's password, in every site.
pub(crate) const ALICE: &str = "correct horse";
/// bob's password, in every site.
pub(crate) const BOB: &str = "battery staple";

fn hash(password: &str) -> String {
    let mut child = ravelin()
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    {
        use std::io::Write;
        child
            .stdin
            .take()
            .unwrap()
            .write_all(password.as_bytes())
            .unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "hash-password failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The program under test.
pub(crate) fn ravelin() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ravelin"))
}

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    control: PathBuf,
    log: PathBuf,
    diagnostics: PathBuf,
    /// Where devices connect.
    pub(crate) address: SocketAddr,
    /// The admin address.
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts `ravelin run` with this configuration, and waits until it answers.
    pub(crate) fn start(site: &Site, toml: &str) -> Self {
        Self::start_with(site, toml, ravelin())
    }

    /// The same, with a command that wraps the program (a network namespace).
    pub(crate) fn start_with(site: &Site, toml: &str, mut command: Command) -> Self {
        let config = site.write("ravelin.toml", toml);
        let diagnostics = site.path("diagnostics.log");
        let control = site.path("control.sock");
        let mut child = command
            .arg("run")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&diagnostics).unwrap())
            .spawn()
            .unwrap();
        let status = eventually("the gateway to answer on its control socket", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!(
                    "the gateway ended with {status}:\n{}",
                    fs::read_to_string(&diagnostics).unwrap()
                );
            }
            match control::ask(&control, &control::Command::Status) {
                Ok(Answer::Status(status)) => Some(status),
                _ => None,
            }
        });
        Self {
            child,
            control,
            log: site.path("access.log"),
            diagnostics,
            address: status.listeners[0].parse().unwrap(),
            admin: status.admin.unwrap().parse().unwrap(),
        }
    }

    /// Asks on the control socket.
    pub(crate) fn ask(&self, command: &control::Command) -> Answer {
        control::ask(&self.control, command).unwrap()
    }

    /// Sends a signal (`TERM`, `HUP`).
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the gateway to end", || self.child.try_wait().unwrap())
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// The lines of the access log so far.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The first line of the access log that fits, waited for.
    pub(crate) fn log_line(
        &self,
        what: &str,
        fits: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        eventually(what, || self.log().into_iter().find(&fits))
    }

    /// The text of both logs, for looking that something is not there.
    pub(crate) fn all_logs(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default() + &self.diagnostics()
    }

    /// The diagnostic log.
    pub(crate) fn diagnostics(&self) -> String {
        fs::read_to_string(&self.diagnostics).unwrap_or_default()
    }

    /// A metric's value, by its whole name with labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = super::client::get(self.admin, "/metrics");
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("---- the gateway's diagnostics:\n{}", self.diagnostics());
            eprintln!(
                "---- its access log:\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

/// Writes a policy file.
pub(crate) fn policy(site: &Site, text: &str) {
    site.write("policies/test.cedar", text);
}

/// The text of a path, for a configuration.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
