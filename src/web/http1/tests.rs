//! Raw bytes over real TLS, and what comes back.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::QUIET;
use crate::{
    config::Limits,
    tls::testing::Device,
    web::testing::{Echo, LONG, SHORT, limits, start, until},
};

async fn connect() -> Device {
    start(Arc::default(), limits(), false).await.0
}

async fn connect_with(change: impl FnOnce(&mut Limits)) -> (Device, Arc<Echo>) {
    let mut limits = limits();
    change(&mut limits);
    let echo = Arc::new(Echo::default());
    (start(Arc::clone(&echo), limits, false).await.0, echo)
}

async fn send(device: &mut Device, bytes: impl AsRef<[u8]>) {
    device.write_all(bytes.as_ref()).await.unwrap();
    device.flush().await.unwrap();
}

/// Reads until the text ends so; `Date` lines are taken out.
async fn read_until(device: &mut Device, end: &str) -> String {
    let mut found = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&found).ends_with(end) {
        match timeout(LONG, device.read(&mut buffer)).await.expect(end) {
            Ok(length @ 1..) => found.extend_from_slice(&buffer[..length]),
            ended => panic!("{ended:?} after {:?}", String::from_utf8_lossy(&found)),
        }
    }
    without_date(&found)
}

/// Reads to an orderly end.
async fn read_to_end(device: &mut Device) -> String {
    let mut found = Vec::new();
    timeout(LONG, device.read_to_end(&mut found))
        .await
        .expect("the connection ends")
        .expect("in an orderly way");
    without_date(&found)
}

fn without_date(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = String::new();
    for line in text.split_inclusive("\r\n") {
        if !line.starts_with("date: ") {
            rest.push_str(line);
        }
    }
    rest
}

#[tokio::test]
async fn an_answer_is_one_head_and_one_body() {
    let mut device = connect().await;

    send(&mut device, "GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n").await;

    assert_eq!(
        read_until(&mut device, "GET /a").await,
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nGET /a"
    );
}

#[tokio::test]
async fn a_date_is_added() {
    let mut device = connect().await;
    send(
        &mut device,
        "GET /a HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n",
    )
    .await;

    let mut found = String::new();
    device.read_to_string(&mut found).await.unwrap();

    let date = found.lines().find_map(|line| line.strip_prefix("date: "));
    httpdate::parse_http_date(date.unwrap()).unwrap();
}

