//! Exchanges with real nodes: what is kept, what is tried again, and what the device is told.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::world::{
    Counter, World, all, answer, body, field, get, head, nobody, node, post, raw_device, read,
    secure, steady, until,
};
use super::{Answered, Error, Upgrade, body::Ended};
use crate::{
    balance,
    config::{CheckKind, Persistence, for_test},
    shutdown::Tasks,
    web::{self, Body},
};

mod answers;
mod world;

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let tasks = Tasks::new();
    let world = World::new(&[steady(&tasks, "a").await]);
    for _ in 0..20 {
        assert_eq!(world.get("/").await.unwrap(), (200, "a 0".into()));
    }
    let served = world.forward(get("/")).await.unwrap().served;
    assert!(served.reused && served.failed == 0);
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each_and_few_are_kept() {
    let tasks = Tasks::new();
    let address = steady(&tasks, "a").await;
    let world = World::with(&[address], |pool| pool.kept_connections = 2, |_| {});
    let requests = (0..10).map(|_| world.get("/"));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok));
    let second = futures_util::future::join_all((0..10).map(|_| world.forward(get("/")))).await;
    let reused = |answer: &Result<Answered, Error>| answer.as_ref().unwrap().served.reused;
    assert_eq!(second.iter().filter(|answer| reused(answer)).count(), 2);
}

