//! Clients in Python, from `clients/`: they print JSON lines.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use super::{eventually, world::World};

/// A running client; killed when dropped.
pub(crate) struct Script {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Script {
    /// Starts `FILE SCENARIO PORT CA ARGUMENT...`.
    pub(crate) fn start(world: &World, file: &str, scenario: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(crate::connect::python())
            .args([path(file), scenario.to_owned()])
            .arg(world.gateway.address.port().to_string())
            .arg(world.authority())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next thing it says.
    pub(crate) fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("a client said: {line:?}"))
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended well.
    pub(crate) fn wait(&mut self) {
        let status = eventually("a client to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "a client failed");
    }

    /// Closes its input: it may end.
    pub(crate) fn finish(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a client that says one thing.
pub(crate) fn run(world: &World, file: &str, scenario: &str, arguments: &[&str]) -> Value {
    Script::start(world, file, scenario, arguments).line()
}

/// Where a script is.
pub(crate) fn path(file: &str) -> String {
    format!("{}/tests/it/clients/{file}", env!("CARGO_MANIFEST_DIR"))
}
