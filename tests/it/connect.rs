//! TCP tunnels: what a device may reach by `CONNECT`, and what it is told when it may not.

use std::process::Command;

use crate::support::{
    gateway::{ALICE, BOB},
    world::World,
};

#[test]
fn curl_reaches_an_allowed_target_through_a_tunnel() {
    let world = World::new();

    let got = world.tunnel(&format!("alice:{ALICE}"), &world.inside());

    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.body, "welcome to the intranet\n");
    let line = world
        .gateway
        .log_line("the tunnel's line", |line| line["kind"] == "tunnel");
    assert_eq!(line["user"], "alice");
    assert_eq!(line["status"], 200);
    assert_eq!(line["end"], "closed");
    assert!(line["down"].as_u64().unwrap() > 100, "{line}");
    assert!(
        line["policies"]
            .as_array()
            .unwrap()
            .contains(&"sales-tunnel".into()),
        "{line}"
    );
}

#[test]
fn a_denied_target_is_refused_and_the_log_finds_the_reason_by_the_refusal_id() {
    let world = World::new();
    let payroll = format!("http://payroll.corp.test:{}/", world.payroll.address.port());

    let refused = world.tunnel(&format!("alice:{ALICE}"), &payroll);

    assert_eq!(refused.status, 403, "{refused:?}");
    let id = refusal_id(&refused.trace);
    assert!(
        refused.trace.to_lowercase().contains("proxy-status:"),
        "{refused:?}"
    );
    assert!(
        !refused.trace.contains("no-payroll"),
        "the device is told the rule"
    );
    let line = world
        .gateway
        .log_line("the refusal", |line| line["refusal"] == id.as_str());
    assert_eq!(line["stage"], "policy");
    assert!(
        line["reason"].as_str().unwrap().contains("no-payroll"),
        "{line}"
    );
}

#[test]
fn who_may_nothing_is_refused_before_anything_is_resolved() {
    let world = World::new();

    let refused = world.tunnel(&format!("bob:{BOB}"), &world.inside());

    assert_eq!(refused.status, 403, "{refused:?}");
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let world = World::new();

    let wrong = world.tunnel("alice:wrong", &world.inside());
    let unknown = world.tunnel("nobody:wrong", &world.inside());

    assert_eq!(
        (wrong.status, unknown.status),
        (407, 407),
        "{wrong:?}\n{unknown:?}"
    );
    assert_eq!(wrong.body, unknown.body);
}

#[test]
fn names_that_lead_home_or_to_metadata_lead_nowhere() {
    let world = World::new();
    let credential = format!("alice:{ALICE}");
    let admin = world.gateway.admin.port();

    for target in [
        format!("http://intranet.corp.test:{admin}/metrics"),
        "http://metadata.corp.test/latest".into(),
        format!("http://mapped.corp.test:{admin}/metrics"),
        "http://elsewhere.corp.test/".into(),
        format!("http://127.0.0.1:{admin}/metrics"),
    ] {
        let refused = world.tunnel(&credential, &target);
        assert!(matches!(refused.status, 403 | 502), "{target}: {refused:?}");
        assert!(
            refused.body.is_empty() || !refused.body.contains("ravelin_"),
            "{refused:?}"
        );
        let id = refusal_id(&refused.trace);
        world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
    }
}

#[test]
fn libcurl_opens_several_tunnels_on_one_http2_connection() {
    let world = World::new();
    let credential = format!("alice:{ALICE}");

    let answers = tunnel_client(
        &world,
        "h2",
        &credential,
        &[&world.inside(), &world.inside()],
    );

    for answer in &answers {
        assert_eq!(answer["body"], "welcome to the intranet\n", "{answer}");
    }
    let line = world
        .gateway
        .log_line("an h2 tunnel", |line| line["kind"] == "tunnel");
    assert_eq!(line["protocol"], "HTTP/2");
}

#[test]
fn a_plain_site_is_fetched_in_absolute_form_under_the_same_policy() {
    let world = World::new();
    let proxy = world.url("gw.ravelin.test");
    let credential = format!("alice:{ALICE}");
    let payroll = format!("http://payroll.corp.test:{}/", world.payroll.address.port());
    let headers = format!("{}headers", world.inside());

    let allowed = world.curl(&[
        "--proxy",
        &proxy,
        "--proxy-user",
        &credential,
        &world.inside(),
    ]);
    let denied = world.curl(&["--proxy", &proxy, "--proxy-user", &credential, &payroll]);
    let seen = world.curl(&[
        "--proxy",
        &proxy,
        "--proxy-user",
        &credential,
        "--user",
        "site:secret",
        &headers,
    ]);

    assert_eq!(
        (allowed.status, allowed.body.as_str()),
        (200, "welcome to the intranet\n"),
        "{allowed:?}"
    );
    assert_eq!(denied.status, 403, "{denied:?}");
    assert!(seen.body.contains("proxy= "), "{seen:?}");
    assert!(
        seen.body.contains("auth=Basic c2l0ZTpzZWNyZXQ="),
        "the site's own credential is its own: {seen:?}"
    );
}

/// The refusal id in heads or a body.
pub(crate) fn refusal_id(text: &str) -> String {
    let start = text
        .find("R-")
        .unwrap_or_else(|| panic!("no refusal id in: {text}"));
    text[start..start + 12].to_owned()
}

/// Runs libcurl's own client; one value for each URL.
pub(crate) fn tunnel_client(
    world: &World,
    kind: &str,
    credential: &str,
    urls: &[&str],
) -> Vec<serde_json::Value> {
    let output = Command::new(python())
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/clients/tunnel.py"
        ))
        .args([&world.url("gw.ravelin.test"), kind, credential])
        .arg(world.authority())
        .args(urls)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The Python with the clients that `make peers` installed.
pub(crate) fn python() -> String {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/.peers/venv/bin/python");
    std::env::var("RAVELIN_PYTHON").unwrap_or_else(|_unset| own.into())
}
