//! Forwards one exchange to a node, over kept connections.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::{Either, select};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use self::{body::Ended, plain::Fetched, upgrade::Upgrade};
use self::{
    body::{Progress, Receiving, Sending},
    connection::{Connection, Held, Owner, Settings},
    pool::{Kept, Shelf},
    retry::{Again, Failed},
    upgrade::{Opened, Relay},
};
use crate::{
    balance::{self, Lease, Node},
    clock,
    config::{App, Limits, Network},
    dial::{self, Dialer},
    metrics::access_log::Relayed,
    permit::Permit,
    relay,
    shutdown::Tasks,
    web::{self, Answer, Body, headers},
};

mod body;
mod connection;
mod head;
mod plain;
mod pool;
mod retry;
mod upgrade;

/// Forwards exchanges, and keeps the connections for the next ones.
#[derive(Debug)]
pub struct Upstream {
    dialer: Arc<Dialer>,
    tasks: Tasks,
    kept: Arc<Kept>,
    settings: Settings,
    block: usize,
}

/// One request that was judged, and what it is forwarded under.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The proof that the policy allows it.
    pub permit: &'a Permit,
    /// Where it goes.
    pub pool: &'a Arc<balance::Pool>,
    /// The app's settings.
    pub app: &'a App,
    /// Public id of the session, if it has one.
    pub session: Option<Arc<str>>,
    /// Number of the device's connection.
    pub connection: u64,
    /// Authority that the device used, judged: host, and the port where it is not the usual one.
    pub authority: HeaderValue,
    /// Path and query, judged.
    pub target: PathAndQuery,
    /// What [`Upgrade::asked`] said.
    pub upgrade: Option<Upgrade>,
    /// The request, its head cleaned and completed by `web::headers`. `Host` is set here.
    pub request: Request<Body>,
    /// Ends it when it fires: the session ended, the policy changed.
    pub stop: Option<CancellationToken>,
    /// Told of a WebSocket's bytes while it runs, and of its end.
    pub relayed: Option<Arc<Relayed>>,
}

/// A node's answer.
#[derive(Debug)]
pub struct Forwarded {
    /// The answer.
    pub answer: Answer,
    /// Who gave it.
    pub served: Served,
}

/// Who answered.
#[derive(Debug)]
pub struct Served {
    /// The node.
    pub node: Arc<Node>,
    /// Its address.
    pub address: SocketAddr,
    /// The connection had served others before.
    pub reused: bool,
    /// Failed attempts before this one.
    pub failed: u32,
}

impl Upstream {
    /// No connections yet. `block` is the size of a relay's blocks.
    pub fn new(
        network: &Network,
        limits: &Limits,
        block: usize,
        dialer: Arc<Dialer>,
        tasks: Tasks,
    ) -> Self {
        Self {
            dialer,
            kept: Kept::new(network.kept_idle, &tasks),
            settings: Settings {
                connect: network.connect_timeout,
                keepalive: network.keepalive,
                keepalive_limit: network.user_timeout,
                stream_window: limits.h2_stream_window,
                connection_window: limits.h2_connection_window,
            },
            block,
            tasks,
        }
    }

