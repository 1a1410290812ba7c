//! iperf3: bytes over TCP, through a relay to a server of its own.

use std::ffi::OsString;

use serde::Deserialize;

use super::{failed, seconds};
use crate::bench::job::{Job, Outcome, Work};

pub(super) fn arguments(job: &Job) -> Vec<OsString> {
    let address = job.target.address;
    let mut arguments: Vec<OsString> = vec![
        "--json".into(),
        "--client".into(),
        address.ip().to_string().into(),
        format!("--port={}", address.port()).into(),
        format!("--time={}", seconds(job)).into(),
        format!("--parallel={}", job.connections).into(),
    ];
    if job.work == Work::TunnelDownload {
        arguments.push("--reverse".into());
    }
    arguments
}

pub(super) fn read(text: &str) -> Option<Outcome> {
    let report: Report = serde_json::from_str(text).ok()?;
    if let Some(error) = report.error {
        return Some(failed(&error));
    }
    let received = report.end.sum_received?;
    Some(Outcome {
        units: received.bytes,
        bytes: received.bytes,
        seconds: received.seconds,
        ..Outcome::default()
    })
}

/// What matters of its report.
#[derive(Deserialize)]
struct Report {
    error: Option<String>,
    #[serde(default)]
    end: End,
}

#[derive(Default, Deserialize)]
struct End {
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    bytes: u64,
    seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iperf3_reports_is_understood() {
        let outcome = read(
            "{\"start\":{},\"end\":{\"sum_sent\":{\"bytes\":9},\
             \"sum_received\":{\"start\":0,\"seconds\":2.5,\"bytes\":7}}}",
        )
        .unwrap();
        assert_eq!((outcome.units, outcome.errors), (7, 0));

        let refused = read("{\"start\":{},\"end\":{},\"error\":\"unable to connect\"}").unwrap();
        assert_eq!(refused.first_error.unwrap(), "unable to connect");
    }
}
