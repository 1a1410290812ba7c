//! HTTP/1.1 or HTTP/2, as ALPN said: requests with limits on head, body and time.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use http::{Request, Response};

pub(crate) use self::http1::Output;
pub use self::{body::Body, http2::Tunnel, stream::Stream};
use crate::{config::Limits, listener::peer::Peer, shutdown::Tasks, tls};

pub mod body;
pub mod chunked;
mod date;
pub(crate) mod error;
pub mod head;
pub mod headers;
mod http1;
mod http2;
pub(crate) mod journal;
pub mod login;
pub mod page;
pub mod path;
mod place;
pub(crate) mod service;
pub mod stream;
pub mod surface;
#[cfg(test)]
mod testing;

/// Serves one connection to its end, in the protocol that the handshake agreed on.
///
/// The handler may be one for all connections, or one that knows this one's peer.
///
/// The future is small: what an idle connection does not need is not in it.
pub(crate) async fn serve<H: Handler>(
    stream: Box<tls::Stream>,
    peer: Arc<Peer>,
    limits: Arc<Limits>,
    tasks: &Tasks,
    handler: Arc<H>,
) {
    if peer.tls.http2 {
        Box::pin(http2::serve(stream, limits, tasks, handler)).await;
    } else {
        http1::serve(stream, limits, tasks, handler).await;
    }
}

/// Takes requests, whichever protocol brought them: `web::service` in the gateway, echoes in tests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the device goes away before the answer's head.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Answer> + Send;

    /// Answers what could not become a request, and logs it.
    fn refuse(&self, refusal: &Refusal) -> Response<Body>;
}

/// What `:protocol` said in an extended `CONNECT` (RFC 8441): an extension of such a request.
///
/// Over HTTP/1.1 the same is asked for with `Upgrade`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(pub Arc<str>);

/// What could not become a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 408, 414, 417, 431, 500 or 505.
    pub status: http::StatusCode,
    /// For the log: which rule.
    pub reason: &'static str,
}

/// An answer, and what happens to the bytes after its head.
pub struct Answer {
    /// The head and, unless the connection is taken over, the body.
    pub response: Response<Body>,
    /// Takes the device's bytes over after a 101, or a 2xx to `CONNECT`.
    pub then: Option<Takeover>,
}

/// Runs a tunnel or WebSocket to its end once the answer's head is on its way.
pub type Takeover = Box<dyn FnOnce(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

impl Answer {
    /// The same; `held` is dropped with the takeover, whether that ran to its end or never began.
    pub(crate) fn holding(self, held: impl Send + 'static) -> Self {
        let Self { response, then } = self;
        let then = then.map(|then| -> Takeover {
            Box::new(move |stream| {
                Box::pin(async move {
                    then(stream).await;
                    drop(held);
                })
            })
        });
        Self { response, then }
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self {
            response,
            then: None,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("response", &self.response)
            .field("takeover", &self.then.is_some())
            .finish()
    }
}

/// An answer of ours that would end HTTP on its connection, with nobody to take the bytes.
const NOT_TAKEN: Refusal = Refusal {
    status: http::StatusCode::INTERNAL_SERVER_ERROR,
    reason: "an answer that ends HTTP, and nothing that takes the bytes",
};