    /// Forwards a request and gives the node's answer as soon as its head is there; bodies stream
    /// both ways. What failed before a byte of an answer is tried again where that is harmless.
    ///
    /// # Errors
    ///
    /// When no node could answer.
    pub async fn forward(&self, exchange: Exchange<'_>) -> Result<Forwarded, Error> {
        let stop = exchange.stop.clone();
        let tries = Box::pin(self.tries(exchange));
        let Some(stop) = stop else {
            return tries.await;
        };
        // The answer first: a node that is ready to answer costs no look at the token.
        match select(tries, pin!(stop.cancelled())).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(Error::Stopped),
        }
    }

    async fn tries(&self, exchange: Exchange<'_>) -> Result<Forwarded, Error> {
        let (plan, mut load) = Plan::new(exchange).map_err(Error::Unforwardable)?;
        let mut tried = Vec::new();
        let mut failed: u32 = 0;
        let mut reuse = true;
        let mut last = None;
        loop {
            let now = clock::now();
            let prefer = self
                .kept
                .owned_at(&plan.owner, plan.pool)
                .or_else(|| plan.pool.sticky(&load.headers, now));
            let lease = match plan.pool.pick(prefer, &tried, now) {
                Ok(lease) => lease,
                // The node's own failure says more than that there is no other.
                Err(error) => return Err(last.unwrap_or(Error::Balance(error))),
            };
            let index = lease.node().index;
            let failure = match Box::pin(self.attempt(&plan, lease, load, reuse, failed)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => *failure,
            };
            let (again, rest) = match (failure.again, failure.load) {
                (Again::Fresh, Some(load)) if reuse => (Again::Fresh, load),
                (Again::Other, Some(load)) if tried.len() < plan.retries => (Again::Other, load),
                _ => return Err(failure.error),
            };
            load = rest;
            failed = failed.saturating_add(1);
            if again == Again::Fresh {
                debug!(
                    error = &failure.error as &dyn std::error::Error,
                    "trying afresh"
                );
                reuse = false;
            } else {
                info!(
                    error = &failure.error as &dyn std::error::Error,
                    "trying another node"
                );
                tried.push(index);
            }
            last = Some(failure.error);
        }
    }

    /// One try on one node.
    async fn attempt(
        &self,
        plan: &Plan<'_>,
        lease: Lease,
        load: Load,
        reuse: bool,
        failed: u32,
    ) -> Result<Forwarded, Box<Failure>> {
        let shelf = self.kept.shelf(lease.node(), plan.pool);
        let login = head::carries_connection_login(&load.headers);
        let connection = match self.connection(plan, &lease, &shelf, login, reuse).await {
            Ok(connection) => connection,
            Err(error) => return Err(Failure::before(error, load)),
        };
        let bodyless = load.body.is_end_stream();
        let repeatable = (bodyless && retry::is_idempotent(&plan.method)).then(|| Load {
            headers: load.headers.clone(),
            body: Body::empty(),
        });
        let served = Served {
            node: Arc::clone(lease.node()),
            address: connection.address(),
            reused: connection.is_reused(),
            failed,
        };
        let (request, accept) = plan.request(load, &connection, lease.node())?;
        let mut held = Held {
            request: request.body().progress(),
            lease,
            connection,
            shelf,
            keep: plan.upgrade.is_none(),
        };
        let answer = match held.send(request, plan.first_byte).await {
            Ok(answer) => answer,
            Err(error) => return Err(plan.failure(error, &held, repeatable)),
        };
        let broken = |why| {
            Failure::last(Error::Framing {
                node: Arc::clone(served.node.name()),
                why,
            })
        };
        if let Connection::Http1(connection) = &mut held.connection {
            let offers = head::offers_connection_login(answer.headers());
            connection.in_login = offers && answer.status() == StatusCode::UNAUTHORIZED;
            if login || offers {
                connection.owner = Some(plan.owner.clone());
            }
        }
        plan.pool
            .learn(answer.headers(), &served.node, clock::now());
        let opened = match plan.upgrade {
            Some(upgrade) => upgrade.judge(&answer, accept.as_deref()).map_err(broken)?,
            None if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(broken("101 that nobody asked for"));
            }
            None => Opened::No,
        };
        let answer = match (plan.upgrade, opened) {
            (Some(upgrade), Opened::Yes) => upgrade.open(answer, self.relay(plan, held)),
            _ => plan.answer(answer, held).map_err(broken)?,
        };
        Ok(Forwarded { answer, served })
    }

    /// A connection to a node: kept if there is one and `reuse`, else a new one. `login` is for
    /// requests that log in to the connection.
    async fn connection(
        &self,
        plan: &Plan<'_>,
        lease: &Lease,
        shelf: &Shelf,
        login: bool,
        reuse: bool,
    ) -> Result<Connection, Error> {
        let now = clock::now();
        let node = lease.node();
        if reuse && let Some(owned) = shelf.owned(&plan.owner, login, now).await {
            return Ok(Connection::Http1(owned));
        }
        if login || plan.upgrade.is_some() {
            // Only HTTP/1.1 has connections of one's own; and what was kept might be stale.
            return self.open(plan, node, &node.http1).await;
        }
        let may_http2 = node.system.tls().is_some_and(|tls| tls.http2) && !shelf.declined_http2();
        if reuse {
            if may_http2 && let Some(stream) = shelf.stream() {
                return Ok(Connection::Http2(stream));
            }
            if let Some(kept) = shelf.shared(now).await {
                return Ok(Connection::Http1(kept));
            }
        }
        if !may_http2 {
            return self.open(plan, node, &node.system).await;
        }
        // One connection for all who wait now, unless making it takes too long.
        let _turn = timeout(self.settings.connect, shelf.opening.lock()).await;
        if reuse && let Some(stream) = shelf.stream() {
            return Ok(Connection::Http2(stream));
        }
        let connection = self.open(plan, node, &node.system).await?;
        match &connection {
            Connection::Http1(_) => shelf.chose(None),
            Connection::Http2(stream) => shelf.chose(Some(&stream.connection)),
        }
        Ok(connection)
    }

    async fn open(
        &self,
        plan: &Plan<'_>,
        node: &Arc<Node>,
        system: &crate::config::System,
    ) -> Result<Connection, Error> {
        let pool = &plan.pool.config().name;
        let connected = match self.dialer.node(plan.permit, pool, system).await {
            Ok(connected) => connected,
            Err(source) => {
                if !is_permits(&source) {
                    plan.pool.failed(node, &source, clock::now());
                }
                return Err(Error::Connect {
                    node: Arc::clone(node.name()),
                    source: Box::new(source),
                });
            }
        };
        plan.pool.reached(node, clock::now());
        let started = self.settings.start(connected, &self.tasks);
        let limit = self.settings.connect;
        match timeout(limit, started).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => Err(Error::Lost {
                node: Arc::clone(node.name()),
                source,
            }),
            Err(_elapsed) => Err(Error::FirstByte {
                node: Arc::clone(node.name()),
                limit,
            }),
        }
    }

    fn relay(&self, plan: &Plan<'_>, held: Held) -> Relay {
        let left = plan.permit.until().map_or(WEBSOCKET_LIMIT, |until| {
            until.saturating_duration_since(clock::now())
        });
        Relay {
            held,
            limits: relay::Limits {
                idle: plan.upgrade_idle,
                half_closed: plan.upgrade_idle,
                absolute: left,
                block: self.block,
            },
            stop: plan.stop.clone(),
            relayed: plan.relayed.clone().unwrap_or_default(),
        }
    }
}

