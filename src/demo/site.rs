//! Serves the stand-ins that speak HTTP/1.1, and what they have in common: bounded, on loopback.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{broker::Broker, intranet, node::Node, payroll, store};
use crate::shutdown::Tasks;

/// The stand-ins that speak HTTP.
#[derive(Debug)]
pub(super) enum Site {
    Broker(Broker),
    Intranet,
    Node(Node),
    Payroll,
    Store,
}

impl Site {
    async fn answer(&self, request: Request<Incoming>, tasks: &Tasks) -> Reply {
        match self {
            Self::Broker(broker) => broker.answer(request).await,
            Self::Intranet => intranet::answer(request, tasks).await,
            Self::Node(node) => node.answer(&request),
            Self::Payroll => payroll::answer(),
            Self::Store => store::answer(&request),
        }
    }
}

/// A whole answer: stand-ins send nothing large.
pub(super) type Reply = Response<Full<Bytes>>;

/// A listener on loopback, on a port that the kernel chooses.
pub(super) async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves a site, over TLS when there is an acceptor, until the tasks end.
///
/// # Errors
///
/// When no port can be bound.
pub(super) async fn serve(
    tasks: &Tasks,
    site: Site,
    tls: Option<TlsAcceptor>,
) -> io::Result<SocketAddr> {
    let listener = bind().await?;
    let address = listener.local_addr()?;
    let site = Arc::new(site);
    let owner = tasks.clone();
    accept(tasks, listener, move |stream, _peer| {
        let (site, tls, tasks) = (Arc::clone(&site), tls.clone(), owner.clone());
        async move {
            match tls {
                None => exchange(stream, site, tasks).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                        exchange(stream, site, tasks).await;
                    }
                }
            }
        }
    });
    Ok(address)
}

/// Accepts connections until a drain begins; each is a task of its own.
pub(super) fn accept<H, F>(tasks: &Tasks, listener: TcpListener, handle: H)
where
    H: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let owner = tasks.clone();
    drop(tasks.spawn(async move {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let next = async || {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        while let Some((slot, accepted)) = owner.draining().run_until_cancelled(next()).await {
            match accepted {
                Ok((stream, peer)) => {
                    // Small answers must not wait for the peer's acknowledgement.
                    let _best_effort = stream.set_nodelay(true);
                    let served = handle(stream, peer);
                    let stop = owner.draining().clone();
                    drop(owner.spawn(async move {
                        let _stopped = stop.run_until_cancelled(served).await;
                        drop(slot);
                    }));
                }
                Err(_descriptors) => sleep(PAUSE).await,
            }
        }
    }));
}

async fn exchange<S>(stream: S, site: Arc<Site>, tasks: Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let (site, tasks) = (Arc::clone(&site), tasks.clone());
        async move { Ok::<_, Infallible>(site.answer(request, &tasks).await) }
    });
    // A peer that breaks off ends its own connection; there is nobody to tell.
    let _ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// A request's whole body.
///
/// # Errors
///
/// The answer to give when the body is too large, too slow or broken off.
pub(super) async fn collect(body: Incoming) -> Result<Bytes, Reply> {
    match timeout(BODY_TIME, Limited::new(body, BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_large_or_broken)) => Err(text(StatusCode::PAYLOAD_TOO_LARGE, "too large\n")),
        Err(_slow) => Err(text(StatusCode::REQUEST_TIMEOUT, "too slow\n")),
    }
}

/// A plain answer.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

/// An XML answer.
pub(super) fn xml(body: String) -> Reply {
    reply(StatusCode::OK, "text/xml; charset=utf-8", body)
}

/// A page of the stand-ins; `content` is HTML.
pub(super) fn page(title: &str, content: &str) -> Reply {
    let title = escape(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\n\
         <style>{STYLE}</style>\n<main><h1>{title}</h1>\n{content}\n\
         <footer>A stand-in of the demo, not part of the gateway.</footer></main></html>\n"
    );
    reply(StatusCode::OK, "text/html; charset=utf-8", html)
}

/// The headers that arrived, as a table: what the gateway added, and what it took away.
pub(super) fn table(headers: &HeaderMap) -> String {
    let mut rows = String::from("<h2>Headers that arrived here</h2>\n<table>\n");
    for (name, value) in headers {
        let value = escape(&String::from_utf8_lossy(value.as_bytes()));
        rows.push_str(&format!("<tr><th>{name}<td>{value}\n"));
    }
    rows + "</table>"
}

/// Text as it may stand in HTML and XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

const BODY: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(30);
/// Room for a thousand tunnels at once, and the gateway's kept connections.
const CONNECTIONS: usize = 2048;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: usize = 64 * 1024;
/// Longer than the gateway keeps a connection: it must be the one to close.
const IDLE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(100);
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:44rem;\
     padding:0 1rem;color-scheme:light dark}h1{font-size:1.4rem}h2{font-size:1rem}\
     table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;\
     padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8884;overflow-wrap:anywhere}\
     footer{margin-top:2rem;font-size:.85rem;opacity:.7}";
