//! Turns credentials into an [`Identity`]; knows no HTTP.

pub mod users;

use std::{net::IpAddr, sync::Arc, time::Instant};

use crate::{
    config::{Config, Secret},
    crypto::MasterKey,
    dial::Dialer,
    shutdown::Tasks,
};

/// A person that a directory vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name in the directory's own spelling.
    pub user: Arc<str>,
    /// The directory that vouches.
    pub directory: Arc<str>,
    /// Names of groups.
    pub groups: Arc<[Arc<str>]>,
}

/// Asks the directories, slows guessing down, and takes the same time for every failure.
#[derive(Debug)]
pub struct Authenticator {}

impl Authenticator {
    /// For the directories of a configuration.
    ///
    /// # Errors
    ///
    /// A user file that cannot be used.
    pub fn new(
        _config: &Config,
        _master: &MasterKey,
        _dialer: Arc<Dialer>,
        _tasks: Tasks,
    ) -> Result<Self, Error> {
        todo!()
    }

    /// Checks a name and a password. A failure returns at the next multiple of the configured
    /// step counted from `asked`, whatever the reason.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] for everything that is the person's: unknown, wrong, locked, slowed
    /// down. [`Error::Unavailable`] when no directory could answer.
    pub async fn check(&self, _attempt: Attempt<'_>, _asked: Instant) -> Result<Identity, Error> {
        todo!()
    }
}

/// One try to log in.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// What was typed as a name.
    pub user: &'a str,
    /// What was typed as a password.
    pub password: &'a Secret,
    /// Where it comes from.
    pub source: IpAddr,
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credential is not good. `reason` is for the log alone.
    #[error("login refused: {reason}")]
    Rejected {
        /// `unknown user`, `wrong password`, `locked`, `slowed down` …
        reason: String,
    },
    /// Nobody can tell now.
    #[error("no directory could answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A user file that cannot be used.
    #[error("user file {path}", path = path.display())]
    Users {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
