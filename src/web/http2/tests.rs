//! A good client (hyper's) and hostile ones (raw frames) over real TLS.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

use crate::{
    config::Limits,
    shutdown::Tasks,
    tls::testing::Device,
    web::testing::{Echo, LONG, SHORT, limits, start, until},
};

type Payload = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// A client, the handler, the gateway's tasks, and the end of the client's connection.
struct World {
    client: SendRequest<Payload>,
    echo: Arc<Echo>,
    tasks: Tasks,
    ended: oneshot::Receiver<()>,
}

async fn world(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = limits();
    change(&mut limits);
    let echo = Arc::new(Echo::default());
    let (device, tasks) = start(Arc::clone(&echo), limits, true).await;
    let own = Tasks::new();
    let (client, connection) =
        hyper::client::conn::http2::handshake(own.clone(), TokioIo::new(device))
            .await
            .unwrap();
    let (end, ended) = oneshot::channel();
    drop(own.spawn(async move {
        let _end = connection.await;
        let _nobody_waits = end.send(());
    }));
    World {
        client,
        echo,
        tasks,
        ended,
    }
}

fn request(method: Method, path: &str) -> Request<Payload> {
    Request::builder()
        .method(method)
        .uri(format!("https://gw.test{path}"))
        .body(Empty::new().boxed())
        .unwrap()
}

fn get(path: &str) -> Request<Payload> {
    request(Method::GET, path)
}

async fn text(response: Response<Incoming>) -> String {
    let body = timeout(LONG, response.into_body().collect()).await.unwrap();
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn many_requests_are_answered_at_once() {
    let mut world = world(|_| ()).await;

    let answers: Vec<_> = (0..90)
        .map(|number| world.client.send_request(get(&format!("/{number}"))))
        .collect();

    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert!(answer.headers().contains_key("date"));
        assert_eq!(text(answer).await, format!("GET /{number}"));
    }
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let mut world = world(|_| ()).await;
    let body = Bytes::from(vec![b'x'; 3_000_000]);
    let mut upload = request(Method::POST, "/echo");
    *upload.body_mut() = Full::new(body.clone()).boxed();

    let answer = world.client.send_request(upload).await.unwrap();

    assert_eq!(text(answer).await.len(), body.len());
    let answer = world.client.send_request(get("/large")).await.unwrap();
    assert_eq!(text(answer).await.len(), 6_400_000);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let mut world = world(|_| ()).await;

    let head = request(Method::HEAD, "/a");
    let answer = world.client.send_request(head).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "7");
    assert_eq!(text(answer).await, "");

    let head = request(Method::HEAD, "/pieces");
    let answer = world.client.send_request(head).await.unwrap();
    assert_eq!(text(answer).await, "");

    let answer = world.client.send_request(get("/empty")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(text(answer).await, "");
}

#[tokio::test]
async fn trailers_arrive() {
    let mut world = world(|_| ()).await;

    let answer = world.client.send_request(get("/pieces")).await.unwrap();

    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn a_connect_becomes_a_tunnel() {
    let mut world = world(|_| ()).await;
    let mut connect = request(Method::CONNECT, "");
    *connect.uri_mut() = "yes.test:443".parse().unwrap();

    let answer = world.client.send_request(connect).await.unwrap();

    assert_eq!(answer.status(), StatusCode::OK);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    tunnel.write_all(b"abc").await.unwrap();
    let mut found = [0; 3];
    tunnel.read_exact(&mut found).await.unwrap();
    assert_eq!(&found, b"ABC");
    tunnel.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn many_bytes_go_both_ways_through_a_tunnel() {
    let mut world = world(|_| ()).await;
    let mut connect = request(Method::CONNECT, "");
    *connect.uri_mut() = "yes.test:443".parse().unwrap();
    let answer = world.client.send_request(connect).await.unwrap();
    let tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let (mut read, mut write) = tokio::io::split(tunnel);

    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let mut came = Vec::new();
    let (wrote, read) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut came)
    );

    wrote.unwrap();
    read.unwrap();
    assert!(came == sent.to_ascii_uppercase(), "{} bytes", came.len());
}

