//! CONNECT: one TCP stream, from its 200 to its end.

use std::{net::SocketAddr, sync::Arc};

use http::Response;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    metrics::access_log::Relayed,
    relay::{End, Limits, relay},
    web::{Answer, Body, Stream},
};

/// A connected backend that waits for the device's bytes.
pub(super) struct Tunnel<H> {
    pub(super) backend: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) limits: Limits,
    pub(super) stop: CancellationToken,
    /// What it counts against, given back with it.
    pub(super) held: H,
    /// Bytes as they move, and its end once it has one.
    pub(super) relayed: Arc<Relayed>,
}

impl<H: Send + 'static> Tunnel<H> {
    /// 200 without a body; bytes are raw only once its head is on its way (R18).
    pub(super) fn answer(self) -> Answer {
        let Self {
            backend,
            address,
            limits,
            stop,
            held,
            relayed,
        } = self;
        // When the device has left, and it never begins, it ends as a broken one.
        let mut backend = Backend {
            stream: backend,
            is_complete: false,
        };
        Answer {
            response: Response::new(Body::empty()),
            then: Some(Box::new(move |mut device: Stream| {
                // All in this one future: passed on to others, each part would be kept twice.
                Box::pin(async move {
                    let (stop, counts) = (Some(&stop), &relayed.counts);
                    let end = relay(&mut device, &mut backend.stream, limits, stop, counts).await;
                    if let End::Broken(error) = &end {
                        debug!(%address, %error, "a tunnel broke");
                    }
                    backend.is_complete = end.is_complete();
                    if !end.is_complete() {
                        device.cut_off();
                    }
                    relayed.ended(&end);
                    drop(backend);
                    drop(held);
                })
            })),
        }
    }
}

struct Backend {
    stream: TcpStream,
    is_complete: bool,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if !self.is_complete {
            // A reset, so that the backend does not take a part for the whole.
            // When the option cannot be set, the connection is gone already.
            let _gone = self.stream.set_zero_linger();
        }
    }
}
