//! Devices: curl, and raw bytes over TLS.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Output},
};

/// What curl did.
#[derive(Debug)]
pub(crate) struct Curl {
    /// Exit code.
    pub(crate) code: i32,
    /// Status of the last answer; of the proxy for a refused tunnel.
    pub(crate) status: u16,
    /// Body.
    pub(crate) body: String,
    /// Heads and messages.
    pub(crate) trace: String,
}

impl Curl {
    /// The values of a header, over all answers.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self
            .trace
            .lines()
            .filter_map(|line| line.strip_prefix("< "));
        lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim_end())
            .collect()
    }

    /// The value of a header that came once.
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers(name)[..] {
            [value] => value,
            _ => panic!("not one {name}: {self:?}"),
        }
    }
}

/// Runs curl with these arguments; every name of the tests leads to the gateway.
pub(crate) fn curl(gateway: SocketAddr, authority: &Path, arguments: &[&str]) -> Curl {
    let mut command = Command::new("curl");
    for host in [
        "gw.ravelin.test",
        "intranet.apps.test",
        "store.apps.test",
        "xm.apps.test",
        "other.apps.test",
    ] {
        command
            .arg("--resolve")
            .arg(format!("{host}:{}:127.0.0.1", gateway.port()));
    }
    run(command, authority, arguments)
}

/// Runs a command that starts curl, with these arguments besides.
pub(crate) fn run(mut command: Command, authority: &Path, arguments: &[&str]) -> Curl {
    command.args([
        "--silent",
        "--show-error",
        "--verbose",
        "--max-time",
        "50",
        "--noproxy",
        "",
    ]);
    command.args(["--write-out", "\n%{http_code} %{http_connect}"]);
    command
        .arg("--cacert")
        .arg(authority)
        .arg("--proxy-cacert")
        .arg(authority);
    command.args(arguments);
    outcome(&command.output().unwrap())
}

fn outcome(output: &Output) -> Curl {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, codes) = text.rsplit_once('\n').unwrap_or(("", &text));
    let mut codes = codes
        .split(' ')
        .map(|code| code.parse::<u16>().unwrap_or(0));
    let (answer, connect) = (codes.next().unwrap_or(0), codes.next().unwrap_or(0));
    Curl {
        code: output.status.code().unwrap_or(-1),
        status: if answer == 0 { connect } else { answer },
        body: body.to_owned(),
        trace: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One plain HTTP GET: the whole answer, head and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
