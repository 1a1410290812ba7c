//! Our I/O type: read-ahead, TLS, and on demand writes that are gathered.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    gather::{Flusher, Gathering},
    socket::Socket,
};

/// A device's connection after its handshake.
///
/// Shutting it down sends `close_notify`, then closes our half of the TCP connection.
#[derive(Debug)]
pub struct Stream {
    tls: tokio_rustls::server::TlsStream<Socket>,
}

impl Stream {
    pub(super) fn new(tls: tokio_rustls::server::TlsStream<Socket>) -> Self {
        Self { tls }
    }

    /// Splits it for HTTP/2: h2 gets the first half, and whoever polls its connection flushes with
    /// the second half after each poll.
    pub fn gathering(self) -> (Gathering, Flusher) {
        super::gather::pair(self)
    }

    /// Lets records of so many bytes wait before a write says "would block".
    pub(super) fn limit_buffer(&mut self, bytes: usize) {
        self.tls.get_mut().1.set_buffer_limit(Some(bytes));
    }

    /// See [`Socket::hold_back`].
    pub(super) fn hold_back(&mut self, held_back: bool) {
        self.tls.get_mut().0.hold_back(held_back);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
