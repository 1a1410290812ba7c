//! One connection to a node, and who may use it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::{
    body::{Hold, Progress, Sending},
    pool::Shelf,
};
use crate::{balance::Lease, clock, dial, shutdown::Tasks};

/// A connection in use.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Box<Http1>),
    Http2(Stream),
}

/// How connections are made.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) connect: Duration,
    pub(super) keepalive: Duration,
    pub(super) keepalive_limit: Duration,
    pub(super) stream_window: u32,
    pub(super) connection_window: u32,
}

impl Settings {
    /// Starts HTTP on a connection that was just made.
    pub(super) async fn start(
        &self,
        connected: dial::Connected,
        tasks: &Tasks,
    ) -> Result<Connection, hyper::Error> {
        let dial::Connected {
            stream,
            address,
            http2,
        } = connected;
        let answered = Arc::new(AtomicBool::new(false));
        let io = TokioIo::new(Metered {
            stream,
            answered: Arc::clone(&answered),
        });
        if http2 {
            return Ok(Connection::Http2(self.http2(io, address, tasks).await?));
        }
        // An answer has at most 100 fields, hyper's own limit: for any other hyper allocates their
        // places anew for each answer.
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES)
            .handshake(io)
            .await?;
        let close = CancellationToken::new();
        let closed = close.clone();
        drop(tasks.spawn(async move {
            let served = closed.run_until_cancelled(connection.with_upgrades());
            if let Some(Err(error)) = served.await {
                debug!(%address, error = %error, "a connection to a node broke");
            }
        }));
        Ok(Connection::Http1(Box::new(Http1 {
            sender,
            address,
            answered,
            reused: false,
            owner: None,
            in_login: false,
            _close: close.drop_guard(),
        })))
    }

    async fn http2(
        &self,
        io: TokioIo<Metered>,
        address: SocketAddr,
        tasks: &Tasks,
    ) -> Result<Stream, hyper::Error> {
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_header_list_size(HEAD_LIST)
            .keep_alive_interval(self.keepalive)
            .keep_alive_timeout(self.keepalive_limit)
            .handshake(io)
            .await?;
        drop(tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%address, error = %error, "a connection to a node broke");
            }
        }));
        let connection = Arc::new(Http2 {
            sender,
            address,
            streams: AtomicUsize::new(1),
            used: Mutex::new(clock::now()),
        });
        Ok(Stream {
            connection,
            reused: false,
        })
    }
}

/// An HTTP/1.1 connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Sending>,
    pub(super) address: SocketAddr,
    /// A byte has come since this was last set to false.
    pub(super) answered: Arc<AtomicBool>,
    pub(super) reused: bool,
    /// Who alone may use it, once a login was tied to it.
    pub(super) owner: Option<Owner>,
    /// That login is not complete.
    pub(super) in_login: bool,
    _close: DropGuard,
}

impl Http1 {
    /// The connection, when it can take a request now or in a moment.
    pub(super) async fn settled(mut self: Box<Self>) -> Option<Box<Self>> {
        if self.sender.is_closed() {
            return None;
        }
        if !self.sender.is_ready() {
            // Given back a moment ago: its task has yet to see that the answer is over.
            timeout(SETTLE, self.sender.ready()).await.ok()?.ok()?;
        }
        self.reused = true;
        Some(self)
    }
}

/// An HTTP/2 connection, shared.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Sending>,
    address: SocketAddr,
    streams: AtomicUsize,
    used: Mutex<Instant>,
}

impl Http2 {
    /// One more stream, if the connection lives and has room.
    pub(super) fn stream(self: &Arc<Self>) -> Option<Stream> {
        let more = |streams: usize| (streams < STREAMS).then(|| streams.saturating_add(1));
        if self.is_closed() {
            return None;
        }
        self.streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Stream {
            connection: Arc::clone(self),
            reused: true,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Since when no stream is open.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams.load(Ordering::Relaxed) == 0)
            .then(|| *self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One stream of an HTTP/2 connection, counted.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) connection: Arc<Http2>,
    pub(super) reused: bool,
}

impl Stream {
    pub(super) fn sender(&self) -> http2::SendRequest<Sending> {
        self.connection.sender.clone()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.connection.address
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        *connection
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = clock::now();
        connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who a connection belongs to after NTLM or Negotiate: one session on one device connection. A
/// login takes several requests, so two connections of one session must not share theirs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) session: Option<Arc<str>>,
    pub(super) connection: u64,
}

/// What an answer holds until its end.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) connection: Connection,
    pub(super) shelf: Arc<Shelf>,
    /// The request's body, if it has one.
    pub(super) request: Option<Arc<Progress>>,
    /// The connection may serve others afterwards.
    pub(super) keep: bool,
}

impl Hold for Held {
    /// The answer was read to its end: the connection is kept for the next request, unless the
    /// node did not want to read the whole of this one (R20).
    fn finish(self) {
        let whole = self.request.is_none_or(|request| request.is_done());
        if let Connection::Http1(connection) = self.connection
            && whole
            && self.keep
        {
            self.shelf.put(connection, clock::now());
        }
    }
}

/// A stream that notes whether anything has come.
#[derive(Debug)]
pub(super) struct Metered {
    stream: dial::Stream,
    answered: Arc<AtomicBool>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.answered.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// For a kept connection to become ready.
const SETTLE: Duration = Duration::from_millis(100);

/// Requests at once on one HTTP/2 connection; more open another. A node that allows fewer has
/// them wait, which their time to the first byte bounds.
const STREAMS: usize = 100;

/// Bytes of an answer's head.
const HEAD_BYTES: usize = 64 << 10;

/// The same for HTTP/2.
const HEAD_LIST: u32 = 64 << 10;
