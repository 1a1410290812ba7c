//! Delays and soft locks: how many wrong passwords a user name or a source may try.
//!
//! Nothing is locked for good. After `attempts` failures within the window the next try is
//! refused unasked until a pause is over; the pause doubles with each further failure.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::config;

/// Failures by user and by source, in bounded memory. It outlives a reload.
#[derive(Debug, Default)]
pub struct Lockout(Mutex<Counters>);

#[derive(Debug, Default)]
struct Counters {
    entries: HashMap<Key, Entry>,
    /// Keys in the order of their first failure, for dropping the oldest.
    order: VecDeque<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Source(IpAddr),
    User(Box<str>),
}

#[derive(Debug)]
struct Entry {
    failures: u32,
    pending: u32,
    last: Instant,
}

/// Too many failures: this try is not to be asked anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    Source,
    User,
}

/// The limits of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) attempts: u32,
    pub(super) window: Duration,
    pub(super) shared_sources: Vec<IpNet>,
}

impl Limits {
    pub(super) fn new(login: &config::Login) -> Self {
        Self {
            attempts: login.attempts.max(1),
            window: login.attempts_window,
            shared_sources: login.shared_sources.clone(),
        }
    }

    /// How long the next try waits after the last of this many failures.
    fn pause(&self, failures: u32) -> Duration {
        let beyond = failures.saturating_sub(self.attempts).min(16);
        FIRST_PAUSE
            .saturating_mul(1_u32 << beyond)
            .min(self.window.max(FIRST_PAUSE))
    }
}

impl Lockout {
    /// No failures yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Begins a try. It counts as open until [`Guess::failed`], [`Guess::passed`] or its drop,
    /// so that many tries at once cannot slip through together.
    pub(super) fn begin(
        self: &Arc<Self>,
        limits: &Arc<Limits>,
        user: &str,
        source: IpAddr,
        now: Instant,
    ) -> Result<Guess, Locked> {
        let mut guess = Guess {
            lockout: Arc::clone(self),
            limits: Arc::clone(limits),
            keys: Vec::with_capacity(2),
        };
        let source = block(source);
        if !limits
            .shared_sources
            .iter()
            .any(|shared| shared.contains(&source))
        {
            guess.add(Key::Source(source), now)?;
        }
        guess.name(user, now)?;
        Ok(guess)
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A try that is being checked.
#[derive(Debug)]
pub(super) struct Guess {
    lockout: Arc<Lockout>,
    limits: Arc<Limits>,
    keys: Vec<Key>,
}

impl Guess {
    /// Counts this try for an account too, once a directory has said which one a name means:
    /// spellings that the directory takes as equal share one count.
    pub(super) fn name(&mut self, account: &str, now: Instant) -> Result<(), Locked> {
        self.add(Key::User(account.to_lowercase().into()), now)
    }

    /// The password was wrong, or the name unknown.
    pub(super) fn failed(mut self, now: Instant) {
        self.settle(|entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.last = now;
        });
    }

    /// The password was right: its user starts anew. Its source does not, since whoever guesses
    /// other people's passwords may well have one of his own.
    pub(super) fn passed(mut self) {
        let users = self.keys.clone();
        self.settle(|_entry| {});
        let mut counters = self.lockout.lock();
        for key in users {
            if matches!(key, Key::User(_))
                && let Some(entry) = counters.entries.get_mut(&key)
            {
                entry.failures = 0;
            }
        }
    }

    fn add(&mut self, key: Key, now: Instant) -> Result<(), Locked> {
        if self.keys.contains(&key) {
            return Ok(());
        }
        let limits = Arc::clone(&self.limits);
        let mut counters = self.lockout.lock();
        let entry = counters.entry(&key, now);
        if now.saturating_duration_since(entry.last) >= limits.window {
            entry.failures = 0;
        }
        let (open, locked) = match key {
            // Many people may log in at once from one address: only a crowd counts as failures.
            Key::Source(_) => (entry.pending.saturating_sub(CROWD), Locked::Source),
            Key::User(_) => (entry.pending, Locked::User),
        };
        let over = entry.failures.saturating_add(open) >= limits.attempts;
        let waited = now.saturating_duration_since(entry.last) >= limits.pause(entry.failures);
        // After its pause, one try at a time.
        if over && (open > 0 || !waited) {
            return Err(locked);
        }
        entry.pending = entry.pending.saturating_add(1);
        drop(counters);
        self.keys.push(key);
        Ok(())
    }

    fn settle(&mut self, change: impl Fn(&mut Entry)) {
        let mut counters = self.lockout.lock();
        for key in self.keys.drain(..) {
            if let Some(entry) = counters.entries.get_mut(&key) {
                entry.pending = entry.pending.saturating_sub(1);
                change(entry);
            }
        }
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        self.settle(|_entry| {});
    }
}

impl Counters {
    fn entry(&mut self, key: &Key, now: Instant) -> &mut Entry {
        if !self.entries.contains_key(key) {
            self.make_room();
            self.order.push_back(key.clone());
        }
        self.entries.entry(key.clone()).or_insert(Entry {
            failures: 0,
            pending: 0,
            last: now,
        })
    }

