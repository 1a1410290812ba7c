//! TCP tunnels: what a device may reach by `CONNECT`, and what it is told when it may not.

use std::{process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::support::{
    device::Device,
    eventually,
    gateway::{ALICE, BOB},
    targets,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_device_or_a_target_that_reads_nothing_stops_the_other_and_costs_little() {
    let (flood, deaf) = (targets::flood().await, targets::deaf().await);
    let world = World::build(&[flood, deaf], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    drop(device.tunnel(&deaf.to_string(), &credential).await);
    let before = world.gateway.memory();

    // The first ten read nothing of a flood, the others send to somebody who reads nothing.
    let mut tunnels = Vec::new();
    for target in [flood, deaf] {
        for _ in 0..10 {
            tunnels.push(device.tunnel(&target.to_string(), &credential).await);
        }
    }
    let block = vec![1; 1 << 16];
    let mut sent = 0;
    for tunnel in &mut tunnels[10..] {
        // Until nothing more is taken for a while: buffers of the kernel are full, and ours.
        while let Ok(wrote) = timeout(Duration::from_millis(300), tunnel.write(&block)).await {
            sent += wrote.unwrap();
        }
    }

    let grown = world.gateway.memory().saturating_sub(before) >> 20;
    assert!(grown < 16, "{grown} MiB more for 20 tunnels");
    assert!(sent > 0);
    let mut got = vec![0; 1_000_000];
    tunnels[0].read_exact(&mut got).await.unwrap();
    assert!(
        got.iter().all(|&byte| byte == 0x5a),
        "what waited arrives intact"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_resets_ends_its_tunnel_without_a_good_bye() {
    let resetting = targets::resetting().await;
    let world = World::build(&[resetting], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let mut tunnel = device.tunnel(&resetting.to_string(), &credential).await;

    tunnel.write_all(b"reset me").await.unwrap();
    let end = tunnel.read_to_end(&mut Vec::new()).await;

    // Without close_notify TLS knows that something may be missing.
    end.unwrap_err();
    let line = world
        .gateway
        .log_line("the tunnel's line", |line| line["kind"] == "tunnel");
    assert_eq!(line["end"], "broken", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_vanishes_resets_its_target() {
    let (target, ended) = targets::noting_its_end().await;
    let world = World::build(&[target], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let tunnel = device.tunnel(&target.to_string(), &credential).await;

    let (tcp, _tls) = tunnel.into_inner();
    tcp.set_zero_linger().unwrap();
    drop(tcp);

    let how = eventually("the target to notice", || ended.lock().unwrap().take());
    assert_eq!(how, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_tunnel_may_close_its_half_first() {
    let counting = targets::counting().await;
    let (closing, received) = targets::closing_first().await;
    let world = World::build(&[counting, closing], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let bytes = vec![3; 300_000];

    let mut device_first = device.tunnel(&counting.to_string(), &credential).await;
    device_first.write_all(&bytes).await.unwrap();
    device_first.shutdown().await.unwrap();
    let mut answer = String::new();
    device_first.read_to_string(&mut answer).await.unwrap();

    let mut target_first = device.tunnel(&closing.to_string(), &credential).await;
    let mut good_bye = String::new();
    target_first.read_to_string(&mut good_bye).await.unwrap();
    target_first.write_all(&bytes).await.unwrap();
    target_first.shutdown().await.unwrap();
    let count = eventually("the target to have it all", || *received.lock().unwrap());

    assert_eq!((answer.as_str(), good_bye.as_str()), ("300000", "good bye"));
    assert_eq!(count, 300_000);
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
