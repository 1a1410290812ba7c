//! HTTP/1.1 to a node: one connection, driven by whoever has a request on it.
//!
//! There is no task behind a connection. While it is kept it is a socket and nothing more; what
//! arrives meanwhile is seen when it is looked at, by the sweep or before its next request.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::download::{Download, Rest};
pub(super) use self::upload::{Head, Upload};
use super::{
    body::Receiving,
    connection::{Home, Owner},
};
use crate::{
    dial,
    web::{
        Body, body, chunked,
        head::{
            self, Scanner,
            response::{self, Framing},
        },
    },
};

mod block;
mod download;
mod upload;

/// An HTTP/1.1 connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Http1 {
    stream: dial::Stream,
    /// What was read and not used yet. Without memory while nothing comes.
    buffer: BytesMut,
    /// What the next read has room for.
    block: usize,
    pub(super) address: SocketAddr,
    /// It has served another request before.
    pub(super) reused: bool,
    /// A byte of an answer to this request has come.
    pub(super) answered: bool,
    /// It may serve others after this request.
    pub(super) keep: bool,
    /// Who alone may use it, once a login was tied to it.
    pub(super) owner: Option<Owner>,
    /// That login is not complete.
    pub(super) in_login: bool,
}

/// An answer whose head is there.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: response::Head,
    /// The body, when all of it is there.
    pub(super) whole: Option<Bytes>,
}

impl Http1 {
    /// A connection that was just made.
    pub(super) fn new(stream: dial::Stream, address: SocketAddr) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            block: block::SIZE,
            address,
            reused: false,
            answered: false,
            keep: true,
            owner: None,
            in_login: false,
        }
    }

    /// Sends a request, and waits for the head of its answer. While the request moves the node is
    /// not silent; else it may be so for `limit`. The rest of the request goes with the body.
    ///
    /// # Errors
    ///
    /// When there is no answer, or none that can be understood.
    pub(super) async fn ask(
        &mut self,
        method: &Method,
        upload: &mut Upload,
        limit: Duration,
    ) -> Result<Answer, Broken> {
        self.answered = false;
        let mut reading = Reading::default();
        let mut failed = None;
        let mut moved = 0;
        let mut timer = pin!(sleep(limit));
        poll_fn(|context| {
            loop {
                if failed.is_none()
                    && let Poll::Ready(Err(error)) = upload.poll(context, &mut self.stream)
                {
                    if !matches!(error, Broken::Write(_)) {
                        return Poll::Ready(Err(error));
                    }
                    // The node may have answered before it closed.
                    self.keep = false;
                    failed = Some(error);
                }
                match self.poll_head(context, method, &mut reading) {
                    Poll::Ready(Ok((head, _))) if is_interim(head.status) => {
                        if head.status == StatusCode::CONTINUE {
                            upload.let_go();
                        }
                    }
                    Poll::Ready(Ok((head, rest))) => {
                        self.keep &= head.keep_alive && !upload.is_held_back();
                        return Poll::Ready(Ok(self.settle(head, rest)));
                    }
                    Poll::Ready(Err(error)) => {
                        let lost = matches!(error, Broken::Closed | Broken::Read(_));
                        let first = failed.take().filter(|_| lost);
                        return Poll::Ready(Err(first.unwrap_or(error)));
                    }
                    Poll::Pending => break,
                }
            }
            while timer.as_mut().poll(context).is_ready() {
                if upload.moved() == moved {
                    return Poll::Ready(Err(Broken::Silent(limit)));
                }
                moved = upload.moved();
                timer.as_mut().reset(Instant::now() + limit);
            }
            Poll::Pending
        })
        .await
    }

    /// The next head, interim ones too, and what may be the start of its body.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        method: &Method,
        reading: &mut Reading,
    ) -> Poll<Result<(response::Head, Bytes), Broken>> {
        loop {
            let limits = head_limits();
            let Some(length) = reading.scanner.advance(&self.buffer, &limits)? else {
                if ready!(self.poll_fill(context)).map_err(Broken::Read)? == 0 {
                    return Poll::Ready(Err(Broken::Closed));
                }
                self.answered = true;
                if !response::Head::can_begin(&self.buffer) {
                    return Poll::Ready(Err(response::Error::StatusLine.into()));
                }
                continue;
            };
            // Values of fields share these bytes, so they are not those of the block. A small
            // answer is all here, and copied with its head.
            let copied = match self.buffer.len() {
                small @ ..=SMALL => small,
                _ => length,
            };
            let mut rest = Bytes::copy_from_slice(self.buffer.get(..copied).unwrap_or_default());
            let head = response::Head::parse(&rest.split_to(length), method, &limits)?;
            self.buffer.advance(length);
            if is_interim(head.status) {
                reading.pass_over(length)?;
            }
            return Poll::Ready(Ok((head, rest)));
        }
    }

    /// Sees whether the whole answer is there already.
    fn settle(&mut self, head: response::Head, mut rest: Bytes) -> Answer {
        let length = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Chunked | Framing::Close => usize::MAX,
        };
        let whole = (length <= rest.len()).then(|| {
            self.buffer.advance(length);
            rest.truncate(length);
            rest
        });
        Answer { head, whole }
    }

    /// The body of an answer: `home` gets the connection at its end. `limit` is the time without a
    /// byte of it.
    pub(super) fn body(
        self: Box<Self>,
        whole: Option<Bytes>,
        framing: Framing,
        upload: Upload,
        home: Option<Home>,
        (limit, stop): (Duration, Option<&CancellationToken>),
    ) -> Body {
        if let Some(whole) = whole {
            if let (true, Some(home)) = (upload.is_sent(), home) {
                home.take_back(self);
            }
            return Body::full(whole);
        }
        let unsent = !upload.is_sent() && !upload.is_held_back();
        let download = Download {
            connection: self,
            upload: unsent.then(|| Box::new(upload)),
            rest: Rest::new(framing),
            home,
        };
        Receiving::start(download, limit, stop)
    }

    /// The bare connection, and what was read behind the head of a 101.
    pub(super) fn into_raw(mut self) -> (dial::Stream, Bytes) {
        let ahead = Bytes::copy_from_slice(&self.buffer);
        block::give_back(std::mem::take(&mut self.buffer));
        (self.stream, ahead)
    }

    /// Makes it ready to be kept; `false` when it cannot serve another request.
    pub(super) fn park(&mut self) -> bool {
        if !self.buffer.is_empty() {
            // What came behind an answer would be taken for the answer to the next request.
            debug!(address = %self.address, "a node sent more than its answer");
            self.keep = false;
        }
        block::give_back(std::mem::take(&mut self.buffer));
        self.block = block::SIZE;
        self.keep
    }

    /// Nothing came since it was kept: neither its end, nor an answer that nobody asked for.
    /// Without news from the kernel this costs no system call.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut space = [0; 1];
        let mut space = ReadBuf::new(&mut space);
        let quiet = Pin::new(&mut self.stream)
            .poll_read(&mut context, &mut space)
            .is_pending();
        if !space.filled().is_empty() {
            debug!(address = %self.address, "a node answered before it was asked");
        }
        quiet
    }

    /// Reads what is there; zero at the end. While nothing comes no block is held.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        block::make_room(&mut self.buffer, self.block);
        let read = pin!(self.stream.read_buf(&mut self.buffer)).poll(context);
        if self.buffer.len() == self.buffer.capacity() {
            self.block = block::LARGE;
        } else if read.is_pending() && self.buffer.is_empty() {
            block::give_back(std::mem::take(&mut self.buffer));
        }
        read
    }
}

