//! Decides who may go where: a `Permit` or a `Denied` (the door to cedar-policy).

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use self::{
    cache::Cache,
    question::{Resource, Subject},
    set::{Set, Verdict},
};
use crate::{
    auth::Identity,
    config::{App, Authorization},
    permit::{Host, Permit, Target, What},
    session::Session,
};

mod cache;
mod facts;
mod load;
mod question;
mod set;
mod slice;

/// The policies in force: deny by default. A reload makes a new one.
#[derive(Debug)]
pub struct Policy {
    set: Set,
    cache: Cache,
    generation: u64,
    by_configuration: Arc<[Arc<str>]>,
}

impl Policy {
    /// Reads and checks Cedar files against the schema of this gateway.
    ///
    /// No files are no error: then everything is denied.
    ///
    /// # Errors
    ///
    /// Every file that cannot be read, parsed or does not fit the schema, with its place.
    pub fn load(files: &[PathBuf]) -> Result<Self, Vec<Error>> {
        Ok(Self {
            set: load::load(files)?,
            cache: Cache::new(CACHED),
            generation: NEXT_GENERATION.fetch_add(1, Ordering::Relaxed),
            by_configuration: [Arc::from(BY_CONFIGURATION)].into(),
        })
    }

    /// Tells this set of policies from every other that this process has loaded.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many policies there are.
    pub fn count(&self) -> usize {
        self.set.count()
    }

    /// Judges a tunnel by name and port, before anything is resolved.
    ///
    /// # Errors
    ///
    /// When no policy could allow it whatever its address, or one forbids it.
    pub fn judge(
        &self,
        session: &Session,
        source: IpAddr,
        target: &Target,
    ) -> Result<Candidate, Denied> {
        self.judge_as(Principal::from(session), source, target)
    }

    /// [`Policy::judge`] for a principal that needs no session.
    ///
    /// # Errors
    ///
    /// As [`Policy::judge`].
    pub fn judge_as(
        &self,
        principal: Principal<'_>,
        source: IpAddr,
        target: &Target,
    ) -> Result<Candidate, Denied> {
        let subject = Subject::new(principal, source);
        // A literal's address is known already: nothing has to stay open.
        let address = match target.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        };
        let resource = Resource::Target(target.clone(), address);
        match self.decide(&subject, resource) {
            Verdict::Allowed(_) | Verdict::NeedsAddress => Ok(Candidate {
                target: target.clone(),
                subject,
            }),
            Verdict::Denied(denied) => Err(denied),
        }
    }

    /// Judges a candidate again with the addresses it resolved to. Addresses that the policies
    /// deny are left out; the permit holds the others, in the order given. At most the first
    /// 32 are looked at.
    ///
    /// # Errors
    ///
    /// When every address is denied.
    pub fn confirm(&self, candidate: &Candidate, addresses: &[IpAddr]) -> Result<Permit, Denied> {
        let target = &candidate.target;
        let mut allowed = Vec::new();
        let mut policies: Vec<Arc<str>> = Vec::new();
        let mut refusal = None;
        for address in addresses.iter().take(MAX_ADDRESSES) {
            let address = address.to_canonical();
            if matches!(target.host, Host::Address(asked) if asked != address) {
                continue;
            }
            let resource = Resource::Target(target.clone(), Some(address));
            match self.decide(&candidate.subject, resource) {
                Verdict::Allowed(by) => {
                    allowed.push(SocketAddr::new(address, target.port));
                    for id in &*by {
                        if !policies.contains(id) {
                            policies.push(Arc::clone(id));
                        }
                    }
                }
                Verdict::Denied(denied) => refusal = refusal.or(Some(denied)),
                Verdict::NeedsAddress => refusal = refusal.or_else(|| Some(Denied::by_default())),
            }
        }
        if allowed.is_empty() {
            return Err(refusal.unwrap_or_else(Denied::by_default));
        }
        let what = What::Tunnel {
            target: target.clone(),
            addresses: allowed.into(),
        };
        Ok(Permit::new(Seal(()), what, None, policies.into()))
    }

    /// Judges an app. An app whose backend does the login (`authorization = "backend"`) is
    /// permitted by configuration: nobody is known who could be judged, and a device could
    /// leave its session out anyway.
    ///
    /// # Errors
    ///
    /// When no policy allows it, or one forbids it, or there is no session.
    pub fn open(
        &self,
        session: Option<&Session>,
        source: IpAddr,
        app: &App,
    ) -> Result<Permit, Denied> {
        self.open_as(session.map(Principal::from), source, app)
    }

    /// [`Policy::open`] for a principal that needs no session.
    ///
    /// # Errors
    ///
    /// As [`Policy::open`].
    pub fn open_as(
        &self,
        principal: Option<Principal<'_>>,
        source: IpAddr,
        app: &App,
    ) -> Result<Permit, Denied> {
        let what = What::App {
            app: Arc::clone(&app.name),
            pool: Arc::clone(&app.pool.name),
        };
        let policies = match (app.authorization, principal) {
            (Authorization::Backend, _) => Arc::clone(&self.by_configuration),
            (Authorization::Gateway, None) => return Err(Denied::by_default()),
            (Authorization::Gateway, Some(principal)) => {
                let subject = Subject::new(principal, source);
                match self.decide(&subject, Resource::app(app)) {
                    Verdict::Allowed(policies) => policies,
                    Verdict::Denied(denied) => return Err(denied),
                    Verdict::NeedsAddress => return Err(Denied::by_default()),
                }
            }
        };
        Ok(Permit::new(Seal(()), what, None, policies))
    }

    fn decide(&self, subject: &Subject, resource: Resource) -> Verdict {
        let source = self.set.reads_source().then_some(subject.source);
        let key = self.cache.key(subject, source, resource);
        if let Some(verdict) = self.cache.get(&key) {
            return verdict;
        }
        let verdict = self.set.decide(subject, key.resource());
        self.cache.put(key, verdict.clone());
        verdict
    }
}

