//! What an attacker tries: to be two requests, to be somebody else, to stay after being thrown out.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ravelin::control::{Answer, Command, Kill};
use tokio::io::AsyncWriteExt;

use crate::{
    reverse_proxy::raw_backend,
    support::{
        device::{Device, read_all, read_head},
        eventually,
        gateway::ALICE,
        peers,
        world::World,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_have_the_gateways_own_fields_dropped() {
    let backend = Recorder::start();
    let world = backend.world();

    let heads = backend
        .heads_of(
            &world,
            "GET / HTTP/1.1\r\nHost: xm.apps.test\r\nX-Forwarded-For: 10.9.8.7\r\n\
             Connection: X-Forwarded-For, X-Forwarded-Proto, X-Real-IP, Forwarded, close\r\n\
             Connection: X-Forwarded-Host, X-Mine, Host, Cookie\r\nX-Mine: 1\r\nCookie: a=b\r\n\r\n",
        )
        .await;

    let [head] = heads.as_slice() else {
        panic!("{heads:?}");
    };
    for field in [
        "host: xm.apps.test\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-host: xm.apps.test\r\n",
        "x-forwarded-proto: https\r\n",
        "x-real-ip: 127.0.0.1\r\n",
        "forwarded: for=127.0.0.1;",
        "cookie: a=b\r\n",
    ] {
        assert!(head.contains(field), "{field:?} is not in {head}");
    }
    assert!(!head.contains("x-mine"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_in_another_spelling_does_not_reach_a_backend() {
    let backend = Recorder::start();
    let world = backend.world();

    let heads = backend
        .heads_of(
            &world,
            "POST / HTTP/1.1\r\nHost: xm.apps.test\r\nContent-Length: 3\r\nContent_Length: 0\r\n\
             Transfer_Encoding: chunked\r\nX_Forwarded_For: 10.9.8.7\r\nConnection: close\r\n\r\nabc",
        )
        .await;

    let head = &heads[0];
    assert!(head.contains("content-length: 3\r\n"), "{head}");
    assert!(!head.contains('_'), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_reach_a_backend_unless_they_change_what_was_decided() {
    let backend = Recorder::start();
    let world = backend.world();

    let heads = backend
        .heads_of(
            &world,
            "POST / HTTP/1.1\r\nHost: xm.apps.test\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum, X-Forwarded-For, Content-Length, Host\r\nConnection: close\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: 10.9.8.7\r\nContent-Length: 9\r\n\
             Host: evil\r\n\r\n",
        )
        .await;

    let (_, trailers) = heads[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(trailers, "x-sum: 1\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_says_two_things_about_its_request_is_none() {
    let backend = Recorder::start();
    let world = backend.world();
    let device = Device::new(world.gateway.address, &world.authority(), &["h2"]);
    let post = |path: &str| Request::post(format!("https://xm.apps.test{path}"));
    let sent = |request: Request<Full<Bytes>>| async {
        let io = TokioIo::new(device.connect("xm.apps.test").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        driver.abort();
        // A stream that is reset is as good an answer.
        answer.map_or(400, |answer| answer.status().as_u16())
    };
    let (abc, nothing) = (|| Full::from("abc"), || Full::from(""));

    for (status, request) in [
        (200, post("/good").header("content-length", "3").body(abc())),
        (400, post("/").header("content-length", "+3").body(abc())),
        (400, post("/").header("content-length", "").body(nothing())),
        (400, post("/").header("content-length", "1").body(abc())),
        (400, post("/").header("content-length", "9").body(abc())),
        (400, post("/").header("host", "gw.ravelin.test").body(abc())),
        (400, post("/%2e%2e/%2e%2e/x").body(abc())),
        (417, post("/").header("expect", "200-ok").body(abc())),
    ] {
        let request = request.unwrap();
        let told = format!("{request:?}");
        assert_eq!(sent(request).await, status, "{told}");
    }

    assert_eq!(backend.paths(), ["/good"]);
    let head = backend.heads.lock().unwrap()[0].clone();
    assert_eq!(field(&head, "content-length"), Some("3"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_takes_for_itself_does_not_reach_a_plain_site() {
    let world = World::new();
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let url = world.inside() + "headers";
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    for (field, seen) in [
        (format!("Authorization: Basic {basic}\r\n"), "auth= "),
        (
            format!("Proxy-Authorization: Basic {basic}\r\nAuthorization: Bearer theirs\r\n"),
            "auth=Bearer theirs ",
        ),
    ] {
        let mut connection = device.connect("gw.ravelin.test").await;
        let host = format!("intranet.corp.test:{}", world.intranet.address.port());
        let request = format!(
            "GET {url} HTTP/1.1\r\nHost: {host}\r\nCookie: __Host-ravelin=secret; a=b\r\n\
             {field}Connection: close\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();

        let answer = String::from_utf8(read_all(&mut connection).await).unwrap();

        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(seen), "{answer}");
        assert!(answer.contains("cookie=a=b "), "{answer}");
        assert!(!answer.contains(&basic), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_counts_as_a_tunnel_and_ends_with_its_session() {
    let silent = raw_backend(|mut stream| {
        let mut head = [0; 4096];
        while stream.read(&mut head).is_ok_and(|read| read > 0) {}
    });
    let world = World::build(&[silent], |_| "[tunnel]\nmax_per_session = 1\n".into());
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let request = format!(
        "GET http://{silent}/ HTTP/1.1\r\nHost: {silent}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    );
    let mut first = device.connect("gw.ravelin.test").await;
    first.write_all(request.as_bytes()).await.unwrap();
    tokio::task::block_in_place(|| {
        eventually("the request to run under alice's session", || {
            let Answer::Sessions(sessions) = world.gateway.ask(&Command::Sessions) else {
                return None;
            };
            sessions.iter().any(|s| s.tunnels == 1).then_some(())
        });
    });

    let mut second = device.connect("gw.ravelin.test").await;
    second.write_all(request.as_bytes()).await.unwrap();
    let refused = read_head(&mut second).await;
    let killed = world.gateway.ask(&Command::Kill {
        what: Kill::User("alice".into()),
    });
    let ended = read_head(&mut first).await;

    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(matches!(killed, Answer::Killed(1)), "{killed:?}");
    assert!(ended.starts_with("HTTP/1.1 403 "), "{ended}");
}

/// Requests of every shape, each of which hides another one somewhere, to backends of four makes.
#[tokio::test(flavor = "multi_thread")]
async fn no_backend_sees_a_request_that_the_gateway_did_not_see() {
    let recorder = Recorder::start();
    let nginx = peers::nginx("location / { return 200 ok; }", None);
    let haproxy = peers::haproxy_http(nginx.address);
    let python = peers::python_site();
    let backends = [
        ("xm", recorder.address),
        ("store", haproxy.address),
        ("other", python.address),
    ];
    let allow: Vec<SocketAddr> = backends.iter().map(|(_, address)| *address).collect();
    let world = World::build(&allow, |_| {
        let apps: String = backends
            .iter()
            .map(|(name, address)| app(name, *address))
            .collect();
        format!("[limits]\nbody_progress = \"200ms\"\n{apps}")
    });
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    for (name, _) in backends {
        let host = format!("Host: {name}.apps.test\r\n");
        let last = format!("GET /last HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        for (number, request) in shapes(&host).into_iter().enumerate() {
            let mut connection = device.connect("gw.ravelin.test").await;
            let request = request.replace("/TARGET", &format!("/seen-{number}"));
            // The gateway may close before it has read all of it.
            drop(connection.write_all(request.as_bytes()).await);
            drop(connection.write_all(last.as_bytes()).await);
            let answer = read_all(&mut connection).await;
            assert!(
                answer.starts_with(b"HTTP/1.1 "),
                "{request:?} got {:?}",
                String::from_utf8_lossy(&answer)
            );
        }
        let mut connection = device.connect("gw.ravelin.test").await;
        let end = last.replace("/last", "/end");
        connection.write_all(end.as_bytes()).await.unwrap();
        read_all(&mut connection).await;
    }

    for (name, paths) in [
        ("xm", &(|| recorder.paths()) as &dyn Fn() -> Vec<String>),
        ("store", &|| peers::paths(&nginx)),
        ("other", &|| peers::paths(&python)),
    ] {
        let theirs = eventually("the last request in the backend's log", || {
            Some(paths()).filter(|paths| paths.iter().any(|path| path == "/end"))
        });
        let is_end = |line: &serde_json::Value| line["app"] == name && line["path"] == "/end";
        world.gateway.log_line("the last request", is_end);
        // What the gateway saw once, nobody behind it sees twice, or as something else.
        let mut ours: Vec<String> = world
            .gateway
            .log()
            .iter()
            .filter(|line| line["app"] == name)
            .map(|line| line["path"].as_str().unwrap_or_default().replace("//", "/"))
            .collect();
        for path in &theirs {
            let place = ours.iter().position(|ours| ours == path);
            let place = place.unwrap_or_else(|| panic!("only {name} saw {path}"));
            ours.swap_remove(place);
        }
        assert!(theirs.len() > 100, "{name} saw {}", theirs.len());
    }
}

/// Nodes whose answers try to be two, or to end where they should not.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_one_ends_there() {
    let turn = Arc::new(Mutex::new(0_usize));
    let backend = raw_backend(move |mut stream| {
        while let Some((head, _)) = read_request(&mut stream) {
            let path = path_of(&head);
            let answer = match path.strip_prefix("/hostile-") {
                Some(number) => HOSTILE[number.parse::<usize>().unwrap()].to_owned(),
                None => {
                    let mut turn = turn.lock().unwrap();
                    *turn += 1;
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                        path.len()
                    )
                }
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            if path.starts_with("/hostile-") && !answer.contains("Content-Length") {
                return;
            }
        }
    });
    let world = World::build(&[backend], |_| app("xm", backend));
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    for number in 0..HOSTILE.len() {
        for round in 0..3 {
            let mut connection = device.connect("xm.apps.test").await;
            let host = "Host: xm.apps.test\r\n";
            let hostile = format!("GET /hostile-{number} HTTP/1.1\r\n{host}\r\n");
            connection.write_all(hostile.as_bytes()).await.unwrap();
            let head = read_head(&mut connection).await;
            for line in head.lines().skip(1) {
                let line = line.to_ascii_lowercase();
                assert!(!line.contains("evil"), "{number}: {head}");
                assert!(!line.starts_with("proxy-authenticate"), "{number}: {head}");
            }
            drop(connection);

            // Whoever comes next gets the answer to what they asked.
            let mut next = device.connect("xm.apps.test").await;
            let good = format!("/good-{number}-{round}");
            let request = format!("GET {good} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            next.write_all(request.as_bytes()).await.unwrap();
            let answer = String::from_utf8(read_all(&mut next).await).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&good),
                "after {number}: {answer}"
            );
        }
    }
}

#[test]
fn a_kill_ends_what_was_remembered_too() {
    let world = World::new();
    let credential = format!("alice:{ALICE}");
    let token = world.curl(&[
        "--user",
        &credential,
        "--request",
        "POST",
        &(world.url("gw.ravelin.test") + "/token"),
    ]);
    let token: serde_json::Value = serde_json::from_str(&token.body).unwrap();
    let bearer = format!("Authorization: Bearer {}", token["token"].as_str().unwrap());
    let app = world.url("intranet.apps.test");
    let get = |header: &str| world.curl(&["--header", header, &app]).status;
    assert_eq!(get(&bearer), 200);

    world.gateway.ask(&Command::Kill { what: Kill::All });

    assert_eq!(get(&bearer), 401);
}

#[test]
fn a_credential_counts_only_where_it_belongs() {
    let world = World::new();
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let app = world.url("intranet.apps.test");
    let own = world.url("gw.ravelin.test");
    let proxy = format!("Proxy-Authorization: Basic {basic}");
    let basic = format!("Authorization: Basic {basic}");

    for (status, arguments) in [
        (401, vec!["--header", &*proxy, &*app]),
        // Twice is not twice as good.
        (
            400,
            vec![
                "--header",
                &*basic,
                "--header",
                "Authorization: Bearer x",
                &*app,
            ],
        ),
        (
            401,
            vec!["--header", "Cookie: __Host-ravelin-app=x.y.z", &*app],
        ),
        (401, vec!["--header", "Authorization: Bearer x.y.z", &*app]),
        (
            401,
            vec!["--header", "Authorization: Bearer rvt_AAAA", &*app],
        ),
        // The gateway's own pages know no Basic, and ask for the form.
        (303, vec!["--header", &*basic, &*own]),
    ] {
        let got = world.curl(&arguments);
        assert_eq!(got.status, status, "{arguments:?}: {got:?}");
    }
}

#[test]
fn what_a_device_sends_cannot_write_a_line_of_the_log() {
    let world = World::new();
    let agent = "User-Agent: a\u{85}b\u{2028}c\u{202e}d\"}\\n{\"kind\":\"forged\"";

    world.curl(&[
        "--header",
        agent,
        &(world.url("intranet.apps.test") + "/x%0a%22y"),
    ]);
    world.curl(&["--user", "a\u{202e}\"b:x", &world.url("intranet.apps.test")]);

    let line = world
        .gateway
        .log_line("the request's line", |line| line["agent"].is_string());
    let told = line["agent"].as_str().unwrap();
    assert!(
        told.contains("<U+202E>") && told.contains("<U+2028>"),
        "{told}"
    );
    assert!(
        world
            .gateway
            .log()
            .iter()
            .all(|line| line["kind"] == "request")
    );
    assert!(!world.gateway.all_logs().contains('\u{202e}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_in_the_middle_of_requests_fails_none_of_them() {
    let world = Arc::new(World::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let request = format!(
        "GET / HTTP/1.1\r\nHost: intranet.apps.test\r\nAuthorization: Basic {basic}\r\n\r\n"
    );
    let reloads = tokio::task::spawn_blocking({
        let world = Arc::clone(&world);
        move || {
            for _ in 0..10 {
                let answer = world.gateway.ask(&Command::Reload);
                assert!(matches!(answer, Answer::Reloaded), "{answer:?}");
            }
        }
    });

    let mut connection = device.connect("intranet.apps.test").await;
    let mut asked = 0;
    while !reloads.is_finished() || asked < 20 {
        asked += 1;
        connection.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut connection).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{asked}: {head}");
        let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        tokio::io::AsyncReadExt::read_exact(&mut connection, &mut body)
            .await
            .unwrap();
    }
    reloads.await.unwrap();
}

/// Requests that hide another one in their body, framing or what follows.
fn shapes(host: &str) -> Vec<String> {
    let hidden = format!("GET /hidden HTTP/1.1\r\n{host}\r\n");
    let size = hidden.len();
    let chunk = format!("{size:x}\r\n{hidden}\r\n0\r\n\r\n");
    let head =
        |method: &str, fields: &str| format!("{method} /TARGET HTTP/1.1\r\n{host}{fields}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut shapes = Vec::new();
    // A body is a body whatever the method.
    for method in [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "TRACE", "X",
    ] {
        shapes.push(head(method, &format!("Content-Length: {size}\r\n")) + &hidden);
        shapes.push(head(method, chunked) + &chunk);
        shapes.push(head(method, "Content-Length: 0\r\n"));
    }
    // What a backend might read instead of the framing, or for another.
    for field in [
        "Content_Length: 0",
        "Transfer_Encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "Connection: Content-Length",
        "Connection: close, Content-Length",
        "Expect: 100-continue",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Trailer: Content-Length",
        "TE: trailers, chunked",
        "Range: bytes=0-1",
        "Content-Encoding: chunked",
    ] {
        shapes.push(head("POST", &format!("Content-Length: {size}\r\n{field}\r\n")) + &hidden);
        shapes.push(head("POST", &format!("{field}\r\nContent-Length: {size}\r\n")) + &hidden);
    }
    // Chunks.
    for body in [
        format!("{size:X};a=b\r\n{hidden}\r\n0;c\r\n\r\n"),
        format!("{size:x};a=\"\t;\"\r\n{hidden}\r\n0\r\nX-T: 1\r\nContent-Length: 5\r\n\r\n"),
        format!("{size:016x}\r\n{hidden}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("{size:017x}\r\n{hidden}\r\n0\r\n\r\n"),
        format!("0x{size:x}\r\n{hidden}\r\n0\r\n\r\n"),
        format!("+{size:x}\r\n{hidden}\r\n0\r\n\r\n"),
        format!("{size:x} \r\n{hidden}\r\n0\r\n\r\n"),
        format!("{size:x}\n{hidden}\r\n0\r\n\r\n"),
        format!("{size:x};\n{hidden}\r\n0\r\n\r\n"),
        format!("2\r\nabc\r\n0\r\n\r\n{hidden}"),
        format!("0\r\n\n{hidden}"),
        format!("0\r\nX: a\n\r\n{hidden}"),
        format!("0\r\n X: a\r\n\r\n{hidden}"),
        format!("ffffffffffffffff\r\n{hidden}"),
        format!("10000000000000000\r\n{hidden}"),
        "-1\r\n\r\n0\r\n\r\n".to_owned(),
    ] {
        shapes.push(head("POST", chunked) + &body);
    }
    // Framings that must be refused.
    for fields in [
        format!("Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {size}\r\n"),
        format!("Content-Length: 0\r\nContent-Length: {size}\r\n"),
        format!("Content-Length: 0,{size}\r\n"),
        "Content-Length: 0x10\r\n".into(),
        "Content-Length: \r\n".into(),
        "Content-Length: 18446744073709551616\r\n".into(),
        "Content-Length : 0\r\n".into(),
        "Transfer-Encoding: chunked, chunked\r\n".into(),
        "Transfer-Encoding: gzip, chunked\r\n".into(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".into(),
        "Transfer-Encoding:\u{b}chunked\r\n".into(),
        "Transfer-Encoding: chun\tked\r\n".into(),
        "Transfer-Encoding\t: chunked\r\n".into(),
        " Transfer-Encoding: chunked\r\n".into(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".into(),
        "X: y\nTransfer-Encoding: chunked\r\n".into(),
        "X: y\rTransfer-Encoding: chunked\r\n".into(),
        "X: y\0\r\n".into(),
        "Transfer-Encoding: \"chunked\"\r\n".into(),
        "Transfer-Encoding: chunked;q=1\r\n".into(),
    ] {
        shapes.push(head("POST", &fields) + &chunk);
        shapes.push(head("GET", &fields) + &hidden);
    }
    // Request lines.
    for line in [
        "GET /TARGET HTTP/1.0",
        "GET /TARGET?a=b%0d%0aX:1 HTTP/1.1",
        "GET  /TARGET HTTP/1.1",
        "GET /TARGET  HTTP/1.1",
        "GET\t/TARGET HTTP/1.1",
        "GET /TARGET HTTP/1.1 ",
        "GET /TARGET HTTP/1.2",
        "GET /TARGET HTTP/1.1\rX: y",
        "GET /TARGET\u{b}HTTP/1.1",
        "get /TARGET HTTP/1.1",
        "GET /TARGET/%2e%2e/%2e%2e HTTP/1.1",
        "GET /TARGET\\..\\hidden HTTP/1.1",
        "GET /TARGET;/../hidden HTTP/1.1",
        "GET /TARGET%00 HTTP/1.1",
        "GET /TARGET%0d%0a%0d%0aGET%20/hidden HTTP/1.1",
        "GET //TARGET HTTP/1.1",
        "CONNECT /TARGET HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ] {
        shapes.push(format!("{line}\r\n{host}\r\n"));
    }
    shapes
}

/// Answers of nodes: each is one that must not be passed on as it is.
const HOSTILE: [&str; 16] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 6\r\n\r\npoison",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\npoison",
    "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nSet-Cookie: __Host-ravelin-app=evil\r\nSet-Cookie: =__Host-ravelin-app=evil\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic realm=\"evil\"\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: evil\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "nothing of the kind\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 6, 2\r\n\r\npoison",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Evil\r\nX-Evil: evil\r\nContent-Length: 0\r\n\r\n",
];

fn app(name: &str, backend: SocketAddr) -> String {
    format!(
        "[pool.{name}]\nnodes = [\"http://{backend}\"]\ncheck = {{ type = \"none\" }}\n\
         [app.{name}]\nhost = \"{name}.apps.test\"\npool = \"{name}\"\nauthorization = \"backend\"\n"
    )
}

/// A backend that takes requests exactly as RFC 9112 frames them, and keeps their heads.
struct Recorder {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start() -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        let address = raw_backend(move |mut stream| {
            while let Some((head, _body)) = read_request(&mut stream) {
                let bodiless = head.starts_with("HEAD ");
                kept.lock().unwrap().push(head);
                let body = if bodiless { "" } else { "ok" };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { address, heads }
    }

    /// A gateway with this backend as the app `xm`, with a login of its own.
    fn world(&self) -> World {
        World::build(&[self.address], |_| app("xm", self.address))
    }

    /// Sends raw bytes, and gives the heads that arrived. The request asks for a close.
    async fn heads_of(&self, world: &World, request: &str) -> Vec<String> {
        let device = Device::new(world.gateway.address, &world.authority(), &[]);
        let mut connection = device.connect("xm.apps.test").await;
        connection.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(read_all(&mut connection).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        self.heads.lock().unwrap().clone()
    }

    fn paths(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        let mut paths: Vec<String> = heads.iter().map(|head| path_of(head)).collect();
        paths.sort_unstable();
        paths
    }
}

fn path_of(head: &str) -> String {
    let target = head.split(' ').nth(1).unwrap_or_default();
    target.split('?').next().unwrap_or_default().to_owned()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The next request: its head with its trailers, and its body.
fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let head = read_until(stream, b"\r\n\r\n")?;
    let mut body = Vec::new();
    if field(&head, "transfer-encoding") == Some("chunked") {
        loop {
            let line = read_until(stream, b"\r\n")?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            if size == 0 {
                let mut head = head;
                loop {
                    let trailer = read_until(stream, b"\r\n")?;
                    if trailer == "\r\n" {
                        return Some((head, body));
                    }
                    head += &trailer;
                }
            }
            body.extend(read_exactly(stream, size)?);
            read_exactly(stream, 2)?;
        }
    } else if let Some(length) = field(&head, "content-length") {
        body = read_exactly(stream, length.parse().ok()?)?;
    }
    Some((head, body))
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.extend(read_exactly(stream, 1)?);
    }
    String::from_utf8(bytes).ok()
}

fn read_exactly(stream: &mut TcpStream, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
