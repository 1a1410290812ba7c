//! TLS towards devices, with OpenSSL as the device: versions, names, certificates, resumption; and
//! HAProxy in front, which tells who the device is.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    client::{Curl, curl},
    device::{Connection, Device, read_head},
    eventually,
    gateway::{Gateway, Site, policy, text},
    peers,
};

#[test]
fn the_name_chooses_the_certificate_and_the_client_its_kind() {
    let site = Site::new();
    site.authority.issue("apps", &["*.apps.test"]);
    site.authority.issue_rsa("rsa", &["gw.ravelin.test"]);
    let more = "[certificate.apps]\nchain = \"apps.pem\"\nkey = \"file:apps.key\"\n\
                [certificate.rsa]\nchain = \"rsa.pem\"\nkey = \"file:rsa.key\"\n";
    site.authority.issue("gw", &["gw.ravelin.test"]);
    let gateway = start(&site, "certificates = [\"gw\", \"apps\", \"rsa\"]", more);
    let shown = |arguments: &[&str]| ask(&gateway, &site, arguments).subject();

    assert_eq!(shown(&["-servername", "gw.ravelin.test"]), "gw");
    assert_eq!(shown(&["-servername", "GW.ravelin.test"]), "gw");
    assert_eq!(shown(&["-servername", "some.apps.test"]), "apps");
    for version in ["-tls1_2", "-tls1_3"] {
        let kinds = "RSA-PSS+SHA256:RSA+SHA256";
        let old = ["-servername", "gw.ravelin.test", version, "-sigalgs", kinds];
        assert_eq!(shown(&old), "rsa", "{version}");
    }
}

#[test]
fn an_unknown_or_absent_name_completes_and_is_421() {
    let site = Site::new();
    let gateway = start(&site, "certificates = [\"gw\"]", "");

    for arguments in [&["-noservername"][..], &["-servername", "other.test"]] {
        let got = ask(&gateway, &site, arguments);
        assert_eq!(got.subject(), "gw", "{arguments:?}");
        assert!(
            got.text.contains("HTTP/1.1 421"),
            "{arguments:?}: {}",
            got.text
        );
    }
}

#[test]
fn a_strict_listener_sends_the_alert() {
    let site = Site::new();
    let gateway = start(&site, "certificates = [\"gw\"]\nstrict_sni = true", "");

    for arguments in [&["-noservername"][..], &["-servername", "other.test"]] {
        let got = ask(&gateway, &site, arguments);
        // unrecognized_name (RFC 6066, section 3).
        assert!(
            got.text.contains("alert number 112"),
            "{arguments:?}: {}",
            got.text
        );
    }
    let good = ask(&gateway, &site, &["-servername", "gw.ravelin.test"]);
    assert_eq!(good.subject(), "gw");
}

#[test]
fn there_is_tls_1_3_and_1_2_and_nothing_older() {
    let site = Site::new();
    let gateway = start(&site, "certificates = [\"gw\"]", "");
    let with = |arguments: &[&str]| {
        let name = ["-servername", "gw.ravelin.test"];
        ask(&gateway, &site, &[&name, arguments].concat()).text
    };

    assert!(with(&["-tls1_3"]).contains("New, TLSv1.3"));
    let old = with(&["-tls1_2"]);
    assert!(
        old.contains("New, TLSv1.2, Cipher is ECDHE-ECDSA-"),
        "{old}"
    );
    let weak = "ALL:@SECLEVEL=0";
    for version in ["-tls1_1", "-tls1"] {
        let older = with(&[version, "-cipher", weak]);
        // handshake_failure, since such a hello has no signature algorithms either.
        assert!(older.contains("alert number 40"), "{version}: {older}");
    }
    for cipher in ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"] {
        let refused = with(&["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")]);
        assert!(refused.contains("alert number 40"), "{cipher}: {refused}");
    }
}

