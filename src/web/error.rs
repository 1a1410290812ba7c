//! Every way a request can fail, and what the device is told of each.

use http::StatusCode;

use super::{headers, login, path};
use crate::{dial, policy, tunnel, upstream};

/// Why a request was not served. Each stage's error passes through whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The authority is not one of ours.
    #[error(transparent)]
    Authority(#[from] headers::Error),
    /// No policy allows it, or one forbids it.
    #[error(transparent)]
    Denied(#[from] policy::Denied),
    /// The target could not be resolved, or house rules refuse its address.
    #[error(transparent)]
    Dial(#[from] dial::Error),
    /// Nobody is logged in.
    #[error(transparent)]
    Login(#[from] login::Error),
    /// The name belongs to no certificate or app of this listener.
    #[error("{host} is not served on a connection for {sni}")]
    Misdirected {
        /// The authority asked for.
        host: String,
        /// What the device's ClientHello said.
        sni: String,
    },
    /// No app has this host and path.
    #[error("no app has {host}{path}")]
    NoApp {
        /// Host.
        host: String,
        /// Judged path.
        path: String,
    },
    /// The path cannot be judged.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// An extended CONNECT with a protocol that nobody here speaks.
    #[error("unknown :protocol in an extended CONNECT")]
    Protocol,
    /// A target that is not `host:port`.
    #[error("the target is not a host and a port")]
    Target(#[from] crate::permit::NotAHost),
    /// The tunnel could not be opened.
    #[error(transparent)]
    Tunnel(#[from] tunnel::Error),
    /// This listener has no tunnels, or the connection is not for the gateway's own name.
    #[error("tunnels are not served here")]
    TunnelsOff,
    /// The node did not answer well.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
}
