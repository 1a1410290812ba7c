//! Nodes on real sockets, and a gateway's upstream side in front of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Collected, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
};

use super::super::{Answered, Error, Exchange, Upgrade, Upstream};
use crate::{
    balance,
    config::{self, Dns, Source, for_test},
    dial::Dialer,
    permit::{Host, Permit, Target, What},
    shutdown::Tasks,
    web::{Answer, Body, Stream, body},
};

pub(super) struct World {
    pub(super) tasks: Tasks,
    pub(super) upstream: Upstream,
    pub(super) dialer: Arc<Dialer>,
    pub(super) pool: Arc<balance::Pool>,
    pub(super) app: config::App,
    permit: Permit,
}

impl World {
    pub(super) fn new(nodes: &[SocketAddr]) -> Self {
        Self::with(nodes, |_| {}, |_| {})
    }

    /// With changes to the pool and to the network.
    pub(super) fn with(
        nodes: &[SocketAddr],
        pool: impl FnOnce(&mut config::Pool),
        network: impl FnOnce(&mut config::Network),
    ) -> Self {
        let names: Vec<_> = nodes.iter().map(ToString::to_string).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut config = for_test::pool_value("test", &names);
        pool(&mut config);
        Self::of(config, network)
    }

    pub(super) fn of(config: config::Pool, network: impl FnOnce(&mut config::Network)) -> Self {
        let tasks = Tasks::new();
        let config = Arc::new(config);
        let mut net = for_test::network();
        let address = |node: &config::System| match node.host() {
            Host::Address(address) => SocketAddr::new(*address, node.port()),
            Host::Name(_) => panic!("nodes of tests are addresses"),
        };
        net.allow = config.nodes.iter().map(address).collect();
        network(&mut net);
        let dns = Dns {
            servers: Vec::new(),
            zones: Vec::new(),
            source: Source::default(),
            timeout: Duration::from_secs(1),
            cache_entries: 1,
            max_ttl: Duration::from_secs(1),
        };
        let dialer = Arc::new(Dialer::with(&net, &dns, &[], tasks.clone()));
        let limits = for_test::limits();
        let what = What::App {
            app: "test".into(),
            pool: "test".into(),
        };
        Self {
            upstream: Upstream::new(&net, &limits, 65536, Arc::clone(&dialer), tasks.clone()),
            pool: balance::Pool::new(Arc::clone(&config)),
            app: for_test::app("test", config),
            permit: Permit::for_test(what, None),
            dialer,
            tasks,
        }
    }

    /// What a request needs to be forwarded, for device connection 1.
    pub(super) fn exchange(&self, request: Request<Body>) -> Exchange<'_> {
        let target = request.uri().path_and_query().unwrap().clone();
        Exchange {
            permit: &self.permit,
            pool: &self.pool,
            app: &self.app,
            session: Some("S-1".into()),
            connection: 1,
            authority: HeaderValue::from_static("app.test"),
            target,
            upgrade: Upgrade::asked(&request, None),
            request,
            stop: None,
            relayed: Some(Arc::default()),
        }
    }

    pub(super) fn tunnel_permit(&self, address: SocketAddr) -> Permit {
        let what = What::Tunnel {
            target: Target {
                host: Host::Address(address.ip()),
                port: address.port(),
            },
            addresses: [address].into(),
        };
        Permit::for_test(what, None)
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Answer, Error> {
        Ok(self.forward(request).await?.answer)
    }

    /// The same, and who answered.
    pub(super) async fn forward(&self, request: Request<Body>) -> Result<Answered, Error> {
        self.upstream.forward(self.exchange(request)).await
    }

    /// The status and body of a `GET`.
    pub(super) async fn get(&self, path: &str) -> Result<(u16, String), Error> {
        Ok(read(self.send(get(path)).await?.response).await)
    }
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(super) fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(path).body(Body::full(body)).unwrap()
}

pub(super) async fn read(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = all(response).await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// The whole body with its trailers.
pub(super) async fn all(response: Response<Body>) -> Result<Collected<Bytes>, body::Error> {
    BodyExt::collect(response.into_body()).await
}

/// A node: `serve` gets every connection with its number.
pub(super) async fn node<F>(
    tasks: &Tasks,
    serve: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let all = tasks.clone();
    drop(tasks.spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            drop(all.spawn(serve(number, stream)));
            number += 1;
        }
    }));
    address
}

/// A node that answers every request with `say` and the number of its connection.
pub(super) async fn steady(tasks: &Tasks, say: &'static str) -> SocketAddr {
    node(tasks, move |number, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            body(&mut stream, &head).await;
            let text = format!("{say} {number}");
            answer(&mut stream, "200 OK", &text).await;
        }
    })
    .await
}

/// A node on TLS that offers HTTP/2 besides HTTP/1.1 and answers with its protocol, the number
/// of its connection and the request's path. `pool` trusts it.
pub(super) async fn secure(
    tasks: &Tasks,
    pool: &mut config::Pool,
    protocols: &[&str],
) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["node.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = std::env::temp_dir().join(format!(
        "ravelin-{}.pem",
        data_encoding::HEXLOWER.encode(&crate::crypto::random::<8>())
    ));
    std::fs::write(&file, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    server.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let all = tasks.clone();
    let address = node(tasks, move |number, stream| {
        let (acceptor, all) = (acceptor.clone(), all.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            let serve = hyper::service::service_fn(move |request| reflect(number, request));
            if http2 {
                let server = hyper::server::conn::http2::Builder::new(all);
                server.serve_connection(io, serve).await.ok();
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                server.serve_connection(io, serve).await.ok();
            }
        }
    })
    .await;
    let tls = config::BackendTls {
        authorities: config::Authorities::File(file),
        name: Some("node.test".into()),
        pins: Vec::new(),
        http2: true,
        post_quantum: false,
    };
    let tls = Arc::new(tls);
    pool.nodes = vec![for_test::system(
        &address.to_string(),
        Some(Arc::clone(&tls)),
    )];
    pool.tls = Some(tls);
    address
}

/// Tells what came, with the request's body and `te` as trailers.
async fn reflect(
    number: usize,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let text = format!(
        "{:?} {number} {} {}",
        request.version(),
        request.uri(),
        request
            .headers()
            .get("host")
            .map_or("", |host| host.to_str().unwrap()),
    );
    let te = request.headers().get("te").cloned();
    let read = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-te", te.unwrap_or(HeaderValue::from_static("none")));
    let frames = [
        Ok(Frame::data(text.into())),
        Ok(Frame::data(read)),
        Ok(Frame::trailers(trailers)),
    ];
    let body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let challenge = HeaderValue::from_static("NTLM");
    let mut response = Response::new(body);
    response.headers_mut().insert("www-authenticate", challenge);
    Ok(response)
}

/// An address that nobody listens on.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A request's head; `None` at the end.
pub(super) async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Reads a body of a known length.
pub(super) async fn body(stream: &mut TcpStream, head: &str) -> Option<Vec<u8>> {
    let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub(super) async fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.ok();
}

/// Counts, and can be waited for.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(super) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Waits until something is so.
pub(super) async fn until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("it came to be so");
}

/// The gateway's and the device's side of a connection that became raw.
pub(super) fn raw_device() -> (Stream, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 16);
    (Stream::Pipe(near), far)
}
