//! Why a node gave no answer, and whose fault that is.

use std::{sync::Arc, time::Duration};

use super::http1::Broken;
use crate::{
    balance, dial,
    web::{body, head::response},
};

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
        source: Cause,
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
        /// How.
        source: Cause,
    },
    /// The answer is not HTTP, or its head is too large.
    #[error("node {node} did not answer with HTTP")]
    Protocol {
        /// `host:port`.
        node: Arc<str>,
        /// How.
        source: Cause,
    },
    /// The session ended while the node was asked.
    #[error("the session ended before the answer")]
    Stopped,
    /// The request is not one that can be forwarded.
    #[error("a request that cannot be forwarded: {0}")]
    Unforwardable(&'static str),
}

impl Error {
    /// What it means that an exchange broke: whose fault it is.
    pub(super) fn of(node: &Arc<str>, error: Broken) -> Self {
        let node = Arc::clone(node);
        match error {
            Broken::Body(_) | Broken::Length(_) => Self::Device {
                source: error.into(),
            },
            Broken::Silent(limit) => Self::FirstByte { node, limit },
            Broken::Head(response::Error::ContentLength) => Self::Framing {
                node,
                why: "a Content-Length that is not one number",
            },
            Broken::Head(response::Error::TransferEncoding) => Self::Framing {
                node,
                why: "a transfer coding other than chunked",
            },
            Broken::Chunks(_) | Broken::Head(_) | Broken::Interim => Self::Protocol {
                node,
                source: error.into(),
            },
            Broken::Closed | Broken::Read(_) | Broken::Write(_) => Self::Lost {
                node,
                source: error.into(),
            },
        }
    }

    /// The same of hyper's error.
    pub(super) fn of_hyper(node: &Arc<str>, error: hyper::Error) -> Self {
        let node = Arc::clone(node);
        let parse = error.is_parse() || error.is_parse_too_large();
        let source: Cause = error.into();
        if cause(&*source).is_some() {
            Self::Device { source }
        } else if parse {
            Self::Protocol { node, source }
        } else {
            Self::Lost { node, source }
        }
    }

    /// Why the request's body ended early, when that is what failed.
    pub fn body(&self) -> Option<&body::Error> {
        match self {
            Self::Device { source } => cause(&**source),
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

/// The error of a body among the causes of an error.
fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a body::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// What broke an exchange, by whichever protocol.
type Cause = Box<dyn std::error::Error + Send + Sync>;