/// What stays the same however often a request is tried.
struct Plan<'a> {
    permit: &'a Permit,
    pool: &'a Arc<balance::Pool>,
    owner: Owner,
    method: Method,
    authority: HeaderValue,
    target: PathAndQuery,
    upgrade: Option<Upgrade>,
    trailers: bool,
    retries: usize,
    first_byte: Duration,
    progress: Duration,
    upgrade_idle: Duration,
    stop: Option<CancellationToken>,
    relayed: Option<Arc<Relayed>>,
}

/// What is handed to a connection, and comes back when it was not sent.
struct Load {
    headers: HeaderMap,
    body: Body,
}

impl<'a> Plan<'a> {
    fn new(exchange: Exchange<'a>) -> Result<(Self, Load), &'static str> {
        let Exchange { app, upgrade, .. } = exchange;
        let (parts, mut body) = exchange.request.into_parts();
        let method = match (upgrade, parts.method) {
            (Some(_), _) => Method::GET,
            // The node's 2xx would make raw bytes of what follows (R18).
            (None, Method::CONNECT) => return Err("CONNECT"),
            (None, method) => method,
        };
        if upgrade.is_some() {
            body = Body::empty();
        }
        let authority = match &app.upstream_host {
            None => exchange.authority,
            Some(host) => HeaderValue::try_from(&**host).map_err(|_invalid| NO_HOST)?,
        };
        let mut headers = parts.headers;
        let trailers = head::wants_trailers(&headers);
        headers::strip_hop_by_hop(&mut headers);
        headers.remove(HOST);
        if body.is_end_stream() {
            headers.remove(EXPECT);
            // hyper sends a length as it is given: one without its bytes would have the node
            // take the next request for them.
            if headers.contains_key(CONTENT_LENGTH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        }
        let plan = Self {
            permit: exchange.permit,
            pool: exchange.pool,
            owner: Owner {
                session: exchange.session,
                connection: exchange.connection,
            },
            method,
            authority,
            target: exchange.target,
            upgrade,
            trailers,
            retries: usize::try_from(app.retries).unwrap_or(usize::MAX),
            first_byte: app.first_byte,
            progress: app.progress,
            upgrade_idle: app.upgrade_idle,
            stop: exchange.stop,
            relayed: exchange.relayed,
        };
        Ok((plan, Load { headers, body }))
    }

    /// The request in the form that a connection sends, and the `Sec-WebSocket-Accept` to expect.
    fn request(
        &self,
        load: Load,
        connection: &Connection,
        node: &Node,
    ) -> Result<(Request<Sending>, Option<String>), Box<Failure>> {
        let Load { mut headers, body } = load;
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.target.clone());
        let mut request = Request::new(Sending::new(body));
        *request.method_mut() = self.method.clone();
        let mut accept = None;
        match connection {
            Connection::Http1(_) => {
                headers.insert(HOST, self.authority.clone());
                accept = self.upgrade.and_then(|upgrade| upgrade.ask(&mut headers));
                if headers
                    .get(EXPECT)
                    .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
                {
                    let opener = request.body_mut().hold_back();
                    hyper::ext::on_informational(&mut request, move |answer| {
                        if answer.status() == StatusCode::CONTINUE {
                            opener.open();
                        }
                    });
                }
            }
            Connection::Http2(_) => {
                // hyper does not tell of a 100 over HTTP/2: the device gets ours, by its body
                // being read, and the node one expectation less.
                headers.remove(EXPECT);
                let tls = node.system.tls().is_some();
                uri.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
                let authority = Authority::try_from(self.authority.as_bytes());
                let no_host = |_invalid| Failure::last(Error::Unforwardable(NO_HOST));
                uri.authority = Some(authority.map_err(no_host)?);
                *request.version_mut() = Version::HTTP_2;
            }
        }
        if self.trailers && matches!(connection, Connection::Http2(_)) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let Ok(uri) = Uri::from_parts(uri) else {
            return Err(Failure::last(Error::Unforwardable("a target that is none")));
        };
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok((request, accept))
    }

    /// The answer as the device gets it.
    fn answer(&self, answer: Response<Incoming>, held: Held) -> Result<Answer, &'static str> {
        let (mut parts, incoming) = answer.into_parts();
        head::settle_framing(&mut parts.headers)?;
        headers::strip_hop_by_hop(&mut parts.headers);
        let body = Receiving::start(incoming, held, self.progress, self.stop.clone());
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        Ok(response.into())
    }