#[test]
fn sessions_are_resumed_also_after_a_reload() {
    let site = Site::new();
    let gateway = start(&site, "certificates = [\"gw\"]", "");
    for version in ["-tls1_2", "-tls1_3"] {
        let file = site.path(&format!("session{version}"));
        let name = ["-servername", "gw.ravelin.test", version];
        let first = ask(
            &gateway,
            &site,
            &[&name[..], &["-sess_out", text(&file)]].concat(),
        );
        assert!(first.text.contains("New, TLSv1."), "{}", first.text);

        let again = ask(
            &gateway,
            &site,
            &[&name[..], &["-sess_in", text(&file)]].concat(),
        );
        assert!(
            again.text.contains("Reused, TLSv1."),
            "{version}: {}",
            again.text
        );
        assert!(again.text.contains("HTTP/1.1 "), "{}", again.text);

        let before = gateway
            .metric("ravelin_reloads_total{result=\"good\"}")
            .unwrap_or(0.0);
        gateway.signal("HUP");
        eventually("the reload", || {
            (gateway.metric("ravelin_reloads_total{result=\"good\"}")? > before).then_some(())
        });
        let later = ask(
            &gateway,
            &site,
            &[&name[..], &["-sess_in", text(&file)]].concat(),
        );
        assert!(
            later.text.contains("Reused, TLSv1."),
            "{version}: {}",
            later.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_offers_post_quantum_key_agreement_gets_it() {
    let site = Site::new();
    let gateway = start(&site, "certificates = [\"gw\"]", "");
    let device = Device::new(gateway.address, &site.path("ca.pem"), &[]);

    let connection = device.connect("gw.ravelin.test").await;

    let group = connection.get_ref().1.negotiated_key_exchange_group();
    assert_eq!(format!("{:?}", group.unwrap().name()), "X25519MLKEM768");
    // The same with OpenSSL's own: this client offers nothing else.
    for curves in ["X25519MLKEM768", "X25519", "P-256"] {
        let script = format!(
            "import pycurl\nc = pycurl.Curl()\nc.setopt(pycurl.URL, 'https://gw.ravelin.test:{port}/')\n\
             c.setopt(pycurl.RESOLVE, ['gw.ravelin.test:{port}:127.0.0.1'])\n\
             c.setopt(pycurl.CAINFO, {ca:?})\nc.setopt(pycurl.SSL_EC_CURVES, '{curves}')\n\
             c.setopt(pycurl.WRITEFUNCTION, lambda data: None)\nc.perform()\n",
            port = gateway.address.port(),
            ca = site.path("ca.pem"),
        );
        let output = Command::new(crate::connect::python())
            .args(["-c", &script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{curves}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn device_certificates_are_asked_for_as_the_listener_says() {
    let site = Site::new();
    let pair = site.authority.issue("phone", &["phone.test"]);
    let stranger = tempfile::tempdir().unwrap();
    let other = crate::support::certificates::Authority::new(stranger.path(), "other");
    let wrong = other.issue("stranger", &["phone.test"]);
    let name = ["-servername", "gw.ravelin.test"];
    let shows = |pair: &crate::support::certificates::Pair| {
        ["-cert", text(&pair.chain), "-key", text(&pair.key)].map(String::from)
    };
    let with = |gateway: &Gateway, arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        ask(gateway, &site, &[&name, &arguments[..]].concat()).text
    };
    let asks = |rule: &str| {
        format!("certificates = [\"gw\"]\nclient_certificate = \"{rule}\"\nclient_ca = \"ca.pem\"")
    };

    let required = start(&site, &asks("required"), "");
    // certificate_required, and unknown_ca (RFC 8446, section 6.2).
    assert!(with(&required, &[]).contains("alert number 116"));
    assert!(with(&required, &shows(&wrong)).contains("alert number 48"));
    assert!(with(&required, &shows(&pair)).contains("HTTP/1.1 "));
    drop(required);
    let optional = start(&site, &asks("optional"), "");
    assert!(with(&optional, &[]).contains("HTTP/1.1 "));
    assert!(with(&optional, &shows(&pair)).contains("HTTP/1.1 "));
    assert!(with(&optional, &shows(&wrong)).contains("alert number 48"));
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificates_are_shown_and_no_connection_notices() {
    let site = Site::new();
    let gateway = start(
        &site,
        "certificates = [\"gw\"]",
        "[tls]\nreload_interval = \"100ms\"\n",
    );
    let device = Device::new(gateway.address, &site.path("ca.pem"), &[]);
    let mut open = device.connect("gw.ravelin.test").await;
    get(&mut open).await;
    let shown = || ask(&gateway, &site, &["-servername", "gw.ravelin.test"]).text;
    let begin = "-----BEGIN CERTIFICATE-----";
    let leaf = || {
        let pem = fs::read_to_string(site.path("gw.pem")).unwrap();
        pem.trim()
            .trim_start_matches(begin)
            .trim()
            .replace("\r\n", "\n")
    };
    let old = leaf();
    assert!(shown().contains(&old));

    site.authority
        .issue("gw", &["gw.ravelin.test", "new.ravelin.test"]);

    let new = leaf();
    assert_ne!(old, new);
    eventually("the new certificate", || {
        shown().contains(&new).then_some(())
    });
    get(&mut open).await;
    // Half of a pair is no reason to show nothing.
    site.write("gw.key", "rubbish");
    eventually("the complaint", || {
        gateway
            .diagnostics()
            .contains("the old certificate stays")
            .then_some(())
    });
    assert!(shown().contains(&new));
    get(&mut open).await;
}

#[test]
fn a_missing_or_foreign_key_is_told_at_the_start() {
    let site = Site::new();
    site.authority.issue("other", &["gw.ravelin.test"]);
    for (key, said) in [("gone.key", "gone.key"), ("other.key", "key")] {
        let toml = configuration(&site, "certificates = [\"gw\"]", "");
        let config = site.write(
            "ravelin.toml",
            &toml.replace("file:gw.key", &format!("file:{key}")),
        );
        let output = crate::support::gateway::ravelin()
            .arg("run")
            .arg("-c")
            .arg(config)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && told.contains(said),
            "{key}: {told}"
        );
    }
}

#[test]
fn haproxy_tells_who_the_device_is_by_either_version() {
    let site = Site::new();
    let listed = "certificates = [\"gw\"]\nproxy_protocol_from = [\"127.0.0.2/32\"]";
    let gateway = start(&site, listed, "");
    for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"] {
        let haproxy = peers::haproxy(&format!(
            "server gateway {} {send} source 127.0.0.2",
            gateway.address
        ));

        let got = from(&site, &haproxy, "127.0.0.9", &format!("/{send}"));

        assert_ne!(got.status, 0, "{send}: {got:?}");
        let line = gateway.log_line("the request", |line| line["path"] == format!("/{send}"));
        assert!(
            line["device"].as_str().unwrap().starts_with("127.0.0.9:"),
            "{line}"
        );
    }
}

#[test]
fn a_header_from_somebody_else_or_none_from_the_balancer_closes() {
    let site = Site::new();
    let listed = "certificates = [\"gw\"]\nproxy_protocol_from = [\"127.0.0.2/32\"]";
    let gateway = start(&site, listed, "");
    // HAProxy's own checks are not wanted here: each line is one way to be refused.
    for (server, why) in [
        (
            "send-proxy source 127.0.0.3",
            "a header from a peer that is not listed",
        ),
        (
            "send-proxy-v2 source 127.0.0.3",
            "a v2 header from a peer that is not listed",
        ),
        ("source 127.0.0.2", "no header from a listed peer"),
    ] {
        let haproxy = peers::haproxy(&format!("server gateway {} {server}", gateway.address));

        let got = from(&site, &haproxy, "127.0.0.9", "/refused");

        assert_eq!(got.status, 0, "{why}: {got:?}");
    }
    // Who is not listed and sends none is an ordinary device.
    let haproxy = peers::haproxy(&format!(
        "server gateway {} source 127.0.0.3",
        gateway.address
    ));
    assert_ne!(from(&site, &haproxy, "127.0.0.9", "/plain").status, 0);
    let line = gateway.log_line("the request", |line| line["path"] == "/plain");
    assert!(
        line["device"].as_str().unwrap().starts_with("127.0.0.3:"),
        "{line}"
    );
    assert!(gateway.log().iter().all(|line| line["path"] != "/refused"));
}

/// curl from one of this machine's addresses, through HAProxy.
fn from(site: &Site, haproxy: &peers::Peer, device: &str, path: &str) -> Curl {
    let url = format!("https://gw.ravelin.test:{}{path}", haproxy.address.port());
    curl(
        haproxy.address,
        &site.path("ca.pem"),
        &["--interface", device, &url],
    )
}

/// What `openssl s_client` said: its own words, the alerts that it got, and the gateway's answer.
struct Said {
    text: String,
}

impl Said {
    /// The common name of the certificate that was shown.
    fn subject(&self) -> String {
        let line = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix("subject=CN = "));
        line.unwrap_or_else(|| panic!("no certificate in: {}", self.text))
            .to_owned()
    }
}

/// One handshake and one request by OpenSSL.
fn ask(gateway: &Gateway, site: &Site, arguments: &[&str]) -> Said {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-CAfile"])
        .arg(site.path("ca.pem"))
        .arg("-connect")
        .arg(gateway.address.to_string())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: gw.ravelin.test\r\nConnection: close\r\n\r\n";
    // A handshake that failed has closed it already.
    let _sent = child.stdin.take().unwrap().write_all(request);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Said {
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

async fn get(connection: &mut Connection) {
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: gw.ravelin.test\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(connection).await;
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).await.unwrap();
}

/// A gateway with nothing behind it; `listener` says what is special about its door.
fn start(site: &Site, listener: &str, more: &str) -> Gateway {
    Gateway::start(site, &configuration(site, listener, more))
}

fn configuration(site: &Site, listener: &str, more: &str) -> String {
    policy(site, "permit (principal, action, resource);");
    let base = site.base().replace("certificates = [\"gw\"]", listener);
    format!(
        "{base}\n[network]\ninside = [\"10.0.0.0/8\"]\n[dns]\nservers = [\"127.0.0.1:53\"]\n{more}"
    )
}
