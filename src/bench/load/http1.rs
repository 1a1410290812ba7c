//! HTTP/1.1 as a client that knows what it asked for: a status, a length, so many bytes.

use std::{io, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Run, Tally,
    wire::{Io, Wire, because},
};
use crate::bench::job::{Connect, Target, Work};

/// A kept connection.
pub(super) struct Client {
    pub(super) wire: Wire,
    buffer: Vec<u8>,
    request: Arc<[u8]>,
    /// The units are bytes, not requests.
    bulk: bool,
}

impl Client {
    /// What a work asks again and again over a connection.
    pub(super) fn new(wire: Wire, request: Arc<[u8]>, work: Work) -> Self {
        let bulk = work == Work::Download;
        Self {
            wire,
            buffer: vec![0; if bulk { LARGE_BUFFER } else { BUFFER }],
            request,
            bulk,
        }
    }

    /// Requests one after another, until the run is over.
    pub(super) async fn run(&mut self, run: &Run, tally: &mut Tally) -> io::Result<()> {
        tally.negotiated = self.wire.negotiated;
        run.repeat(self.bulk, tally, async || {
            exchange(&mut *self.wire.io, &self.request, &mut self.buffer).await
        })
        .await
    }
}

/// A request and its whole answer: the bytes of its body. `buffer` has room for the head.
///
/// # Errors
///
/// When the connection is lost, or the answer is not 2xx or not as long as it says.
pub(super) async fn exchange(
    io: &mut dyn Io,
    request: &[u8],
    buffer: &mut [u8],
) -> io::Result<u64> {
    let (head, filled) = answer(io, request, buffer).await?;
    let size = head
        .length
        .ok_or_else(|| wrong("an answer without a length"))?;
    let mut left = size.checked_sub((filled - head.end) as u64);
    while let Some(1..) = left {
        let count = io.read(buffer).await.map_err(because("read a body"))?;
        if count == 0 {
            return Err(wrong("a body was cut short"));
        }
        left = left.and_then(|left| left.checked_sub(count as u64));
    }
    match left {
        Some(_) => Ok(size),
        None => Err(wrong("more was answered than was asked")),
    }
}

/// Asks for a tunnel: what follows are its bytes.
///
/// # Errors
///
/// When it is refused.
pub(super) async fn connect(io: &mut dyn Io, connect: &Connect) -> io::Result<()> {
    let Connect {
        authority,
        authorization,
    } = connect;
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(value) = authorization {
        request.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut buffer = [0; BUFFER];
    let (head, filled) = answer(io, request.as_bytes(), &mut buffer).await?;
    if filled > head.end {
        return Err(wrong("the tunnel's other end spoke first"));
    }
    Ok(())
}

/// The bytes of a request for the target's path; `last` asks the gateway to close after it.
pub(super) fn request(target: &Target, last: bool) -> Arc<[u8]> {
    let mut text = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", target.path, target.host);
    for (name, value) in &target.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if last {
        text.push_str("Connection: close\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes().into()
}

/// Sends a request and reads a head; with it comes how much of the buffer is filled.
async fn answer(io: &mut dyn Io, request: &[u8], buffer: &mut [u8]) -> io::Result<(Head, usize)> {
    let send = async {
        io.write_all(request).await?;
        io.flush().await
    };
    send.await.map_err(because("send a request"))?;
    let mut filled = 0;
    loop {
        let space = buffer.get_mut(filled..).unwrap_or_default();
        let count = io.read(space).await.map_err(because("read an answer"))?;
        if count == 0 {
            return Err(wrong("closed before the end of a head"));
        }
        filled += count;
        if let Some(head) = Head::read(buffer.get(..filled).unwrap_or_default())? {
            return Ok((head, filled));
        }
    }
}

/// What matters of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Where the body begins.
    end: usize,
    /// Bytes of the body, when it says.
    length: Option<u64>,
}

impl Head {
    /// The head in the buffer, when it is whole.
    fn read(buffer: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = str::from_utf8(buffer.get(..end).unwrap_or_default());
        let mut lines = text.map_err(io::Error::other)?.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let code = status.strip_prefix("HTTP/1.1 ").unwrap_or_default();
        if !code.starts_with('2') {
            return Err(wrong(&format!("answered {status:?}")));
        }
        let mut head = Self {
            end: end + 4,
            length: None,
        };
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.trim().parse().ok();
            }
        }
        Ok(Some(head))
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(what)
}

/// Room for a head and a small body.
const BUFFER: usize = 8 * 1024;
const LARGE_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_its_body_begins_and_how_long_it_is() {
        let bytes = b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-length: 5\r\n\r\nhello";

        let head = Head::read(bytes).unwrap().unwrap();

        assert_eq!(head.end, bytes.len() - 5);
        assert_eq!(head.length, Some(5));
        assert_eq!(
            Head::read(b"HTTP/1.1 200 OK\r\nserver: x\r\n").unwrap(),
            None
        );
    }

    #[test]
    fn an_answer_that_is_no_success_is_told_with_its_status() {
        let error = Head::read(b"HTTP/1.1 503 Busy\r\n\r\n").unwrap_err();

        assert_eq!(error.to_string(), "answered \"HTTP/1.1 503 Busy\"");
    }
}
