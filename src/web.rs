//! HTTP/1.1 or HTTP/2, as ALPN said: requests with limits on head, body and time.

use std::{fmt, future::Future, pin::Pin};

use http::{Request, Response};

pub use self::{body::Body, stream::Stream};

pub mod body;
pub mod login;
pub mod page;
pub mod stream;

/// Takes requests, whichever protocol brought them: [`service`] in the gateway, echoes in tests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the device goes away before the answer's head.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Answer> + Send;

    /// Answers what could not become a request, and logs it.
    fn refuse(&self, refusal: &Refusal) -> Response<Body>;
}

/// What could not become a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 408, 414, 431, 501 or 505.
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
