//! New connections, one after another: handshakes alone, resumed, or with one request.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    Run, Tally, http1,
    wire::{Dialer, Wire, because},
};
use crate::bench::job::Work;

/// Makes connections one after another. Its tickets are its own.
pub(super) struct Client {
    dialer: Dialer,
    work: Work,
    request: Arc<[u8]>,
}

impl Client {
    /// With a ticket for the first connection where there must be one.
    ///
    /// # Errors
    ///
    /// When the connection that brings it fails.
    pub(super) async fn new(dialer: Dialer, work: Work, request: Arc<[u8]>) -> io::Result<Self> {
        if work == Work::Resumptions {
            end(dialer.dial().await?).await?;
        }
        Ok(Self {
            dialer,
            work,
            request,
        })
    }

    /// Connections one after another, until the run is over.
    pub(super) async fn run(&mut self, run: &Run, tally: &mut Tally) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut now = Instant::now();
        while !run.is_over(now) {
            run.take(1);
            let mut wire = self.dialer.dial().await?;
            tally.negotiated = wire.negotiated;
            tally.resumed += u64::from(wire.resumed);
            if wire.resumed != (self.work == Work::Resumptions) {
                return Err(io::Error::other(
                    "a full handshake where a resumed one was due",
                ));
            }
            if self.work == Work::New {
                tally.bytes += http1::exchange(&mut *wire.io, &self.request, &mut buffer).await?;
            }
            end(wire).await?;
            let then = Instant::now();
            run.latency.record(then - now);
            now = then;
            tally.units += 1;
        }
        Ok(())
    }
}

/// Closes a connection and waits until the gateway has closed it too: on the way come the tickets,
/// and the gateway's work is done when it is counted.
async fn end(mut wire: Wire) -> io::Result<()> {
    let closed = |error: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
        // Many close without close_notify, or do not wait for ours.
        matches!(
            error.kind(),
            BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof
        )
    };
    let mut buffer = [0; 1];
    let ended = async {
        wire.io.shutdown().await?;
        wire.io.read(&mut buffer).await
    };
    match ended.await {
        Ok(0) => Ok(()),
        Ok(_) => Err(io::Error::other("bytes where the end was due")),
        Err(error) if closed(&error) => Ok(()),
        Err(error) => Err(because("close")(error)),
    }
}

const BUFFER: usize = 8 * 1024;
