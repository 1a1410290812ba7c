//! `ravelin bench`: it measures, writes its files, and leaves nothing behind, however it ends.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{eventually, gateway::ravelin};

#[test]
fn a_run_prints_a_table_and_writes_its_files() {
    let place = Place::new();

    let output = place.bench(&["--work", "h1,start", "--rounds", "2", "--seconds", "0.2"]);

    let table = String::from_utf8(output.stdout).unwrap();
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{progress}");
    assert!(table.lines().any(|line| line.starts_with("h1 ")), "{table}");
    assert!(progress.contains("round 2/2"), "{progress}");
    let json = fs::read(place.folder.path().join("out/latest.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let [h1, start] = [0, 1].map(|at| &json["results"][at]);
    assert_eq!(
        (&h1["work"], &h1["errors"]),
        (&"h1".into(), &0.into()),
        "{h1}"
    );
    assert!(h1["ravelin"].as_f64().unwrap() > 0.0, "{h1}");
    assert!(h1["floor"]["plain relay"].as_f64().unwrap() > 0.0, "{h1}");
    assert!(h1["cipher"].is_string(), "{h1}");
    assert!(start["ravelin"].as_f64().unwrap() > 1.0, "{start}");
    for name in ["latest.md", "latest.svg"] {
        assert!(place.folder.path().join("out").join(name).exists());
    }
    place.is_left_clean();
}

#[test]
fn an_interrupted_run_ends_everything_that_it_started() {
    let place = Place::new();
    let mut bench = place.start(&["--work", "h1", "--seconds", "600"]);
    // The bench, the origin, the gateway, the relay and the generator.
    eventually("all programs of a run", || {
        (place.running() >= 5).then_some(())
    });

    let interrupt = Command::new("kill")
        .args(["-INT", &bench.id().to_string()])
        .status();

    assert!(interrupt.unwrap().success());
    let status = eventually("the bench to end", || bench.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    place.is_left_clean();
}

#[test]
fn an_unknown_work_is_answered_with_the_known_ones() {
    let place = Place::new();

    let output = place.bench(&["--work", "h3"]);

    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("there is no work h3; there are h1 h2"),
        "{text}"
    );
}

#[test]
#[ignore = "needs haproxy"]
fn a_peer_is_measured_in_the_same_run_with_its_log_and_without() {
    let place = Place::new();
    let peers = place.folder.path().join("peers");
    fs::create_dir(&peers).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    for name in ["haproxy.toml", "haproxy.cfg"] {
        fs::copy(ours.join(name), peers.join(name)).unwrap();
    }

    let output = place.bench(&[
        "--work",
        "h1",
        "--rounds",
        "1",
        "--seconds",
        "0.2",
        "--peers",
        "peers",
    ]);

    let progress = String::from_utf8(output.stderr).unwrap();
    let json = fs::read(place.folder.path().join("out/latest.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let h1 = &json["results"][0];
    assert_eq!(h1["errors"], 0, "{progress}");
    for name in ["haproxy", "haproxy with log"] {
        assert!(h1["peers"][name].as_f64().unwrap() > 0.0, "{h1}");
    }
    assert!(h1["ratio"].as_f64().unwrap() > 0.0, "{h1}");
    assert!(
        json["versions"]["haproxy"].as_str().unwrap().contains('.'),
        "{json}"
    );
    place.is_left_clean();
}

/// A folder to work in; programs that were started in it are known by a mark in their environment.
struct Place {
    folder: TempDir,
    mark: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("ravelin-it-")
            .tempdir()
            .unwrap();
        fs::create_dir(folder.path().join("temporary")).unwrap();
        let mark = format!("RAVELIN_IT_PLACE={}", folder.path().display());
        Self { folder, mark }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (name, value) = self.mark.split_once('=').unwrap();
        let mut command = ravelin();
        command
            .arg("bench")
            .args(arguments)
            .args(["--out", "out"])
            .current_dir(self.folder.path())
            .env(name, value)
            .env("TMPDIR", self.folder.path().join("temporary"))
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null());
        command
    }

    fn bench(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Programs with the mark.
    fn running(&self) -> usize {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let marked = processes.filter(|process| {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == self.mark.as_bytes())
        });
        marked.count()
    }

    fn is_left_clean(&self) {
        assert_eq!(self.running(), 0, "a program goes on");
        let left = fs::read_dir(self.folder.path().join("temporary")).unwrap();
        assert_eq!(left.count(), 0, "a folder is left");
    }
}