/// Every problem of Cedar files, for `ravelin check`; empty when [`Policy::load`] takes them.
pub fn check(files: &[PathBuf]) -> Vec<Error> {
    load::load(files).err().unwrap_or_default()
}

/// Every app that a policy of these files names: for `ravelin check`, which knows the apps there
/// are. Empty when something is wrong with the files: [`check`] tells that.
pub fn apps(files: &[PathBuf]) -> Vec<Mention> {
    load::apps(files).unwrap_or_default()
}

/// A place where a policy names an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The file.
    pub file: PathBuf,
    /// Line and column, counted from 1, when known.
    pub place: Option<(usize, usize)>,
    /// The app's name.
    pub app: String,
}

/// On whose behalf something is judged.
#[derive(Clone, Copy, Debug)]
pub struct Principal<'a> {
    /// The session's id, which stands for this identity and for no other, ever: decisions are
    /// remembered by it.
    pub session: &'a Arc<str>,
    /// Who it is.
    pub identity: &'a Identity,
}

impl<'a> From<&'a Session> for Principal<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            session: session.id(),
            identity: session.identity(),
        }
    }
}

/// A target that a policy may allow: it may be resolved, not yet dialled.
#[derive(Clone, Debug)]
pub struct Candidate {
    target: Target,
    subject: Subject,
}

impl Candidate {
    /// What the device asked for.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// A decision against.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// For the log: which rule, or that none allowed it.
    pub reason: String,
    /// The ids of the policies that forbade it; empty: none allowed it.
    pub policies: Vec<Arc<str>>,
}

impl Denied {
    fn by_default() -> Self {
        Self {
            reason: "no policy allows it".to_owned(),
            policies: Vec::new(),
        }
    }
}

/// A policy file that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", .file.display(), .place.map(|(l, c)| format!(":{l}:{c}")).unwrap_or_default())]
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

static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// What stands for a policy where the configuration alone decided; no `@id` can look like it.
const BY_CONFIGURATION: &str = "(configuration)";

/// Decisions remembered; about 300 bytes each.
const CACHED: usize = 65_536;

/// Addresses of one name that are judged: a resolver's answer must not buy unbounded work.
const MAX_ADDRESSES: usize = 32;

#[cfg(test)]
mod tests;
