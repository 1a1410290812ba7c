//! Chromium as a device: the login page, and intranet pages through an HTTP/2 tunnel.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    connect::{python, refusal_id},
    support::{gateway::ALICE, world::World},
};

#[test]
fn chromium_loads_an_intranet_page_through_an_http2_tunnel() {
    let world = World::new();

    let page = browse(
        &world,
        json!({
            "url": world.inside(),
            "proxy_login": ["alice", ALICE],
            "arguments": [format!("--proxy-server={}", world.url("gw.ravelin.test"))],
        }),
    );

    assert_eq!(page["text"], "welcome to the intranet\n", "{page}");
    world
        .gateway
        .log_line("chromium's request over h2", |line| {
            line["protocol"] == "HTTP/2" && line["user"] == "alice"
        });
}

#[test]
fn chromium_is_refused_a_denied_target_with_an_id_that_the_log_explains() {
    let world = World::new();
    let payroll = format!("http://payroll.corp.test:{}/", world.payroll.address.port());

    let page = browse(
        &world,
        json!({
            "url": payroll,
            "proxy_login": ["alice", ALICE],
            "arguments": [format!("--proxy-server={}", world.url("gw.ravelin.test"))],
        }),
    );

    assert_eq!(page["status"], 403, "{page}");
    let id = refusal_id(page["text"].as_str().unwrap());
    let line = world
        .gateway
        .log_line("the refusal", |line| line["refusal"] == id.as_str());
    assert!(
        line["reason"].as_str().unwrap().contains("no-payroll"),
        "{line}"
    );
}

#[test]
fn a_person_logs_in_on_the_page_and_lands_on_the_app_that_was_asked_for() {
    let world = World::new();

    let page = browse(
        &world,
        json!({
            "url": world.url("intranet.apps.test") + "/headers?x=1",
            "fill": { "input[name=user]": "alice", "input[name=password]": ALICE },
            "click": "button[type=submit]",
            "arguments": [],
        }),
    );

    assert_eq!(
        page["url"],
        world.url("intranet.apps.test") + "/headers?x=1",
        "{page}"
    );
    assert!(
        page["text"].as_str().unwrap().contains("cookie= "),
        "our cookies stay here: {page}"
    );
}

/// Runs Chromium with this to do, trusting this world's certificate.
pub(crate) fn browse(world: &World, mut todo: Value) -> Value {
    let arguments = todo["arguments"].as_array_mut().unwrap();
    arguments.push(format!("--ignore-certificate-errors-spki-list={}", spki(world)).into());
    arguments.push(
        "--host-resolver-rules=MAP *.ravelin.test 127.0.0.1, MAP *.apps.test 127.0.0.1".into(),
    );
    arguments.push("--proxy-bypass-list=<-loopback>".into());
    let output = Command::new(python())
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/clients/browser.py"
        ))
        .arg(todo.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The hash of the gateway certificate's public key, as Chromium wants it.
fn spki(world: &World) -> String {
    let script = "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(world.site.path("gw.pem"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
