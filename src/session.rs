//! Session: who a device acts for, from a cookie, a token or a Basic credential.
//!
//! The record here is the authority. Devices carry a signed token (browsers), an opaque one
//! (other clients) or name and password; this module knows them by keyed hashes alone.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use self::{
    device::DeviceToken,
    usage::{Busy, Limit, OpenTunnel, Usage},
};
use self::{device::Devices, token::Tokens};
use crate::{
    auth::{Hash, Identity, Memory},
    clock,
    config::{self, Config, Secret},
    crypto::{self, KeyedHash, MasterKey},
};

mod device;
mod token;
mod usage;

/// A login that is in force. Shared by all requests, tunnels and connections that it covers.
#[derive(Debug)]
pub struct Session {
    id: Arc<str>,
    key: [u8; 16],
    identity: Identity,
    class: Class,
    source: IpAddr,
    started: Instant,
    until: Instant,
    idle: Duration,
    /// Milliseconds from `started` to the last use.
    used: AtomicU64,
    /// The Basic credential that made it.
    credential: Option<Hash>,
    ended: CancellationToken,
    /// That it ended, for those who ask with each request: the token takes a lock.
    over: AtomicBool,
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

    /// Where the login came from.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// When it was made.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When it ends at the latest.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// How long it has had nothing to do.
    pub fn idle(&self, now: Instant) -> Duration {
        if self.usage.is_busy() {
            return Duration::ZERO;
        }
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started)
            .saturating_sub(used)
    }

    /// Fires when it ends: logout, kill, limit. Everything that runs under it stops then.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// What runs under it now, over all its connections.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// It is in force: not ended, not over, not idle for too long.
    pub fn is_live(&self, now: Instant) -> bool {
        !self.over.load(Ordering::Acquire) && now < self.until && self.idle(now) < self.idle
    }

    fn touch(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.started).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.used.fetch_max(passed, Ordering::Relaxed);
    }

    fn new(
        identity: Identity,
        class: Class,
        source: IpAddr,
        until: Instant,
        idle: Duration,
        now: Instant,
    ) -> Self {
        Self {
            id: public_id("S-"),
            key: crypto::random(),
            identity,
            class,
            source,
            started: now,
            until,
            idle,
            used: AtomicU64::new(0),
            credential: None,
            ended: CancellationToken::new(),
            over: AtomicBool::new(false),
            usage: Usage::default(),
        }
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

impl Class {
    /// For logs and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Browser => "browser",
            Self::Device => "device",
        }
    }
}

/// All sessions, by what devices carry. It outlives a reload.
#[derive(Debug)]
pub struct Sessions {
    limits: ArcSwap<Limits>,
    hash: KeyedHash,
    tokens: Tokens,
    devices: Devices,
    /// Basic credentials that were checked lately.
    basic: Memory<Arc<Session>>,
    /// Logins on their way to an app's host.
    handovers: Memory<Arc<Handover>>,
    /// For the one look-up that each request of a browser makes.
    by_key: [Mutex<HashMap<[u8; 16], Arc<Session>>>; SHARDS],
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    by_id: HashMap<Arc<str>, Arc<Session>>,
    /// Oldest first.
    by_user: HashMap<User, VecDeque<Arc<Session>>>,
}

type User = (Arc<str>, Arc<str>);

#[derive(Clone, Debug)]
struct Limits {
    idle: Duration,
    absolute: Duration,
    device_token: Duration,
    browser_token: Duration,
    basic_memory: Duration,
    max: usize,
    max_per_user: usize,
}

impl Limits {
    fn new(login: &config::Login) -> Self {
        Self {
            idle: login.session_idle,
            absolute: login.session_absolute,
            device_token: login.device_token,
            browser_token: login.browser_token,
            basic_memory: login.basic_memory.min(MAX_BASIC_MEMORY),
            max: login.max_sessions.max(1),
            max_per_user: login.max_sessions_per_user.max(1),
        }
    }
}

