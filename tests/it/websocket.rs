//! `WebSocket`s through an app, over HTTP/1.1 and HTTP/2; and the end of a session, which ends them.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::{
    load::echo,
    support::{
        device::Device,
        gateway::{ALICE, BOB, ravelin},
        peers::{self, Peer},
        script::{self, Script},
        world::World,
    },
};

#[test]
fn messages_of_every_size_come_back_over_http1_and_close_codes_pass() {
    let (world, _server) = world(&[]);
    let arguments = arguments("/echo", &SIZES);

    let got = script::run(&world, "websocket.py", "echo", &arguments);

    assert!(all_true(&got["intact"], SIZES.len() + 1), "{got}");
    assert_eq!(
        (&got["close"], &got["reason"]),
        (&4002.into(), &"as asked".into()),
        "{got}"
    );
    let line = world
        .gateway
        .log_line("the WebSocket's line", |line| line["status"] == 101);
    assert_eq!(
        (&line["user"], &line["app"]),
        (&"alice".into(), &"socket".into()),
        "{line}"
    );
    assert!(line["up"].as_u64().unwrap() > 10_000_000, "{line}");
    assert!(line["down"].as_u64().unwrap() > 10_000_000, "{line}");
}

#[test]
fn a_close_code_of_the_device_reaches_the_backend() {
    let (world, _server) = world(&[]);

    Script::start(&world, "websocket.py", "close", &arguments("/echo", &[])).wait();

    let url = world.url("xm.apps.test") + "/closes";
    crate::support::eventually("the code at the backend", || {
        let got = world.curl(&["--user", &format!("alice:{ALICE}"), &url]);
        (got.body == "4001 enough\n").then_some(())
    });
}

#[test]
fn messages_of_every_size_come_back_over_http2() {
    let (world, _server) = world(&[]);

    let got = script::run(&world, "http2.py", "websocket", &arguments("/echo", &SIZES));

    assert_eq!(got["status"], 200, "{got}");
    assert!(all_true(&got["intact"], SIZES.len()), "{got}");
    assert_eq!(
        (&got["close"], &got["reason"]),
        (&4002.into(), &"as asked".into()),
        "{got}"
    );
    assert_eq!(got["ended"], true, "{got}");
}

#[test]
fn a_websocket_that_the_backend_refuses_stays_http() {
    let (world, _server) = world(&[]);

    let h1 = script::run(
        &world,
        "websocket.py",
        "refused",
        &arguments("/refused", &[]),
    );
    let h2 = script::run(&world, "http2.py", "websocket", &arguments("/refused", &[]));

    assert_eq!(
        (&h1["status"], &h1["body"]),
        (&403.into(), &"not here\n".into()),
        "{h1}"
    );
    assert_eq!(
        (&h2["status"], &h2["body"]),
        (&403.into(), &"not here\n".into()),
        "{h2}"
    );
    assert_eq!(h2["then"], 200, "the connection serves on: {h2}");
}

#[test]
fn who_may_not_open_the_app_gets_no_websocket() {
    let (world, _server) = world(&[]);
    let bob = format!("bob:{BOB}");

    for (file, scenario) in [("websocket.py", "refused"), ("http2.py", "websocket")] {
        let got = script::run(&world, file, scenario, &[&bob, "xm.apps.test", "/echo"]);
        assert_eq!(got["status"], 403, "{file}: {got}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_ends_its_websockets_and_tunnels_within_a_second() {
    let echo = echo().await;
    let (world, _server) = world(&[echo]);
    let alice = format!("alice:{ALICE}");
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut tunnel = device.tunnel(&echo.to_string(), &alice).await;
    let target = echo.to_string();
    let mut others = [
        Script::start(&world, "http2.py", "hold", &[&alice, &target]),
        Script::start(&world, "http2.py", "hold", &arguments("/echo", &[])),
        Script::start(&world, "websocket.py", "hold", &arguments("/echo", &[])),
    ];
    for other in &mut others {
        let opened = other.line();
        assert!(
            opened["status"] == 200 || opened["status"] == 101,
            "{opened}"
        );
    }

    let start = Instant::now();
    let killed = ravelin()
        .args(["kill", "--user", "alice", "--control"])
        .arg(world.site.path("control.sock"))
        .output()
        .unwrap();
    assert!(killed.status.success(), "{killed:?}");
    let end = tokio::time::timeout(Duration::from_secs(1), tunnel.read_u8());
    end.await.expect("the tunnel must end").unwrap_err();
    for other in &mut others {
        assert_eq!(other.line()["ended"], true);
    }

    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(1), "it took {taken:?}");
}

/// An app `socket` that alice may open, with a WebSocket server behind it.
fn world(allow: &[std::net::SocketAddr]) -> (World, Peer) {
    let server = peers::script("websocket_server.py", &[]);
    let address = server.address;
    let mut allow = allow.to_vec();
    allow.push(address);
    let world = World::build(&allow, |site| {
        site.write(
            "policies/socket.cedar",
            "permit (principal in Group::\"sales\", action == Action::\"open\", resource == App::\"socket\");",
        );
        format!(
            "[pool.socket]\nnodes = [\"http://{address}\"]\n\
             [app.socket]\nhost = \"xm.apps.test\"\npool = \"socket\"\n"
        )
    });
    (world, server)
}

fn arguments<'a>(path: &'a str, sizes: &[&'a str]) -> Vec<&'a str> {
    [&[CREDENTIAL, "xm.apps.test", path], sizes].concat()
}

fn all_true(list: &serde_json::Value, length: usize) -> bool {
    let list = list.as_array().unwrap();
    list.len() == length && list.iter().all(|one| one == true)
}

/// Both sides of every way to write a length, and messages of many blocks.
const SIZES: [&str; 8] = [
    "0", "1", "125", "126", "65535", "65536", "1000000", "10000000",
];

const CREDENTIAL: &str = "alice:correct horse";
