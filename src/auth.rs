//! Turns credentials into an [`Identity`]; knows no HTTP.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

pub(crate) use self::memory::{Hash, Memory};
pub use self::{
    lockout::Lockout,
    users::{Error as UsersError, Problem as UsersProblem, hash_password},
};
use self::{
    lockout::{Guess, Locked},
    users::Users,
};
use crate::{
    clock,
    config::{self, Config, DirectoryKind, Secret},
    crypto::{KeyedHash, MasterKey},
    dial::Dialer,
    metrics::{ByOutcome, PasswordChecks},
    shutdown::Tasks,
};

mod ldap;
mod lockout;
mod memory;
pub mod users;

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
pub struct Authenticator {
    shared: Arc<Shared>,
    step: Duration,
    /// Checks that are running: a second try with the same credential waits for the first's end.
    flights: Flights,
}

type Flights = Arc<Mutex<HashMap<Hash, watch::Receiver<Option<Outcome>>>>>;

#[derive(Debug)]
struct Shared {
    directories: Vec<Directory>,
    lockout: Arc<Lockout>,
    limits: Arc<lockout::Limits>,
    /// Places for checks that run or wait.
    queue: Arc<Semaphore>,
    /// Credentials that failed lately, and why.
    failed: Memory<Arc<str>>,
    hash: KeyedHash,
    checks: PasswordChecks,
    tasks: Tasks,
}

#[derive(Debug)]
struct Directory {
    name: Arc<str>,
    kind: Kind,
    slots: Semaphore,
}

#[derive(Debug)]
enum Kind {
    Ldap(Box<ldap::Client>),
    Users(Arc<Users>),
}

/// What one check came to; shared by all who wait for it.
type Outcome = Result<Identity, Failure>;

#[derive(Clone, Debug)]
enum Failure {
    Rejected(Arc<str>),
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
}

