//! Raw bytes of HTTP/1.1: one framing or 400 and close, limits, and slow heads.

use tokio::io::AsyncWriteExt;

use crate::support::{
    device::{Device, read_all, read_head},
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table, one row for each rule")]
async fn what_has_two_framings_or_none_is_answered_and_the_connection_ends() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let host = "Host: intranet.apps.test\r\n";

    for (status, request) in [
        (
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            400,
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        ),
        (
            400,
            format!("POST / HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
        ),
        (
            400,
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 3, 3\r\n\r\nabc"),
        ),
        (
            400,
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            400,
            format!(
                "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            400,
            format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (400, format!("GET / HTTP/1.1\n{host}\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X: a\nY: b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X : a\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, format!("GET /a\0b HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /# HTTP/1.1\r\n{host}\r\n")),
        (505, format!("GET / HTTP/2.0\r\n{host}\r\n")),
        (400, format!("G@T / HTTP/1.1\r\n{host}\r\n")),
        (
            400,
            format!("GET intranet.apps.test:443 HTTP/1.1\r\n{host}\r\n"),
        ),
        (
            414,
            format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000)),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(40_000)),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: a\r\n".repeat(200)),
        ),
    ] {
        let mut connection = device.connect("intranet.apps.test").await;
        connection.write_all(request.as_bytes()).await.unwrap();
        // A second request that must never be seen as one.
        drop(
            connection
                .write_all(format!("GET /smuggled HTTP/1.1\r\n{host}\r\n").as_bytes())
                .await,
        );

        let answer = String::from_utf8_lossy(&read_all(&mut connection).await).into_owned();

        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?} got {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{request:?} got {answer:?}"
        );
        let id = crate::connect::refusal_id(&answer);
        let line = world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
        assert_eq!(line["status"], status, "{line}");
    }
    assert!(!world.gateway.all_logs().contains("smuggled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_slowly_is_408() {
    let world = World::with("[limits]\nhead = \"300ms\"\n");
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("intranet.apps.test").await;
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: intr")
        .await
        .unwrap();

    let answer = String::from_utf8(read_all(&mut connection).await).unwrap();

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_a_refused_connect_are_never_a_request() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("gw.ravelin.test").await;
    let request = "CONNECT intranet.corp.test:80 HTTP/1.1\r\nHost: intranet.corp.test:80\r\n\r\n\
                   GET /smuggled HTTP/1.1\r\nHost: gw.ravelin.test\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();

    let answer = String::from_utf8(read_all(&mut connection).await).unwrap();

    assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_turn_and_the_bad_one_last() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("gw.ravelin.test").await;
    let good = "GET /login HTTP/1.1\r\nHost: gw.ravelin.test\r\n\r\n";
    connection
        .write_all(format!("{good}{good}BAD\r\n\r\n").as_bytes())
        .await
        .unwrap();

    let answer = String::from_utf8_lossy(&read_all(&mut connection).await).into_owned();

    let statuses: Vec<&str> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_an_unknown_name_completes_and_is_told_421() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("intranet.apps.test").await;
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: unknown.example\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();

    let head = read_head(&mut connection).await;

    assert!(head.starts_with("HTTP/1.1 421 "), "{head}");
}
