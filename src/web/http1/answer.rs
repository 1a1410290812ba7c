//! Writes answers: head, framing, and body as it comes.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::web::{Body, body, date};

/// What of a request decides how its answer is framed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// `HEAD`: the answer has no body, whatever it says.
    pub(super) head: bool,
    /// `CONNECT`.
    pub(super) connect: bool,
    /// 1.0 or 1.1.
    pub(super) version: Version,
}

impl Facts {
    /// After an answer with this status the bytes are no HTTP any more (rule R18).
    pub(super) fn takes_over(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || self.connect && status.is_success()
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Sending {
    body: Body,
    encoding: Encoding,
    over: bool,
}

/// How the device finds the end of an answer (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Chunked,
    /// By the end of the connection: HTTP/1.0.
    Close,
    /// So many bytes to come.
    Length(u64),
}

impl Sending {
    /// Writes the head into `output`. Of the answer's own framing fields only a length is used.
    pub(super) fn start(
        response: Response<Body>,
        facts: &Facts,
        close: bool,
        output: &mut Output,
    ) -> Self {
        let (parts, mut body) = response.into_parts();
        let status = parts.status;
        let raw = facts.takes_over(status);
        let lengthless = raw || status.is_informational() || status == StatusCode::NO_CONTENT;
        let bodiless = lengthless || facts.head || status == StatusCode::NOT_MODIFIED;

        let declared = content_length(&parts.headers);
        let length = match body.size_hint().exact() {
            // Without a body in hand, its size says nothing about the one that is meant.
            Some(0) if bodiless => declared,
            Some(length) => Some(length),
            None => declared,
        };
        let encoding = match length {
            _ if bodiless => Encoding::Length(0),
            Some(length) => Encoding::Length(length),
            None if facts.version == Version::HTTP_11 => Encoding::Chunked,
            None => Encoding::Close,
        };
        let length = length.filter(|_length| !lengthless);
        let close = (close || encoding == Encoding::Close) && !raw;

        output.head(status, &parts.headers, encoding == Encoding::Chunked);
        if let Some(length) = length {
            write_length(&mut output.front, length);
        } else if encoding == Encoding::Chunked {
            output.push(b"transfer-encoding: chunked\r\n");
        }
        let upgrade = parts.headers.contains_key(UPGRADE) && keeps_upgrade(status);
        match (close, upgrade) {
            (true, true) => output.push(b"connection: close, upgrade\r\n"),
            (true, false) => output.push(b"connection: close\r\n"),
            (false, true) => output.push(b"connection: upgrade\r\n"),
            (false, false) if facts.version == Version::HTTP_10 => {
                output.push(b"connection: keep-alive\r\n");
            }
            (false, false) => {}
        }
        if !parts.headers.contains_key(DATE) && !status.is_informational() {
            output.date();
        }
        output.push(b"\r\n");

        if bodiless {
            body = Body::empty();
        }
        Self {
            body,
            encoding,
            over: bodiless,
        }
    }

    /// The device finds the end of the answer by the end of the connection.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.encoding == Encoding::Close
    }

    /// Writes as far as body and device allow; ready when the device has everything.
    pub(super) fn poll<S>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
        output: &mut Output,
    ) -> Poll<Result<(), Failure>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            let mut starved = false;
            while !self.over && !starved && output.has_room() {
                match Pin::new(&mut self.body).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => self.data(data, output)?,
                        Err(frame) => self.end(frame.into_trailers().ok().as_ref(), output)?,
                    },
                    Poll::Ready(None) => self.end(None, output)?,
                    Poll::Ready(Some(Err(error))) => {
                        // The device is to see that an answer broke off, not that there is none.
                        let _unsent = output.poll(context, stream);
                        return Poll::Ready(Err(Failure::Body(error)));
                    }
                    Poll::Pending => starved = true,
                }
            }
            ready!(output.poll(context, stream)).map_err(Failure::Device)?;
            if self.over {
                return Poll::Ready(Ok(()));
            }
            if starved {
                return Poll::Pending;
            }
        }
    }

    fn data(&mut self, data: Bytes, output: &mut Output) -> Result<(), Failure> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.encoding {
            Encoding::Close => output.data(data, b""),
            Encoding::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Failure::Length("longer"))?;
                self.over = *left == 0;
                output.data(data, b"");
            }
            Encoding::Chunked => {
                self.over = self.body.is_end_stream();
                output.chunk(data, self.over);
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, output: &mut Output) -> Result<(), Failure> {
        self.over = true;
        match self.encoding {
            Encoding::Close | Encoding::Length(0) => {}
            Encoding::Length(_) => return Err(Failure::Length("shorter")),
            Encoding::Chunked => output.last_chunk(trailers),
        }
        Ok(())
    }
}

/// Bytes that wait for a peer: a front that gathers small things, and one large block.
#[derive(Debug, Default)]
pub(crate) struct Output {
    front: Vec<u8>,
    sent: usize,
    data: Bytes,
    tail: &'static [u8],
    unflushed: bool,
    moved: u64,
}

