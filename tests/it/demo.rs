//! The demo: every line that it prints does what it says when it is pasted into a shell.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    connect::refusal_id,
    support::{eventually, gateway::ravelin},
};

/// A running demo; killed when dropped.
struct Demo {
    child: Child,
    outer: TempDir,
    folder: PathBuf,
}

impl Demo {
    fn start() -> Self {
        // With a quote in it: printed paths must be words of a shell all the same.
        let outer = tempfile::Builder::new()
            .prefix("ravelin's-")
            .tempdir()
            .unwrap();
        let folder = outer.path().join("demo");
        let mut demo = Self {
            child: spawn(outer.path(), &folder, "0"),
            outer,
            folder,
        };
        eventually("the demo's text", || {
            assert_eq!(demo.child.try_wait().unwrap(), None, "{}", demo.errors());
            demo.text().contains("ravelin check").then_some(())
        });
        demo
    }

    fn text(&self) -> String {
        fs::read_to_string(self.outer.path().join("text")).unwrap()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.outer.path().join("errors")).unwrap()
    }

    fn facts(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.join("demo.json")).unwrap()).unwrap()
    }

    /// The printed command in whose block all of these stand.
    fn command(&self, parts: &[&str]) -> String {
        let text = self.text();
        let mut blocks = text.split("\n\n").map(str::trim);
        let block = blocks.find(|block| parts.iter().all(|part| block.contains(part)));
        block
            .unwrap_or_else(|| panic!("no {parts:?} in:\n{text}"))
            .to_owned()
    }

    /// What that command prints, and its exit code, when it is pasted.
    fn paste(&self, parts: &[&str]) -> (String, ExitStatus) {
        shell(&self.command(parts))
    }

    fn interrupt(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        eventually("the demo to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
            eprintln!(
                "---- the demo's errors:\n{}---- its log:\n{log}",
                self.errors()
            );
        }
    }
}

fn spawn(outer: &Path, folder: &Path, port: &str) -> Child {
    ravelin()
        .args(["demo", "--port", port, "--dir"])
        .arg(folder)
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null())
        .stdout(fs::File::create(outer.join("text")).unwrap())
        .stderr(fs::File::create(outer.join("errors")).unwrap())
        .spawn()
        .unwrap()
}

fn shell(script: &str) -> (String, ExitStatus) {
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status)
}

#[test]
#[ignore = "needs curl"]
fn the_printed_lines_open_apps() {
    let demo = Demo::start();

    let (intranet, _) = demo.paste(&["curl", "/hello", "--cacert"]);
    let (websocket, _) = demo.paste(&["curl", "Upgrade: websocket"]);
    let (store, _) = demo.paste(&["curl", "/Citrix/StoreWeb/"]);

    assert_eq!(intranet, "hello from the intranet\n");
    assert!(websocket.starts_with("HTTP/1.1 101"), "{websocket}");
    assert!(
        websocket.contains("hello from the WebSocket"),
        "{websocket}"
    );
    assert!(store.contains("Store of Example Corp"), "{store}");
}

#[test]
#[ignore = "needs curl"]
fn the_printed_lines_log_in_by_form_and_are_handed_over_to_the_app() {
    let demo = Demo::start();
    let [form, login, open] = ["CSRF=$(", "csrf=$CSRF", " -L "].map(|part| demo.command(&[part]));

    let (answer, status) = shell(&format!("{form}\n{login}\n{open}"));

    assert!(status.success(), "{answer}");
    assert_eq!(answer, "303\nhello from the intranet\n");
}

