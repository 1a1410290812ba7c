//! curl: large bodies, through a reverse proxy or a tunnel, several at once.

use std::ffi::OsString;

use super::{h2load::openssl, headers, note, url};
use crate::bench::job::{Connect, Job, Outcome, Target};

pub(super) fn arguments(job: &Job) -> Vec<OsString> {
    let target = &job.target;
    let mut arguments: Vec<OsString> = [
        "--silent",
        "--http1.1",
        "--parallel",
        "--parallel-immediate",
        "--fail",
        "--write-out",
        "%{exitcode} %{http_code} %{size_download} %{errormsg}\\n",
        "--parallel-max",
    ]
    .map(OsString::from)
    .to_vec();
    arguments.push(job.connections.to_string().into());
    let (ip, port) = (target.address.ip(), target.address.port());
    let names = [&target.host].into_iter();
    let names = names.chain(target.tls.as_ref().map(|tls| &tls.sni));
    for name in names.filter(|name| !name.is_empty()) {
        arguments.extend(["--resolve".into(), format!("{name}:{port}:{ip}").into()]);
    }
    let address = match &target.connect {
        None => {
            arguments.extend(tls(target, ""));
            arguments.extend(["--noproxy", "*"].map(OsString::from));
            arguments.extend(headers(job));
            url(job, &target.host)
        }
        Some(connect) => {
            arguments.extend(tls(target, "proxy-"));
            arguments.extend(proxy(target, connect));
            format!("http://{}{}", connect.authority, target.path)
        }
    };
    for _ in 0..job.connections {
        arguments.extend(["--output", "/dev/null", &address].map(OsString::from));
    }
    arguments
}

/// What is said of TLS to the gateway, which is the server or the proxy.
fn tls(target: &Target, side: &str) -> Vec<OsString> {
    let Some(tls) = &target.tls else {
        return Vec::new();
    };
    let mut arguments = vec![format!("--{side}cacert").into(), tls.trust.clone().into()];
    if let Some(cipher) = tls.cipher {
        arguments.push(format!("--{side}tls13-ciphers").into());
        arguments.push(openssl(cipher).into());
    }
    arguments
}

/// The gateway as a proxy.
fn proxy(target: &Target, connect: &Connect) -> Vec<OsString> {
    let port = target.address.port();
    let address = match &target.tls {
        Some(tls) => format!("https://{}:{port}", tls.sni),
        None => format!("http://{}", target.address),
    };
    let mut arguments = ["--noproxy", "", "--proxytunnel", "--proxy", &address]
        .map(OsString::from)
        .to_vec();
    if let Some(value) = &connect.authorization {
        let header = format!("Proxy-Authorization: {value}");
        arguments.extend(["--proxy-header", &header].map(OsString::from));
    }
    arguments
}

pub(super) fn read(text: &str) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (code, status) = (words.next()?, words.next()?);
        let size: u64 = words.next()?.parse().ok()?;
        if code == "0" && status.starts_with('2') {
            outcome.units += size;
            outcome.bytes += size;
        } else {
            let error = words.next().unwrap_or_default();
            note(&mut outcome, 1, &format!("answer {status}: {error}"));
        }
    }
    (outcome.units + outcome.errors > 0).then_some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_writes_out_is_understood() {
        let outcome = read(
            "0 200 1048576 \n22 502 0 The requested URL returned error: 502\n0 200 1048576 \n",
        )
        .unwrap();

        assert_eq!(outcome.units, 2_097_152);
        assert_eq!(outcome.errors, 1);
        assert_eq!(
            outcome.first_error.unwrap(),
            "1 answer 502: The requested URL returned error: 502"
        );
    }
}