impl Output {
    /// Adds a few bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.front.capacity() == 0 {
            self.front.reserve(FRONT);
        }
        self.front.extend_from_slice(bytes);
    }

    /// Everything has been taken, and is on its way.
    pub(super) fn is_empty(&self) -> bool {
        !self.unflushed
            && self.sent == self.front.len()
            && self.data.is_empty()
            && self.tail.is_empty()
    }

    /// Bytes taken so far.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// Writes and flushes all that is there.
    pub(crate) fn poll<S>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            let front = self.front.get(self.sent..).unwrap_or_default();
            let parts = [front, &self.data, self.tail];
            let mut slices = [IoSlice::new(&[]); 3];
            let mut count = 0;
            for (slice, part) in slices
                .iter_mut()
                .zip(parts.into_iter().filter(|part| !part.is_empty()))
            {
                *slice = IoSlice::new(part);
                count += 1;
            }
            let stream = Pin::new(&mut *stream);
            let written = match slices.get(..count).unwrap_or_default() {
                [] => break,
                [only] => ready!(stream.poll_write(context, only))?,
                several => ready!(stream.poll_write_vectored(context, several))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.consume(written);
        }
        self.front.clear();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, mut written: usize) {
        self.moved = self.moved.wrapping_add(written as u64);
        let front = written.min(self.front.len().saturating_sub(self.sent));
        self.sent = self.sent.saturating_add(front);
        written = written.saturating_sub(front);
        let data = written.min(self.data.len());
        self.data.advance(data);
        if self.data.is_empty() {
            // Gives its memory back to whoever reads the backend.
            self.data = Bytes::new();
        }
        let tail = written.saturating_sub(data);
        self.tail = self.tail.get(tail..).unwrap_or_default();
    }

    /// The last large block is on its way.
    pub(crate) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.front.len() < FRONT_LIMIT
    }

    /// Tiny blocks join the front. With others it is one record and one system call as well: the
    /// record is where their bytes are copied to.
    pub(crate) fn data(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPY {
            self.push(&data);
            self.push(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    fn head(&mut self, status: StatusCode, headers: &HeaderMap, chunked: bool) {
        self.push(b"HTTP/1.1 ");
        self.push(status.as_str().as_bytes());
        self.push(b" ");
        self.push(status.canonical_reason().unwrap_or_default().as_bytes());
        self.push(b"\r\n");
        for (name, value) in headers {
            let ours = OURS.contains(name)
                || name == UPGRADE && !keeps_upgrade(status)
                || name == TRAILER && !chunked;
            if !ours {
                self.field(name, value.as_bytes());
            }
        }
    }

    /// Adds a field of a head, or a trailer.
    pub(crate) fn field(&mut self, name: &HeaderName, value: &[u8]) {
        self.push(name.as_str().as_bytes());
        self.push(b": ");
        self.push(value);
        self.push(b"\r\n");
    }

    /// Adds a chunk. The end goes with the last one where that is known, in one record.
    pub(crate) fn chunk(&mut self, data: Bytes, last: bool) {
        // Writing into memory cannot fail.
        let _written = write!(self.front, "{:x}\r\n", data.len());
        self.data(data, if last { LAST } else { b"\r\n" });
    }

    /// Adds the end of chunks, with trailers.
    pub(crate) fn last_chunk(&mut self, trailers: Option<&HeaderMap>) {
        self.push(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            self.field(name, value.as_bytes());
        }
        self.push(b"\r\n");
    }

    fn date(&mut self) {
        self.push(b"date: ");
        self.push(date::now().as_bytes());
        self.push(b"\r\n");
    }
}

/// The answer itself asks for the end of the connection.
pub(super) fn asks_to_close(response: &Response<Body>) -> bool {
    response
        .headers()
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Why an answer was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Its body failed.
    #[error("the answer's body broke off")]
    Body(#[source] body::Error),
    /// The device went, or took nothing for too long.
    #[error("the device did not take the answer")]
    Device(#[source] io::Error),
    /// Its body does not fit its length.
    #[error("the answer's body is {0} than its Content-Length")]
    Length(&'static str),
}

fn keeps_upgrade(status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || status == StatusCode::UPGRADE_REQUIRED
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (Some(length), None) => length
            .to_str()
            .ok()
            .filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|length| length.parse().ok()),
        _ => None,
    }
}

fn write_length(front: &mut Vec<u8>, length: u64) {
    // Writing into memory cannot fail.
    let _written = write!(front, "content-length: {length}\r\n");
}

/// Fields that say how this connection works: written from what is done, never passed on.
static OURS: [HeaderName; 6] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
];

/// The end of a chunk that is the last one.
const LAST: &[u8] = b"\r\n0\r\n\r\n";
/// Heads and small bodies fit.
const FRONT: usize = 1024;
const FRONT_LIMIT: usize = 16 * 1024;
/// Up to here copying is cheaper than a list of parts.
const COPY: usize = 256;
