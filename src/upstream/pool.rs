//! Kept connections, by the node's full identity.
//!
//! Every node has a shelf of its own, found by the number that no other node has had: pool,
//! address, source and TLS are fixed for a node, so connections that differ in any of these never
//! meet. On a shelf, connections with a login tied to them lie apart, each under its owner.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    connection::Owner,
    http1::Http1,
    http2::{Http2, Stream},
};
use crate::{
    balance::{self, Node},
    shutdown::Tasks,
};

/// The shelves of all nodes.
#[derive(Debug)]
pub(super) struct Kept {
    shelves: RwLock<HashMap<u64, Arc<Shelf>>>,
    idle: Duration,
    tasks: Tasks,
    /// Connections on all shelves that belong to an owner.
    owned: Arc<AtomicUsize>,
}

impl Kept {
    /// No connections yet. Those that were idle for `idle` are closed, and all when a drain
    /// begins.
    pub(super) fn new(idle: Duration, tasks: &Tasks) -> Arc<Self> {
        let kept = Arc::new(Self {
            shelves: RwLock::default(),
            idle,
            tasks: tasks.clone(),
            owned: Arc::default(),
        });
        let (weak, pacer) = (Arc::downgrade(&kept), tasks.clone());
        let pause = idle.div_f32(4.0).max(Duration::from_millis(10));
        drop(tasks.spawn(async move {
            while pacer.pause(pause).await {
                let Some(kept) = weak.upgrade() else { return };
                kept.sweep(crate::clock::now());
            }
            if let Some(kept) = weak.upgrade() {
                kept.shelves_mut().clear();
            }
        }));
        kept
    }

    /// The shelf of a node.
    pub(super) fn shelf(&self, node: &Arc<Node>, pool: &balance::Pool) -> Arc<Shelf> {
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(&node.id) {
            return Arc::clone(shelf);
        }
        drop(shelves);
        let new = || {
            Arc::new(Shelf {
                node: Arc::downgrade(node),
                limit: pool.config().kept_connections,
                owned_limit: pool.config().max_requests,
                idle: self.idle,
                tasks: self.tasks.clone(),
                owned: Arc::clone(&self.owned),
                opening: tokio::sync::Mutex::new(()),
                content: Mutex::default(),
            })
        };
        let mut shelves = self.shelves_mut();
        Arc::clone(shelves.entry(node.id).or_insert_with(new))
    }

    /// The node of a pool on which this owner has a connection with a login.
    pub(super) fn owned_at(&self, owner: &Owner, pool: &balance::Pool) -> Option<usize> {
        if self.owned.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        let has = |node: &&Arc<Node>| {
            shelves
                .get(&node.id)
                .is_some_and(|shelf| shelf.content().owned.contains_key(owner))
        };
        pool.nodes().iter().find(has).map(|node| node.index)
    }

    fn sweep(&self, now: Instant) {
        // Looking at many connections takes a while, and every request asks for its shelf.
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = shelves.values().map(Arc::clone).collect();
        drop(shelves);
        for shelf in all {
            shelf.sweep(now);
        }
        self.shelves_mut()
            .retain(|_, shelf| shelf.node.strong_count() > 0);
    }

