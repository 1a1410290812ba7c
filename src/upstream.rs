//! Forwards one exchange to a node, over kept connections.

use std::{mem, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use self::{body::Ended, error::Error, plain::Fetched, upgrade::Upgrade};
use self::{
    body::Receiving,
    connection::{Connection, Home, Owner},
    http1::{Http1, Upload},
    http2::{Sending, Settings, Stream, Unanswered},
    pool::{Kept, Shelf},
    retry::{Again, Failed},
    upgrade::{Opened, Raw, Relay},
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
    web::{Answer, Body, headers},
};

mod body;
mod connection;
mod error;
mod head;
mod http1;
mod http2;
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
    connect: Duration,
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
    pub stop: Option<&'a CancellationToken>,
    /// Told of a WebSocket's bytes while it runs, and of its end.
    pub relayed: Option<Arc<Relayed>>,
}

/// A node's answer.
#[derive(Debug)]
pub struct Answered {
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
            connect: network.connect_timeout,
            settings: Settings {
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
    pub async fn forward(&self, exchange: Exchange<'_>) -> Result<Answered, Error> {
        let stop = exchange.stop;
        let tries = pin!(self.tries(exchange));
        let Some(stop) = stop else {
            return tries.await;
        };
        match select(tries, pin!(stop.cancelled())).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(Error::Stopped),
        }
    }