impl Authenticator {
    /// For the directories of a configuration. `lockout` outlives a reload.
    ///
    /// # Errors
    ///
    /// A user file that cannot be used.
    pub fn new(
        config: &Config,
        master: &MasterKey,
        lockout: Arc<Lockout>,
        dialer: Arc<Dialer>,
        checks: PasswordChecks,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let directories = config
            .directories
            .iter()
            .map(|directory| {
                let name = Arc::clone(&directory.name);
                let kind = match &directory.kind {
                    DirectoryKind::Ldap(settings) => Kind::Ldap(Box::new(ldap::Client::new(
                        Arc::clone(&name),
                        (**settings).clone(),
                        Arc::clone(&dialer),
                        tasks.clone(),
                    ))),
                    DirectoryKind::Users(path) => Users::load(path)
                        .map(|users| Kind::Users(Arc::new(users)))
                        .map_err(|source| Error::Users {
                            path: path.clone(),
                            source,
                        })?,
                };
                Ok((name, kind))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self::with(
            directories,
            &config.login,
            master,
            lockout,
            checks,
            tasks,
        ))
    }

    fn with(
        directories: Vec<(Arc<str>, Kind)>,
        login: &config::Login,
        master: &MasterKey,
        lockout: Arc<Lockout>,
        checks: PasswordChecks,
        tasks: Tasks,
    ) -> Self {
        let places = login.checks_at_once.saturating_add(login.check_queue);
        let directories = directories
            .into_iter()
            .map(|(name, kind)| Directory {
                name,
                kind,
                // A directory that hangs must not hold up the others.
                slots: Semaphore::new(login.checks_at_once.clamp(1, Semaphore::MAX_PERMITS)),
            })
            .collect();
        Self {
            shared: Arc::new(Shared {
                directories,
                lockout,
                limits: Arc::new(lockout::Limits::new(login)),
                queue: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
                failed: Memory::new(MAX_FAILED),
                hash: KeyedHash::new(&master.derive("credentials being checked")),
                checks,
                tasks,
            }),
            step: login.step,
            flights: Arc::default(),
        }
    }

    /// For one user file alone, for the tests of other stages.
    #[cfg(test)]
    pub(crate) fn for_test(file: &std::path::Path, login: &config::Login) -> Self {
        let users = Users::load(file).unwrap();
        let kind = Kind::Users(Arc::new(users));
        let master = MasterKey::generate();
        Self::with(
            vec![("local".into(), kind)],
            login,
            &master,
            Lockout::new(),
            PasswordChecks::default(),
            Tasks::new(),
        )
    }

    /// Checks a name and a password. A failure returns at the next multiple of the configured
    /// step counted from `asked`, whatever the reason.
    ///
    /// A check that has begun goes on when its caller goes away, and counts.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] for everything that is the person's: unknown, wrong, locked, slowed
    /// down. [`Error::Unavailable`] when no directory could answer. [`Error::Busy`] when too
    /// many wait.
    pub async fn check(&self, attempt: Attempt<'_>, asked: Instant) -> Result<Identity, Error> {
        self.check_then(attempt, asked, |_identity| {}).await
    }

    /// Like [`Authenticator::check`]; `then` runs once the credential is proven and before the
    /// next try with it can begin a check of its own, so that what it notes is found by that one.
    /// It does not run when another caller's check of the same credential was joined.
    ///
    /// # Errors
    ///
    /// Those of [`Authenticator::check`].
    pub async fn check_then<F>(
        &self,
        attempt: Attempt<'_>,
        asked: Instant,
        then: F,
    ) -> Result<Identity, Error>
    where
        F: FnOnce(&Identity) + Send + 'static,
    {
        let result = self.judge(attempt, then).await;
        if result.is_err() {
            sleep(until_step(asked, clock::now(), self.step)).await;
        }
        result
    }

    async fn judge<F>(&self, attempt: Attempt<'_>, then: F) -> Result<Identity, Error>
    where
        F: FnOnce(&Identity) + Send + 'static,
    {
        if let Err(reason) = acceptable(&attempt) {
            return Err(Error::Rejected {
                reason: reason.into(),
            });
        }
        let shared = &self.shared;
        let credential = shared.credential(attempt.user, attempt.password);
        if let Some(reason) = shared.failed.find(&credential, clock::now()) {
            // Asked again and again by a device that keeps an old password, this neither costs
            // a check nor counts as guessing.
            return Err(Error::Rejected {
                reason: format!("{reason} (failed before)"),
            });
        }
        let mut flight = self.join(credential, &attempt, then)?;
        let outcome = flight.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(Ok(identity))) => Ok(identity.clone()),
            Ok(Some(Err(Failure::Rejected(reason)))) => Err(Error::Rejected {
                reason: reason.to_string(),
            }),
            Ok(Some(Err(Failure::Unavailable(cause)))) => {
                Err(Error::Unavailable(Arc::clone(cause)))
            }
            Ok(None) | Err(_) => Err(Error::Unavailable(Arc::new(Broken))),
        }
    }

    /// Joins the check of this credential from this source that is running, or starts one, in a
    /// task of its own: a panic on what a directory sent ends that check and nothing else.
    fn join<F>(
        &self,
        credential: Hash,
        attempt: &Attempt<'_>,
        then: F,
    ) -> Result<watch::Receiver<Option<Outcome>>, Error>
    where
        F: FnOnce(&Identity) + Send + 'static,
    {
        let source = attempt.source;
        let key = self
            .shared
            .hash
            .of(&[b"flight", &credential, source.to_string().as_bytes()]);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return Ok(flight.clone());
        }
        let place = Arc::clone(&self.shared.queue)
            .try_acquire_owned()
            .map_err(|_full| Error::Busy)?;
        let (sender, flight) = watch::channel(None);
        flights.insert(key, flight.clone());
        let landing = Landing {
            key,
            flights: Arc::clone(&self.flights),
        };
        let shared = Arc::clone(&self.shared);
        let (user, password) = (attempt.user.to_owned(), attempt.password.clone());
        drop(self.shared.tasks.spawn(async move {
            let outcome = Box::pin(shared.ask(&user, &password, source)).await;
            if let Ok(identity) = &outcome {
                then(identity);
            }
            // From here on a new try is a new check; whoever waits has the receiver.
            drop(landing);
            sender.send_replace(Some(outcome));
            drop(place);
        }));
        Ok(flight)
    }
}

