//! One HTTP/2 connection: h2 speaks the protocol, and this serves its streams within limits.
//!
//! One task does it all: it reads what came, polls every stream that was woken, lets h2 write what
//! they have to say, and sends that with one system call.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Ping, PingPong, Reason, server};
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::debug;

pub use self::tunnel::Tunnel;
use self::{
    bell::Bell,
    clock::{Clock, Due, Heartbeat},
    exchange::{Exchanges, Outcome},
    upload::{Unread, drain},
};
use super::Handler;
use crate::{
    config::Limits,
    shutdown::{Heard, Tasks},
    tls,
};

mod answer;
mod bell;
mod clock;
mod exchange;
mod request;
mod tunnel;
mod upload;

/// Serves one connection to its end.
pub(super) async fn serve<H: Handler>(
    stream: Box<tls::Stream>,
    limits: Arc<Limits>,
    tasks: &Tasks,
    handler: Arc<H>,
) {
    let (io, flusher) = stream.gathering();
    let clock = Clock::new(&limits);
    let mut handshake = builder(&limits).handshake(io);
    let hello = poll_fn(|context| {
        let done = Pin::new(&mut handshake).poll(context);
        // Where nothing can be sent, nothing can be read either.
        let _sent = flusher.poll_flush(context);
        done
    });
    let hello = timeout(limits.head, hello);
    let Some(Ok(Ok(mut h2))) = tasks.draining().run_until_cancelled(hello).await else {
        return;
    };
    let mut drained = pin!(tasks.draining().clone().cancelled_owned());
    let bell = Bell::new();
    let mut connection = Connection {
        ping: h2.ping_pong(),
        h2,
        flusher,
        streams: FuturesUnordered::new(),
        exchanges: Arc::new(Exchanges {
            handler,
            unread: Arc::new(Unread::new(Arc::clone(&bell))),
            limits,
            tasks: tasks.clone(),
        }),
        waker: Arc::clone(&bell).into(),
        bell,
        yielded: false,
        clock,
        drained: tasks.hear_draining(drained.as_mut()),
        closing: false,
        resets: 0,
    };
    poll_fn(|context| connection.poll(context)).await;
    connection.finish().await;
}

fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.h2_streams)
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_resets.min(PENDING_RESETS))
        .max_local_error_reset_streams(Some(limits.h2_resets))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// One stream at work.
type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

struct Connection<'a, H> {
    h2: server::Connection<tls::Gathering, Bytes>,
    flusher: tls::Flusher,
    ping: Option<PingPong>,
    streams: FuturesUnordered<Running>,
    exchanges: Arc<Exchanges<H>>,
    bell: Arc<Bell>,
    /// The bell, for everything below.
    waker: Waker,
    yielded: bool,
    clock: Clock,
    drained: Heard<'a, WaitForCancellationFutureOwned>,
    /// A GOAWAY was sent, or will be.
    closing: bool,
    /// Streams that the device gave up, less those that ended well.
    resets: usize,
}

impl<H: Handler> Connection<'_, H> {
    /// Works until everything waits for something; ready at the connection's end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.work(context.waker());
        let waker = self.waker.clone();
        let mut inner = Context::from_waker(&waker);
        for _ in 0..ROUNDS {
            if self.poll_round(&mut inner).is_ready() {
                return Poll::Ready(());
            }
            if self.bell.rang() {
                continue;
            }
            // The first answer of several is here before the others. Going to the end of the
            // runtime's queue once lets them come, and all leave together.
            if !self.yielded && !self.streams.is_empty() && self.flusher.has_unsent() {
                break;
            }
            self.yielded = false;
            // Whoever waits to write is told of an error by h2.
            if let Poll::Ready(Err(_broken)) = self.flusher.poll_flush(&mut inner) {
                continue;
            }
            if self.bell.rest() {
                return Poll::Pending;
            }
        }
        self.yielded = true;
        let _again = self.bell.rest();
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_round(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(accepted) = self.h2.poll_accept(context) {
            match accepted {
                Some(Ok((request, respond))) => {
                    let exchanges = Arc::clone(&self.exchanges);
                    let run = exchanges.run(request, respond);
                    self.streams.push(Box::pin(run));
                }
                Some(Err(error)) => {
                    debug!(%error, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
        self.poll_streams(context);
        if !self.closing && self.drained.poll(context).is_ready() {
            self.close();
        }
        while let Poll::Ready(due) = self.clock.poll(context, !self.streams.is_empty()) {
            match due {
                // It had its time to say good-bye.
                Due::Idle if self.closing => return Poll::Ready(()),
                Due::Idle => self.close(),
                Due::Heartbeat => match self.clock.heartbeat(self.flusher.received()) {
                    Heartbeat::Heard => {}
                    Heartbeat::Ask => self.ask(context),
                    Heartbeat::Dead => {
                        debug!("an HTTP/2 device is silent");
                        return Poll::Ready(());
                    }
                },
            }
        }
        Poll::Pending
    }

    fn poll_streams(&mut self, context: &mut Context<'_>) {
        let drain_bytes = self.exchanges.limits.drain_bytes;
        for stream in self.exchanges.unread.take() {
            self.streams.push(Box::pin(async move {
                drain(stream, drain_bytes).await;
                Outcome::Over
            }));
        }
        while let Poll::Ready(Some(outcome)) = self.streams.poll_next_unpin(context) {
            match outcome {
                Outcome::Complete => self.resets = self.resets.saturating_sub(1),
                Outcome::GivenUp => self.resets = self.resets.saturating_add(1),
                Outcome::Over => {}
                Outcome::Taken(tunnel) => self.streams.push(tunnel),
            }
            if self.streams.is_empty() {
                self.clock.quiet(self.closing);
            }
        }
        if self.resets > self.exchanges.limits.h2_resets {
            debug!("an HTTP/2 connection had too many streams reset");
            self.resets = 0;
            self.streams.clear();
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.closing = true;
            self.clock.quiet(true);
            self.waker.wake_by_ref();
        }
    }

    /// Says good-bye: no new streams, those that are there may end.
    fn close(&mut self) {
        self.closing = true;
        self.h2.graceful_shutdown();
        if self.streams.is_empty() {
            self.clock.quiet(true);
        }
        // h2 wakes nobody for what it has to say now.
        self.waker.wake_by_ref();
    }

    /// Whoever answers is heard: what the answer says does not matter.
    fn ask(&mut self, context: &mut Context<'_>) {
        if let Some(ping) = &mut self.ping {
            let _earlier = ping.poll_pong(context);
            let _one_is_out_already = ping.send_ping(Ping::opaque());
        }
    }

    /// Sends what is left, and lets the streams see that their connection is over.
    async fn finish(self) {
        let Self {
            h2,
            flusher,
            mut streams,
            ..
        } = self;
        drop(h2);
        let last = poll_fn(|context| {
            while let Poll::Ready(Some(_outcome)) = streams.poll_next_unpin(context) {}
            let sent = flusher.poll_flush(context);
            if streams.is_empty() {
                sent.map(drop)
            } else {
                Poll::Pending
            }
        });
        let _late = timeout(LINGER, last).await;
    }
}

/// Streams that were reset before they were looked at: a good device has few (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Of one stream, until the connection takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// Looks at everything before other tasks have their turn.
const ROUNDS: usize = 8;
/// How long an ended connection's last bytes are still tried.
const LINGER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