    async fn tries(&self, exchange: Exchange<'_>) -> Result<Answered, Error> {
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
            let failure = match self.attempt(&plan, lease, &mut load, reuse, failed).await {
                Ok(forwarded) => return Ok(forwarded),
                Err(failure) => *failure,
            };
            failed = failed.saturating_add(1);
            match failure.again {
                Again::Fresh if reuse => {
                    debug!(
                        error = &failure.error as &dyn std::error::Error,
                        "trying afresh"
                    );
                    reuse = false;
                }
                Again::Other if tried.len() < plan.retries => {
                    info!(
                        error = &failure.error as &dyn std::error::Error,
                        "trying another node"
                    );
                    tried.push(index);
                }
                Again::Fresh | Again::No | Again::Other => return Err(failure.error),
            }
            last = Some(failure.error);
        }
    }

    /// One try on one node. Where there may be another, `load` is whole again.
    async fn attempt(
        &self,
        plan: &Plan<'_>,
        lease: Lease,
        load: &mut Load,
        reuse: bool,
        failed: u32,
    ) -> Result<Answered, Box<Failure>> {
        let shelf = self.kept.shelf(lease.node(), plan.pool);
        let login = head::carries_connection_login(&load.headers);
        let connection = self.connection(plan, &lease, &shelf, login, reuse).await;
        let connection = connection.map_err(Failure::before)?;
        let served = Served {
            node: Arc::clone(lease.node()),
            address: connection.address(),
            reused: connection.is_reused(),
            failed,
        };
        let answer = match connection {
            Connection::Http1(connection) => {
                let home = Home { lease, shelf };
                self.over_http1(plan, home, load, connection, login).await?
            }
            Connection::Http2(stream) => {
                Box::pin(self.over_http2(plan, lease, load, stream)).await?
            }
        };
        Ok(Answered { answer, served })
    }

    async fn over_http1(
        &self,
        plan: &Plan<'_>,
        home: Home,
        load: &mut Load,
        mut connection: Box<Http1>,
        login: bool,
    ) -> Result<Answer, Box<Failure>> {
        let node = Arc::clone(home.lease.node());
        let accept = plan.upgrade.and_then(|asked| asked.ask(&mut load.headers));
        let bodyless = load.body.is_end_stream();
        let head = http1::Head {
            method: &plan.method,
            target: &plan.target,
            host: &plan.authority,
            fields: &load.headers,
        };
        let mut upload = Upload::start(&head, mem::take(&mut load.body))
            .map_err(|why| Failure::last(Error::Unforwardable(why)))?;
        let asked = connection.ask(&plan.method, &mut upload, plan.first_byte);
        let http1::Answer { mut head, whole } = match asked.await {
            Ok(answer) => answer,
            Err(error) => {
                let unsent = upload.unsent();
                let failed = Failed {
                    unsent: unsent.is_some(),
                    reused: connection.reused,
                    answered: connection.answered,
                    bodyless,
                    idempotent: retry::is_idempotent(&plan.method),
                };
                load.body = unsent.unwrap_or_default();
                return Err(Failure::of(Error::of(node.name(), error), failed));
            }
        };
        let offers = head::offers_connection_login(&head.headers);
        connection.in_login = offers && head.status == StatusCode::UNAUTHORIZED;
        if login || offers {
            connection.owner = Some(plan.owner.clone());
        }
        plan.pool.learn(&head.headers, &node, clock::now());
        let opened = match plan.upgrade {
            Some(upgrade) => upgrade.judge(head.status, &head.headers, accept.as_deref()),
            None if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                Err("101 that nobody asked for")
            }
            None => Ok(Opened::No),
        };
        let opened = opened.map_err(|why| {
            Failure::last(Error::Framing {
                node: Arc::clone(node.name()),
                why,
            })
        })?;
        if let (Some(upgrade), Opened::Yes) = (plan.upgrade, opened) {
            let (stream, ahead) = connection.into_raw();
            let relay = self.relay(plan, Raw::new(stream, ahead), home.lease);
            return Ok(upgrade.open(head.headers, relay));
        }
        // What was asked to become something else serves nobody else (R18).
        connection.keep &= plan.upgrade.is_none();
        let limits = (plan.progress, plan.stop);
        let body = connection.body(whole, head.framing, upload, Some(home), limits);
        headers::strip_hop_by_hop(&mut head.headers);
        Ok(answer(head.status, head.headers, body))
    }

    async fn over_http2(
        &self,
        plan: &Plan<'_>,
        lease: Lease,
        load: &mut Load,
        stream: Stream,
    ) -> Result<Answer, Box<Failure>> {
        let node = Arc::clone(lease.node());
        let repeatable = load.body.is_end_stream() && retry::is_idempotent(&plan.method);
        let kept = repeatable.then(|| load.headers.clone());
        let request = plan
            .http2(mem::take(load), &node)
            .map_err(|why| Failure::last(Error::Unforwardable(why)))?;
        let response = match stream.ask(request, plan.first_byte).await {
            Ok(response) => response,
            Err(Unanswered::Silent(limit)) => {
                return Err(Failure::last(Error::FirstByte {
                    node: Arc::clone(node.name()),
                    limit,
                }));
            }
            Err(Unanswered::Failed(mut error)) => {
                let unsent = error.take_message().map(Request::into_parts);
                let failed = Failed {
                    unsent: unsent.is_some(),
                    reused: stream.reused,
                    // HTTP/2 tells by its errors alone.
                    answered: false,
                    bodyless: repeatable,
                    idempotent: repeatable,
                };
                if let Some((parts, sending)) = unsent {
                    load.headers = parts.headers;
                    load.headers.remove(TE);
                    load.body = sending.into_body();
                } else if let Some(headers) = kept {
                    load.headers = headers;
                }
                let error = Error::of_hyper(node.name(), error.into_error());
                return Err(Failure::of(error, failed));
            }
        };
        plan.pool.learn(response.headers(), &node, clock::now());
        let (mut parts, incoming) = response.into_parts();
        headers::strip_hop_by_hop(&mut parts.headers);
        let source = http2::Receiving {
            incoming,
            lease,
            stream,
        };
        let body = Receiving::start(source, plan.progress, plan.stop);
        Ok(answer(parts.status, parts.headers, body))
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
        if reuse && let Some(owned) = shelf.owned(&plan.owner, login, now) {
            return Ok(Connection::Http1(owned));
        }
        if login || plan.upgrade.is_some() {
            // Only HTTP/1.1 has connections of one's own; and what was kept might be stale.
            return Box::pin(self.open(plan, node, &node.http1)).await;
        }
        let may_http2 = node.system.tls().is_some_and(|tls| tls.http2) && !shelf.declined_http2();
        if reuse {
            if may_http2 && let Some(stream) = shelf.stream() {
                return Ok(Connection::Http2(stream));
            }
            if let Some(kept) = shelf.shared(now) {
                return Ok(Connection::Http1(kept));
            }
        }
        if !may_http2 {
            return Box::pin(self.open(plan, node, &node.system)).await;
        }
        // One connection for all who wait now, unless making it takes too long.
        let _turn = timeout(self.connect, shelf.opening.lock()).await;
        if reuse && let Some(stream) = shelf.stream() {
            return Ok(Connection::Http2(stream));
        }
        let connection = Box::pin(self.open(plan, node, &node.system)).await?;
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
        let started = Connection::start(connected, &self.settings, &self.tasks);
        let limit = self.connect;
        match timeout(limit, started).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => Err(Error::Lost {
                node: Arc::clone(node.name()),
                source: source.into(),
            }),
            Err(_elapsed) => Err(Error::FirstByte {
                node: Arc::clone(node.name()),
                limit,
            }),
        }
    }

    fn relay(&self, plan: &Plan<'_>, backend: Raw, lease: Lease) -> Relay {
        let left = plan.permit.until().map_or(WEBSOCKET_LIMIT, |until| {
            until.saturating_duration_since(clock::now())
        });
        Relay {
            backend,
            lease,
            limits: relay::Limits {
                idle: plan.upgrade_idle,
                half_closed: plan.upgrade_idle,
                absolute: left,
                block: self.block,
            },
            stop: plan.stop.cloned(),
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
    stop: Option<&'a CancellationToken>,
    relayed: Option<Arc<Relayed>>,
}

/// What is handed to a connection, and is whole again when it was not sent.
#[derive(Default)]
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
        // Only `TE` is left of them; but nothing of this kind may pass here, whoever cleaned before.
        headers::strip_hop_by_hop(&mut headers);
        headers.remove(HOST);
        if body.is_end_stream() {
            headers.remove(EXPECT);
            // A length without its bytes would have the node take the next request for them.
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

    /// The request in the form that hyper sends.
    fn http2(&self, load: Load, node: &Node) -> Result<Request<Sending>, &'static str> {
        let Load { mut headers, body } = load;
        // hyper does not tell of a 100 over HTTP/2: the device gets ours, by its body being read,
        // and the node one expectation less.
        headers.remove(EXPECT);
        if self.trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let tls = node.system.tls().is_some();
        let authority = Authority::try_from(self.authority.as_bytes());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(authority.map_err(|_invalid| NO_HOST)?);
        uri.path_and_query = Some(self.target.clone());
        let mut request = Request::new(Sending::new(body));
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_invalid| "a target that is none")?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn answer(status: StatusCode, headers: HeaderMap, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.into()
}

/// The permit forbids it: no node is to blame, and no other would do.
fn is_permits(error: &dial::Error) -> bool {
    matches!(error, dial::Error::Expired | dial::Error::Permit)
}

/// A try that failed.
struct Failure {
    error: Error,
    again: Again,
}

impl Failure {
    /// No connection: nothing was sent.
    fn before(error: Error) -> Box<Self> {
        let permits = matches!(&error, Error::Connect { source, .. } if is_permits(source));
        let again = if permits { Again::No } else { Again::Other };
        Box::new(Self { error, again })
    }

    fn of(error: Error, failed: Failed) -> Box<Self> {
        // A node that is only slow is not asked twice.
        let again = if matches!(error, Error::FirstByte { .. }) {
            Again::No
        } else {
            failed.again()
        };
        Box::new(Self { error, again })
    }

    fn last(error: Error) -> Box<Self> {
        let again = Again::No;
        Box::new(Self { error, again })
    }
}

const NO_HOST: &str = "a host that is none";

/// A WebSocket without an end of its own ends with its session; this only bounds it.
const WEBSOCKET_LIMIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests;
