//! The TCP connection below TLS: read in large blocks, written when it is not held back.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::block::Block;

/// A device's TCP connection, with what was read of it ahead of TLS.
///
/// rustls asks for 4 KiB at a time; one system call here brings up to 64 KiB. What comes before
/// TLS (a PROXY header) is read through [`Socket::fill`] and taken away with
/// [`Socket::consume`]; what is left is replayed to TLS.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    ahead: Block,
    held_back: bool,
}

impl Socket {
    /// Nothing was read of `tcp` yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            ahead: Block::default(),
            held_back: false,
        }
    }

    /// What was read, but not taken yet.
    pub fn ahead(&self) -> &[u8] {
        self.ahead.bytes()
    }

    /// Reads once more behind what is there; 0 at the end of the stream, or when 64 KiB wait
    /// already.
    ///
    /// # Errors
    ///
    /// When the connection broke.
    pub async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_fill(context)).await
    }

    /// Takes the first `count` bytes of [`Socket::ahead`] away.
    pub fn consume(&mut self, count: usize) {
        self.ahead.consume(count);
    }

    /// While held back, writes say "would block" and TLS gathers its records.
    ///
    /// Nobody is woken by letting go: whoever holds back must flush afterwards.
    pub(super) fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { tcp, ahead, .. } = self;
        let mut outcome = Poll::Pending;
        let filled = ahead.fill(|space| {
            let mut buffer = ReadBuf::new(space);
            outcome = Pin::new(tcp).poll_read(context, &mut buffer);
            buffer.filled().len()
        });
        outcome.map_ok(|()| filled)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            ready!(this.poll_fill(context))?;
        }
        let bytes = this.ahead.bytes();
        let part = bytes.get(..buffer.remaining()).unwrap_or(bytes);
        buffer.put_slice(part);
        let count = part.len();
        this.ahead.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.held_back {
            return Poll::Pending;
        }
        Pin::new(&mut this.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.held_back {
            return Poll::Pending;
        }
        // The kernel's way for one slice is shorter than its way for a list.
        match slices {
            [one] => Pin::new(&mut this.tcp).poll_write(context, one),
            _ => Pin::new(&mut this.tcp).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}
