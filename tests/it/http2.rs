//! HTTP/2 end to end: trailers and streams, tunnels that share a connection, and attacks.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    load::echo,
    support::{
        certificates::Authority,
        device::{Device, read_head},
        eventually,
        peers::{self, Peer},
        script::{self, Script},
        targets,
        world::World,
    },
};

#[test]
fn grpc_streams_both_ways_and_its_trailers_arrive() {
    let (world, _backend) = grpc();

    let got = script::run(&world, "http2.py", "grpc", &[CREDENTIAL, "xm.apps.test"]);

    assert_eq!(got["status"], 200, "{got}");
    assert_eq!(
        got["echoed"], 5,
        "each message came back before the next was sent: {got}"
    );
    assert_eq!(
        got["heads"]["x-te"], "trailers",
        "the backend must know that it may: {got}"
    );
    assert_eq!(got["trailers"]["grpc-status"], "0", "{got}");
    assert_eq!(got["trailers"]["grpc-message"], "done", "{got}");
    assert_eq!(got["ended"], true, "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_and_streams_pass_from_an_http2_backend_to_an_http1_device() {
    let (world, _backend) = grpc();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("xm.apps.test").await;
    let basic = data_encoding::BASE64.encode(CREDENTIAL.as_bytes());
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: xm.apps.test\r\nAuthorization: Basic {basic}\r\n\
         TE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();

    let answer = read_head(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("x-te: trailers"), "{answer}");
    for turn in 0..5 {
        let chunk = format!("8\r\nmessage{turn}\r\n");
        connection.write_all(chunk.as_bytes()).await.unwrap();
        let mut echoed = vec![0; chunk.len()];
        connection.read_exact(&mut echoed).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&echoed), chunk);
    }
    connection.write_all(b"0\r\n\r\n").await.unwrap();

    let trailers = read_head(&mut connection).await;
    assert!(trailers.starts_with("0\r\n"), "{trailers}");
    assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_tunnel_does_not_stop_the_others_on_its_connection() {
    let (echo, flood, deaf) = (echo().await, targets::flood().await, targets::deaf().await);
    let world = World::build(&[echo, flood, deaf], |_| String::new());
    let [echo, flood, deaf] = [echo, flood, deaf].map(|target| target.to_string());

    let got = script::run(
        &world,
        "http2.py",
        "tunnels",
        &[CREDENTIAL, &echo, &flood, &deaf, "20"],
    );

    assert_eq!(got["intact"], 20, "{got}");
    assert_eq!(got["stalled"], true, "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_tunnel_may_close_its_half_first() {
    let counting = targets::counting().await;
    let (greeting, received) = targets::closing_first().await;
    let world = World::build(&[counting, greeting], |_| String::new());

    let device_first = script::run(
        &world,
        "http2.py",
        "device_closes_first",
        &[CREDENTIAL, &counting.to_string()],
    );
    let to_greeting = greeting.to_string();
    let arguments = [CREDENTIAL, to_greeting.as_str()];
    let mut script = Script::start(&world, "http2.py", "target_closes_first", &arguments);
    let target_first = script.line();
    let count = eventually("the target to have it all", || *received.lock().unwrap());

    assert_eq!(device_first["data"], "300000", "{device_first}");
    assert_eq!(device_first["ended"], true, "{device_first}");
    assert_eq!(target_first["data"], "good bye", "{target_first}");
    assert_eq!(target_first["ended"], true, "{target_first}");
    assert_eq!(count, 300_000);
    assert!(script.is_running());
    script.finish();
    script.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_resets_resets_the_stream_of_its_tunnel_alone() {
    let resetting = targets::resetting().await;
    let world = World::build(&[resetting], |_| String::new());

    let got = script::run(
        &world,
        "http2.py",
        "is_reset",
        &[CREDENTIAL, &resetting.to_string()],
    );

    assert_eq!(got["status"], 200, "{got}");
    assert_eq!(got["ended"], false, "an end is not a reset: {got}");
    assert_ne!(got["reset"], serde_json::Value::Null, "{got}");
}

#[test]
fn a_body_that_stops_coming_is_408_and_one_that_is_too_large_413() {
    let world = World::build(&[], |_| {
        "max_body = \"1MiB\"\nfirst_byte = \"30s\"\n[limits]\nbody_progress = \"500ms\"\n".into()
    });

    let slow = script::run(
        &world,
        "http2.py",
        "upload",
        &[CREDENTIAL, "intranet.apps.test", "/upload", "1000", "pause"],
    );
    let large = script::run(
        &world,
        "http2.py",
        "upload",
        &[
            CREDENTIAL,
            "intranet.apps.test",
            "/upload",
            "2000000",
            "end",
        ],
    );

    assert_eq!(slow["status"], 408, "{slow}");
    assert_eq!(large["status"], 413, "{large}");
    for refused in [slow, large] {
        let id = crate::connect::refusal_id(refused["body"].as_str().unwrap());
        world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
    }
}

#[test]
fn rapid_resets_do_no_harm() {
    withstands("rapid_reset", &[]);
}

#[test]
fn streams_that_the_gateway_must_reset_do_no_harm() {
    withstands("made_you_reset", &[]);
}

#[test]
fn endless_continuations_do_no_harm() {
    withstands("continuation", &[]);
    withstands("empty_continuation", &[]);
}

#[test]
fn a_head_that_unpacks_to_megabytes_does_no_harm() {
    withstands("hpack_bomb", &[]);
}

#[test]
fn crumbs_of_cookies_do_no_harm() {
    withstands("cookie_crumbs", &[]);
}

#[test]
fn answers_that_nobody_takes_do_no_harm() {
    withstands("zero_window", &[]);
}

#[test]
fn large_answers_of_an_app_that_nobody_takes_do_no_harm() {
    withstands(
        "zero_window_app",
        &["intranet.apps.test", "/files/big.bin", CREDENTIAL],
    );
}

#[test]
fn a_flood_of_pings_does_no_harm() {
    withstands("pings", &[]);
}

#[test]
fn a_flood_of_settings_does_no_harm() {
    withstands("settings", &[]);
}

#[test]
fn a_flood_of_empty_data_does_no_harm() {
    withstands("empty_data", &[]);
}

/// Attacks for some seconds: the gateway's memory may grow by 32 MiB, and a good device is served.
fn withstands(shape: &str, arguments: &[&str]) {
    let world = World::new();
    let files = world.intranet.directory().join("root/files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("big.bin"), vec![7; 10_000_000]).unwrap();
    let url = world.url("intranet.apps.test");
    let serves = || {
        let got = world.curl(&["--http2", "--user", CREDENTIAL, &url]);
        assert_eq!(got.status, 200, "{shape}: {got:?}");
    };
    (0..5).for_each(|_| serves());
    let before = world.gateway.memory();

    let arguments = [&["4"], arguments].concat();
    let mut attack = Script::start(&world, "attack.py", shape, &arguments);
    let mut most = before;
    let mut served = 0;
    while attack.is_running() {
        most = most.max(world.gateway.memory());
        serves();
        served += 1;
    }
    most = most.max(world.gateway.memory());

    let did = attack.line();
    assert!(
        did["frames"].as_u64().unwrap() > 0,
        "{shape} did nothing: {did}"
    );
    assert!(served > 0, "{shape}");
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 32, "{shape}: {grown} MiB more; {did}");
}

/// An app on an HTTP/2 backend that echoes and ends with trailers.
fn grpc() -> (World, Peer) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "ca");
    let pair = authority.issue("node", &["grpc.corp.test"]);
    let backend = peers::script("http2_server.py", &[&pair.chain, &pair.key]);
    let address = backend.address;
    let world = World::build(&[address], |site| {
        std::fs::copy(directory.path().join("ca.pem"), site.path("nodes.pem")).unwrap();
        site.write(
            "policies/grpc.cedar",
            "permit (principal in Group::\"sales\", action == Action::\"open\", resource == App::\"grpc\");",
        );
        format!(
            "[pool.grpc]\nnodes = [\"https://{address}\"]\nca = \"nodes.pem\"\n\
             tls_name = \"grpc.corp.test\"\nhttp2 = true\n\
             [app.grpc]\nhost = \"xm.apps.test\"\npool = \"grpc\"\n"
        )
    });
    (world, backend)
}

const CREDENTIAL: &str = "alice:correct horse";
