//! Machines of a network that exists only for a test: network namespaces, links, firewalls.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{eventually, peers::Machine};

/// One machine. Removed when dropped, with all of its links.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A machine with nothing but its own loopback, which asks `resolver` for names.
    pub(crate) fn new(role: &str, resolver: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{role}", std::process::id());
        done(Command::new("ip").args(["netns", "add", &name]), "");
        let namespace = Self { name };
        let etc = namespace.etc();
        fs::create_dir_all(&etc).unwrap();
        let resolver = format!("nameserver {resolver}\noptions timeout:2 attempts:3\n");
        fs::write(etc.join("resolv.conf"), resolver).unwrap();
        fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        namespace.ip("link set lo up");
        namespace
    }

    /// A link between two machines. On each side it is named after the other's role.
    pub(crate) fn link(&self, here: &str, other: &Self, there: &str, mtu: u32) {
        self.ip(&format!(
            "link add {there} mtu {mtu} type veth peer name {here} mtu {mtu} netns {}",
            other.name
        ));
        self.ip(&format!("link set {there} up"));
        other.ip(&format!("link set {here} up"));
    }

    /// Runs lines of `ip` on this machine.
    pub(crate) fn ip(&self, lines: &str) {
        let mut ip = Command::new("ip");
        done(ip.args(["-n", &self.name, "-batch", "-"]), lines);
    }

    /// Sets kernel parameters of this machine, each `name=value`.
    pub(crate) fn sysctl(&self, settings: &[&str]) {
        done(self.command("sysctl").args(["-q", "-w"]).args(settings), "");
    }

    /// Loads firewall rules.
    pub(crate) fn nft(&self, rules: &str) {
        done(self.command("nft").args(["-f", "-"]), rules);
    }

    /// Packets that a named counter of the firewall's table `wall` has seen.
    pub(crate) fn packets(&self, counter: &str) -> u64 {
        let output = done(
            self.command("nft")
                .args(["list", "counter", "inet", "wall", counter]),
            "",
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }

    /// A command that will run on this machine.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(program.as_ref());
        command
    }

    /// A server's place on this machine.
    pub(crate) fn at(&self, address: &str) -> Seat<'_> {
        Seat {
            namespace: self,
            address: address.parse().unwrap(),
        }
    }

    /// Files that take the place of those in `/etc`.
    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.etc()));
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .output(),
        );
    }
}

/// An address of a machine, for a server.
pub(crate) struct Seat<'a> {
    namespace: &'a Namespace,
    address: SocketAddr,
}

impl Machine for Seat<'_> {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    fn wait(&self, address: SocketAddr) {
        eventually(&format!("a server on {address}"), || {
            let mut ss = self.namespace.command("ss");
            let output = done(ss.args(["-Hltn", "src", &address.to_string()]), "");
            (!output.stdout.is_empty()).then_some(())
        });
    }
}

/// Runs a command to its end and insists on success.
fn done(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error} (`make peers` installs it)"));
    // A program that reads nothing may be gone already.
    if let Err(error) = child.stdin.take().unwrap().write_all(input.as_bytes()) {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{command:?}");
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}\n{input}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Removes what a test process left that was killed before it could.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            drop(Namespace { name });
        }
    }
}

const PREFIX: &str = "ravelin-it-";
