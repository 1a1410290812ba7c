//! One TLS connection of a device on another machine, line by line.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
};

use super::{DEADLINE, namespace::Namespace};

/// A connection that stays open, and silent, until something is sent; closed when dropped.
pub(crate) struct Wire {
    openssl: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Wire {
    /// Connects to `host:port` by IPv4; the certificate must be for that host.
    pub(crate) fn connect(machine: &Namespace, address: &str, authority: &Path) -> Self {
        let (host, _port) = address.split_once(':').unwrap();
        let mut openssl = machine
            .command("openssl")
            .args(["s_client", "-4", "-quiet", "-verify_return_error"])
            .args([
                "-connect",
                address,
                "-servername",
                host,
                "-verify_hostname",
                host,
            ])
            .arg("-CAfile")
            .arg(authority)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = openssl.stdin.take().unwrap();
        let output = BufReader::new(openssl.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            openssl,
            input,
            lines,
        }
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// The next line, without its end.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    /// Waits until the other side has ended it.
    pub(crate) fn ended(&self) {
        let end = loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(_line) => {}
                Err(end) => break end,
            }
        };
        assert_eq!(
            end,
            RecvTimeoutError::Disconnected,
            "the connection is still open"
        );
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.openssl.kill());
        drop(self.openssl.wait());
    }
}