/// Takes a flight off the list, however it ends.
struct Landing {
    key: Hash,
    flights: Flights,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

impl Shared {
    async fn ask(&self, user: &str, password: &Secret, source: IpAddr) -> Outcome {
        let now = clock::now();
        let mut guess = match self.lockout.begin(&self.limits, user, source, now) {
            Ok(guess) => guess,
            Err(locked) => {
                self.pretend(&self.directories, password).await;
                return Err(self.slowed_down(locked, user, source));
            }
        };
        let mut directories = self.directories.iter();
        while let Some(directory) = directories.next() {
            let answer = directory.check(self, user, password, &mut guess).await;
            match answer {
                Ok(Answer::Known { user, groups }) => {
                    guess.passed();
                    self.count("right");
                    return Ok(Identity {
                        user,
                        directory: Arc::clone(&directory.name),
                        groups,
                    });
                }
                Ok(Answer::Locked(locked)) => {
                    self.pretend(directories.as_slice(), password).await;
                    return Err(self.slowed_down(locked, user, source));
                }
                Ok(Answer::Unknown) => {}
                Ok(Answer::Wrong { why }) => {
                    self.pretend(directories.as_slice(), password).await;
                    let reason = format!("wrong password for {user} in {}{why}", directory.name);
                    return Err(self.failed(user, password, guess, &reason));
                }
                // A later directory is not asked: an account of the same name there must not
                // take this one's place while this directory is silent.
                Err(cause) => {
                    self.count("unanswered");
                    return Err(Failure::Unavailable(cause));
                }
            }
        }
        let reason = format!("unknown user {}", self.disguise(user));
        Err(self.failed(user, password, guess, &reason))
    }

    /// Costs what these directories would have cost for a name that they do not know, so that the
    /// time tells nobody which of them was asked.
    async fn pretend(&self, directories: &[Directory], password: &Secret) {
        for directory in directories {
            // One that is down makes no difference for whoever is refused anyway.
            let _cost = directory.dummy(self, password).await;
        }
    }

    fn count(&self, outcome: &'static str) {
        self.checks.get_or_create(&ByOutcome { outcome }).inc();
    }

    fn failed(&self, user: &str, password: &Secret, guess: Guess, reason: &str) -> Failure {
        let now = clock::now();
        guess.failed(now);
        self.count("wrong");
        let reason: Arc<str> = reason.into();
        let credential = self.credential(user, password);
        if let Some(until) = now.checked_add(FAILED_FOR) {
            self.failed
                .insert(credential, Arc::clone(&reason), until, now);
        }
        Failure::Rejected(reason)
    }

    fn slowed_down(&self, locked: Locked, user: &str, source: IpAddr) -> Failure {
        self.count("limited");
        let reason = match locked {
            Locked::Source => format!("too many failures from {source}"),
            Locked::User => format!("too many failures of user {}", self.disguise(user)),
        };
        Failure::Rejected(reason.into())
    }

    /// What the log says in place of a name that may be no name: people type passwords there.
    fn disguise(&self, user: &str) -> String {
        let hash = self.hash.of(&[b"name", user.as_bytes()]);
        let short = hash.first_chunk::<6>().unwrap_or(&[0; 6]);
        format!("#{}", data_encoding::HEXLOWER.encode(short))
    }