    /// What a failed try means, and whether there may be another.
    fn failure(&self, error: SendError, held: &Held, repeatable: Option<Load>) -> Box<Failure> {
        let node = Arc::clone(held.lease.node().name());
        let mut error = match error {
            SendError::Failed(error) => *error,
            SendError::Silent(limit) => return Failure::last(Error::FirstByte { node, limit }),
        };
        let returned = error.take_message().map(|request| {
            let (parts, sending) = request.into_parts();
            Load {
                headers: parts.headers,
                body: sending.into_body(),
            }
        });
        let failed = Failed {
            unsent: returned.is_some(),
            reused: held.connection.is_reused(),
            answered: held.connection.has_answered(),
            bodyless: repeatable.is_some(),
            idempotent: repeatable.is_some(),
        };
        let source = error.into_error();
        Box::new(Failure {
            error: Error::of(node, source),
            again: failed.again(),
            load: returned.or(repeatable),
        })
    }
}

impl Held {
    /// Sends a request and waits for the head of its answer.
    async fn send(
        &mut self,
        request: Request<Sending>,
        limit: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        let progress = self.request.clone();
        match &mut self.connection {
            Connection::Http1(connection) => {
                connection.answered.store(false, Ordering::Relaxed);
                let sent = connection.sender.try_send_request(request);
                first_byte(sent, progress.as_deref(), limit).await
            }
            Connection::Http2(stream) => {
                let mut sender = stream.sender();
                let sent = sender.try_send_request(request);
                first_byte(sent, progress.as_deref(), limit).await
            }
        }
    }
}

