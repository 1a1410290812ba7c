//! Every way a request can fail, and what the device is told of each.

use http::{HeaderName, Response, StatusCode, uri::InvalidUri};

use super::{Body, body, headers, journal::chain, login, page, path};
use crate::{
    dial, metrics::access_log::Record, permit::NotAHost, policy, session, tunnel::ProxyError,
    upstream,
};

/// Why a request was not served. Each stage's error passes through whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The authority cannot be read.
    #[error(transparent)]
    Authority(#[from] headers::Error),
    /// No policy allows it, or one forbids it.
    #[error(transparent)]
    Denied(#[from] policy::Denied),
    /// The target cannot be resolved or reached, or house rules refuse its address.
    #[error(transparent)]
    Dial(#[from] dial::Error),
    /// The session has as much as it may have.
    #[error(transparent)]
    Limit(#[from] session::Limit),
    /// Nobody is logged in, or a page of the login refused.
    #[error(transparent)]
    Login(#[from] login::Error),
    /// The name is not one of this listener's.
    #[error("{authority} is not served on a connection for {sni}")]
    Misdirected {
        /// The authority asked for.
        authority: String,
        /// The name in the `ClientHello`.
        sni: String,
    },
    /// No app has this host and path.
    #[error("no app has this host and path")]
    NoApp,
    /// The path cannot be judged.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// `tunnel.ports` does not have it.
    #[error("port {0} is not in tunnel.ports")]
    Port(u16),
    /// An extended `CONNECT` with a protocol that nobody here speaks (RFC 8441, section 4).
    #[error("an unknown :protocol")]
    Protocol,
    /// A query with characters that no query has.
    #[error("the query cannot be read")]
    Query(#[from] InvalidUri),
    /// A target that is not a host and a port.
    #[error(transparent)]
    Target(#[from] NotAHost),
    /// This listener has no tunnels, or the connection was not made for the gateway's own name.
    #[error("tunnels are not served here")]
    TunnelsOff,
    /// The node, or the plain site, did not answer.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
}

impl Error {
    /// The answer of a site: a page. Notes the refusal.
    pub(crate) fn page(&self, login: &login::Login, record: &mut Record) -> Response<Body> {
        if let Self::Login(why) = self {
            return login.refuse(why, record);
        }
        let id = record.refuse(self.stage(), chain(self));
        page::refusal(self.status(), self.sentence(), id)
    }

    /// The answer to a device whose proxy we are: `Proxy-Status` (RFC 9209) and the id. Notes the
    /// refusal.
    pub(crate) fn proxied(
        &self,
        gateway: &str,
        login: &login::Login,
        record: &mut Record,
    ) -> Response<Body> {
        let (mut response, told, id) = if let Self::Login(why) = self {
            let response = login.ask_tunnel(why, record);
            let denied = response.status().is_client_error();
            let kind = if denied {
                "http_request_denied"
            } else {
                "proxy_internal_error"
            };
            let told = ProxyError::new(response.status(), kind);
            let id = record.refused.as_ref().map(|refused| refused.id);
            (response, told, id)
        } else {
            let told = self.proxy_error();
            let id = record.refuse(self.stage(), chain(self));
            let response = page::refusal(told.status, self.sentence(), id);
            (response, told, Some(id))
        };
        if let Some(id) = id {
            let status = told.header(gateway, id);
            response.headers_mut().insert(PROXY_STATUS, status);
        }
        response
    }

    /// What a site answers with. No `_` arm: a new variant has to choose.
    fn status(&self) -> StatusCode {
        match self {
            Self::Authority(_) | Self::Path(_) | Self::Query(_) | Self::Target(_) => {
                StatusCode::BAD_REQUEST
            }
            // What may not be seen looks like what is not there.
            Self::Denied(_) | Self::NoApp | Self::Port(_) => StatusCode::FORBIDDEN,
            Self::Dial(error) => ProxyError::from(error).status,
            Self::Limit(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Login(error) => error.status(),
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::TunnelsOff => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upstream(error) => upstream_status(error),
        }
    }

    fn proxy_error(&self) -> ProxyError {
        match self {
            Self::Denied(_) | Self::NoApp | Self::Port(_) => ProxyError::DENIED,
            Self::Dial(error) => ProxyError::from(error),
            Self::Limit(_) => ProxyError::LIMIT,
            Self::Upstream(upstream::Error::Connect { source, .. }) => ProxyError::from(&**source),
            Self::Upstream(error) => ProxyError::new(upstream_status(error), "http_protocol_error"),
            Self::Authority(_)
            | Self::Login(_)
            | Self::Misdirected { .. }
            | Self::Path(_)
            | Self::Protocol
            | Self::Query(_)
            | Self::Target(_)
            | Self::TunnelsOff => ProxyError::new(self.status(), "http_request_error"),
        }
    }

    /// What a person reads: nothing of our inside.
    fn sentence(&self) -> &'static str {
        match self {
            Self::Authority(_) | Self::Path(_) | Self::Query(_) | Self::Target(_) => {
                "This address cannot be understood."
            }
            Self::Denied(_) | Self::NoApp | Self::Port(_) => {
                "You may not open this, or it does not exist."
            }
            Self::Dial(_) | Self::Upstream(_) => {
                "The server behind this address cannot be reached at the moment."
            }
            Self::Limit(_) => "You have too many connections open. Close some, and try again.",
            Self::Login(error) => error.sentence(),
            Self::Misdirected { .. } => "This name is not served here.",
            Self::Protocol => "This protocol is not spoken here.",
            Self::TunnelsOff => "Tunnels are not served here.",
        }
    }

    /// Which stage said no.
    pub(crate) fn stage(&self) -> &'static str {
        match self {
            Self::Denied(_) | Self::Port(_) => "policy",
            Self::Dial(_) => "dial",
            Self::Limit(_) => "session",
            Self::Login(_) => "login",
            Self::Authority(_)
            | Self::Misdirected { .. }
            | Self::Path(_)
            | Self::Protocol
            | Self::Query(_)
            | Self::Target(_)
            | Self::TunnelsOff => "web",
            Self::NoApp => "route",
            Self::Upstream(upstream::Error::Balance(_)) => "balance",
            Self::Upstream(_) => "upstream",
        }
    }
}

fn upstream_status(error: &upstream::Error) -> StatusCode {
    use upstream::Error as E;
    match error {
        E::Balance(_) => StatusCode::SERVICE_UNAVAILABLE,
        E::Connect { source, .. } if matches!(**source, dial::Error::Timeout { .. }) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        E::Connect { .. } => StatusCode::BAD_GATEWAY,
        E::Device { .. } => match error.body() {
            Some(body::Error::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Some(body::Error::Slow(_)) => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        },
        E::FirstByte { .. } => StatusCode::GATEWAY_TIMEOUT,
        E::Framing { .. } | E::Lost { .. } | E::Protocol { .. } => StatusCode::BAD_GATEWAY,
        E::Stopped => StatusCode::FORBIDDEN,
        E::Unforwardable(_) => StatusCode::BAD_REQUEST,
    }
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
