//! What tests of both protocols need: a handler that does as the path says, limits, a connection.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{Answer, Body, Handler, Protocol, Refusal, body::Error};
use crate::{
    config::Limits,
    shutdown::Tasks,
    tls::testing::{self, Device},
};

/// Short times where a test waits for them, generous ones elsewhere.
pub(super) fn limits() -> Limits {
    Limits {
        handshake: LONG,
        head: LONG,
        idle: LONG,
        body_progress: LONG,
        head_bytes: 8 * 1024,
        head_fields: 50,
        target_bytes: 1024,
        drain_bytes: 64 * 1024,
        h2_streams: 100,
        h2_stream_window: 1024 * 1024,
        h2_connection_window: 4 * 1024 * 1024,
        h2_resets: 20,
        drain: LONG,
    }
}

/// Serves one connection, and gives the device's end of it.
pub(super) async fn start(handler: Arc<Echo>, limits: Limits, http2: bool) -> (Device, Tasks) {
    let (stream, device) = testing::pair(http2).await;
    let tasks = Tasks::new();
    let peer = testing::peer(http2);
    let of_task = tasks.clone();
    drop(tasks.spawn(async move {
        super::serve(Box::new(stream), peer, Arc::new(limits), &of_task, handler).await;
    }));
    (device, tasks)
}

/// Waits for a condition, never for a time.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, wait).await.expect("the condition comes true");
}

/// Does as the path of a request says.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// Requests whose handler was dropped before it answered.
    pub(super) dropped: AtomicUsize,
    /// Requests that a handler has begun with.
    pub(super) begun: AtomicUsize,
    /// Bytes of bodies that were read.
    pub(super) read: AtomicUsize,
    /// How bodies failed.
    pub(super) failures: Mutex<Vec<String>>,
}

impl Handler for Echo {
    async fn call(&self, request: Request<Body>) -> Answer {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let path = request.uri().path().to_owned();
        if request.method() == Method::CONNECT {
            return self.connect(&request);
        }
        match path.as_str() {
            "/collect" => match request.into_body().collect(1 << 30).await {
                Ok(body) => text(format!("{} bytes", body.len())),
                Err(error) => {
                    self.failures.lock().unwrap().push(error.to_string());
                    status(StatusCode::BAD_REQUEST)
                }
            },
            "/count" => self.count(request.into_body()).await,
            "/early" => status(StatusCode::PAYLOAD_TOO_LARGE),
            "/echo" => Response::new(request.into_body()).into(),
            "/empty" => status(StatusCode::NO_CONTENT),
            "/fields" => text(format!("{:?}", request.headers())),
            "/pieces" => Response::new(Body::stream(Pieces::new(3, 10))).into(),
            "/large" => Response::new(Body::stream(Pieces::new(64, 100_000))).into(),
            "/broken" => Response::new(Body::stream(Pieces::broken())).into(),
            "/short" => {
                let mut response = Response::new(Body::stream(Pieces::new(1, 10)));
                response.headers_mut().insert("content-length", 11.into());
                response.into()
            }
            "/stuck" => {
                let _guard = Dropped(&self.dropped);
                pending().await
            }
            "/panic" => panic!("a bug of this test"),
            "/raw" => Answer {
                response: upgrade_response(StatusCode::SWITCHING_PROTOCOLS),
                then: Some(takeover()),
            },
            "/raw-without-taker" => upgrade_response(StatusCode::SWITCHING_PROTOCOLS).into(),
            "/ignored-taker" => Answer {
                response: Response::new(Body::full("plain")),
                then: Some(takeover()),
            },
            "/close" => {
                let mut response = Response::new(Body::full("bye"));
                response
                    .headers_mut()
                    .insert("connection", "close".parse().unwrap());
                response.into()
            }
            _ => text(format!("{} {path}", request.method())),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        let mut response = Response::new(Body::full(format!("R-TEST {}", refusal.reason)));
        *response.status_mut() = refusal.status;
        response
    }
}

impl Echo {
    fn connect(&self, request: &Request<Body>) -> Answer {
        let wanted = request.uri().authority().map(|a| a.host().to_owned());
        let protocol = request.extensions().get::<Protocol>();
        match (wanted.as_deref(), protocol) {
            (Some("cut.test"), _) => Answer {
                response: Response::new(Body::empty()),
                then: Some(cutting()),
            },
            (Some("yes.test"), protocol) => {
                let mut response = Response::new(Body::empty());
                if let Some(Protocol(protocol)) = protocol {
                    let protocol = protocol.parse().unwrap();
                    response.headers_mut().insert("x-protocol", protocol);
                }
                Answer {
                    response,
                    then: Some(takeover()),
                }
            }
            _ => status(StatusCode::FORBIDDEN),
        }
    }

    async fn count(&self, mut body: Body) -> Answer {
        let mut trailers = None;
        let mut total = 0;
        let frame = |body: &mut Body, context: &mut Context<'_>| {
            http_body::Body::poll_frame(Pin::new(body), context)
        };
        while let Some(found) = std::future::poll_fn(|c| frame(&mut body, c)).await {
            match found.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    total += data.len();
                    self.read.fetch_add(data.len(), Ordering::SeqCst);
                }
                Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
                Err(error) => {
                    self.failures.lock().unwrap().push(error.to_string());
                    return status(StatusCode::BAD_REQUEST);
                }
            }
        }
        text(format!("{total} bytes {trailers:?}"))
    }
}

fn text(text: String) -> Answer {
    Response::new(Body::full(text)).into()
}

fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.into()
}

fn upgrade_response(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("upgrade", "test".parse().unwrap());
    response
}

/// Sends everything back, in upper case, until the device closes its half.
fn takeover() -> super::Takeover {
    Box::new(|mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                let answer = buffer[..length].to_ascii_uppercase();
                stream.write_all(&answer).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.ok();
        })
    })
}

/// Sends something back, and then breaks off.
fn cutting() -> super::Takeover {
    Box::new(|mut stream| {
        Box::pin(async move {
            stream.read_u8().await.unwrap();
            stream.write_all(b"part").await.unwrap();
            stream.cut_off();
        })
    })
}

/// A body of pieces whose length nobody knows beforehand.
struct Pieces {
    left: usize,
    piece: Bytes,
    trailers: bool,
    broken: bool,
}

impl Pieces {
    fn new(count: usize, length: usize) -> Self {
        Self {
            left: count,
            piece: vec![b'x'; length].into(),
            trailers: count == 3,
            broken: false,
        }
    }

    fn broken() -> Self {
        Self {
            broken: true,
            ..Self::new(1, 10)
        }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))));
        }
        if std::mem::take(&mut self.broken) {
            return Poll::Ready(Some(Err(Error::Backend("gone".into()))));
        }
        if std::mem::take(&mut self.trailers) {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", 7.into());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }
}

struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Longer than anything takes.
pub(super) const LONG: Duration = Duration::from_secs(20);
/// A limit that a test waits for.
pub(super) const SHORT: Duration = Duration::from_millis(150);
