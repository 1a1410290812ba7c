//! The read-only admin address: health and metrics, nothing that names a user.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{config::Config, shutdown::Tasks};

/// What the admin address can tell.
pub(crate) trait Facts: Send + Sync + 'static {
    /// The gateway takes new work.
    fn ready(&self) -> bool;

    /// The page for Prometheus.
    fn metrics(&self) -> String;
}

/// Answers on the admin address until a drain is over: meanwhile it is seen as "not ready".
pub(crate) async fn serve(
    socket: TcpListener,
    config: Arc<Config>,
    facts: Arc<impl Facts>,
    tasks: Tasks,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let address = socket.local_addr().ok();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match socket.accept().await {
            Err(error) => {
                warn!(%error, "the admin address cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
            Ok((stream, _peer)) => {
                let (config, facts) = (Arc::clone(&config), Arc::clone(&facts));
                drop(tasks.spawn_watcher(async move {
                    connection(stream, address, &config, &*facts).await;
                    drop(slot);
                }));
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: Option<SocketAddr>,
    config: &Config,
    facts: &impl Facts,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, address, config, facts);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "a connection to the admin address failed"),
    }
}

fn answer(
    request: &Request<Incoming>,
    address: Option<SocketAddr>,
    config: &Config,
    facts: &impl Facts,
) -> Response<Full<bytes::Bytes>> {
    // A page of another site must not read this through the operator's browser (DNS rebinding).
    if !host_is_ours(request, address, config) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "This name is not one of the admin address. List it in admin.hosts.\n".into(),
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Only GET.\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" if facts.ready() => text(StatusCode::OK, "ready\n".into()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
        "/metrics" => {
            let mut page = text(StatusCode::OK, facts.metrics());
            page.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ),
            );
            page
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "There are /healthz, /readyz and /metrics.\n".into(),
        ),
    }
}

fn host_is_ours(request: &Request<Incoming>, address: Option<SocketAddr>, config: &Config) -> bool {
    let Some(host) = request
        .headers()
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
    else {
        return false;
    };
    let is_address = address.is_some_and(|address| {
        host == address.to_string()
            || (address.ip().is_loopback() && host == format!("localhost:{}", address.port()))
    });
    is_address || config.admin.hosts.iter().any(|name| name == host)
}

fn text(status: StatusCode, body: String) -> Response<Full<bytes::Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

const MAX_CONNECTIONS: usize = 64;
const HEAD_LIMIT: Duration = Duration::from_secs(5);
const CONNECTION_LIMIT: Duration = Duration::from_mins(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
