//! CONNECT: one TCP stream, from its 200 to its end.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Instant};

use http::Response;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Closed;
use crate::{
    clock,
    relay::{Counts, End, Limits, relay},
    web::{Answer, Body, Stream},
};

/// A connected backend that waits for the device's bytes. However it ends, its end is told once.
pub(super) struct Tunnel {
    /// `None` only while it is dropped.
    backend: Option<TcpStream>,
    address: SocketAddr,
    limits: Limits,
    stops: [CancellationToken; 2],
    counts: Counts,
    opened: Instant,
    end: Option<End>,
    done: Option<Done>,
}

/// Called once, with how it ended.
pub(super) type Done = Box<dyn FnOnce(Closed) + Send>;

impl Tunnel {
    pub(super) fn new(
        backend: TcpStream,
        address: SocketAddr,
        limits: Limits,
        stops: [CancellationToken; 2],
        done: Done,
    ) -> Self {
        Self {
            backend: Some(backend),
            address,
            limits,
            stops,
            counts: Counts::default(),
            opened: clock::now(),
            end: None,
            done: Some(done),
        }
    }

    /// 200 without a body; bytes are raw only once its head is on its way (R18).
    pub(super) fn answer(mut self) -> Answer {
        Answer {
            response: Response::new(Body::empty()),
            then: Some(Box::new(move |device| {
                Box::pin(async move { self.run(device).await })
            })),
        }
    }

    async fn run(&mut self, device: Stream) {
        let Some(backend) = &mut self.backend else {
            return;
        };
        let end = relay(device, backend, self.limits, &self.stops, &self.counts).await;
        self.end = Some(end);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take()
            && !self.end.as_ref().is_some_and(End::is_complete)
        {
            // A reset, so that the backend does not take a part for the whole. A device on
            // HTTP/1.1 sees TLS end without close_notify; hyper has no way to reset a stream of
            // HTTP/2 that was taken over, and ends it in good order.
            // When the option cannot be set, the connection is gone already.
            let _gone = backend.set_zero_linger();
        }
        if let Some(done) = self.done.take() {
            done(Closed {
                address: self.address,
                up: self.counts.up.load(Ordering::Relaxed),
                down: self.counts.down.load(Ordering::Relaxed),
                lasted: clock::now().saturating_duration_since(self.opened),
                end: self.end.take(),
            });
        }
    }
}