    fn credential(&self, user: &str, password: &Secret) -> Hash {
        self.hash
            .of(&[b"credential", user.as_bytes(), password.expose()])
    }
}

/// What one directory says.
#[derive(Debug)]
enum Answer {
    Known {
        user: Arc<str>,
        groups: Arc<[Arc<str>]>,
    },
    Locked(Locked),
    Unknown,
    Wrong {
        why: String,
    },
}

type Cause = Arc<dyn std::error::Error + Send + Sync>;

impl Directory {
    async fn check(
        &self,
        shared: &Shared,
        user: &str,
        password: &Secret,
        guess: &mut Guess,
    ) -> Result<Answer, Cause> {
        let _slot = self.slot().await?;
        match &self.kind {
            Kind::Ldap(client) => match client.check(user, password, guess).await {
                Ok(ldap::Answer::Known { user, groups }) => Ok(Answer::Known { user, groups }),
                Ok(ldap::Answer::Locked(locked)) => Ok(Answer::Locked(locked)),
                Ok(ldap::Answer::Unknown) => Ok(Answer::Unknown),
                Ok(ldap::Answer::Wrong { why }) => Ok(Answer::Wrong {
                    why: format!(": {why}"),
                }),
                Err(cause) => Err(Arc::new(cause)),
            },
            Kind::Users(users) => match hashed(shared, users, user, password).await? {
                users::Answer::Known(groups) => Ok(Answer::Known {
                    user: user.into(),
                    groups,
                }),
                users::Answer::Unknown => Ok(Answer::Unknown),
                users::Answer::Wrong => Ok(Answer::Wrong { why: String::new() }),
            },
        }
    }

    /// Costs what a wrong password costs.
    async fn dummy(&self, shared: &Shared, password: &Secret) -> Result<(), Cause> {
        let _slot = self.slot().await?;
        match &self.kind {
            Kind::Ldap(client) => client
                .dummy(password)
                .await
                .map_err(|cause| Arc::new(cause) as Cause),
            // No name in a user file is empty.
            Kind::Users(users) => hashed(shared, users, "", password).await.map(drop),
        }
    }

    async fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Cause> {
        match timeout(MAX_WAIT, self.slots.acquire()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(Arc::new(Error::Busy)),
        }
    }
}

/// Password hashing is made to be slow: it runs away from the workers that serve connections.
async fn hashed(
    shared: &Shared,
    users: &Arc<Users>,
    user: &str,
    password: &Secret,
) -> Result<users::Answer, Cause> {
    let users = Arc::clone(users);
    let (user, password) = (user.to_owned(), password.clone());
    shared
        .tasks
        .spawn_blocking(move || users.check(&user, &password))
        .await
        .map_err(|panicked| Arc::new(panicked) as Cause)
}

/// Refuses what no directory must be asked. An empty password would log anybody in at servers
/// that take it for an anonymous bind (R31).
fn acceptable(attempt: &Attempt<'_>) -> Result<(), &'static str> {
    let password = attempt.password.expose();
    if attempt.user.is_empty() || attempt.user.len() > MAX_NAME {
        return Err("the name is empty or too long");
    }
    if attempt.user.chars().any(char::is_control) {
        return Err("the name has control characters");
    }
    if password.is_empty() || password.len() > MAX_PASSWORD {
        return Err("the password is empty or too long");
    }
    if password.contains(&0) || attempt.password.expose_text().is_none() {
        return Err("the password is not text");
    }
    Ok(())
}

/// How long until the next multiple of `step` after `asked`.
fn until_step(asked: Instant, now: Instant, step: Duration) -> Duration {
    let step = step.as_nanos();
    let passed = now.saturating_duration_since(asked).as_nanos();
    let rest = match passed.checked_rem(step) {
        Some(0) if passed > 0 => 0,
        Some(over) => step.saturating_sub(over),
        None => 0,
    };
    Duration::from_nanos(u64::try_from(rest).unwrap_or_default())
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
    /// Too many checks are waiting.
    #[error("too many logins are waiting")]
    Busy,
    /// The credential is not good. `reason` is for the log alone.
    #[error("login refused: {reason}")]
    Rejected {
        /// Unknown user, wrong password, too many failures …
        reason: String,
    },
    /// Nobody can tell now.
    #[error("no directory could answer")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A user file that cannot be used.
    #[error("user file {path}", path = path.display())]
    Users {
        /// Which.
        path: PathBuf,
        /// Why.
        source: UsersError,
    },
}

/// A check that ended without a result.
#[derive(Debug, thiserror::Error)]
#[error("the check broke off")]
struct Broken;

const MAX_NAME: usize = 256;
const MAX_PASSWORD: usize = 1024;
const MAX_FAILED: usize = 10_000;
const FAILED_FOR: Duration = Duration::from_secs(60);
const MAX_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
