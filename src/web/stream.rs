//! The device's raw bytes after an upgrade: a TLS stream, or one stream of HTTP/2.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::Tunnel;
use crate::tls;

/// The device's side of a tunnel or WebSocket.
#[derive(Debug)]
pub enum Stream {
    /// An HTTP/1.1 connection that became raw, and what was read past the head.
    Http1(Box<tls::Stream>, Bytes),
    /// One stream of an HTTP/2 connection.
    Http2(Tunnel),
    /// A pipe of a test.
    #[cfg(test)]
    Pipe(tokio::io::DuplexStream),
}

impl Stream {
    /// Ends it so that the device knows that something is missing: HTTP/2 sees a reset, HTTP/1.1
    /// no `close_notify`.
    pub fn cut_off(self) {
        match self {
            Self::Http1(..) => {}
            Self::Http2(tunnel) => tunnel.cut_off(),
            #[cfg(test)]
            Self::Pipe(_) => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(stream, ahead) => {
                if ahead.is_empty() {
                    return Pin::new(stream).poll_read(context, buffer);
                }
                let part = ahead.split_to(ahead.len().min(buffer.remaining()));
                buffer.put_slice(&part);
                Poll::Ready(Ok(()))
            }
            Self::Http2(tunnel) => Pin::new(tunnel).poll_read(context, buffer),
            #[cfg(test)]
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1(stream, _) => Pin::new(stream).poll_write(context, bytes),
            Self::Http2(tunnel) => Pin::new(tunnel).poll_write(context, bytes),
            #[cfg(test)]
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(stream, _) => Pin::new(stream).poll_flush(context),
            Self::Http2(tunnel) => Pin::new(tunnel).poll_flush(context),
            #[cfg(test)]
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(stream, _) => Pin::new(stream).poll_shutdown(context),
            Self::Http2(tunnel) => Pin::new(tunnel).poll_shutdown(context),
            #[cfg(test)]
            Self::Pipe(pipe) => Pin::new(pipe).poll_shutdown(context),
        }
    }
}