#[tokio::test]
async fn an_open_tunnel_keeps_its_connection_from_being_idle() {
    let mut world = world(|limits| limits.idle = SHORT).await;
    let mut connect = request(Method::CONNECT, "");
    *connect.uri_mut() = "yes.test:443".parse().unwrap();
    let answer = world.client.send_request(connect).await.unwrap();
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());

    timeout(SHORT * 5, &mut world.ended).await.unwrap_err();

    tunnel.write_all(b"abc").await.unwrap();
    let mut found = [0; 3];
    tunnel.read_exact(&mut found).await.unwrap();
    drop(tunnel);
    timeout(LONG, world.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_connect_is_an_ordinary_answer() {
    let mut world = world(|_| ()).await;
    let mut connect = request(Method::CONNECT, "");
    *connect.uri_mut() = "no.test:443".parse().unwrap();

    let answer = world.client.send_request(connect).await.unwrap();

    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_extended_connect_says_which_protocol() {
    let mut world = world(|_| ()).await;
    // The first answer comes after the settings, which allow it.
    let answer = world.client.send_request(get("/a")).await.unwrap();
    text(answer).await;
    let mut connect = request(Method::CONNECT, "/chat");
    *connect.uri_mut() = "https://yes.test/chat".parse().unwrap();
    let protocol = hyper::ext::Protocol::from_static("websocket");
    connect.extensions_mut().insert(protocol);

    let answer = world.client.send_request(connect).await.unwrap();

    assert_eq!(answer.headers()["x-protocol"], "websocket");
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    tunnel.write_all(b"abc").await.unwrap();
    let mut found = [0; 3];
    tunnel.read_exact(&mut found).await.unwrap();
    assert_eq!(&found, b"ABC");
}

#[tokio::test]
async fn a_101_is_never_sent() {
    let mut world = world(|_| ()).await;

    for path in ["/raw", "/raw-without-taker"] {
        let answer = world.client.send_request(get(path)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn heads_that_are_too_much_are_refused() {
    let mut world = world(|_| ()).await;

    let mut crumbs = get("/a");
    for number in 0..60 {
        let crumb = format!("a{number}=b").parse().unwrap();
        crumbs.headers_mut().append("cookie", crumb);
    }
    let long = get(&format!("/{}", "a".repeat(1500)));
    let mut host = get("/a");
    host.headers_mut()
        .insert("host", "evil.test".parse().unwrap());
    let mut expect = get("/a");
    expect.headers_mut().insert("expect", "x".parse().unwrap());

    for (request, status) in [(crumbs, 431), (long, 414), (host, 400), (expect, 417)] {
        let answer = world.client.send_request(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert!(text(answer).await.starts_with("R-TEST"));
    }
    // The connection is as good as before.
    let answer = world.client.send_request(get("/a")).await.unwrap();
    assert_eq!(text(answer).await, "GET /a");
}

#[tokio::test]
async fn crumbs_of_a_cookie_are_joined() {
    let mut world = world(|_| ()).await;
    let mut crumbs = get("/fields");
    crumbs
        .headers_mut()
        .append("cookie", "a=b".parse().unwrap());
    crumbs
        .headers_mut()
        .append("cookie", "c=d".parse().unwrap());

    let answer = world.client.send_request(crumbs).await.unwrap();

    assert!(text(answer).await.contains(r#""cookie": "a=b; c=d""#));
}

#[tokio::test]
async fn a_body_that_stalls_fails_for_its_reader() {
    let mut world = world(|limits| limits.body_progress = SHORT).await;
    let mut upload = request(Method::POST, "/count");
    let (_keep, never) = oneshot::channel::<()>();
    let frames = futures_util::stream::once(async move {
        let _gone = never.await;
        Ok(http_body::Frame::data(Bytes::from_static(b"late")))
    });
    *upload.body_mut() = BodyExt::boxed(Sync::new(StreamBody::new(Box::pin(frames))));

    let answer = timeout(LONG, world.client.send_request(upload))
        .await
        .unwrap();

    assert_eq!(answer.unwrap().status(), StatusCode::BAD_REQUEST);
    assert!(world.echo.failures.lock().unwrap()[0].contains("no byte of the body came"));
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_stream_is_reset() {
    let mut world = world(|_| ()).await;
    let echo = Arc::clone(&world.echo);
    {
        let answer = world.client.send_request(get("/stuck"));
        let begun = until(|| echo.begun.load(Ordering::SeqCst) == 1);
        tokio::select! {
            _answer = answer => panic!("it is stuck"),
            () = begun => {}
        }
    }

    until(|| echo.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let mut world = world(|limits| limits.idle = SHORT).await;
    let answer = world.client.send_request(get("/a")).await.unwrap();
    text(answer).await;

    timeout(LONG, world.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_device_with_nothing_in_hand_is_told_of_a_drain_at_once() {
    let mut world = world(|_| ()).await;
    let answer = world.client.send_request(get("/a")).await.unwrap();
    text(answer).await;

    // It says good-bye as soon as it is told; who is not told is cut off after this time.
    let told = timeout(super::clock::GOOD_BYE, world.ended);
    let tasks = world.tasks.clone();
    let (told, drained) = tokio::join!(told, tasks.drain(LONG));
    told.unwrap().unwrap();
    assert!(drained);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_hand() {
    let mut world = world(|_| ()).await;
    let (body, frames) = tokio::sync::mpsc::channel(1);
    let mut upload = request(Method::POST, "/collect");
    let frames = futures_util::stream::unfold(frames, |mut frames| async move {
        let data: Bytes = frames.recv().await?;
        Some((Ok(http_body::Frame::data(data)), frames))
    });
    *upload.body_mut() = BodyExt::boxed(Sync::new(StreamBody::new(Box::pin(frames))));
    let answer = world.client.send_request(upload);
    let echo = Arc::clone(&world.echo);
    until(|| echo.begun.load(Ordering::SeqCst) == 1).await;

    let tasks = world.tasks.clone();
    let drain = async { assert!(tasks.drain(LONG).await) };
    let finish = async {
        until(|| tasks.draining().is_cancelled()).await;
        body.send(Bytes::from_static(b"abc")).await.unwrap();
        drop(body);
        assert_eq!(text(answer.await.unwrap()).await, "3 bytes");
        // The client has to go as well.
        timeout(LONG, world.ended).await.unwrap().unwrap();
    };
    tokio::join!(drain, finish);
}

/// Streams of tests are not `Sync`, which a boxed body asks for.
struct Sync<B>(std::sync::Mutex<B>);

impl<B> Sync<B> {
    fn new(body: B) -> Self {
        Self(std::sync::Mutex::new(body))
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Sync<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        std::pin::Pin::new(self.get_mut().0.get_mut().unwrap()).poll_frame(context)
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 0x4;
const END: u8 = 0x1 | END_HEADERS;
const NO_ERROR: [u8; 4] = [0, 0, 0, 0];
const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const CONNECT_ERROR: [u8; 4] = [0, 0, 0, 10];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as HPACK literals that are not indexed (RFC 7541, section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn raw_get(stream: u32, path: &str) -> Vec<u8> {
    let head = fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "gw.test"),
        (":path", path),
    ]);
    frame(HEADERS, END, stream, &head)
}

async fn raw(change: impl FnOnce(&mut Limits), settings: &[u8]) -> (Device, Arc<Echo>, Tasks) {
    let mut limits = limits();
    change(&mut limits);
    let echo = Arc::new(Echo::default());
    let (mut device, tasks) = start(Arc::clone(&echo), limits, true).await;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, settings));
    hello.extend(frame(SETTINGS, 1, 0, &[]));
    device.write_all(&hello).await.unwrap();
    device.flush().await.unwrap();
    (device, echo, tasks)
}

/// The next frame of a kind: its stream and payload. `None` at the end of the connection.
async fn next(device: &mut Device, wanted: u8) -> Option<(u32, Vec<u8>)> {
    let (_, stream, payload) = next_of(device, &[wanted]).await?;
    Some((stream, payload))
}

/// The next frame of some kinds: its kind, stream and payload.
async fn any(device: &mut Device, wanted: &[u8]) -> (u8, u32, Vec<u8>) {
    next_of(device, wanted).await.unwrap()
}

async fn next_of(device: &mut Device, wanted: &[u8]) -> Option<(u8, u32, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        timeout(LONG, device.read_exact(&mut head))
            .await
            .unwrap()
            .ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        device.read_exact(&mut payload).await.ok()?;
        if wanted.contains(&head[3]) {
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            return Some((head[3], stream, payload));
        }
    }
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let (mut device, echo, tasks) = raw(|_| (), &[]).await;

    let mut sent = 0_u32;
    for number in 0..100_000 {
        let stream = number * 2 + 1;
        let mut flood = raw_get(stream, "/stuck");
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        if device.write_all(&flood).await.is_err() || device.flush().await.is_err() {
            break;
        }
        sent = number;
        // Each stream is given the time to become work.
        if number % 8 == 0 {
            tokio::task::yield_now().await;
        }
    }

    assert!(sent < 99_999);
    assert!(echo.begun.load(Ordering::SeqCst) < 200);
    assert!(tasks.drain(LONG).await);
}

#[tokio::test]
async fn cancelled_requests_in_moderation_are_no_flood() {
    let (mut device, echo, _tasks) = raw(|_| (), &[]).await;

    for number in 0..100_u32 {
        let (good, bad) = (number * 4 + 1, number * 4 + 3);
        let begun = echo.begun.load(Ordering::SeqCst);
        let mut requests = raw_get(good, "/a");
        requests.extend(raw_get(bad, "/stuck"));
        device.write_all(&requests).await.unwrap();
        device.flush().await.unwrap();
        until(|| echo.begun.load(Ordering::SeqCst) == begun + 2).await;
        assert_eq!(
            next(&mut device, DATA).await,
            Some((good, b"GET /a".to_vec()))
        );
        let reset = frame(RST_STREAM, 0, bad, &8_u32.to_be_bytes());
        device.write_all(&reset).await.unwrap();
        device.flush().await.unwrap();
        let dropped = usize::try_from(number).unwrap() + 1;
        until(|| echo.dropped.load(Ordering::SeqCst) == dropped).await;
    }
}

#[tokio::test]
async fn a_stream_whose_device_takes_nothing_is_reset() {
    // SETTINGS_INITIAL_WINDOW_SIZE = 0: not one byte of a body may be sent.
    let closed_window = [0, 4, 0, 0, 0, 0];
    let (mut device, _echo, _tasks) =
        raw(|limits| limits.body_progress = SHORT, &closed_window).await;

    device.write_all(&raw_get(1, "/large")).await.unwrap();
    device.flush().await.unwrap();

    let reset = next(&mut device, RST_STREAM).await;
    assert_eq!(reset, Some((1, CANCEL.to_vec())));
}

#[tokio::test]
async fn a_panic_ends_its_own_stream_and_is_counted() {
    let (mut device, echo, tasks) = raw(|_| (), &[]).await;

    let mut requests = raw_get(1, "/panic");
    requests.extend(raw_get(3, "/a"));
    device.write_all(&requests).await.unwrap();
    device.flush().await.unwrap();

    let mut found = [
        any(&mut device, &[DATA, RST_STREAM]).await,
        any(&mut device, &[DATA, RST_STREAM]).await,
    ];
    found.sort();
    let reset = (RST_STREAM, 1, INTERNAL_ERROR.to_vec());
    assert_eq!(found, [(DATA, 3, b"GET /a".to_vec()), reset]);
    assert_eq!(tasks.panics(), 1);
    assert_eq!(echo.begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_whole_one() {
    for path in ["/broken", "/short"] {
        let (mut device, _echo, _tasks) = raw(|_| (), &[]).await;

        device.write_all(&raw_get(1, path)).await.unwrap();
        device.flush().await.unwrap();

        let reset = next(&mut device, RST_STREAM).await;
        assert_eq!(reset, Some((1, INTERNAL_ERROR.to_vec())), "{path}");
    }
}

#[tokio::test]
async fn a_tunnel_that_breaks_off_is_reset_as_its_kind_is() {
    let connect = [(":method", "CONNECT"), (":authority", "cut.test:443")];
    let mut websocket = connect.to_vec();
    websocket.extend([
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
    ]);
    for (head, reason) in [(connect.to_vec(), CONNECT_ERROR), (websocket, CANCEL)] {
        let (mut device, _echo, _tasks) = raw(|_| (), &[]).await;
        let mut ask = frame(HEADERS, END_HEADERS, 1, &fields(&head));
        ask.extend(frame(DATA, 0, 1, b"x"));

        device.write_all(&ask).await.unwrap();
        device.flush().await.unwrap();

        let reset = next(&mut device, RST_STREAM).await;
        assert_eq!(reset, Some((1, reason.to_vec())), "{head:?}");
    }
}

#[tokio::test]
async fn an_early_answer_ends_before_its_stream_is_reset_without_blame() {
    let (mut device, _echo, _tasks) = raw(|_| (), &[]).await;
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gw.test"),
        (":path", "/early"),
        // More than is read to nobody's use.
        ("content-length", "100000"),
    ]);

    let ask = frame(HEADERS, END_HEADERS, 1, &head);
    device.write_all(&ask).await.unwrap();
    device.flush().await.unwrap();

    let answer = any(&mut device, &[HEADERS, RST_STREAM]).await;
    assert_eq!((answer.0, answer.1), (HEADERS, 1));
    let reset = next(&mut device, RST_STREAM).await;
    assert_eq!(reset, Some((1, NO_ERROR.to_vec())));
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let (mut device, _echo, tasks) = raw(|limits| limits.head = SHORT, &[]).await;

    assert!(next(&mut device, GOAWAY).await.is_some());
    // It does not say good-bye itself, and is left alone then.
    assert!(tasks.drain(LONG).await);
}

#[tokio::test]
async fn a_device_that_says_nothing_at_all_is_closed() {
    let mut limits = limits();
    limits.head = SHORT;
    let (mut device, tasks) = start(Arc::default(), limits, true).await;

    let mut found = Vec::new();
    let _end = timeout(LONG, device.read_to_end(&mut found)).await.unwrap();
    assert!(tasks.drain(LONG).await);
}

#[tokio::test]
async fn heads_with_other_schemes_or_fields_of_1_1_are_refused() {
    let cases: [&[(&str, &str)]; 4] = [
        &[(":scheme", "ftp"), (":path", "/")],
        &[
            (":scheme", "https"),
            (":path", "/"),
            ("transfer-encoding", "chunked"),
        ],
        &[
            (":scheme", "https"),
            (":path", "/"),
            ("connection", "close"),
        ],
        &[(":scheme", "https"), (":path", "/"), ("te", "gzip")],
    ];
    for rest in cases {
        let (mut device, echo, _tasks) = raw(|_| (), &[]).await;
        let mut all = vec![(":method", "GET"), (":authority", "gw.test")];
        all.extend_from_slice(rest);
        device
            .write_all(&frame(HEADERS, END, 1, &fields(&all)))
            .await
            .unwrap();
        device.write_all(&raw_get(3, "/a")).await.unwrap();
        device.flush().await.unwrap();
        until(|| echo.begun.load(Ordering::SeqCst) > 0).await;
        assert_eq!(echo.begun.load(Ordering::SeqCst), 1, "{rest:?}");
    }
}