#[tokio::test]
async fn a_connection_is_used_again_and_again() {
    let mut device = connect().await;

    for number in 0..50 {
        send(
            &mut device,
            format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .await;
        read_until(&mut device, &format!("GET /{number}")).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_turn() {
    let mut device = connect().await;

    send(
        &mut device,
        "POST /collect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /b HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
         \r\nGET /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;

    assert_eq!(
        read_to_end(&mut device).await,
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n3 bytes\
         HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nGET /b\
         HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n2 bytes\
         HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nGET /d"
    );
}

#[tokio::test]
async fn every_split_of_a_request_gets_the_same_answer() {
    let raw = "POST /collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut device = connect().await;

    for split in 1..raw.len() {
        let (a, b) = raw.split_at(split);
        send(&mut device, a).await;
        send(&mut device, b).await;
        let answer = read_until(&mut device, "3 bytes").await;
        assert_eq!(
            answer,
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n3 bytes"
        );
    }
}

#[tokio::test]
async fn a_bad_head_is_refused_and_the_connection_ends() {
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
            "505 HTTP Version Not Supported",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
            "417 Expectation Failed",
        ),
        (
            &format!("GET /{} HTTP/1.1\r\n", "a".repeat(2000)),
            "414 URI Too Long",
        ),
        (
            &format!("GET / HTTP/1.1\r\nA: {}\r\n", "a".repeat(9000)),
            "431 Request Header Fields Too Large",
        ),
        (
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(60)),
            "431 Request Header Fields Too Large",
        ),
    ];
    for (raw, status) in cases {
        let mut device = connect().await;
        send(&mut device, raw).await;
        // What follows must never be read as a request.
        send(&mut device, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = read_to_end(&mut device).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("R-TEST "), "{answer}");
        assert!(!answer.contains("smuggled"), "{answer}");
    }
}

#[tokio::test]
async fn a_refusal_comes_behind_pipelined_answers() {
    let mut device = connect().await;

    send(&mut device, "GET /a HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n").await;

    let answer = read_to_end(&mut device).await;
    let (first, second) = answer.split_once("GET /a").unwrap();
    assert!(first.starts_with("HTTP/1.1 200"));
    assert!(second.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_slow_head_gets_408_and_silence_gets_none() {
    let (mut slow, _) = connect_with(|limits| limits.head = SHORT).await;
    send(&mut slow, "GET / HT").await;
    assert!(read_to_end(&mut slow).await.starts_with("HTTP/1.1 408 "));

    let (mut silent, _) = connect_with(|limits| limits.head = SHORT).await;
    assert_eq!(read_to_end(&mut silent).await, "");
}

#[tokio::test]
async fn a_slow_second_head_gets_408() {
    let (mut device, _) = connect_with(|limits| limits.head = SHORT).await;
    send(&mut device, "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET").await;

    let answer = read_to_end(&mut device).await;

    assert!(answer.contains("GET /aHTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_connection_that_was_quiet_serves_again_until_it_is_idle_for_too_long() {
    let (mut device, _) = connect_with(|limits| limits.idle = QUIET * 2).await;
    for path in ["/a", "/b"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        send(&mut device, request).await;
        read_until(&mut device, &format!("GET {path}")).await;
        sleep(QUIET + SHORT).await;
    }
    assert_eq!(read_to_end(&mut device).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_silently() {
    let (mut device, _) = connect_with(|limits| limits.idle = SHORT).await;
    send(&mut device, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;

    let answer = read_to_end(&mut device).await;

    assert!(answer.ends_with("GET /a"), "{answer}");
}

#[tokio::test]
async fn answers_are_framed_as_method_status_and_version_ask() {
    let cases = [
        (
            "HEAD /a HTTP/1.1\r\nHost: a",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n",
        ),
        (
            "GET /empty HTTP/1.1\r\nHost: a",
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        ),
        (
            "GET /pieces HTTP/1.1\r\nHost: a",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             a\r\nxxxxxxxxxx\r\na\r\nxxxxxxxxxx\r\na\r\nxxxxxxxxxx\r\n0\r\nx-sum: 7\r\n\r\n",
        ),
        (
            "GET /pieces HTTP/1.0",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ),
        (
            "HEAD /pieces HTTP/1.1\r\nHost: a",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        ),
    ];
    for (head, expected) in cases {
        let mut device = connect().await;
        send(&mut device, format!("{head}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(read_to_end(&mut device).await, expected, "{head}");
    }
}

#[tokio::test]
async fn a_1_0_connection_is_kept_only_when_asked() {
    let mut device = connect().await;
    send(
        &mut device,
        "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    )
    .await;
    assert_eq!(
        read_until(&mut device, "GET /a").await,
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: keep-alive\r\n\r\nGET /a"
    );

    send(&mut device, "GET /b HTTP/1.0\r\n\r\n").await;

    assert!(read_to_end(&mut device).await.ends_with("GET /b"));
}

#[tokio::test]
async fn the_answer_may_end_the_connection() {
    let mut device = connect().await;
    send(&mut device, "GET /close HTTP/1.1\r\nHost: a\r\n\r\n").await;

    let answer = read_to_end(&mut device).await;

    assert!(answer.ends_with("connection: close\r\n\r\nbye"), "{answer}");
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let device = connect().await;
    let (mut reader, mut writer) = tokio::io::split(device);

    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let writing = async {
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&body).await.unwrap();
        writer.flush().await.unwrap();
    };
    let mut found = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 65536];
        while !found.ends_with(&body[body.len() - 100..]) || found.len() < body.len() {
            let length = reader.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0);
            found.extend_from_slice(&buffer[..length]);
        }
    };
    timeout(LONG, async { tokio::join!(writing, reading) })
        .await
        .unwrap();

    assert!(found.ends_with(&body));
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let mut device = connect().await;
    send(&mut device, "GET /large HTTP/1.0\r\n\r\n").await;

    let answer = read_to_end(&mut device).await;

    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 6_400_000);
}

#[tokio::test]
async fn trailers_of_a_request_are_kept_unless_they_would_decide_something() {
    let mut device = connect().await;
    send(
        &mut device,
        "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\na\r\n0\r\nX-Sum: 1\r\nAuthorization: evil\r\nX_Forwarded_For: evil\r\n\r\n",
    )
    .await;

    let answer = read_until(&mut device, "})").await;

    assert!(
        answer.ends_with(r#"1 bytes Some({"x-sum": "1"})"#),
        "{answer}"
    );
}

#[tokio::test]
async fn continue_is_sent_when_the_body_is_asked_for() {
    let mut device = connect().await;
    send(
        &mut device,
        "POST /collect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    )
    .await;
    assert_eq!(
        read_until(&mut device, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );

    send(&mut device, "abc").await;

    assert!(
        read_until(&mut device, "3 bytes")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn continue_is_not_sent_when_nobody_asks_for_the_body() {
    let mut device = connect().await;
    send(
        &mut device,
        "POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    )
    .await;

    // Whether the body comes cannot be known, so the connection ends.
    let answer = read_to_end(&mut device).await;

    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_device_that_does_not_wait_for_continue_gets_none() {
    let mut device = connect().await;
    send(
        &mut device,
        "POST /collect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;

    assert!(
        read_until(&mut device, "3 bytes")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_small_unread_body_is_drained_before_the_next_request() {
    let mut device = connect().await;
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    send(
        &mut device,
        format!(
            "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ),
    )
    .await;
    let first = read_until(&mut device, "\r\n\r\n").await;

    send(
        &mut device,
        format!("{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"),
    )
    .await;

    assert_eq!(
        first,
        "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n"
    );
    let second = read_until(&mut device, "GET /next").await;
    assert!(!second.contains("smuggled"), "{second}");
}

#[tokio::test]
async fn a_large_unread_body_ends_the_connection_but_not_the_answer() {
    let mut device = connect().await;
    send(
        &mut device,
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
    )
    .await;
    send(&mut device, vec![b'x'; 60_000]).await;

    let answer = read_to_end(&mut device).await;

    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_body_that_stalls_fails_for_its_reader() {
    let (mut device, echo) = connect_with(|limits| limits.body_progress = SHORT).await;
    send(
        &mut device,
        "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    )
    .await;

    let answer = read_to_end(&mut device).await;

    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(echo.failures.lock().unwrap()[0].contains("no byte of the body came"));
}

#[tokio::test]
async fn a_broken_chunk_fails_for_its_reader_and_ends_the_connection() {
    let (mut device, echo) = connect_with(|_| ()).await;
    send(
        &mut device,
        "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\na\r\nzz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;

    let answer = read_to_end(&mut device).await;

    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!answer.contains("smuggled"), "{answer}");
    assert!(echo.failures.lock().unwrap()[0].contains("invalid chunk size"));
}

#[tokio::test]
async fn a_device_that_takes_nothing_is_given_up() {
    let (device, tasks) = {
        let mut limits = limits();
        limits.body_progress = SHORT;
        start(Arc::default(), limits, false).await
    };
    let mut device = device;

    // Pipelined, so that far more waits than sockets hold.
    for _ in 0..8 {
        send(&mut device, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    }

    assert!(tasks.drain(LONG).await);
    drop(device);
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_device_goes() {
    let (mut device, echo) = connect_with(|_| ()).await;
    send(&mut device, "GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| echo.begun.load(Ordering::SeqCst) == 1).await;

    drop(device);

    until(|| echo.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_body_fails_for_its_reader_when_the_device_goes() {
    let (mut device, echo) = connect_with(|_| ()).await;
    send(
        &mut device,
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    )
    .await;
    until(|| echo.begun.load(Ordering::SeqCst) == 1).await;

    device.shutdown().await.unwrap();

    let mut found = Vec::new();
    let end = timeout(LONG, device.read_to_end(&mut found)).await.unwrap();
    assert!(end.is_err(), "an incomplete answer must not look complete");
}

#[tokio::test]
async fn a_broken_answer_does_not_look_complete() {
    for path in ["/broken", "/short"] {
        let mut device = connect().await;
        send(
            &mut device,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .await;
        let mut found = Vec::new();
        let end = timeout(LONG, device.read_to_end(&mut found)).await.unwrap();
        end.unwrap_err();
        assert!(!found.ends_with(b"0\r\n\r\n"));
    }
}

#[tokio::test]
async fn bytes_are_raw_after_101_and_not_before() {
    let mut device = connect().await;

    // The first bytes come with the head, and are held until the answer.
    send(
        &mut device,
        "GET /raw HTTP/1.1\r\nHost: a\r\nUpgrade: test\r\nConnection: upgrade\r\n\r\nearly ",
    )
    .await;

    assert_eq!(
        read_until(&mut device, "EARLY ").await,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: test\r\nconnection: upgrade\r\n\r\nEARLY "
    );
    send(&mut device, "late").await;
    read_until(&mut device, "LATE").await;
    device.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut device).await, "");
}

#[tokio::test]
async fn a_connect_becomes_a_tunnel() {
    let mut device = connect().await;
    send(
        &mut device,
        "CONNECT yes.test:443 HTTP/1.1\r\nHost: yes.test:443\r\n\r\n",
    )
    .await;
    assert_eq!(
        read_until(&mut device, "\r\n\r\n").await,
        "HTTP/1.1 200 OK\r\n\r\n"
    );

    send(&mut device, "abc").await;

    assert_eq!(read_until(&mut device, "ABC").await, "ABC");
}

#[tokio::test]
async fn bytes_after_a_refused_connect_are_no_request() {
    let mut device = connect().await;
    send(
        &mut device,
        "CONNECT no.test:443 HTTP/1.1\r\nHost: no.test:443\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;

    let answer = read_to_end(&mut device).await;

    assert_eq!(
        answer,
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

#[tokio::test]
async fn a_101_that_nobody_takes_is_never_sent() {
    let mut device = connect().await;
    send(
        &mut device,
        "GET /raw-without-taker HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    assert!(
        read_until(&mut device, "bytes")
            .await
            .starts_with("HTTP/1.1 500 ")
    );

    send(
        &mut device,
        "GET /ignored-taker HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;

    assert!(
        read_until(&mut device, "plain")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_hand_and_closes_idle_connections() {
    let (mut idle, tasks) = start(Arc::default(), limits(), false).await;
    send(&mut idle, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut idle, "GET /a").await;
    let echo = Arc::new(Echo::default());
    let (mut busy, busy_tasks) = start(Arc::clone(&echo), limits(), false).await;
    send(
        &mut busy,
        "POST /collect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    )
    .await;
    until(|| echo.begun.load(Ordering::SeqCst) == 1).await;

    tasks.begin_drain();
    busy_tasks.begin_drain();

    assert_eq!(read_to_end(&mut idle).await, "");
    send(&mut busy, "abc").await;
    let answer = read_to_end(&mut busy).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("3 bytes"), "{answer}");
}

#[tokio::test]
async fn nothing_is_read_ahead_of_a_reader_that_does_not_read() {
    let (device, echo) = connect_with(|_| ()).await;
    let (_reader, mut writer) = tokio::io::split(device);
    writer
        .write_all(b"POST /stuck HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    until(|| echo.begun.load(Ordering::SeqCst) == 1).await;

    let mut sent = 0_usize;
    let block = vec![b'x'; 100_000];
    while let Ok(written) = timeout(SHORT * 2, writer.write_all(&block)).await {
        written.unwrap();
        sent += block.len();
    }

    // What sockets hold, and not the whole body.
    assert!(sent < 50_000_000, "{sent}");
}

#[tokio::test]
async fn an_idle_connection_is_a_small_future() {
    let (stream, _device) = crate::tls::testing::pair(false).await;
    let peer = crate::tls::testing::peer(false);

    let tasks = crate::shutdown::Tasks::new();
    let connection = crate::web::serve(
        Box::new(stream),
        peer,
        Arc::new(limits()),
        &tasks,
        Arc::new(Echo::default()),
    );

    let size = size_of_val(&connection);
    assert!(size <= 576, "{size}");
}
