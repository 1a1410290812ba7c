//! HTTP/2 to a node, which is hyper's: connections that are shared, and one exchange on a stream.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tracing::debug;

use super::body::Source;
use crate::{
    balance::Lease,
    clock, dial,
    shutdown::Tasks,
    web::{Body, body},
};

/// An HTTP/2 connection, shared.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Sending>,
    address: SocketAddr,
    streams: AtomicUsize,
    used: Mutex<Instant>,
}

/// How connections are kept alive, and how much may be on its way.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) keepalive: Duration,
    pub(super) keepalive_limit: Duration,
    pub(super) stream_window: u32,
    pub(super) connection_window: u32,
}

impl Http2 {
    /// Starts HTTP/2 on a connection that was just made, with its first stream.
    pub(super) async fn start(
        settings: &Settings,
        stream: dial::Stream,
        address: SocketAddr,
        tasks: &Tasks,
    ) -> Result<Stream, hyper::Error> {
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_header_list_size(HEAD_LIST)
            .keep_alive_interval(settings.keepalive)
            .keep_alive_timeout(settings.keepalive_limit)
            .handshake(TokioIo::new(stream))
            .await?;
        drop(tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%address, error = %error, "a connection to a node broke");
            }
        }));
        let connection = Arc::new(Self {
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
    pub(super) fn address(&self) -> SocketAddr {
        self.connection.address
    }

    /// Sends a request, and waits for the head of its answer. While the request's body moves the
    /// node is not silent; else it may be so for `limit`.
    pub(super) async fn ask(
        &self,
        request: Request<Sending>,
        limit: Duration,
    ) -> Result<Response<Incoming>, Unanswered> {
        let frames = request.body().frames.clone();
        let mut sender = self.connection.sender.clone();
        let mut sent = pin!(sender.try_send_request(request));
        let mut before = 0;
        loop {
            if let Ok(result) = timeout(limit, sent.as_mut()).await {
                return result.map_err(|error| Unanswered::Failed(Box::new(error)));
            }
            let now = frames.as_ref().map_or(0, |f| f.load(Ordering::Relaxed));
            if now == before {
                return Err(Unanswered::Silent(limit));
            }
            before = now;
        }
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

/// Why there is no answer. What was not sent comes back with hyper's error.
pub(super) enum Unanswered {
    Failed(Box<TrySendError<Request<Sending>>>),
    Silent(Duration),
}

/// A request's body as hyper sends it.
#[derive(Debug)]
pub(super) struct Sending {
    body: Body,
    /// Frames read from the device; hyper reads one when it has room for it. `None`: no body, as
    /// with most requests.
    frames: Option<Arc<AtomicU64>>,
}

impl Sending {
    pub(super) fn new(body: Body) -> Self {
        let frames = (!body.is_end_stream()).then(Arc::default);
        Self { body, frames }
    }

    /// The body again, when nothing of it was sent.
    pub(super) fn into_body(self) -> Body {
        self.body
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(frames), Poll::Ready(_)) = (&self.frames, &polled) {
            frames.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, and what is held until its end.
pub(super) struct Receiving {
    pub(super) incoming: Incoming,
    pub(super) lease: Lease,
    pub(super) stream: Stream,
}

impl http_body::Body for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Source for Receiving {
    fn finish(self) {
        drop((self.stream, self.lease));
    }
}

/// Requests at once on one connection; more open another. A node that allows fewer has them wait,
/// which their time to the first byte bounds.
const STREAMS: usize = 100;

/// Bytes of an answer's head, as HPACK counts them.
const HEAD_LIST: u32 = 64 << 10;