    /// Drops one entry when the memory is full: of the oldest few the one with fewest failures,
    /// so that a flood of made-up names does not wash away the count of a name under attack.
    fn make_room(&mut self) {
        if self.entries.len() < CAPACITY {
            return;
        }
        let mut seen = Vec::with_capacity(EVICTION_CHOICE);
        while seen.len() < EVICTION_CHOICE
            && let Some(key) = self.order.pop_front()
        {
            seen.push(key);
        }
        let weakest = seen
            .iter()
            .enumerate()
            .min_by_key(|(_place, key)| {
                self.entries
                    .get(*key)
                    .map_or(0, |entry| entry.failures.saturating_add(entry.pending))
            })
            .map(|(place, _key)| place);
        if let Some(place) = weakest {
            let key = seen.swap_remove(place);
            self.entries.remove(&key);
        }
        self.order.extend(seen);
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64.
fn block(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(15);
const CROWD: u32 = 32;
const CAPACITY: usize = 100_000;
const EVICTION_CHOICE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn limits() -> Arc<Limits> {
        Arc::new(Limits {
            attempts: 5,
            window: Duration::from_secs(900),
            shared_sources: vec!["203.0.113.0/24".parse().unwrap()],
        })
    }

    fn fail(lockout: &Arc<Lockout>, user: &str, source: &str, now: Instant) -> Result<(), Locked> {
        lockout
            .begin(&limits(), user, source.parse().unwrap(), now)
            .map(|guess| guess.failed(now))
    }

    #[test]
    fn five_failures_stop_the_sixth_try_from_anywhere() {
        let lockout = Lockout::new();
        let now = clock::now();
        for host in 1..=5 {
            fail(&lockout, "alice", &format!("192.0.2.{host}"), now).unwrap();
        }

        assert_eq!(fail(&lockout, "ALICE", "192.0.2.9", now), Err(Locked::User));
        assert_eq!(fail(&lockout, "bob", "192.0.2.9", now), Ok(()));
    }

    #[test]
    fn the_pause_grows_with_each_failure_and_ends_with_the_window() {
        let lockout = Lockout::new();
        let mut now = clock::now();
        for host in 1..=5 {
            fail(&lockout, "alice", &format!("192.0.2.{host}"), now).unwrap();
        }

        now += Duration::from_secs(15);
        fail(&lockout, "alice", "198.51.100.1", now).unwrap();
        now += Duration::from_secs(29);
        fail(&lockout, "alice", "198.51.100.2", now).unwrap_err();
        now += Duration::from_secs(1);
        fail(&lockout, "alice", "198.51.100.2", now).unwrap();
        now += Duration::from_secs(900);
        for host in 1..=5 {
            fail(&lockout, "alice", &format!("198.51.100.{}", 10 + host), now).unwrap();
        }
        fail(&lockout, "alice", "198.51.100.20", now).unwrap_err();
    }

    #[test]
    fn one_source_guessing_many_names_is_stopped() {
        let lockout = Lockout::new();
        let now = clock::now();
        for user in ["a", "b", "c", "d", "e"] {
            fail(&lockout, user, "2001:db8::1", now).unwrap();
        }

        assert_eq!(
            fail(&lockout, "f", "2001:db8::ffff", now),
            Err(Locked::Source)
        );
        assert_eq!(fail(&lockout, "f", "2001:db8:0:1::1", now), Ok(()));
    }

    #[test]
    fn a_shared_source_has_no_limit_of_its_own() {
        let lockout = Lockout::new();
        let now = clock::now();
        for number in 0..100 {
            fail(&lockout, &format!("user{number}"), "203.0.113.7", now).unwrap();
        }
        for number in 0..100 {
            let result = fail(
                &lockout,
                &format!("other{number}"),
                "::ffff:203.0.113.7",
                now,
            );
            assert_eq!(result, Ok(()));
        }
    }

    #[test]
    fn tries_at_once_count_as_if_they_had_failed() {
        let lockout = Lockout::new();
        let now = clock::now();
        let source = "192.0.2.1".parse().unwrap();
        let open: Vec<_> = (0..5)
            .map(|_| lockout.begin(&limits(), "alice", source, now).unwrap())
            .collect();

        lockout.begin(&limits(), "alice", source, now).unwrap_err();
        drop(open);
        lockout.begin(&limits(), "alice", source, now).unwrap();
    }

    #[test]
    fn a_right_password_clears_the_user_and_not_the_source() {
        let lockout = Lockout::new();
        let now = clock::now();
        for _ in 0..4 {
            fail(&lockout, "alice", "192.0.2.1", now).unwrap();
        }
        let source = "192.0.2.1".parse().unwrap();
        lockout
            .begin(&limits(), "alice", source, now)
            .unwrap()
            .passed();

        assert_eq!(fail(&lockout, "alice", "192.0.2.1", now), Ok(()));
        assert_eq!(
            fail(&lockout, "alice", "192.0.2.1", now),
            Err(Locked::Source)
        );
        for host in 2..=5 {
            assert_eq!(
                fail(&lockout, "alice", &format!("192.0.2.{host}"), now),
                Ok(())
            );
        }
    }

    #[test]
    fn spellings_that_mean_one_account_share_its_count() {
        let lockout = Lockout::new();
        let now = clock::now();
        for number in 0..5 {
            let source = format!("192.0.2.{number}").parse().unwrap();
            let mut guess = lockout
                .begin(&limits(), &format!("spelling {number}"), source, now)
                .unwrap();
            guess.name("corp/cn=alice", now).unwrap();
            guess.failed(now);
        }

        let source = "192.0.2.77".parse().unwrap();
        let mut guess = lockout.begin(&limits(), "alice", source, now).unwrap();
        assert_eq!(guess.name("corp/CN=Alice", now), Err(Locked::User));
    }

    #[test]
    fn made_up_names_neither_grow_the_memory_nor_wash_away_a_count() {
        let lockout = Lockout::new();
        let now = clock::now();
        for host in 1..=5 {
            fail(&lockout, "alice", &format!("203.0.113.{host}"), now).unwrap();
        }
        for number in 0..CAPACITY * 2 {
            fail(&lockout, &format!("u{number}"), "203.0.113.1", now).unwrap();
        }

        assert!(lockout.lock().entries.len() <= CAPACITY);
        assert!(lockout.lock().order.len() <= CAPACITY);
        fail(&lockout, "alice", "203.0.113.9", now).unwrap_err();
    }
}
