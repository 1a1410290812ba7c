//! What nodes may say and what they may not: nobody gets an answer that was meant for another.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::super::{Answered, Error};
use super::world::{Counter, World, all, answer, body, get, head, node, post, read, until};
use crate::{
    shutdown::Tasks,
    web::{self, Body},
};

/// A node that says the same to every request; `#` is the number of its connection.
async fn says(tasks: &Tasks, text: &str) -> World {
    let text = text.to_owned();
    let address = node(tasks, move |number, mut stream| {
        let text = text.replace('#', &number.to_string());
        async move {
            while head(&mut stream).await.is_some() {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    World::new(&[address.await])
}

fn is_reused(forwarded: &Answered) -> bool {
    forwarded.served.reused
}

#[tokio::test]
async fn an_answer_that_can_be_framed_in_two_ways_is_refused() {
    let tasks = Tasks::new();
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
    ] {
        let world = says(&tasks, &format!("HTTP/1.1 200 OK\r\n{fields}\r\nhello!")).await;
        let error = world.get("/").await.unwrap_err();
        assert!(
            matches!(error, Error::Framing { .. }),
            "{fields}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_framing_that_is_said_twice_is_taken_once_and_its_connection_not_kept() {
    let tasks = Tasks::new();
    for (fields, text) in [
        ("Content-Length: 1\r\nContent-Length: 1\r\n", "#"),
        ("Content-Length: 1, 1\r\n", "#"),
        (
            "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n",
            "1\r\n#\r\n0\r\n\r\n",
        ),
    ] {
        let world = says(&tasks, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n{text}")).await;
        assert_eq!(world.get("/").await.unwrap().1, "0", "{fields}");
        assert_eq!(world.get("/").await.unwrap().1, "1", "{fields}");
    }
}

#[tokio::test]
async fn heads_that_others_read_differently_are_no_answers() {
    let tasks = Tasks::new();
    for text in [
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\u{0}\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(201)),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(1 << 16)),
    ] {
        let error = says(&tasks, &text).await.get("/").await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn heads_of_old_and_of_talkative_nodes_pass() {
    let tasks = Tasks::new();
    for text in [
        "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n#".to_owned(),
        "HTTP/1.1 200 \r\nEmpty:\r\nContent-Length:   1  \r\n\r\n#".to_owned(),
        "HTTP/1.1 200 \u{fc}bel gut\r\nContent-Length: 1\r\n\r\n#".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n001;a=\"b\"\r\n#\r\n0;c\r\n\r\n"
            .to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{}\r\n#",
            "X: a\r\n".repeat(199)
        ),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: {}\r\n\r\n#",
            "a".repeat(60_000)
        ),
    ] {
        let world = says(&tasks, &text).await;
        for _ in 0..2 {
            assert_eq!(world.get("/").await.unwrap(), (200, "0".into()), "{text}");
        }
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_poison_nobody() {
    let tasks = Tasks::new();
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for text in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n#{evil}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n#\r\n0\r\n\r\n{evil}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n#\r\n".to_owned(),
    ] {
        let world = says(&tasks, &text).await;
        for number in ["0", "1", "2"] {
            assert_eq!(
                world.get("/").await.unwrap(),
                (200, number.into()),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn bodies_where_there_can_be_none_poison_nobody() {
    let tasks = Tasks::new();
    for (method, text) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let world = says(&tasks, text).await;
        for _ in 0..3 {
            let request = Request::builder()
                .method(method)
                .uri("/")
                .body(Body::empty());
            let forwarded = world.forward(request.unwrap()).await.unwrap();
            assert!(!is_reused(&forwarded), "{method} {text}");
            assert_eq!(read(forwarded.answer.response).await.1, "");
        }
    }
}

#[tokio::test]
async fn a_node_that_answers_before_it_is_asked_is_not_believed() {
    let (tasks, said) = (Tasks::new(), Counter::default());
    let counter = said.clone();
    let address = node(&tasks, move |number, mut stream| {
        let counter = counter.clone();
        async move {
            while head(&mut stream).await.is_some() {
                answer(&mut stream, "200 OK", &number.to_string()).await;
                if number == 0 {
                    // Behind the answer, when the connection is kept already.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    answer(&mut stream, "200 OK", "evil").await;
                    counter.add();
                }
            }
        }
    })
    .await;
    let world = World::new(&[address]);
    assert_eq!(world.get("/").await.unwrap().1, "0");
    until(|| said.get() == 1).await;
    // The runtime has to hear of it from the kernel.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let again = world.forward(post("/", "x")).await.unwrap();
    assert!(!is_reused(&again));
    assert_eq!(read(again.answer.response).await.1, "1");
}

#[tokio::test]
async fn a_kept_connection_that_the_node_closed_fails_nobody() {
    let (tasks, closed) = (Tasks::new(), Counter::default());
    let counter = closed.clone();
    let address = node(&tasks, move |number, mut stream| {
        let counter = counter.clone();
        async move {
            let head = head(&mut stream).await.unwrap();
            body(&mut stream, &head).await;
            answer(&mut stream, "200 OK", &number.to_string()).await;
            drop(stream);
            counter.add();
        }
    })
    .await;
    let world = World::new(&[address]);
    for number in 0..3 {
        // Such a request could not be tried again.
        let forwarded = world.forward(post("/", "x")).await.unwrap();
        assert_eq!(forwarded.served.failed, 0);
        let text = read(forwarded.answer.response).await.1;
        assert_eq!(text, number.to_string());
        until(|| closed.get() == number + 1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over_but_not_for_ever() {
    let tasks = Tasks::new();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(20);
    let world = says(
        &tasks,
        &format!(
            "HTTP/1.1 100 Continue\r\n\r\n{hints}HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n#"
        ),
    )
    .await;
    for _ in 0..2 {
        assert_eq!(world.get("/").await.unwrap(), (200, "0".into()));
    }

    let large = format!("X: {}\r\n", "a".repeat(4000));
    for fields in ["", &large] {
        let text = format!("HTTP/1.1 102 Processing\r\n{fields}\r\n");
        let address = node(&tasks, move |_, mut stream| {
            let text = text.clone();
            async move {
                head(&mut stream).await;
                while stream.write_all(text.as_bytes()).await.is_ok() {}
            }
        });
        let error = World::new(&[address.await]).get("/").await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn broken_chunks_break_the_answer_off() {
    let tasks = Tasks::new();
    for chunks in [
        "fffffffffffffffff\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\r\n-1\r\n",
        "1\r\na\r\n0\r\nX : y\r\n\r\n",
        "1\na\n0\n\n",
        "5\r\nabc",
    ] {
        let address = node(&tasks, move |_, mut stream| async move {
            head(&mut stream).await;
            let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.write_all(chunks.as_bytes()).await.unwrap();
        });
        let world = World::new(&[address.await]);
        let answer = world.send(get("/")).await.unwrap().response;
        let error = all(answer).await.unwrap_err();
        assert!(
            matches!(error, web::body::Error::Backend(_)),
            "{chunks}: {error:?}"
        );
        assert!(
            !is_reused(&world.forward(get("/")).await.unwrap()),
            "{chunks}"
        );
    }
}

#[tokio::test]
async fn an_answer_may_end_with_its_connection() {
    let tasks = Tasks::new();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let address = node(&tasks, move |number, mut stream| async move {
            head(&mut stream).await;
            let text = format!("{version} 200 OK\r\nConnection: keep-alive\r\n\r\n{number}");
            stream.write_all(text.as_bytes()).await.unwrap();
        });
        let world = World::new(&[address.await]);
        for number in ["0", "1"] {
            assert_eq!(world.get("/").await.unwrap(), (200, number.into()));
        }
    }
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole_however_they_are_framed() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream: TcpStream| async move {
        while let Some(head) = head(&mut stream).await {
            let mut parts = head.split([' ', '/']);
            let (kind, size) = (parts.nth(2).unwrap(), parts.next().unwrap());
            let bytes = pattern(size.parse().unwrap());
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            if kind == "length" {
                text.extend(format!("Content-Length: {size}\r\n\r\n").bytes());
                text.extend(bytes);
            } else {
                text.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in bytes.chunks(10_000) {
                    text.extend(format!("{:X}\r\n", chunk.len()).bytes());
                    text.extend(chunk);
                    text.extend(b"\r\n");
                }
                text.extend(b"0\r\n\r\n");
            }
            stream.write_all(&text).await.unwrap();
        }
    });
    let world = World::new(&[address.await]);
    for size in [0, 1, 8_000, 8_192, 8_193, 65_536, 70_000, 1_000_000] {
        for kind in ["length", "chunked"] {
            let path = format!("/{kind}/{size}");
            let forwarded = world.forward(get(&path)).await.unwrap();
            let got = all(forwarded.answer.response).await.unwrap().to_bytes();
            assert!(got == pattern(size), "{path}");
        }
    }
    // One connection has served them all.
    assert!(is_reused(&world.forward(get("/length/0")).await.unwrap()));
}

/// Bytes in which no two neighbours repeat.
fn pattern(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

#[tokio::test]
async fn both_bodies_flow_at_once() {
    let tasks = Tasks::new();
    let address = node(&tasks, |number, mut stream| async move {
        while head(&mut stream).await.is_some() {
            let text =
                format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Length: 4000000\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut (&mut read).take(4_000_000), &mut write)
                .await
                .unwrap();
        }
    });
    let world = World::new(&[address.await]);
    for _ in 0..2 {
        let bytes = Bytes::from(pattern(4_000_000));
        let block = |i: usize| Ok(Frame::data(bytes.slice(i * 4000..(i + 1) * 4000)));
        let blocks: Vec<_> = (0..1000).map(block).collect();
        let request = Request::post("/")
            .header("content-length", "4000000")
            .body(Body::stream(StreamBody::new(futures_util::stream::iter(
                blocks,
            ))));
        let sent = world.send(request.unwrap());
        let answer = timeout(Duration::from_secs(20), sent)
            .await
            .unwrap()
            .unwrap();
        // The request was complete before its answer was: the connection is kept.
        assert_eq!(answer.response.headers()["x-number"], "0");
        let got = all(answer.response).await.unwrap().to_bytes();
        assert!(got == bytes);
    }
}

#[tokio::test]
async fn a_node_that_is_still_sent_to_is_not_silent() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        head(&mut stream).await.unwrap();
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(text).await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"ok").await.unwrap();
    });
    let mut world = World::new(&[address.await]);
    world.app.progress = Duration::from_millis(400);
    // Longer than that in all, and never for so long without a byte.
    let blocks = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (sent < 8).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
    });
    let request = Request::post("/")
        .header("content-length", "8")
        .body(Body::stream(StreamBody::new(Box::pin(blocks))));
    let answer = world.send(request.unwrap()).await.unwrap();
    assert_eq!(all(answer.response).await.unwrap().to_bytes(), "ok");
}

#[tokio::test]
async fn a_body_without_a_length_is_sent_in_chunks_with_its_trailers() {
    let tasks = Tasks::new();
    let address = node(&tasks, |_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        let mut chunks = Vec::new();
        while !chunks.ends_with(b"x-sum: 7\r\n\r\n") {
            chunks.push(stream.read_u8().await.unwrap());
        }
        answer(
            &mut stream,
            "200 OK",
            &(head + &String::from_utf8(chunks).unwrap()),
        )
        .await;
    });
    let world = World::new(&[address.await]);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let frames = [
        Ok(Frame::data("data".into())),
        Ok(Frame::trailers(trailers)),
    ];
    let frames = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::put("/").body(Body::stream(frames)).unwrap();
    let (_, text) = read(world.send(request).await.unwrap().response).await;
    assert_eq!(
        text,
        "PUT / HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n\
         4\r\ndata\r\n0\r\nx-sum: 7\r\n\r\n"
    );
}

#[tokio::test]
async fn a_body_that_does_not_fit_its_length_is_the_devices_fault() {
    let tasks = Tasks::new();
    let world = says(&tasks, "").await;
    for (length, frames) in [("3", &["ab", "cd"][..]), ("5", &["ab", "cd"])] {
        let frames = frames.iter().map(|&text| Ok(Frame::data(text.into())));
        let frames: Vec<_> = frames.collect();
        let request = Request::put("/")
            .header("content-length", length)
            .body(Body::stream(StreamBody::new(futures_util::stream::iter(
                frames,
            ))));
        let error = world.send(request.unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{length}: {error:?}");
    }
}
