//! `WebSocket`s: asked for over HTTP/1.1 or HTTP/2, always HTTP/1.1 towards the node.
//!
//! Nothing but a WebSocket is ever upgraded to: any other protocol that a device names is not
//! passed on, so the node answers in plain HTTP.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{connection::Held, head};
use crate::{
    crypto,
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
        answer: &Response<Incoming>,
        accept: Option<&str>,
    ) -> Result<Opened, &'static str> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            // Over HTTP/2 a 2xx would tell the device that its WebSocket is open.
            if self == Self::Http2 && answer.status().is_success() {
                return Err("2xx to a request for a WebSocket");
            }
            return Ok(Opened::No);
        }
        let headers = answer.headers();
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
    pub(super) fn open(self, mut answer: Response<Incoming>, relay: Relay) -> Answer {
        let upgraded = hyper::upgrade::on(&mut answer);
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = std::mem::take(answer.headers_mut());
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
            then: Some(Box::new(|device| Box::pin(relay.run(device, upgraded)))),
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
    /// Ends the connection and the lease with the relay.
    pub(super) held: Held,
    pub(super) limits: Limits,
    pub(super) stop: Option<CancellationToken>,
    pub(super) relayed: Arc<Relayed>,
}

impl Relay {
    async fn run(self, mut device: Stream, upgraded: OnUpgrade) {
        let node = self.held.lease.node().name();
        // The connection's task only has to hand over what it has.
        match timeout(HAND_OVER, upgraded).await {
            Ok(Ok(upgraded)) => {
                let backend = TokioIo::new(upgraded);
                let counts = &self.relayed.counts;
                let end = {
                    let stop = self.stop.as_slice();
                    relay::relay(&mut device, backend, self.limits, stop, counts).await
                };
                self.relayed.ended(&end);
                debug!(%node, ?end, "websocket ended");
                if !end.is_complete() {
                    device.cut_off();
                }
            }
            Ok(Err(error)) => debug!(%node, %error, "the node closed as the websocket opened"),
            Err(_late) => debug!(%node, "the node's connection was not handed over"),
        }
    }
}

/// What a server proves with that it understood the key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    BASE64.encode(&crypto::sha1(format!("{key}{GUID}").as_bytes()))
}

const WEBSOCKET: &str = "websocket";

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const HAND_OVER: Duration = Duration::from_secs(5);

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
