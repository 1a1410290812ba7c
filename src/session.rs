//! Session: who a device acts for, from a cookie, a token or a Basic credential.

use std::{net::IpAddr, sync::Arc, time::Instant};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Identity,
    config::{Config, Secret},
    crypto::MasterKey,
};

/// A login that is in force. Shared by all requests, tunnels and connections that it covers.
#[derive(Debug)]
pub struct Session {
    id: Arc<str>,
    identity: Identity,
    class: Class,
    started: Instant,
    ended: CancellationToken,
    usage: Usage,
}

impl Session {
    /// Its public id, safe to log and to kill it by (`S-` and base-32 characters).
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it was made.
    pub fn class(&self) -> Class {
        self.class
    }

    /// When it was made.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Fires when it ends: logout, kill, limit. Everything that runs under it stops then.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// What runs under it now, over all its connections.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }
}

/// How a session was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A Basic credential.
    Basic,
    /// The login page.
    Browser,
    /// A device token.
    Device,
}

/// Counters of one session, over all its connections.
#[derive(Debug, Default)]
pub struct Usage {}

/// All sessions, by the hashes of what devices carry.
#[derive(Debug)]
pub struct Sessions {}

impl Sessions {
    /// None yet. Keys for cookies and tokens derive from `master`.
    pub fn new(_config: &Config, _master: &MasterKey) -> Self {
        todo!()
    }

    /// The session that a cookie or Bearer token names; `None` when it is unknown or over.
    pub fn find(&self, _credential: &Credential<'_>, _now: Instant) -> Option<Arc<Session>> {
        todo!()
    }

    /// Makes a session for a proven identity.
    pub fn open(
        &self,
        _identity: Identity,
        _class: Class,
        _source: IpAddr,
        _now: Instant,
    ) -> Result<Arc<Session>, Full> {
        todo!()
    }
}

/// What a device carries.
#[derive(Debug)]
pub enum Credential<'a> {
    /// `Basic`: name and password, not yet checked.
    Basic(&'a str, Secret),
    /// `Bearer`: a device token.
    Bearer(Secret),
    /// Our cookie's value.
    Cookie(&'a HeaderMap),
}

/// The configured number of sessions is reached.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there is no room for another session")]
pub struct Full;