impl Sessions {
    /// None yet. Keys for cookies and tokens derive from `master`.
    pub fn new(config: &Config, master: &MasterKey) -> Self {
        let limits = Limits::new(&config.login);
        Self {
            hash: KeyedHash::new(&master.derive("session credentials")),
            tokens: Tokens::new(&config.host, master),
            devices: Devices::new(&master.derive("device tokens")),
            basic: Memory::new(limits.max),
            handovers: Memory::new(MAX_HANDOVERS),
            by_key: std::array::from_fn(|_| Mutex::default()),
            registry: Mutex::default(),
            limits: ArcSwap::from_pointee(limits),
        }
    }

    /// Takes a new configuration's limits, for sessions made from now on.
    pub fn apply(&self, config: &Config) {
        self.limits.store(Arc::new(Limits::new(&config.login)));
    }

    /// Ends what is over, again and again; while the gateway drains, too. Spawn it once.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep(clock::now());
        }
    }

    /// Ends what is over.
    pub fn sweep(&self, now: Instant) {
        for session in self.list() {
            if session.usage.is_busy() {
                // What is busy now was not idle: its time begins when its last tunnel ends.
                session.touch(now);
            }
            if !session.is_live(now) {
                self.finish(&session);
            }
        }
        self.devices.revoke(|token, _session| now >= token.until);
        self.basic.retain(now, |session| session.is_live(now));
        self.handovers.retain(now, |_| true);
    }

    /// Makes a session for a proven identity. The person's oldest ends when there are too many.
    ///
    /// # Errors
    ///
    /// When the configured number of all sessions is reached.
    pub fn open(
        &self,
        identity: Identity,
        class: Class,
        source: IpAddr,
        now: Instant,
    ) -> Result<Arc<Session>, Full> {
        let limits = self.limits.load();
        let until = now.checked_add(limits.absolute).ok_or(Full)?;
        let session = Session::new(identity, class, source, until, limits.idle, now);
        self.add(session, &limits)
    }

    /// The session that a browser's token names, if the token was made for `host`.
    ///
    /// A token that is half as old as it may get comes back with its successor, which belongs
    /// into the answer.
    pub fn find_browser(&self, token: &str, host: &str, now: Instant) -> Option<Found> {
        let wall = clock::since_epoch();
        let verified = self.tokens.verify(token, host, now, wall)?;
        let session = self
            .shard(&verified.session)
            .get(&verified.session)
            .cloned()?;
        if !session.is_live(now) {
            self.finish(&session);
            return None;
        }
        session.touch(now);
        let fresh = self.limits.load().browser_token;
        let renewed = (verified.age(wall) >= fresh / 2).then(|| self.browser_token(&session, host));
        Some(Found { session, renewed })
    }

    /// A token by which a browser shows this session to one host. It may be replaced until the
    /// session would have been idle for too long.
    pub fn browser_token(&self, session: &Session, host: &str) -> String {
        let life = session.idle.max(self.limits.load().browser_token);
        self.tokens
            .issue(session.key, host, life, clock::since_epoch())
    }

    /// What stands for a Basic credential at one listener.
    pub fn basic_key(&self, user: &str, password: &[u8], listener: &str) -> BasicKey {
        let parts = [user.as_bytes(), password, listener.as_bytes()];
        BasicKey(self.hash.of(&parts))
    }

    /// The session of a Basic credential that was checked lately.
    pub fn find_basic(&self, key: &BasicKey, now: Instant) -> Option<Arc<Session>> {
        let session = self.basic.find(&key.0, now)?;
        session.is_live(now).then(|| {
            session.touch(now);
            session
        })
    }

    /// The session of a Basic credential that was checked just now: the one that it already has,
    /// or a new one.
    ///
    /// # Errors
    ///
    /// When the configured number of all sessions is reached.
    pub fn open_basic(
        &self,
        key: &BasicKey,
        identity: Identity,
        source: IpAddr,
        now: Instant,
    ) -> Result<Arc<Session>, Full> {
        let limits = self.limits.load();
        let mut registry = self.registry();
        let known = registry
            .by_user
            .get(&user_of(&identity))
            .and_then(|sessions| {
                sessions
                    .iter()
                    // Groups may have changed since: then it is another session.
                    .find(|s| {
                        s.credential == Some(key.0) && s.identity == identity && s.is_live(now)
                    })
            })
            .cloned();
        let session = match known {
            Some(session) => session,
            None => {
                let until = now.checked_add(limits.absolute).ok_or(Full)?;
                let mut session =
                    Session::new(identity, Class::Basic, source, until, limits.idle, now);
                session.credential = Some(key.0);
                let (session, evicted) = registry.add(session, &limits)?;
                drop(registry);
                self.settle(&session, evicted);
                session
            }
        };
        session.touch(now);
        if let Some(until) = now.checked_add(limits.basic_memory) {
            self.basic.insert(key.0, Arc::clone(&session), until, now);
        }
        Ok(session)
    }

    /// Makes a device token. The text is told once and kept nowhere.
    pub fn issue_device(
        &self,
        identity: Identity,
        label: &str,
        now: Instant,
    ) -> (Secret, Arc<DeviceToken>) {
        let limits = self.limits.load();
        let (secret, token, evicted) = self.devices.issue(
            identity,
            label,
            limits.device_token,
            limits.max_per_user,
            now,
        );
        if let Some(session) = evicted {
            self.finish(&session);
        }
        (secret, token)
    }

    /// The session behind a device token; `None` when it is unknown, revoked or over.
    ///
    /// # Errors
    ///
    /// When the configured number of all sessions is reached.
    pub fn find_device(
        &self,
        token: &Secret,
        source: IpAddr,
        now: Instant,
    ) -> Option<Result<Arc<Session>, Full>> {
        let limits = self.limits.load();
        let found = self.devices.session(token, now, |device| {
            // Device tokens outlive sessions: theirs lasts as long as the token.
            let identity = device.identity.clone();
            let idle = limits.idle;
            let session = Session::new(identity, Class::Device, source, device.until, idle, now);
            self.add(session, &limits)
        })?;
        if let Ok(session) = &found {
            session.touch(now);
        }
        Some(found)
    }

    /// A person's device tokens, newest first.
    pub fn devices_of(&self, identity: &Identity) -> Vec<Arc<DeviceToken>> {
        let mut devices = self.devices.list(|token| token.is_of(identity));
        devices.sort_by_key(|token| std::cmp::Reverse(token.made));
        devices
    }

    /// Revokes a device token of this person and ends its session.
    pub fn revoke_device(&self, identity: &Identity, id: &str) -> bool {
        let revoked = self
            .devices
            .revoke(|token, _session| token.is_of(identity) && *token.id == *id);
        let any = !revoked.is_empty();
        for session in revoked.into_iter().flatten() {
            self.finish(&session);
        }
        any
    }

    /// Keeps a login for the host that it is handed over to; the text brings it back once.
    pub fn hand_over(&self, handover: Handover, now: Instant) -> String {
        let code = data_encoding::BASE64URL_NOPAD.encode(&crypto::random::<32>());
        if let Some(until) = now.checked_add(HANDOVER) {
            let hash = self.hash.of(&[b"handover", code.as_bytes()]);
            self.handovers.insert(hash, Arc::new(handover), until, now);
        }
        code
    }

    /// Takes what [`Sessions::hand_over`] kept; a second call finds nothing.
    pub fn take_over(&self, code: &str, now: Instant) -> Option<Arc<Handover>> {
        let hash = self.hash.of(&[b"handover", code.as_bytes()]);
        self.handovers
            .take(&hash, now)
            .filter(|handover| handover.session.is_live(now))
    }

    /// Ends a session, and revokes the device token that made it. `false`: there is none.
    pub fn end(&self, id: &str) -> bool {
        let session = self.registry().by_id.get(id).cloned();
        if let Some(session) = &session {
            self.devices
                .revoke(|_token, theirs| theirs.is_some_and(|theirs| Arc::ptr_eq(theirs, session)));
            self.finish(session);
        }
        session.is_some()
    }

    /// Ends all sessions and revokes all device tokens of a user name, in every directory.
    /// Gives how many sessions ended.
    pub fn end_user(&self, user: &str) -> usize {
        self.end_those(|identity| *identity.user == *user)
    }

    /// Ends all sessions and revokes all device tokens, those that nobody uses now as well. Gives
    /// how many sessions ended.
    pub fn end_all(&self) -> usize {
        self.end_those(|_identity| true)
    }

    fn end_those(&self, whose: impl Fn(&Identity) -> bool) -> usize {
        let finish = || {
            let mut sessions = self.list();
            sessions.retain(|session| whose(&session.identity));
            for session in &sessions {
                self.finish(session);
            }
            sessions.len()
        };
        // Sessions first: whoever makes a token with one looks afterwards whether it has ended.
        // And again, since a token may have made one before it was revoked.
        let before = finish();
        self.devices
            .revoke(|token, _session| whose(&token.identity));
        before.saturating_add(finish())
    }

    /// All sessions.
    pub fn list(&self) -> Vec<Arc<Session>> {
        self.registry().by_id.values().cloned().collect()
    }

    fn add(&self, session: Session, limits: &Limits) -> Result<Arc<Session>, Full> {
        let (session, evicted) = self.registry().add(session, limits)?;
        self.settle(&session, evicted);
        Ok(session)
    }

    fn settle(&self, session: &Arc<Session>, evicted: Option<Arc<Session>>) {
        self.shard(&session.key)
            .insert(session.key, Arc::clone(session));
        if let Some(oldest) = evicted {
            self.finish(&oldest);
        }
    }

    fn finish(&self, session: &Arc<Session>) {
        session.over.store(true, Ordering::Release);
        session.ended.cancel();
        self.shard(&session.key).remove(&session.key);
        self.registry().remove(session);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder of a division by the length is a valid place"
    )]
    fn shard(&self, key: &[u8; 16]) -> MutexGuard<'_, HashMap<[u8; 16], Arc<Session>>> {
        self.by_key[usize::from(key[0]) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Adds a session; gives the person's oldest one, to be ended, when there are too many.
    fn add(
        &mut self,
        session: Session,
        limits: &Limits,
    ) -> Result<(Arc<Session>, Option<Arc<Session>>), Full> {
        let session = Arc::new(session);
        let mine = self.by_user.entry(user_of(&session.identity)).or_default();
        let crowded = mine.len() >= limits.max_per_user;
        // Decided before anything ends: whoever is refused loses nothing by it.
        if self.by_id.len().saturating_sub(crowded.into()) >= limits.max {
            if mine.is_empty() {
                self.by_user.remove(&user_of(&session.identity));
            }
            return Err(Full);
        }
        let evicted = if crowded { mine.pop_front() } else { None };
        if let Some(oldest) = &evicted {
            self.by_id.remove(&oldest.id);
        }
        mine.push_back(Arc::clone(&session));
        self.by_id
            .insert(Arc::clone(&session.id), Arc::clone(&session));
        Ok((session, evicted))
    }

    fn remove(&mut self, session: &Arc<Session>) {
        self.by_id.remove(&session.id);
        let user = user_of(&session.identity);
        if let Some(mine) = self.by_user.get_mut(&user) {
            mine.retain(|other| !Arc::ptr_eq(other, session));
            if mine.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }
}

fn user_of(identity: &Identity) -> User {
    (Arc::clone(&identity.directory), Arc::clone(&identity.user))
}

/// What a browser's token led to.
#[derive(Debug)]
pub struct Found {
    /// The session.
    pub session: Arc<Session>,
    /// The token that takes the old one's place.
    pub renewed: Option<String>,
}

/// A login on its way from the gateway's own host to an app's.
#[derive(Debug)]
pub struct Handover {
    /// The session.
    pub session: Arc<Session>,
    /// The host that may take it.
    pub host: Arc<str>,
    /// What the browser was given there before.
    pub browser: [u8; 16],
    /// Where it goes on: a path of that host.
    pub path: Box<str>,
}

/// What stands for a Basic credential; it cannot be turned back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicKey(Hash);

/// The configured number of sessions is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for another session")]
pub struct Full;

fn public_id(prefix: &str) -> Arc<str> {
    let mut id = String::from(prefix);
    data_encoding::BASE32_NOPAD.encode_append(&crypto::random::<10>(), &mut id);
    id.into()
}

const SHARDS: usize = 16;
const SWEEP: Duration = Duration::from_secs(5);
const HANDOVER: Duration = Duration::from_secs(30);
const MAX_HANDOVERS: usize = 10_000;
/// A password that was changed must not be good for longer, whatever is configured.
const MAX_BASIC_MEMORY: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
