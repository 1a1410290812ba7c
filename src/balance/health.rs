//! Probes: whether a node answers as it should. All of them go out through `dial`.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::node::Node;
use crate::{
    clock,
    config::{Check, CheckKind, System},
    dial::{self, Dialer},
};

/// Probes the nodes of one pool and tells each what came of it.
#[derive(Debug)]
pub(super) struct Prober {
    check: Check,
    nodes: Arc<[Arc<Node>]>,
    /// The way out of the configuration in force.
    dialer: ArcSwapOption<Dialer>,
}

impl Prober {
    pub(super) fn new(check: Check, nodes: Arc<[Arc<Node>]>) -> Arc<Self> {
        Arc::new(Self {
            check,
            nodes,
            dialer: ArcSwapOption::empty(),
        })
    }

    /// Goes out through this from now on. `false` when it went through another before.
    pub(super) fn connect(&self, dialer: Arc<Dialer>) -> bool {
        self.dialer.swap(Some(dialer)).is_none()
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    /// Probes a node once. `true` when it is good.
    pub(super) async fn probe(&self, index: usize) -> bool {
        let (Some(node), Some(dialer)) = (self.nodes.get(index), self.dialer.load_full()) else {
            return false;
        };
        let limit = self.check.timeout;
        let result = timeout(limit, once(&dialer, node, &self.check.kind))
            .await
            .unwrap_or(Err(Error::Timeout(limit)));
        let good = result.is_ok();
        node.probed(result.map_err(|error| chain(&error)), clock::now());
        good
    }

    /// A node went out or came back.
    pub(super) fn changed(&self, index: usize, healthy: bool) {
        if let Some(node) = self.nodes.get(index) {
            node.changed(healthy, clock::now());
        }
    }

    pub(super) fn name(&self, index: usize) -> Option<String> {
        self.nodes.get(index).map(|node| node.name().to_string())
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

async fn once(dialer: &Dialer, node: &Node, kind: &CheckKind) -> Result<(), Error> {
    match kind {
        CheckKind::Http {
            path,
            host,
            expect_status,
            expect_body,
        } => {
            let connected = dialer.probe(&node.http1).await?;
            let host = host.clone().unwrap_or_else(|| authority(&node.system));
            let request = Request::get(path.as_str())
                .header(header::HOST, HeaderValue::try_from(host)?)
                .header(header::USER_AGENT, "ravelin-probe")
                .header(header::CONNECTION, "close")
                .body(Empty::new())?;
            let text = expect_body.as_deref();
            ask(connected.stream, request, expect_status, text).await
        }
        CheckKind::None => Ok(()),
        CheckKind::Tcp => Ok(dialer.probe(&node.system.without_tls()).await.map(drop)?),
        CheckKind::Tls if node.system.tls().is_none() => Err(Error::NotTls),
        CheckKind::Tls => Ok(dialer.probe(&node.system).await.map(drop)?),
    }
}

/// `Host` of a node: without the port when it is the scheme's own.
fn authority(system: &System) -> String {
    let usual = if system.tls().is_some() { 443 } else { 80 };
    if system.port() == usual {
        return system.host().to_string();
    }
    format!("{}:{}", system.host(), system.port())
}

async fn ask(
    stream: dial::Stream,
    request: Request<Empty<Bytes>>,
    expect_status: &[u16],
    expect_body: Option<&str>,
) -> Result<(), Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = Box::pin(async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        if !expect_status.contains(&status.as_u16()) {
            return Err(Error::Status(status));
        }
        match expect_body {
            Some(text) => expect(answer.into_body(), text).await,
            None => Ok(()),
        }
    });
    match select(exchange, connection).await {
        Either::Left((result, _)) => result,
        // The node has closed; what it sent before is still to be read.
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Reads until the text is there, the body ends, or the limit is reached.
async fn expect(mut body: hyper::body::Incoming, text: &str) -> Result<(), Error> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = BODY_LIMIT.saturating_sub(read.len());
        // Only what is new, and as much before it as could hold the text's beginning.
        let from = read.len().saturating_sub(text.len());
        read.extend(data.iter().take(room));
        if contains(read.get(from..).unwrap_or_default(), text.as_bytes()) {
            return Ok(());
        }
        if read.len() >= BODY_LIMIT {
            break;
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    Err(Error::Body)
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && bytes.windows(text.len()).any(|part| part == text)
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the body does not hold the expected text")]
    Body,
    #[error(transparent)]
    Dial(#[from] dial::Error),
    #[error("the answer is not HTTP")]
    Http(#[from] hyper::Error),
    #[error("the pool has no TLS to probe")]
    NotTls,
    #[error("the configured probe is no valid request")]
    Request(#[from] http::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl From<header::InvalidHeaderValue> for Error {
    fn from(error: header::InvalidHeaderValue) -> Self {
        Self::Request(error.into())
    }
}

/// Bytes of an answer's head.
const HEAD_LIMIT: usize = 64 << 10;

/// Bytes of an answer's body that are looked at.
const BODY_LIMIT: usize = 64 << 10;
