//! One line for each request and each tunnel, as JSON: no query strings, no secrets.

use std::{net::SocketAddr, sync::Arc};

use crate::refusal;

/// What is known about one request when it ends. Every stage writes what it found out.
#[derive(Debug, Default)]
pub struct Record {
    /// The person, once proven.
    pub user: Option<Arc<str>>,
    /// The session's public id.
    pub session: Option<Arc<str>>,
    /// The app's name.
    pub app: Option<Arc<str>>,
    /// The tunnel's target, or the node's name.
    pub target: Option<String>,
    /// Who was dialled.
    pub backend: Option<SocketAddr>,
    /// Policies that decided.
    pub policies: Vec<Arc<str>>,
    /// Why it was refused, if it was.
    pub refused: Option<Refused>,
}

/// A refusal as the log tells it; the device is told the id alone.
#[derive(Debug)]
pub struct Refused {
    /// The id that the device was told.
    pub id: refusal::Id,
    /// Which stage refused.
    pub stage: &'static str,
    /// Why, with its causes.
    pub reason: String,
}

impl Record {
    /// Notes a refusal and gives its fresh id.
    pub fn refuse(&mut self, stage: &'static str, reason: impl Into<String>) -> refusal::Id {
        let id = refusal::Id::generate();
        self.refused = Some(Refused {
            id,
            stage,
            reason: reason.into(),
        });
        id
    }
}
