//! The WebSocket of the stand-in intranet: echoes every frame (RFC 6455).

use std::{io, time::Duration};

use data_encoding::BASE64;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::site::{self, Reply};
use crate::{crypto, shutdown::Tasks};

/// Answers the handshake (RFC 6455, section 4.2); the echo runs as a task.
///
/// With the query `greet`, the other end hears one sentence and the closing frame, which lets a
/// program without WebSocket, such as an old curl, show that the upgrade works.
pub(super) fn accept(mut request: Request<Incoming>, tasks: &Tasks) -> Reply {
    let headers = request.headers();
    let is = |name, wanted: &str| {
        let value = headers.get(name).map(HeaderValue::as_bytes);
        value.is_some_and(|value| value.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let (true, true, Some(key)) = (
        is(header::UPGRADE, "websocket"),
        is(header::SEC_WEBSOCKET_VERSION, "13"),
        key,
    ) else {
        let mut reply = site::text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
        let headers = reply.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        return reply;
    };
    let accept = HeaderValue::try_from(accept_value(key.as_bytes()));
    let greet = request.uri().query() == Some("greet");
    let upgrade = hyper::upgrade::on(&mut request);
    drop(tasks.spawn(async move {
        if let Ok(Ok(upgraded)) = timeout(HANDSHAKE, upgrade).await {
            // The other end may break off whenever it likes.
            let _ended = speak(TokioIo::new(upgraded), greet).await;
        }
    }));
    let mut reply = site::text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = reply.headers_mut();
    headers.clear();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = accept {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    reply
}

async fn speak(mut stream: TokioIo<Upgraded>, greet: bool) -> io::Result<()> {
    if greet {
        write(&mut stream, FINAL | TEXT, b"hello from the WebSocket\n").await?;
        write(&mut stream, FINAL | CLOSE, &1000_u16.to_be_bytes()).await?;
        return stream.shutdown().await;
    }
    while let Some(frame) = timeout(IDLE, read(&mut stream)).await?? {
        match frame.head & OPCODE {
            CLOSE => {
                write(&mut stream, frame.head, &frame.payload).await?;
                return stream.shutdown().await;
            }
            PING => write(&mut stream, FINAL | PONG, &frame.payload).await?,
            PONG => {}
            // Parts of a message go back as the parts that they are.
            _data => write(&mut stream, frame.head, &frame.payload).await?,
        }
    }
    Ok(())
}

struct Frame {
    head: u8,
    payload: Vec<u8>,
}

/// One frame, unmasked (RFC 6455, section 5.2); `None` when it breaks the protocol.
async fn read(stream: &mut TokioIo<Upgraded>) -> io::Result<Option<Frame>> {
    let head = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let masked = second & 0x80 != 0;
    let Some(length) = usize::try_from(length).ok().filter(|&n| n <= PAYLOAD) else {
        return Ok(None);
    };
    if !masked || head & RESERVED != 0 {
        return Ok(None);
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(Frame { head, payload }))
}

async fn write(stream: &mut TokioIo<Upgraded>, head: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![head];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    timeout(IDLE, stream.write_all(&frame)).await??;
    stream.flush().await
}

fn accept_value(key: &[u8]) -> String {
    let hash = crypto::sha1(&[key, GUID].concat());
    BASE64.encode(hash.as_ref())
}

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const HANDSHAKE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(3600);
const PAYLOAD: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_section_1_3_is_accepted_as_it_says() {
        assert_eq!(
            accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