/// How far the head of an answer has been read.
#[derive(Default)]
struct Reading {
    scanner: Scanner,
    interim: usize,
    interim_bytes: usize,
}

impl Reading {
    /// Begins anew after an interim answer of so many bytes.
    fn pass_over(&mut self, length: usize) -> Result<(), Broken> {
        self.scanner = Scanner::default();
        self.interim = self.interim.saturating_add(1);
        self.interim_bytes = self.interim_bytes.saturating_add(length);
        if self.interim > INTERIM || self.interim_bytes > HEAD_BYTES {
            return Err(Broken::Interim);
        }
        Ok(())
    }
}

/// The answer that counts is still to come (RFC 9110, section 15.2).
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The device's body ended early, or is too large.
    #[error("the request's body broke off")]
    Body(#[source] body::Error),
    /// Without the rest of an answer.
    #[error("the node closed the connection")]
    Closed,
    /// The chunks of an answer.
    #[error("the framing of the answer's body is broken")]
    Chunks(#[from] chunked::Error),
    /// The head of an answer.
    #[error("the answer's head cannot be read")]
    Head(#[from] response::Error),
    /// Nothing but interim answers.
    #[error("more interim answers than an answer can have")]
    Interim,
    /// The device's body does not fit its length.
    #[error("the request's body is {0} than its Content-Length")]
    Length(&'static str),
    /// From the node.
    #[error("reading from the node")]
    Read(#[source] io::Error),
    /// No byte came.
    #[error("the node sent nothing for {0:?}")]
    Silent(Duration),
    /// To the node.
    #[error("writing to the node")]
    Write(#[source] io::Error),
}

impl From<head::Error> for Broken {
    fn from(error: head::Error) -> Self {
        Self::Head(response::Error::Fields(error))
    }
}

/// What the head of an answer, and its trailers, may cost.
fn head_limits() -> head::Limits {
    head::Limits {
        bytes: HEAD_BYTES,
        fields: HEAD_FIELDS,
        // There is none: the first line may be as long as the others.
        target: HEAD_BYTES,
    }
}

/// Bytes of an answer's head.
const HEAD_BYTES: usize = 64 << 10;

/// Fields of an answer's head.
const HEAD_FIELDS: usize = 200;

/// Interim answers before the one that counts.
const INTERIM: usize = 32;

/// Up to here copying is cheaper than holding a block until the device has taken the bytes.
const SMALL: usize = 8 << 10;
