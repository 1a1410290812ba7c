//! `WebSocket`s: asked for over HTTP/1.1 or HTTP/2, always HTTP/1.1 towards the node.
//!
//! Nothing but a WebSocket is ever upgraded to: any other protocol that a device names is not
//! passed on, so the node answers in plain HTTP.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::head;
use crate::{
    balance::Lease,
    crypto, dial,
    metrics::access_log::Relayed,
    relay::{self, Limits},
    web::{Answer, Body, Stream, headers},
};

/// How a device asked for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// `Upgrade: websocket` (RFC 6455, section 4.1).
    Http1,
    /// `CONNECT` with `:protocol` websocket (RFC 8441, section 5).
    Http2,
}

impl Upgrade {
    /// What a request asks for; to be called before hop-by-hop fields are stripped. `protocol` is
    /// `:protocol` of an HTTP/2 request.
    ///
    /// A request with a body is not upgraded: its bytes would be in front of the new protocol's.
    pub fn asked(request: &http::Request<Body>, protocol: Option<&str>) -> Option<Self> {
        let headers = request.headers();
        if let Some(protocol) = protocol {
            let websocket = protocol.eq_ignore_ascii_case(WEBSOCKET);
            return (*request.method() == Method::CONNECT && websocket).then_some(Self::Http2);
        }
        (*request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream()
            && head::names(headers, &CONNECTION, "upgrade")
            && head::names(headers, &UPGRADE, WEBSOCKET))
        .then_some(Self::Http1)
    }

    /// Completes a request's head for the node. Gives the `Sec-WebSocket-Accept` that the node
    /// has to answer with, where the device cannot check it.
    pub(super) fn ask(self, headers: &mut HeaderMap) -> Option<String> {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        match self {
            Self::Http1 => None,
            Self::Http2 => {
                let key = BASE64.encode(&crypto::random::<16>());
                let accept = accept(&key);
                // Base64 is always a valid field value.
                if let Ok(key) = HeaderValue::try_from(key) {
                    headers.insert(SEC_WEBSOCKET_KEY, key);
                }
                headers
                    .entry(SEC_WEBSOCKET_VERSION)
                    .or_insert(HeaderValue::from_static("13"));
                headers.remove(CONTENT_LENGTH);
                Some(accept)
            }
        }
    }

    /// Looks at a node's answer: whether the WebSocket is open.
    ///
    /// # Errors
    ///
    /// When the answer is not one to this request.
    pub(super) fn judge(
        self,
        status: StatusCode,
        headers: &HeaderMap,
        accept: Option<&str>,
    ) -> Result<Opened, &'static str> {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            // Over HTTP/2 a 2xx would tell the device that its WebSocket is open.
            if self == Self::Http2 && status.is_success() {
                return Err("2xx to a request for a WebSocket");
            }
            return Ok(Opened::No);
        }
        let right = head::names(headers, &CONNECTION, "upgrade")
            && head::names(headers, &UPGRADE, WEBSOCKET);
        if !right {
            return Err("101 to something else than a WebSocket");
        }
        match accept {
            Some(accept) if !head::names(headers, &SEC_WEBSOCKET_ACCEPT, accept) => {
                Err("a wrong Sec-WebSocket-Accept")
            }
            _ => Ok(Opened::Yes),
        }
    }

    /// The answer that opens the WebSocket for the device, and the relay that follows it.
    pub(super) fn open(self, headers: HeaderMap, relay: Relay) -> Answer {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = headers;
        let fields = response.headers_mut();
        headers::strip_hop_by_hop(fields);
        fields.remove(CONTENT_LENGTH);
        *response.status_mut() = match self {
            Self::Http1 => {
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
                StatusCode::SWITCHING_PROTOCOLS
            }
            Self::Http2 => {
                fields.remove(SEC_WEBSOCKET_ACCEPT);
                StatusCode::OK
            }
        };
        Answer {
            response,
            then: Some(Box::new(|device| Box::pin(relay.run(device)))),
        }
    }
}

/// Whether a node opened a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    No,
    Yes,
}

/// What a WebSocket needs once it is open.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) backend: Raw,
    /// Given back with the relay's end.
    pub(super) lease: Lease,
    pub(super) limits: Limits,
    pub(super) stop: Option<CancellationToken>,
    pub(super) relayed: Arc<Relayed>,
}

impl Relay {
    async fn run(mut self, mut device: Stream) {
        let (stop, counts) = (self.stop.as_ref(), &self.relayed.counts);
        let backend = &mut self.backend;
        let end = relay::relay(&mut device, backend, self.limits, stop, counts).await;
        self.backend.is_complete = end.is_complete();
        self.relayed.ended(&end);
        debug!(node = %self.lease.node().name(), ?end, "websocket ended");
        if !end.is_complete() {
            device.cut_off();
        }
    }
}

/// A node's connection that became raw, and what was read past the head.
#[derive(Debug)]
pub(super) struct Raw {
    stream: dial::Stream,
    ahead: Bytes,
    /// Both sides said all they had to say.
    is_complete: bool,
}

impl Raw {
    pub(super) fn new(stream: dial::Stream, ahead: Bytes) -> Self {
        Self {
            stream,
            ahead,
            is_complete: false,
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if !self.is_complete {
            // A reset, so that the node does not take a part for the whole.
            // When the option cannot be set, the connection is gone already.
            let _gone = self.stream.tcp().set_zero_linger();
        }
    }
}

impl AsyncRead for Raw {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What a server proves with that it understood the key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    BASE64.encode(&crypto::sha1(format!("{key}{GUID}").as_bytes()))
}

const WEBSOCKET: &str = "websocket";

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_standard() {
        // RFC 6455, section 1.3.
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn asked(method: &str, connection: &str, upgrade: &str, body: Body) -> Option<Upgrade> {
        let request = http::Request::builder()
            .method(method)
            .header(CONNECTION, connection)
            .header(UPGRADE, upgrade)
            .body(body)
            .unwrap();
        Upgrade::asked(&request, None)
    }

    #[test]
    fn only_a_websocket_without_a_body_is_an_upgrade() {
        let empty = Body::empty;
        assert_eq!(
            asked("GET", "keep-alive, Upgrade", "WebSocket", empty()),
            Some(Upgrade::Http1)
        );
        assert_eq!(asked("GET", "close", "websocket", empty()), None);
        assert_eq!(asked("GET", "upgrade", "h2c", empty()), None);
        assert_eq!(asked("GET", "upgrade", "TLS/1.0", empty()), None);
        assert_eq!(asked("POST", "upgrade", "websocket", empty()), None);
        assert_eq!(asked("GET", "upgrade", "websocket", Body::full("x")), None);
    }

    #[test]
    fn only_a_websocket_is_opened_by_connect() {
        let request = http::Request::connect("app.test")
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            Upgrade::asked(&request, Some("websocket")),
            Some(Upgrade::Http2)
        );
        assert_eq!(Upgrade::asked(&request, Some("connect-udp")), None);
        assert_eq!(Upgrade::asked(&request, None), None);
    }
}
