//! One request's line for the log and its numbers, written whatever happens to the request.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};

use super::{Answer, Body, Takeover, body};
use crate::{
    clock,
    gateway::Shared,
    listener::peer::Peer,
    metrics::{
        ByDirection, ByEnd, ByStage, Held,
        access_log::{Line, Record, Relayed},
    },
};

/// What is known about one request; dropping it writes the line.
#[derive(Debug)]
pub(crate) struct Entry {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    started: Instant,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    version: Version,
    status: Option<StatusCode>,
    /// The answer's, while it is on its way.
    body: Body,
    down: u64,
    upgraded: Option<Held>,
    _in_hand: Held,
    /// What the stages find out.
    pub(crate) record: Record,
}

impl Entry {
    /// Begins with what the device sent.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        peer: &Arc<Peer>,
        request: &Request<Body>,
    ) -> Box<Self> {
        let field = |name| request.headers().get(name).cloned();
        Box::new(Self {
            started: clock::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: field(header::HOST),
            agent: field(header::USER_AGENT),
            version: request.version(),
            status: None,
            body: Body::empty(),
            down: 0,
            upgraded: None,
            _in_hand: Held::new(&shared.metrics.in_hand),
            record: Record::default(),
            shared: Arc::clone(shared),
            peer: Arc::clone(peer),
        })
    }

    /// Writes the line of what could not become a request.
    pub(crate) fn unread(shared: &Shared, peer: &Peer, status: StatusCode, record: Record) {
        let stage = "web";
        let status = status.as_u16();
        shared
            .metrics
            .refusals
            .get_or_create(&ByStage { stage, status })
            .inc();
        shared.access.write(&Line {
            kind: "request",
            connection: peer.connection,
            listener: &peer.listener.name,
            device: Some(peer.address),
            status: Some(status),
            record: Some(&record),
            ..Line::default()
        });
    }

    /// Ties the line to the answer: it is written when the last byte is out, or the device gone.
    pub(crate) fn close_with(mut self: Box<Self>, answer: Answer) -> Answer {
        let Answer { response, then } = answer;
        self.status = Some(response.status());
        let took = clock::now().saturating_duration_since(self.started);
        self.shared.metrics.request_ended(
            self.record.app.as_ref(),
            response.status().as_u16(),
            took,
        );
        if let Some(refused) = &self.record.refused {
            let by = ByStage {
                stage: refused.stage,
                status: response.status().as_u16(),
            };
            self.shared.metrics.refusals.get_or_create(&by).inc();
        }
        match then {
            Some(then) => {
                self.upgraded = Some(Held::new(&self.shared.metrics.tunnels));
                let then: Takeover = Box::new(move |stream| {
                    Box::pin(async move {
                        then(stream).await;
                        drop(self);
                    })
                });
                Answer {
                    response,
                    then: Some(then),
                }
            }
            None if response.body().is_end_stream() => {
                drop(self);
                response.into()
            }
            None => response
                .map(|body| {
                    self.body = body;
                    Body::boxed(self)
                })
                .into(),
        }
    }

    /// A relay that does not say how it ended was dropped by a drain's end, or never began.
    fn end_of(&self, relayed: &Relayed) -> &'static str {
        relayed.end.get().copied().unwrap_or_else(|| {
            if self.shared.is_ending() {
                "stopped"
            } else {
                "device gone"
            }
        })
    }

    fn line(&self) -> Line<'_> {
        let path = if self.method == Method::CONNECT {
            ""
        } else {
            self.uri.path()
        };
        let host = self
            .uri
            .authority()
            .map(|authority| Cow::Borrowed(authority.as_str()))
            .or_else(|| Some(text(self.host.as_ref()?, MAX_HOST)))
            .unwrap_or_default();
        let relayed = self.record.relayed.as_deref();
        Line {
            kind: if relayed.is_some() {
                "tunnel"
            } else {
                "request"
            },
            connection: self.peer.connection,
            listener: &self.peer.listener.name,
            device: Some(self.peer.address),
            protocol: protocol(self.version),
            method: self.method.as_str(),
            host,
            path,
            agent: self
                .agent
                .as_ref()
                .map(|agent| text(agent, MAX_AGENT))
                .unwrap_or_default(),
            status: self.status.map(|status| status.as_u16()),
            took: clock::now().saturating_duration_since(self.started),
            up: relayed.map(|relayed| relayed.counts.up.load(Ordering::Relaxed)),
            down: Some(relayed.map_or(self.down, |relayed| {
                relayed.counts.down.load(Ordering::Relaxed)
            })),
            end: match (relayed, self.status) {
                (Some(relayed), _) => Some(self.end_of(relayed)),
                (None, None) => Some("device gone"),
                (None, Some(_)) => None,
            },
            record: Some(&self.record),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Whoever reads the line finds the node's connection given back.
        self.body = Body::empty();
        self.shared.access.write(&self.line());
        if let Some(relayed) = self.record.relayed.as_deref() {
            let metrics = &self.shared.metrics;
            for (direction, bytes) in [("up", &relayed.counts.up), ("down", &relayed.counts.down)] {
                metrics
                    .tunnel_bytes
                    .get_or_create(&ByDirection { direction })
                    .inc_by(bytes.load(Ordering::Relaxed));
            }
            let end = self.end_of(relayed);
            metrics.tunnels_ended.get_or_create(&ByEnd { end }).inc();
        }
    }
}

/// The answer's body: its bytes are counted, and the line ends with it.
impl http_body::Body for Entry {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.down = self.down.saturating_add(bytes as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                if self.record.refused.is_none() {
                    self.record.refuse("answer", chain(error));
                }
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn text(value: &HeaderValue, limit: usize) -> Cow<'_, str> {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

const MAX_AGENT: usize = 200;
const MAX_HOST: usize = 255;
