//! wrk: HTTP/1.1 requests on kept connections, or one on each.

use std::ffi::OsString;

use super::{
    after, before,
    h2load::{group, openssl},
    headers, note, seconds, url,
};
use crate::bench::job::{Job, Outcome, Work};

pub(super) fn arguments(job: &Job) -> Vec<OsString> {
    let target = &job.target;
    // It asks TLS for the host of the URL, and HTTP for the host of the header.
    let name = "localhost";
    let mut arguments: Vec<OsString> = vec![
        "-t1".into(),
        format!("-c{}", job.connections).into(),
        format!("-d{}s", seconds(job)).into(),
        "--latency".into(),
        "-H".into(),
        format!("Host: {}", target.host).into(),
    ];
    arguments.extend(headers(job));
    if job.work == Work::New {
        arguments.extend(["-H".into(), "Connection: close".into()]);
    }
    arguments.push(url(job, name).into());
    arguments
}

/// What it is to offer in TLS. It has no options for that, but OpenSSL reads a configuration.
pub(super) fn openssl_settings(job: &Job) -> Option<String> {
    let tls = job.target.tls.as_ref()?;
    let mut settings =
        "openssl_conf = all\n[all]\nssl_conf = tls\n[tls]\nsystem_default = offered\n[offered]\n"
            .to_owned();
    if let Some(cipher) = tls.cipher {
        settings += &format!(
            "MinProtocol = TLSv1.3\nCiphersuites = {}\n",
            openssl(cipher)
        );
    }
    if let Some(one) = tls.group {
        settings += &format!("Groups = {}\n", group(one));
    }
    Some(settings)
}

/// It does not say what was negotiated; where it offers one thing, it was that.
pub(super) fn note_offered(job: &Job, outcome: &mut Outcome) {
    if let Some(tls) = &job.target.tls {
        let name = |cipher| openssl(cipher).replacen("TLS", "TLS13", 1);
        outcome.cipher = tls.cipher.map(name);
        outcome.group = tls.group.map(|one| group(one).to_owned());
    }
}

pub(super) fn read(text: &str) -> Option<Outcome> {
    let mut outcome = Outcome {
        units: before(text, " requests in ")?,
        seconds: time(after(text, " requests in ")?.trim_end_matches(','))? / 1e6,
        p50_us: after(text, "\n     50%").and_then(time),
        p99_us: after(text, "\n     99%").and_then(time),
        ..Outcome::default()
    };
    // It counts requests that were answered, and bytes of heads with those of bodies.
    for kind in ["connect", "read", "write", "timeout"] {
        let errors = text
            .split_once("Socket errors:")
            .map_or("", |(_, rest)| rest);
        let count = after(errors, &format!("{kind} "))
            .and_then(|count| count.trim_end_matches(',').parse().ok());
        note(&mut outcome, count.unwrap_or(0), &format!("{kind} errors"));
    }
    let wrong = after(text, "Non-2xx or 3xx responses:").and_then(|count| count.parse().ok());
    note(&mut outcome, wrong.unwrap_or(0), "answers that are not 2xx");
    Some(outcome)
}

/// A time as wrk prints it, in microseconds.
fn time(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_understood() {
        let outcome = read(
            "Running 3s test @ https://localhost:1/1k\n  1 threads and 64 connections\n  \
             Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
             Latency     2.10ms    1.08ms  14.99ms   76.06%\n    \
             Req/Sec    30.92k     2.10k   33.81k    80.00%\n  Latency Distribution\n     \
             50%    1.93ms\n     75%    2.58ms\n     90%    3.44ms\n     99%  612.00us\n  \
             92344 requests in 3.01s, 101.47MB read\n  \
             Socket errors: connect 0, read 2, write 0, timeout 1\n  \
             Non-2xx or 3xx responses: 7\nRequests/sec:  30660.89\nTransfer/sec: 33.69MB\n",
        )
        .unwrap();

        assert_eq!(outcome.units, 92_344);
        assert_eq!(outcome.errors, 10);
        assert_eq!(outcome.first_error.unwrap(), "2 read errors");
        assert!((outcome.seconds - 3.01).abs() < 1e-9);
        assert_eq!(outcome.p50_us, Some(1930.0));
        assert_eq!(outcome.p99_us, Some(612.0));
    }
}