    fn shelves_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u64, Arc<Shelf>>> {
        self.shelves.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kept connections of one node.
#[derive(Debug)]
pub(super) struct Shelf {
    node: Weak<Node>,
    limit: usize,
    owned_limit: usize,
    idle: Duration,
    tasks: Tasks,
    owned: Arc<AtomicUsize>,
    /// Held while a connection is made that others could share.
    pub(super) opening: tokio::sync::Mutex<()>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    http1: VecDeque<Idle>,
    owned: HashMap<Owner, Vec<Idle>>,
    http2: Vec<Arc<Http2>>,
    /// Whether the node chose HTTP/2 when it was offered; `None`: never asked.
    chose_http2: Option<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

impl Shelf {
    /// A connection that belongs to this owner. `login`: the request goes on with a login, so the
    /// connection on which it began comes first; else only one whose login is complete will do.
    pub(super) fn owned(&self, owner: &Owner, login: bool, now: Instant) -> Option<Box<Http1>> {
        if self.owned.load(Ordering::Relaxed) == 0 {
            return None;
        }
        loop {
            let idle = self.pop_owned(owner, login)?;
            if let Some(connection) = self.again(idle, now) {
                return Some(connection);
            }
        }
    }

    /// A connection that anybody may use: the one used last.
    pub(super) fn shared(&self, now: Instant) -> Option<Box<Http1>> {
        loop {
            let idle = self.content().http1.pop_back()?;
            if let Some(connection) = self.again(idle, now) {
                return Some(connection);
            }
        }
    }

    /// A stream on an HTTP/2 connection that is open already.
    pub(super) fn stream(&self) -> Option<Stream> {
        let mut content = self.content();
        content.http2.retain(|connection| !connection.is_closed());
        content.http2.iter().find_map(Http2::stream)
    }

    /// Whether the node is known to choose HTTP/1.1 although HTTP/2 is offered.
    pub(super) fn declined_http2(&self) -> bool {
        self.content().chose_http2 == Some(false)
    }

    /// What the node chose on a new connection that offered HTTP/2.
    pub(super) fn chose(&self, http2: Option<&Arc<Http2>>) {
        let mut content = self.content();
        content.chose_http2 = Some(http2.is_some());
        if let Some(connection) = http2
            && content.http2.len() < self.limit
            && !self.tasks.is_draining()
        {
            content.http2.push(Arc::clone(connection));
        }
    }

    /// Keeps a connection whose exchange is complete.
    pub(super) fn put(&self, connection: Box<Http1>, since: Instant) {
        // Connections are closed outside of the lock.
        let surplus = {
            let mut content = self.content();
            // The drain clears the shelves once: nothing may come after.
            if self.tasks.is_draining() || self.node.strong_count() == 0 {
                return;
            }
            match connection.owner.clone() {
                Some(owner) => {
                    let surplus = if content.owned_total() >= self.owned_limit {
                        content.pop_oldest_owned()
                    } else {
                        self.owned.fetch_add(1, Ordering::Relaxed);
                        None
                    };
                    let idle = Idle { connection, since };
                    content.owned.entry(owner).or_default().push(idle);
                    surplus
                }
                None => {
                    content.http1.push_back(Idle { connection, since });
                    let over = content.http1.len() > self.limit;
                    if over {
                        content.http1.pop_front()
                    } else {
                        None
                    }
                }
            }
        };
        drop(surplus);
    }

    /// Closes what was idle for too long, or was closed by the node: nothing else notices that.
    fn sweep(&self, now: Instant) {
        let old = |since: Instant| now.saturating_duration_since(since) >= self.idle;
        // Connections are closed outside of the lock.
        let mut gone = Vec::new();
        let mut keep = |mut idle: Idle| {
            if !old(idle.since) && idle.connection.is_quiet() {
                return Some(idle);
            }
            gone.push(idle);
            None
        };
        let mut content = self.content();
        let shared = mem::take(&mut content.http1);
        content.http1 = shared.into_iter().filter_map(&mut keep).collect();
        content.owned.retain(|_, of_owner| {
            let before = of_owner.len();
            let kept = mem::take(of_owner).into_iter().filter_map(&mut keep);
            *of_owner = kept.collect();
            let fewer = before.saturating_sub(of_owner.len());
            self.owned.fetch_sub(fewer, Ordering::Relaxed);
            !of_owner.is_empty()
        });
        content.http2.retain(|connection| {
            !connection.is_closed() && !connection.idle_since().is_some_and(old)
        });
        drop(content);
        drop(gone);
    }

    fn pop_owned(&self, owner: &Owner, login: bool) -> Option<Idle> {
        let mut content = self.content();
        let of_owner = content.owned.get_mut(owner)?;
        let in_login = of_owner.iter().rposition(|idle| idle.connection.in_login);
        let complete = of_owner.iter().rposition(|idle| !idle.connection.in_login);
        let place = if login {
            in_login.or(complete)
        } else {
            complete
        }?;
        let idle = of_owner.remove(place);
        if of_owner.is_empty() {
            content.owned.remove(owner);
        }
        self.owned.fetch_sub(1, Ordering::Relaxed);
        Some(idle)
    }

    /// A kept connection for another request, unless it is too old or something came meanwhile.
    fn again(&self, idle: Idle, now: Instant) -> Option<Box<Http1>> {
        let mut connection = idle.connection;
        let age = now.saturating_duration_since(idle.since);
        if age >= self.idle || !connection.is_quiet() {
            return None;
        }
        connection.reused = true;
        Some(connection)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn owned_total(&self) -> usize {
        self.owned.values().map(Vec::len).sum()
    }

    fn pop_oldest_owned(&mut self) -> Option<Idle> {
        // Those of one owner lie in the order in which they came.
        let oldest =
            |(owner, idle): (&Owner, &Vec<Idle>)| Some((idle.first()?.since, owner.clone()));
        let (_, owner) = self
            .owned
            .iter()
            .filter_map(oldest)
            .min_by_key(|(since, _)| *since)?;
        let of_owner = self.owned.get_mut(&owner)?;
        let idle = of_owner.remove(0);
        if of_owner.is_empty() {
            self.owned.remove(&owner);
        }
        Some(idle)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let total = self.content().owned_total();
        self.owned.fetch_sub(total, Ordering::Relaxed);
    }
}
