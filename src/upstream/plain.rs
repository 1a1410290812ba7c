//! Plain sites for a device whose proxy the gateway is: one request on a connection of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{EXPECT, HOST},
    request,
    uri::PathAndQuery,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, NO_HOST, Upstream, answer,
    http1::{self, Http1, Upload},
};
use crate::{
    dial::Stream,
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
        stop: Option<&CancellationToken>,
    ) -> Result<Fetched, Error> {
        let site: Arc<str> = match permit.what() {
            What::Tunnel { target, .. } => target.to_string().into(),
            What::App { app, .. } => Arc::clone(app),
        };
        let (parts, body) = request.into_parts();
        let origin = Origin::of(parts).map_err(Error::Unforwardable)?;
        let head = http1::Head {
            method: &origin.method,
            target: &origin.target,
            host: &origin.host,
            fields: &origin.fields,
        };
        let mut upload = Upload::start(&head, body).map_err(Error::Unforwardable)?;
        let dialled = Box::pin(self.dialer.tunnel(permit)).await;
        let (tcp, address) = dialled.map_err(|source| Error::Connect {
            node: Arc::clone(&site),
            source: Box::new(source),
        })?;
        let mut connection = Box::new(Http1::new(Stream::Plain(tcp), address));
        let asked = connection.ask(&origin.method, &mut upload, idle).await;
        let http1::Answer { mut head, whole } = asked.map_err(|error| Error::of(&site, error))?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Framing {
                node: site,
                why: "101 that nobody asked for",
            });
        }
        headers::strip_hop_by_hop(&mut head.headers);
        // It serves this exchange alone: without a home it is closed at the end.
        let body = connection.body(whole, head.framing, upload, None, (idle, stop));
        Ok(Fetched {
            answer: answer(head.status, head.headers, body),
            address,
        })
    }
}

/// A request in origin form (RFC 9112, section 3.2.1), without its body.
struct Origin {
    method: Method,
    target: PathAndQuery,
    host: HeaderValue,
    fields: HeaderMap,
}

impl Origin {
    fn of(mut parts: request::Parts) -> Result<Self, &'static str> {
        let target = parts.uri.into_parts();
        let host = target
            .authority
            // A user's name and password in it are not the site's business.
            .filter(|authority| !authority.as_str().contains('@'))
            .and_then(|authority| HeaderValue::try_from(authority.as_str()).ok())
            .ok_or(NO_HOST)?;
        // As for sites: nothing of this kind may pass here, whoever cleaned before.
        headers::strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(HOST);
        // The device is asked for its body by reading it; the site is not asked.
        parts.headers.remove(EXPECT);
        Ok(Self {
            method: parts.method,
            target: target
                .path_and_query
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
            host,
            fields: parts.headers,
        })
    }
}
