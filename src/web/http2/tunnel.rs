//! Tunnel: the raw bytes of one stream after a 2xx to `CONNECT` (RFC 9113, section 8.5).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::poll_room;

/// One stream of HTTP/2 as raw bytes. The connection's own task sends what is written.
///
/// Dropped before both halves are closed, it is reset.
#[derive(Debug)]
pub struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What came with the last frame, and was not read yet.
    ahead: Bytes,
    closed: bool,
    cut: Reason,
}

impl Tunnel {
    /// `extended`: it was asked for with `:protocol` (RFC 8441).
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream, extended: bool) -> Self {
        Self {
            send,
            receive,
            ahead: Bytes::new(),
            closed: false,
            // A connection that broke: RFC 8441, section 5, and RFC 9113, section 8.5.
            cut: if extended {
                Reason::CANCEL
            } else {
                Reason::CONNECT_ERROR
            },
        }
    }

    /// Resets the stream: the device knows that something is missing.
    pub(crate) fn cut_off(mut self) {
        self.send.send_reset(self.cut);
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.ahead.is_empty() {
            match ready!(this.receive.poll_data(context)) {
                Some(data) => this.ahead = data.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let part = this
            .ahead
            .split_to(this.ahead.len().min(buffer.remaining()));
        buffer.put_slice(&part);
        // The device may send more only when these are on their way to the backend.
        let _closed = this.receive.flow_control().release_capacity(part.len());
        if !this.ahead.has_remaining() {
            this.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(poll_room(&mut self.send, context, bytes.len())).map_err(broken)?;
        let part = bytes.get(..room).unwrap_or(bytes);
        self.send
            .send_data(Bytes::copy_from_slice(part), false)
            .map_err(broken)?;
        Poll::Ready(Ok(part.len()))
    }

    /// What was written goes out when the connection's task has done all that it has to do.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: h2::Error) -> io::Error {
    let kind = if error.is_reset() {
        io::ErrorKind::ConnectionReset
    } else {
        io::ErrorKind::BrokenPipe
    };
    io::Error::new(kind, error)
}
