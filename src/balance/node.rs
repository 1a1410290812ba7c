//! Node: a member of a pool, what it has in hand, and what is known about its health.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::config::System;

/// A member of a pool.
#[derive(Debug)]
pub struct Node {
    /// Its place in the pool.
    pub index: usize,
    /// Its number in this process: no other node, of whatever pool, has had it. All that makes
    /// up a node (address, TLS, source) is fixed, so this number stands for the whole of it.
    pub id: u64,
    /// Where it is.
    pub system: System,
    /// The same, HTTP/2 not offered.
    pub http1: System,
    pool: Arc<str>,
    name: Arc<str>,
    max_requests: usize,
    in_hand: AtomicUsize,
    /// Its probes took it out.
    down: AtomicBool,
    /// It has answered a probe or taken a connection once.
    known: AtomicBool,
    /// Connections fail: milliseconds after `born` until which others are preferred; 0: none do.
    suspended: AtomicU64,
    born: Instant,
    history: Mutex<History>,
}

/// What is only needed when something changes or somebody asks.
#[derive(Debug)]
struct History {
    since: Instant,
    failures: u32,
    error: Option<Arc<str>>,
}

impl Node {
    pub(super) fn new(
        pool: Arc<str>,
        index: usize,
        system: &System,
        max_requests: usize,
        now: Instant,
    ) -> Self {
        Self {
            index,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            http1: system.without_http2(),
            system: system.clone(),
            pool,
            name: format!("{}:{}", system.host(), system.port()).into(),
            max_requests,
            in_hand: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            known: AtomicBool::new(false),
            suspended: AtomicU64::new(0),
            born: now,
            history: Mutex::new(History {
                since: now,
                failures: 0,
                error: None,
            }),
        }
    }

    /// `host:port`, for logs.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Requests, `WebSocket`s and relays that it has in hand.
    pub fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_hand() >= self.max_requests
    }

    /// Counts one more request in hand; [`Node::give_back`] ends it.
    pub(super) fn take(&self) -> bool {
        self.in_hand
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max_requests).then(|| count.saturating_add(1))
            })
            .is_ok()
    }

    pub(super) fn give_back(&self) {
        self.in_hand.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    pub(super) fn is_suspended(&self, now: Instant) -> bool {
        let until = self.suspended.load(Ordering::Relaxed);
        until != 0 && until > self.age(now)
    }

    /// A connection could not be made: others are preferred for a while, longer each time.
    pub(super) fn failed(&self, reason: String, now: Instant) {
        let mut history = self.history();
        // One outage that many requests run into at once counts once.
        if self.is_suspended(now) {
            history.error = Some(reason.into());
            return;
        }
        let pause = PAUSE
            .saturating_mul(2_u32.saturating_pow(history.failures))
            .min(MAX_PAUSE);
        history.failures = history.failures.saturating_add(1);
        let until = self.age(now).saturating_add(millis(pause));
        if self.suspended.swap(until, Ordering::Relaxed) == 0 {
            history.since = now;
            warn!(pool = %self.pool, node = %self.name, reason, "node does not take connections");
        }
        history.error = Some(reason.into());
    }

    /// A connection was made.
    pub(super) fn reached(&self, now: Instant) {
        if !self.is_known() {
            self.known.store(true, Ordering::Relaxed);
        }
        if self.suspended.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut history = self.history();
        if self.suspended.swap(0, Ordering::Relaxed) != 0 {
            history.failures = 0;
            history.since = now;
            history.error = None;
            info!(pool = %self.pool, node = %self.name, "node takes connections again");
        }
    }

    /// A probe passed, or failed with a reason.
    pub(super) fn probed(&self, result: Result<(), String>, now: Instant) {
        let mut history = self.history();
        match result {
            Ok(()) => {
                history.error = None;
                if !self.known.swap(true, Ordering::Relaxed) {
                    history.since = now;
                    info!(pool = %self.pool, node = %self.name, "node answered its first probe");
                }
            }
            Err(reason) => history.error = Some(reason.into()),
        }
    }

    /// Its probes took it out, or put it back.
    pub(super) fn changed(&self, healthy: bool, now: Instant) {
        let mut history = self.history();
        history.since = now;
        self.down.store(!healthy, Ordering::Relaxed);
        if healthy {
            info!(pool = %self.pool, node = %self.name, "node is up");
        } else {
            let reason = history.error.as_deref().unwrap_or_default();
            warn!(pool = %self.pool, node = %self.name, reason, "node is down");
        }
    }

    pub(super) fn since(&self) -> (Instant, Option<Arc<str>>) {
        let history = self.history();
        (history.since, history.error.clone())
    }

    /// Milliseconds since it was made, never 0.
    fn age(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.born)).saturating_add(1)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// After the first failed connection.
const PAUSE: Duration = Duration::from_secs(1);

/// However often it failed.
const MAX_PAUSE: Duration = Duration::from_secs(30);