/// Waits for an answer; while the request's body moves, the node is not silent.
async fn first_byte(
    sent: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Sending>>>>,
    progress: Option<&Progress>,
    limit: Duration,
) -> Result<Response<Incoming>, SendError> {
    let mut sent = std::pin::pin!(sent);
    let mut before = 0;
    loop {
        if let Ok(result) = timeout(limit, sent.as_mut()).await {
            return result.map_err(|error| SendError::Failed(Box::new(error)));
        }
        let now = progress.map_or(0, Progress::frames);
        if now == before {
            return Err(SendError::Silent(limit));
        }
        before = now;
    }
}

enum SendError {
    Failed(Box<TrySendError<Request<Sending>>>),
    Silent(Duration),
}

impl Connection {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(connection) => connection.address,
            Self::Http2(stream) => stream.address(),
        }
    }

    fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(stream) => stream.reused,
        }
    }

    /// A byte of an answer has come. HTTP/2 tells by its errors alone.
    fn has_answered(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.answered.load(Ordering::Relaxed),
            Self::Http2(_) => false,
        }
    }
}

/// The permit forbids it: no node is to blame, and no other would do.
fn is_permits(error: &dial::Error) -> bool {
    matches!(error, dial::Error::Expired | dial::Error::Permit)
}

/// A try that failed.
struct Failure {
    error: Error,
    again: Again,
    load: Option<Load>,
}

impl Failure {
    /// No connection: nothing was sent.
    fn before(error: Error, load: Load) -> Box<Self> {
        let permits = matches!(&error, Error::Connect { source, .. } if is_permits(source));
        let again = if permits { Again::No } else { Again::Other };
        Box::new(Self {
            error,
            again,
            load: Some(load),
        })
    }

    fn last(error: Error) -> Box<Self> {
        Box::new(Self {
            error,
            again: Again::No,
            load: None,
        })
    }
}

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no node.
    #[error(transparent)]
    Balance(#[from] balance::Error),
    /// The node could not be reached.
    #[error("connecting to node {node}")]
    Connect {
        /// `host:port`.
        node: Arc<str>,
        /// What `dial` says.
        source: Box<dial::Error>,
    },
    /// The request's body ended before its end, or is too large.
    #[error("sending the request's body")]
    Device {
        /// [`Error::body`] finds out more.
        source: hyper::Error,
    },
    /// The node was silent.
    #[error("node {node} sent no answer for {limit:?}")]
    FirstByte {
        /// `host:port`.
        node: Arc<str>,
        /// `first_byte` of the app.
        limit: Duration,
    },
    /// The answer cannot be passed on safely.
    #[error("node {node} answered with {why}")]
    Framing {
        /// `host:port`.
        node: Arc<str>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The connection broke off before an answer.
    #[error("node {node} broke off before an answer")]
    Lost {
        /// `host:port`.
        node: Arc<str>,
        /// What hyper says.
        source: hyper::Error,
    },
    /// The answer is not HTTP, or its head is too large.
    #[error("node {node} did not answer with HTTP")]
    Protocol {
        /// `host:port`.
        node: Arc<str>,
        /// What hyper says.
        source: hyper::Error,
    },
    /// The session ended while the node was asked.
    #[error("the session ended before the answer")]
    Stopped,
    /// The request is not one that can be forwarded.
    #[error("a request that cannot be forwarded: {0}")]
    Unforwardable(&'static str),
}

impl Error {
    /// What hyper's error means: whose fault it is.
    fn of(node: Arc<str>, source: hyper::Error) -> Self {
        if body::cause(&source).is_some() {
            Self::Device { source }
        } else if source.is_parse() || source.is_parse_too_large() {
            Self::Protocol { node, source }
        } else {
            Self::Lost { node, source }
        }
    }

    /// Why the request's body ended early, when that is what failed.
    pub fn body(&self) -> Option<&web::body::Error> {
        match self {
            Self::Device { source } => body::cause(source),
            Self::Balance(_)
            | Self::Connect { .. }
            | Self::FirstByte { .. }
            | Self::Framing { .. }
            | Self::Lost { .. }
            | Self::Protocol { .. }
            | Self::Stopped
            | Self::Unforwardable(_) => None,
        }
    }
}

const NO_HOST: &str = "a host that is none";

/// A WebSocket without an end of its own ends with its session; this only bounds it.
const WEBSOCKET_LIMIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests;
