//! Decides who may go where: a `Permit` or a `Denied` (the door to cedar-policy).

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use crate::{
    config::App,
    permit::{Permit, Target},
    session::Session,
};

/// The policies in force: deny by default.
#[derive(Debug)]
pub struct Policy {}

impl Policy {
    /// Reads and checks Cedar files against the schema of this gateway.
    ///
    /// # Errors
    ///
    /// Every file that cannot be read, parsed or does not fit the schema, with its place.
    pub fn load(_files: &[PathBuf]) -> Result<Self, Vec<Error>> {
        todo!()
    }

    /// Judges a tunnel by name and port, before anything is resolved.
    ///
    /// # Errors
    ///
    /// When no policy could allow it whatever its address, or one forbids it.
    pub fn judge(
        &self,
        _session: &Session,
        _source: IpAddr,
        _target: &Target,
    ) -> Result<Candidate, Denied> {
        todo!()
    }

    /// Judges a candidate again with the addresses it resolved to. Addresses that the policies
    /// deny are left out; the permit holds the others.
    ///
    /// # Errors
    ///
    /// When every address is denied.
    pub fn confirm(&self, _candidate: &Candidate, _addresses: &[IpAddr]) -> Result<Permit, Denied> {
        todo!()
    }

    /// Judges an app. `session` is `None` only for apps whose backend does the login
    /// (`authorization = "backend"`): those are permitted by configuration.
    ///
    /// # Errors
    ///
    /// When no policy allows it, or one forbids it.
    pub fn open(
        &self,
        _session: Option<&Session>,
        _source: IpAddr,
        _app: &App,
    ) -> Result<Permit, Denied> {
        todo!()
    }
}

/// A target that a policy may allow: it may be resolved, not yet dialled.
#[derive(Debug)]
pub struct Candidate {
    target: Target,
}

impl Candidate {
    /// What the device asked for.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// A decision against.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// For the log: which rule, or that none allowed it.
    pub reason: String,
    /// The ids of the policies that forbade it; empty: none allowed it.
    pub policies: Vec<Arc<str>>,
}

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}", file = .file.display())]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// Line and column, counted from 1, when known.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

/// Proof that this module made a permit.
#[derive(Debug)]
pub struct Seal(());