#[tokio::test]
async fn the_head_is_the_judged_one_with_host_and_without_hop_by_hop() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        let text = "HTTP/1.1 200 OK\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\
            X-End: 2\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n";
        let text = format!("{text}{:x}\r\n{head}\r\n0\r\n\r\n", head.len());
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let mut world = World::new(&[address]);
    let request = || {
        Request::get("/raw;x?y=%20")
            .header("host", "evil.test")
            .header("connection", "x-gone")
            .header("x-gone", "1")
            .header("te", "trailers")
            .header("x-stays", "1")
            .body(Body::empty())
            .unwrap()
    };
    let mut request_of_device = request();
    *request_of_device.uri_mut() = "/judged?y=%20".parse().unwrap();
    let answer = world.send(request_of_device).await.unwrap().response;
    let headers = answer.headers().clone();
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-end"]);
    let (_, head) = read(answer).await;
    assert!(head.starts_with("GET /judged?y=%20 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("app.test"));
    assert_eq!(field(&head, "x-stays"), Some("1"));
    assert_eq!(
        head.lines().filter(|line| !line.is_empty()).count(),
        3,
        "{head}"
    );

    world.app.upstream_host = Some("inside.test:81".into());
    let (_, head) = world.get("/").await.unwrap();
    assert_eq!(field(&head, "host"), Some("inside.test:81"));
}

/// Answers one request on the first connection, and ends it at the second without a word.
async fn forgetful(tasks: &Tasks, requests: Counter) -> std::net::SocketAddr {
    node(tasks, move |number, mut stream| {
        let requests = requests.clone();
        async move {
            while let Some(head) = head(&mut stream).await {
                body(&mut stream, &head).await;
                if requests.add() == 1 {
                    return;
                }
                answer(&mut stream, "200 OK", &number.to_string()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_get_whose_kept_connection_died_is_sent_again_on_a_fresh_one() {
    let (tasks, requests) = (Tasks::new(), Counter::default());
    let mut world = World::new(&[forgetful(&tasks, requests.clone()).await]);
    world.app.retries = 0;
    assert_eq!(world.get("/").await.unwrap().1, "0");
    assert_eq!(world.get("/").await.unwrap().1, "1");
    assert_eq!(requests.get(), 3);
}

#[tokio::test]
async fn a_post_whose_kept_connection_died_is_not_sent_twice() {
    let (tasks, requests) = (Tasks::new(), Counter::default());
    let world = World::new(&[forgetful(&tasks, requests.clone()).await]);
    assert_eq!(world.get("/").await.unwrap().1, "0");
    let error = world.send(post("/", "x")).await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    assert_eq!(requests.get(), 2);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_left_out_whatever_the_method() {
    let tasks = Tasks::new();
    let dead = nobody().await;
    let echo = node(&tasks, |_, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            let body = body(&mut stream, &head).await.unwrap();
            answer(&mut stream, "200 OK", &String::from_utf8(body).unwrap()).await;
        }
    })
    .await;
    let world = World::new(&[dead, echo]);
    for _ in 0..4 {
        let answer = world.send(post("/", "precious")).await.unwrap();
        assert_eq!(read(answer.response).await, (200, "precious".into()));
    }
    assert_eq!(
        world.pool.status(crate::clock::now())[0].state,
        balance::State::Suspended
    );
}

#[tokio::test]
async fn no_more_nodes_are_tried_than_configured() {
    let nodes = [nobody().await, nobody().await, nobody().await];
    let mut world = World::new(&nodes);
    world.app.retries = 0;
    let error = world.get("/").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }));
    let suspended = |world: &World| {
        let status = world.pool.status(crate::clock::now());
        status
            .iter()
            .filter(|node| node.state == balance::State::Suspended)
            .count()
    };
    assert_eq!(suspended(&world), 1);
    world.app.retries = 5;
    assert!(matches!(
        world.get("/").await.unwrap_err(),
        Error::Connect { .. }
    ));
    assert_eq!(suspended(&world), 3);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let tasks = Tasks::new();
    // What never answers.
    let silent = node(&tasks, |_, mut stream| async move {
        while head(&mut stream).await.is_some() {}
    })
    .await;
    let mut world = World::new(&[silent]);
    world.app.first_byte = Duration::from_millis(50);
    let error = world.get("/").await.unwrap_err();
    assert!(matches!(error, Error::FirstByte { .. }), "{error:?}");
    assert_eq!(world.pool.nodes()[0].in_hand(), 0);

    // What does not speak HTTP, and what says too much.
    for text in ["SSH-2.0-OpenSSH\r\n\r\n".to_owned(), {
        let field = format!("X: {}\r\n", "x".repeat(1000));
        format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(80))
    }] {
        let text: &'static str = text.leak();
        let odd = node(&tasks, move |_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(text.as_bytes()).await.ok();
            head(&mut stream).await;
        })
        .await;
        let error = World::new(&[odd]).get("/").await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }

    // What frames its answer in a way that cannot be passed on.
    for head_of_answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let odd = node(&tasks, move |_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(head_of_answer.as_bytes()).await.ok();
            head(&mut stream).await;
        })
        .await;
        let error = World::new(&[odd]).get("/").await.unwrap_err();
        assert!(matches!(error, Error::Framing { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_pool_whose_probes_fail_has_no_node() {
    let world = World::with(
        &[nobody().await],
        |pool| pool.check.kind = CheckKind::Tcp,
        |_| {},
    );
    world
        .pool
        .watch(std::sync::Arc::clone(&world.dialer), &world.tasks);
    let down = || world.pool.status(crate::clock::now())[0].state == balance::State::Down;
    until(down).await;
    let error = world.get("/").await.unwrap_err();
    assert!(
        matches!(error, Error::Balance(balance::Error::Down(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn connect_without_a_websocket_is_not_forwarded() {
    let world = World::new(&[nobody().await]);
    let mut exchange = world.exchange(get("/"));
    *exchange.request.method_mut() = http::Method::CONNECT;
    let error = world.upstream.forward(exchange).await.unwrap_err();
    assert!(matches!(error, Error::Unforwardable(_)));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_never_tried_again() {
    let (tasks, connections) = (Tasks::new(), Counter::default());
    let counter = connections.clone();
    let address = node(&tasks, move |_, mut stream| {
        counter.add();
        async move {
            head(&mut stream).await;
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await;
    let world = World::new(&[address]);
    let answer = world.send(get("/")).await.unwrap().response;
    let error = all(answer).await.unwrap_err();
    assert!(matches!(error, web::body::Error::Backend(_)), "{error:?}");
    assert_eq!(connections.get(), 1);
    until(|| world.pool.nodes()[0].in_hand() == 0).await;
}

#[tokio::test]
async fn a_node_that_falls_silent_in_its_answer_is_given_up() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        head(&mut stream).await;
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        stream.write_all(text.as_bytes()).await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let mut world = World::new(&[address]);
    world.app.progress = Duration::from_millis(50);
    let answer = world.send(get("/")).await.unwrap().response;
    let error = all(answer).await.unwrap_err();
    let web::body::Error::Backend(cause) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(cause.downcast_ref(), Some(Ended::Silent(_))));
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_answers_and_waits() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        if head(&mut stream).await.unwrap().starts_with("GET /answers") {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        head(&mut stream).await;
    })
    .await;
    let world = World::new(&[address]);
    let ended = CancellationToken::new();
    let mut exchange = world.exchange(get("/answers"));
    exchange.stop = Some(&ended);
    let answer = world
        .upstream
        .forward(exchange)
        .await
        .unwrap()
        .answer
        .response;
    let mut exchange = world.exchange(get("/waits"));
    exchange.stop = Some(&ended);
    let (read, waited, ()) = tokio::join!(all(answer), world.upstream.forward(exchange), async {
        until(|| world.pool.nodes()[0].in_hand() == 2).await;
        ended.cancel();
    });
    assert!(matches!(read, Err(web::body::Error::Backend(_))));
    assert!(matches!(waited, Err(Error::Stopped)));
    until(|| world.pool.nodes()[0].in_hand() == 0).await;
}

#[tokio::test]
async fn a_device_that_does_not_read_stops_the_node() {
    let (tasks, written) = (Tasks::new(), Counter::default());
    let counter = written.clone();
    let address = node(&tasks, move |_, mut stream| {
        let counter = counter.clone();
        async move {
            head(&mut stream).await;
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
            stream.write_all(text.as_bytes()).await.unwrap();
            let block = vec![0; 1 << 16];
            while stream.write_all(&block).await.is_ok() {
                counter.add();
            }
        }
    })
    .await;
    let world = World::new(&[address]);
    let answer = world.send(get("/")).await.unwrap().response;
    // The node stalls once the kernel's buffers are full.
    let stalled = async {
        loop {
            let before = written.get();
            tokio::time::sleep(Duration::from_millis(200)).await;
            if written.get() == before {
                return before;
            }
        }
    };
    let blocks = timeout(Duration::from_secs(20), stalled).await.unwrap();
    assert!(blocks < 512, "{blocks} blocks of 64 KiB");
    drop(answer);
    until(|| world.pool.nodes()[0].in_hand() == 0).await;
}

#[tokio::test]
async fn an_early_answer_passes_and_its_connection_is_not_kept() {
    let tasks = Tasks::new();
    let address = node(&tasks, |number, mut stream| async move {
        head(&mut stream).await;
        answer(&mut stream, "413 Content Too Large", &number.to_string()).await;
        // The rest of the body must not be taken for a request.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    })
    .await;
    let world = World::new(&[address]);
    for number in 0..2 {
        let never = futures_util::stream::pending::<Result<Frame<bytes::Bytes>, _>>();
        let request = Request::post("/")
            .body(Body::stream(StreamBody::new(never)))
            .unwrap();
        let answer = timeout(Duration::from_secs(5), world.send(request)).await;
        let answer = answer.unwrap().unwrap().response;
        assert_eq!(read(answer).await, (413, number.to_string()));
    }
}

#[tokio::test]
async fn a_body_is_read_from_the_device_only_when_the_node_says_continue() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        let head_of_request = head(&mut stream).await.unwrap();
        assert_eq!(field(&head_of_request, "expect"), Some("100-continue"));
        if head_of_request.starts_with("POST /no") {
            answer(&mut stream, "417 Expectation Failed", "no").await;
            return;
        }
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        let body = body(&mut stream, &head_of_request).await.unwrap();
        answer(&mut stream, "200 OK", &String::from_utf8(body).unwrap()).await;
    })
    .await;
    let world = World::new(&[address]);
    for (path, polls, expected) in [("/yes", 1, (200, "data")), ("/no", 0, (417, "no"))] {
        let polled = Counter::default();
        let counter = polled.clone();
        let data = futures_util::stream::once(async move {
            counter.add();
            Ok(Frame::data("data".into()))
        });
        let request = Request::post(path)
            .header("expect", "100-continue")
            .header("content-length", "4")
            .body(Body::stream(StreamBody::new(data)))
            .unwrap();
        let answer = world.send(request).await.unwrap().response;
        assert_eq!(read(answer).await, (expected.0, expected.1.into()));
        assert_eq!(polled.get(), polls, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_the_device_breaks_off_is_the_devices_fault() {
    let tasks = Tasks::new();
    let world = World::new(&[steady(&tasks, "a").await]);
    let broken = futures_util::stream::iter([
        Ok(Frame::data("da".into())),
        Err(web::body::Error::TooLarge(1)),
    ]);
    let request = Request::post("/").body(Body::stream(StreamBody::new(broken)));
    let error = world.send(request.unwrap()).await.unwrap_err();
    assert!(
        matches!(error.body(), Some(web::body::Error::TooLarge(1))),
        "{error:?}"
    );
}

#[tokio::test]
async fn head_and_bodyless_answers_keep_their_connection() {
    let tasks = Tasks::new();
    let address = node(&tasks, |number, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            let text: &str = match head.split(' ').next() {
                Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Some("PUT") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("OPTIONS") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                _ => &format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"),
            };
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await;
    let world = World::new(&[address]);
    for method in ["HEAD", "PUT", "OPTIONS"] {
        let request = Request::builder().method(method).uri("/");
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(read(answer.unwrap().response).await.1, "");
    }
    assert_eq!(world.get("/").await.unwrap().1, "0");
}

#[tokio::test]
async fn trailers_pass() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        head(&mut stream).await;
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
            4\r\ndata\r\n0\r\nx-sum: 1\r\n\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let answer = World::new(&[address])
        .send(get("/"))
        .await
        .unwrap()
        .response;
    let collected = all(answer).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
    assert_eq!(collected.to_bytes(), "data");
}

#[tokio::test]
async fn kept_connections_are_closed_when_idle_and_when_a_drain_begins() {
    let (tasks, open) = (Tasks::new(), Counter::default());
    let closed = Counter::default();
    let (opens, closes) = (open.clone(), closed.clone());
    let address = node(&tasks, move |_, mut stream| {
        let (opens, closes) = (opens.clone(), closes.clone());
        async move {
            opens.add();
            while head(&mut stream).await.is_some() {
                answer(&mut stream, "200 OK", "x").await;
            }
            closes.add();
        }
    })
    .await;
    let idle = Duration::from_millis(60);
    let world = World::with(&[address], |_| {}, |network| network.kept_idle = idle);
    world.get("/").await.unwrap();
    until(|| closed.get() == 1).await;

    let world = World::new(&[address]);
    world.get("/").await.unwrap();
    assert_eq!((open.get(), closed.get()), (2, 1));
    assert!(world.tasks.drain(Duration::from_secs(5)).await);
    until(|| closed.get() == 2).await;
}

/// Wants NTLM: three requests on one connection, and then that connection is the user.
async fn wants_ntlm(tasks: &Tasks) -> std::net::SocketAddr {
    node(tasks, |number, mut stream| async move {
        let mut user = None;
        while let Some(head) = head(&mut stream).await {
            let challenge = match field(&head, "authorization") {
                Some("NTLM one") => Some("NTLM two"),
                Some(three) => {
                    user = three.strip_prefix("NTLM three-").map(str::to_owned);
                    None
                }
                None if user.is_none() => Some("NTLM"),
                None => None,
            };
            let text = match challenge {
                Some(challenge) => format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\n\
                     Content-Length: 1\r\n\r\n{number}"
                ),
                None => {
                    let text = format!("{} {number}", user.as_deref().unwrap());
                    let length = text.len();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}")
                }
            };
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await
}

async fn ntlm(world: &World, device: u64, session: &str, token: Option<&str>) -> (u16, String) {
    let mut request = get("/");
    if let Some(token) = token {
        request
            .headers_mut()
            .insert("authorization", token.parse().unwrap());
    }
    let mut exchange = world.exchange(request);
    exchange.connection = device;
    exchange.session = Some(session.into());
    read(
        world
            .upstream
            .forward(exchange)
            .await
            .unwrap()
            .answer
            .response,
    )
    .await
}

#[tokio::test]
async fn a_connection_with_ntlm_belongs_to_one_session() {
    let tasks = Tasks::new();
    let nodes = [wants_ntlm(&tasks).await, wants_ntlm(&tasks).await];
    // The second node is there to be chosen wrongly.
    let world = World::new(&nodes);
    let log_in = async |device, session, name: &str, connection: &str| {
        let say = |text: &str| (401, text.to_owned());
        assert_eq!(ntlm(&world, device, session, None).await, say(connection));
        assert_eq!(
            ntlm(&world, device, session, Some("NTLM one")).await,
            say(connection)
        );
        let three = format!("NTLM three-{name}");
        let logged_in = ntlm(&world, device, session, Some(&three)).await;
        assert_eq!(logged_in, (200, format!("{name} {connection}")));
    };
    log_in(1, "S-1", "alice", "0").await;
    // Another session, and another device connection of the same session, start from nothing.
    log_in(2, "S-2", "bob", "0").await;
    log_in(3, "S-1", "carol", "1").await;
    log_in(1, "S-3", "dave", "1").await;
    for (device, session, user) in [
        (1, "S-1", "alice 0"),
        (2, "S-2", "bob 0"),
        (3, "S-1", "carol 1"),
        (1, "S-3", "dave 1"),
        (1, "S-1", "alice 0"),
    ] {
        let answer = ntlm(&world, device, session, None).await;
        assert_eq!(answer, (200, user.to_owned()), "{session} on {device}");
    }
}

#[tokio::test]
async fn a_login_in_progress_is_not_disturbed() {
    let tasks = Tasks::new();
    let world = World::new(&[wants_ntlm(&tasks).await]);
    assert_eq!(ntlm(&world, 1, "S", None).await.1, "0");
    assert_eq!(ntlm(&world, 1, "S", Some("NTLM one")).await.1, "0");
    // Another request of the same connection goes elsewhere.
    assert_eq!(ntlm(&world, 1, "S", None).await.1, "1");
    assert_eq!(ntlm(&world, 1, "S", Some("NTLM three-eve")).await.0, 200);
}

#[tokio::test]
async fn a_device_stays_on_the_node_whose_cookie_it_carries() {
    let tasks = Tasks::new();
    let sets = |name: &'static str| {
        node(&tasks, move |_, mut stream| async move {
            while head(&mut stream).await.is_some() {
                let text = format!(
                    "HTTP/1.1 200 OK\r\nSet-Cookie: ACNODEID={name}; Path=/\r\n\
                     Content-Length: 1\r\n\r\n{name}"
                );
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        })
    };
    let nodes = [sets("a").await, sets("b").await];
    let persistence = Persistence::Cookie {
        name: "ACNODEID".into(),
        idle: Duration::from_secs(60),
    };
    let world = World::with(&nodes, |pool| pool.persistence = persistence, |_| {});
    for _ in 0..2 {
        world.get("/").await.unwrap();
    }
    for name in ["a", "b", "a", "a", "b", "b"] {
        let mut request = get("/");
        let cookie = format!("x=y; ACNODEID={name}");
        request
            .headers_mut()
            .insert("cookie", cookie.parse().unwrap());
        assert_eq!(
            read(world.send(request).await.unwrap().response).await.1,
            name
        );
    }
}

/// Opens a WebSocket and echoes, or answers as the path says.
async fn websocket(tasks: &Tasks) -> std::net::SocketAddr {
    node(tasks, |_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert_eq!(field(&head, "connection"), Some("Upgrade"));
        assert_eq!(field(&head, "sec-websocket-version"), Some("13"));
        let key = field(&head, "sec-websocket-key").unwrap();
        let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let mut accept =
            data_encoding::BASE64.encode(&crate::crypto::sha1(format!("{key}{guid}").as_bytes()));
        match head.split(' ').nth(1) {
            Some("/403") => return answer(&mut stream, "403 Forbidden", "no").await,
            Some("/200") => return answer(&mut stream, "200 OK", "well").await,
            Some("/wrong") => accept.insert(0, 'x'),
            _ => {}
        }
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\nhello "
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.ok();
    })
    .await
}

fn ask_for_websocket(path: &str) -> Request<Body> {
    Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_websocket_opens_over_either_protocol() {
    let tasks = Tasks::new();
    let world = World::new(&[websocket(&tasks).await]);
    for (upgrade, status) in [
        (Upgrade::Http1, StatusCode::SWITCHING_PROTOCOLS),
        (Upgrade::Http2, StatusCode::OK),
    ] {
        let mut request = ask_for_websocket("/");
        if upgrade == Upgrade::Http2 {
            *request.method_mut() = http::Method::CONNECT;
            request.headers_mut().clear();
        }
        let mut exchange = world.exchange(request);
        exchange.upgrade = Some(upgrade);
        let relayed = exchange.relayed.clone().unwrap();
        let counts = std::sync::Arc::clone(&relayed.counts);
        let answer = world.upstream.forward(exchange).await.unwrap().answer;
        assert_eq!(answer.response.status(), status);
        let headers = answer.response.headers();
        let http1 = upgrade == Upgrade::Http1;
        assert_eq!(headers.contains_key("sec-websocket-accept"), http1);
        assert_eq!(headers.contains_key("upgrade"), http1);
        assert_eq!(world.pool.nodes()[0].in_hand(), 1);

        let (gateway, mut device) = raw_device();
        drop(tasks.spawn(answer.then.unwrap()(gateway)));
        device.write_all(b"world").await.unwrap();
        let mut read = [0; 11];
        device.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello world");
        drop(device);
        until(|| world.pool.nodes()[0].in_hand() == 0).await;
        assert_eq!(counts.down.load(std::sync::atomic::Ordering::SeqCst), 11);
    }
}

#[tokio::test]
async fn nothing_is_raw_before_101() {
    let tasks = Tasks::new();
    let world = World::new(&[websocket(&tasks).await]);
    let ask = async |upgrade, path: &str| {
        let mut exchange = world.exchange(ask_for_websocket(path));
        exchange.upgrade = Some(upgrade);
        world.upstream.forward(exchange).await
    };
    for upgrade in [Upgrade::Http1, Upgrade::Http2] {
        let answer = ask(upgrade, "/403").await.unwrap().answer;
        assert!(answer.then.is_none());
        assert_eq!(read(answer.response).await, (403, "no".into()));
    }
    let answer = ask(Upgrade::Http1, "/200").await.unwrap().answer;
    assert!(answer.then.is_none());
    assert_eq!(read(answer.response).await, (200, "well".into()));
    for path in ["/200", "/wrong"] {
        let error = ask(Upgrade::Http2, path).await.unwrap_err();
        assert!(matches!(error, Error::Framing { .. }), "{path}: {error:?}");
    }
    // None of those connections was kept: the next request has a fresh one.
    let again = ask(Upgrade::Http1, "/403").await.unwrap();
    assert!(!again.served.reused);
}

#[tokio::test]
async fn requests_share_an_http2_connection() {
    let tasks = Tasks::new();
    let mut pool = for_test::pool_value("test", &[]);
    secure(&tasks, &mut pool, &["h2", "http/1.1"]).await;
    let world = World::of(pool, |_| {});
    let answers = futures_util::future::join_all((0..50).map(|_| world.get("/x?y"))).await;
    for answer in answers {
        let text = "HTTP/2.0 0 https://app.test/x?y ";
        assert_eq!(answer.unwrap(), (200, text.into()));
    }
    let mut request = post("/", "body");
    let grpc = http::HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let answer = world.send(request).await.unwrap().response;
    let collected = all(answer).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-te"], "trailers");
    assert_eq!(collected.to_bytes(), "HTTP/2.0 0 https://app.test/ body");
}

#[tokio::test]
async fn more_requests_than_streams_open_another_connection() {
    let tasks = Tasks::new();
    let mut pool = for_test::pool_value("test", &[]);
    pool.max_requests = 1000;
    secure(&tasks, &mut pool, &["h2"]).await;
    let world = World::of(pool, |_| {});
    let answers = futures_util::future::join_all((0..150).map(|_| world.get("/"))).await;
    let on = |number: &str| {
        let begin = format!("HTTP/2.0 {number} ");
        answers
            .iter()
            .filter(|a| a.as_ref().unwrap().1.starts_with(&begin))
            .count()
    };
    assert_eq!(on("0") + on("1"), 150);
    assert!(on("1") >= 1);
    until(|| world.pool.nodes()[0].in_hand() == 0).await;
}

#[tokio::test]
async fn a_login_of_a_connection_never_uses_http2() {
    let tasks = Tasks::new();
    let mut pool = for_test::pool_value("test", &[]);
    secure(&tasks, &mut pool, &["h2", "http/1.1"]).await;
    let world = World::of(pool, |_| {});
    assert!(world.get("/").await.unwrap().1.starts_with("HTTP/2.0 0 "));
    let (_, text) = ntlm(&world, 1, "S", Some("NTLM one")).await;
    assert_eq!(text, "HTTP/1.1 1 / app.test");
    // From now on that connection is the user's; strangers go on over HTTP/2.
    let (_, text) = ntlm(&world, 1, "S", None).await;
    assert_eq!(text, "HTTP/1.1 1 / app.test");
    let (_, text) = ntlm(&world, 2, "S-2", None).await;
    assert!(text.starts_with("HTTP/2.0 0 "), "{text}");
}

#[tokio::test]
async fn a_node_that_declines_http2_is_spoken_to_in_http1() {
    let tasks = Tasks::new();
    let mut pool = for_test::pool_value("test", &[]);
    secure(&tasks, &mut pool, &["http/1.1"]).await;
    let world = World::of(pool, |_| {});
    for _ in 0..2 {
        assert_eq!(world.get("/").await.unwrap().1, "HTTP/1.1 0 / app.test");
    }
}

#[tokio::test]
async fn a_node_with_another_certificate_is_not_trusted() {
    let tasks = Tasks::new();
    let mut pool = for_test::pool_value("test", &[]);
    secure(&tasks, &mut pool, &["h2"]).await;
    let tls = pool.tls.clone();
    secure(&tasks, &mut pool, &["h2"]).await;
    pool.nodes[0] = for_test::system(&pool_address(&pool), tls);
    let error = World::of(pool, |_| {}).get("/").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

fn pool_address(pool: &crate::config::Pool) -> String {
    format!("{}:{}", pool.nodes[0].host(), pool.nodes[0].port())
}

#[tokio::test]
async fn a_plain_site_is_asked_in_origin_form_on_a_connection_of_its_own() {
    let tasks = Tasks::new();
    let address = node(&tasks, |number, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            body(&mut stream, &head).await;
            answer(&mut stream, "200 OK", &format!("{number} {head}")).await;
        }
    })
    .await;
    let world = World::new(&[address]);
    let ask = async |uri: &str, body: Body| {
        let request = Request::get(uri)
            .header("host", "other.test")
            .header("proxy-connection", "keep-alive")
            .header("content-length", body.size_hint().exact().unwrap_or(5))
            .body(body);
        let idle = Duration::from_secs(5);
        let permit = world.tunnel_permit(address);
        let token = CancellationToken::new();
        world
            .upstream
            .plain(&permit, request.unwrap(), idle, Some(&token))
            .await
    };
    for number in 0..2 {
        let fetched = ask("http://site.test/x?y", Body::empty()).await.unwrap();
        assert_eq!(fetched.address, address);
        let (_, text) = read(fetched.answer.response).await;
        let expected =
            format!("{number} GET /x?y HTTP/1.1\r\nhost: site.test\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(text, expected);
    }
    let error = ask("http://user:password@site.test/", Body::empty())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unforwardable(_)));
    let broken = futures_util::stream::iter([Err(web::body::Error::TooLarge(1))]);
    let error = ask("http://site.test/", Body::stream(StreamBody::new(broken))).await;
    assert!(matches!(
        error.unwrap_err().body(),
        Some(web::body::Error::TooLarge(1))
    ));
}
