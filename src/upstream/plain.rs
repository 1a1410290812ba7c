//! Plain sites for a device whose proxy the gateway is: one request on a connection of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{EXPECT, HOST},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Error, SendError, Upstream,
    body::{Receiving, Sending},
    connection::{Connection, Http1},
    first_byte, head,
};
use crate::{
    dial::{Connected, Stream},
    permit::{Permit, What},
    web::{Answer, Body, headers},
};

/// A plain site's answer.
#[derive(Debug)]
pub struct Fetched {
    /// The answer.
    pub answer: Answer,
    /// Who gave it.
    pub address: SocketAddr,
}

impl Upstream {
    /// Sends a request in absolute form (RFC 9112, section 3.2.2) to the target that a tunnel
    /// permit allows, in origin form. `idle` is the time that the site may be silent.
    ///
    /// # Errors
    ///
    /// When the site could not be reached, or did not answer.
    pub async fn plain(
        &self,
        permit: &Permit,
        request: Request<Body>,
        idle: Duration,
        stop: Option<CancellationToken>,
    ) -> Result<Fetched, Error> {
        let site: Arc<str> = match permit.what() {
            What::Tunnel { target, .. } => target.to_string().into(),
            What::App { app, .. } => Arc::clone(app),
        };
        let request = origin_form(request).map_err(Error::Unforwardable)?;
        let (tcp, address) = self
            .dialer
            .tunnel(permit)
            .await
            .map_err(|source| Error::Connect {
                node: Arc::clone(&site),
                source: Box::new(source),
            })?;
        let connected = Connected {
            stream: Stream::Plain(tcp),
            address,
            http2: false,
        };
        let limit = self.settings.connect;
        let started = timeout(limit, self.settings.start(connected, &self.tasks));
        let lost = |source| Error::Lost {
            node: Arc::clone(&site),
            source,
        };
        let silent = |limit| Error::FirstByte {
            node: Arc::clone(&site),
            limit,
        };
        let Ok(started) = started.await else {
            return Err(silent(limit));
        };
        let Connection::Http1(mut connection) = started.map_err(lost)? else {
            return Err(Error::Unforwardable("a plain site over HTTP/2"));
        };
        let progress = request.body().progress();
        let sent = connection.sender.try_send_request(request);
        let answer = match first_byte(sent, progress.as_deref(), idle).await {
            Ok(answer) => answer,
            Err(SendError::Failed(error)) => return Err(Error::of(site, error.into_error())),
            Err(SendError::Silent(limit)) => return Err(silent(limit)),
        };
        let broken = |why| Error::Framing {
            node: Arc::clone(&site),
            why,
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken("101 that nobody asked for"));
        }
        let (mut parts, incoming) = answer.into_parts();
        head::settle_framing(&mut parts.headers).map_err(broken)?;
        headers::strip_hop_by_hop(&mut parts.headers);
        let mut response = Response::new(Receiving::start(incoming, Once(connection), idle, stop));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        Ok(Fetched {
            answer: response.into(),
            address,
        })
    }
}

/// A connection that serves one exchange: closed when it is dropped.
struct Once(#[expect(dead_code, reason = "it is held, not used")] Box<Http1>);

impl super::body::Hold for Once {
    fn finish(self) {}
}

fn origin_form(request: Request<Body>) -> Result<Request<Sending>, &'static str> {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.into_parts();
    let authority = target
        .authority
        // A user's name and password in it are not the site's business.
        .filter(|authority| !authority.as_str().contains('@'))
        .and_then(|authority| HeaderValue::try_from(authority.as_str()).ok())
        .ok_or("a host that is none")?;
    headers::strip_hop_by_hop(&mut parts.headers);
    // The device is asked for its body by reading it; the site is not asked.
    parts.headers.remove(EXPECT);
    parts.headers.insert(HOST, authority);
    let mut origin = Request::new(Sending::new(body));
    *origin.method_mut() = parts.method;
    *origin.version_mut() = Version::HTTP_11;
    *origin.uri_mut() = target
        .path_and_query
        .map_or_else(|| Uri::from_static("/"), Uri::from);
    *origin.headers_mut() = parts.headers;
    Ok(origin)
}
