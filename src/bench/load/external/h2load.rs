//! h2load: HTTP/2 requests, many at once on each connection.

use std::ffi::OsString;

use super::{after, before, headers, note, seconds, url};
use crate::bench::job::{Cipher, Group, Job, Outcome};

pub(super) fn arguments(job: &Job) -> Vec<OsString> {
    let target = &job.target;
    let mut arguments: Vec<OsString> = vec![
        "-t1".into(),
        format!("-c{}", job.connections).into(),
        format!("-m{}", job.streams).into(),
        format!("--connect-to={}", target.address).into(),
    ];
    match job.units {
        Some(units) => arguments.push(format!("-n{units}").into()),
        None => arguments.push(format!("-D{}", seconds(job)).into()),
    }
    if let Some(tls) = &target.tls {
        if let Some(cipher) = tls.cipher {
            arguments.push(format!("--tls13-ciphers={}", openssl(cipher)).into());
        }
        if let Some(group) = tls.group {
            arguments.push(format!("--groups={}", self::group(group)).into());
        }
    }
    arguments.extend(headers(job));
    arguments.push(url(job, &target.host).into());
    arguments
}

pub(super) fn read(text: &str) -> Option<Outcome> {
    let (_, requests) = text.split_once("\nrequests: ")?;
    let mut outcome = Outcome {
        // The time limit cuts requests off; they are neither done nor wrong.
        units: before(requests, " 2xx")?,
        seconds: time(after(text, "finished in ")?.trim_end_matches(','))?,
        // "(N) data" is a count of bytes without framing.
        bytes: before(requests, ") data").unwrap_or_default(),
        cipher: after(text, "Cipher: ")
            .map(|name| format!("TLS13{}", name.trim_start_matches("TLS"))),
        group: after(text, "Server Temp Key: ").map(str::to_owned),
        ..Outcome::default()
    };
    for kind in ["errored", "timeout"] {
        let count = before(requests, &format!(" {kind}"));
        note(
            &mut outcome,
            count.unwrap_or(0),
            &format!("requests {kind}"),
        );
    }
    for kind in ["3xx", "4xx", "5xx"] {
        let count = before(requests, &format!(" {kind}"));
        note(&mut outcome, count.unwrap_or(0), &format!("answers {kind}"));
    }
    if outcome.units == 0 {
        note(&mut outcome, 1, "run without an answer");
    }
    Some(outcome)
}

/// A cipher by OpenSSL's name.
pub(super) fn openssl(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes128 => "TLS_AES_128_GCM_SHA256",
        Cipher::Aes256 => "TLS_AES_256_GCM_SHA384",
        Cipher::Chacha20 => "TLS_CHACHA20_POLY1305_SHA256",
    }
}

/// A time as h2load prints it, in seconds.
fn time(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}

/// What OpenSSL calls a key exchange.
pub(super) fn group(group: Group) -> &'static str {
    match group {
        Group::X25519 => "X25519",
        Group::X25519mlkem768 => "X25519MLKEM768",
        Group::P256 => "P-256",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_prints_is_understood() {
        let outcome = read(
            "starting benchmark...\nTLS Protocol: TLSv1.3\nCipher: TLS_AES_256_GCM_SHA384\n\
             Server Temp Key: X25519 253 bits\nApplication protocol: h2\n\n\
             finished in 1.50s, 58.34 req/s, 61.61KB/s\n\
             requests: 200 total, 200 started, 180 done, 175 succeeded, 25 failed, 20 errored, 0 timeout\n\
             status codes: 175 2xx, 0 3xx, 5 4xx, 0 5xx\n\
             traffic: 105.63KB (108166) total, 2.18KB (2236) headers (space savings 88.19%), 100.00KB (102400) data\n",
        )
        .unwrap();

        assert_eq!(outcome.units, 175);
        assert_eq!(outcome.errors, 25);
        assert_eq!(outcome.first_error.unwrap(), "20 requests errored");
        assert!((outcome.seconds - 1.5).abs() < 1e-9);
        assert_eq!(outcome.bytes, 102_400);
        assert_eq!(outcome.cipher.unwrap(), "TLS13_AES_256_GCM_SHA384");
        assert_eq!(outcome.group.unwrap(), "X25519");
    }
}