#[test]
#[ignore = "needs curl"]
fn the_printed_lines_open_one_tunnel_and_tell_why_the_other_is_refused() {
    let demo = Demo::start();
    let facts = demo.facts();
    let target = |which: &str| facts["tunnel_targets"][which].as_str().unwrap().to_owned();

    let (allowed, _) = demo.paste(&["--proxy-user", &target("allowed")]);
    let (denied, status) = demo.paste(&["--proxy-user", &target("denied")]);
    let id = refusal_id(&denied);
    let line = eventually("the refusal in the log", || {
        let (line, _) = demo.paste(&["tail -n 1"]);
        line.contains(&id).then_some(line)
    });

    assert!(allowed.ends_with("hello from the intranet\n"), "{allowed}");
    assert!(!status.success());
    assert!(denied.contains(" 403"), "{denied}");
    assert!(line.contains("nobody-reaches-payroll"), "{line}");
}

#[test]
#[ignore = "needs curl"]
fn the_printed_lines_get_a_token_that_opens_a_tunnel() {
    let demo = Demo::start();
    let ask = demo.command(&["TOKEN=$("]);
    let open = demo.command(&["Bearer $TOKEN"]);

    let (answer, status) = shell(&format!("{ask}\n{open}"));

    assert!(status.success(), "{answer}");
    assert!(answer.ends_with("hello from the intranet\n"), "{answer}");
}

#[test]
#[ignore = "needs curl"]
fn the_printed_lines_meet_either_node_and_with_the_cookie_always_the_same() {
    let demo = Demo::start();

    eventually("both nodes to be up", || {
        let (either, _) = demo.paste(&["/zdm/node"]);
        let nodes: Vec<_> = either.lines().collect();
        (nodes.len() == 2 && nodes[0] != nodes[1]).then_some(())
    });
    for _ in 0..3 {
        let (same, _) = demo.paste(&["/zdm/node", "-b "]);
        let nodes: Vec<_> = same.lines().collect();
        assert!(nodes.len() == 2 && nodes[0] == nodes[1], "{same}");
    }
}

#[test]
#[ignore = "needs curl"]
fn the_printed_lines_show_the_administrators_view() {
    let demo = Demo::start();
    let (_, opened) = demo.paste(&["curl", "/hello", "--cacert"]);
    assert!(opened.success());

    let (metrics, _) = demo.paste(&["curl", "/metrics"]);
    let (sessions, _) = demo.paste(&["ravelin sessions"]);
    let (check, status) = demo.paste(&["ravelin check"]);

    assert!(metrics.contains("# TYPE"), "{metrics}");
    assert!(sessions.contains("alice"), "{sessions}");
    assert!(status.success(), "{check}");
}

#[test]
#[ignore = "needs chromium"]
fn the_printed_browser_line_shows_the_login_page() {
    let demo = Demo::start();
    let line = demo.command(&["--user-data-dir"]);

    let (page, _) = shell(&line.replacen("--headless=new", "--headless=new --dump-dom", 1));

    assert!(page.contains("type=\"password\""), "{page}");
    assert!(demo.folder.join("login.png").exists());
}

#[test]
fn an_interrupted_demo_drains_and_keeps_a_chosen_folder() {
    let mut demo = Demo::start();
    let file = demo.folder.join("demo.json");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let ended = demo.interrupt();

    assert!(ended.success(), "{ended}");
    assert!(file.exists());
}

#[test]
fn a_folder_is_used_again_but_never_by_two_demos_at_once() {
    let mut demo = Demo::start();
    let outer = tempfile::tempdir().unwrap();
    let password = |demo: &Demo| demo.facts()["users"][0]["password"].to_string();
    let first = password(&demo);

    let mut second = spawn(outer.path(), &demo.folder, "0");
    let refused = eventually("the second demo to end", || second.try_wait().unwrap());
    assert!(!refused.success());
    let why = fs::read_to_string(outer.path().join("errors")).unwrap();
    assert!(why.contains("another demo is running there"), "{why}");

    assert!(demo.interrupt().success());
    demo.child = spawn(demo.outer.path(), &demo.folder, "0");
    eventually("the next demo", || {
        demo.text().contains("ravelin check").then_some(())
    });
    assert_ne!(password(&demo), first);
}
