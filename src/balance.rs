//! Pool: picks a healthy node, and counts what it has open.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use http::HeaderMap;
use tokio_util::sync::DropGuard;

pub use self::node::Node;
use self::{health::Prober, persistence::Memory, strategy::Balancer};
use crate::{
    clock,
    config::{self, CheckKind, Persistence},
    dial::Dialer,
    shutdown::Tasks,
};

mod health;
mod node;
mod persistence;
mod strategy;

/// Interchangeable nodes behind one or more apps.
#[derive(Debug)]
pub struct Pool {
    config: Arc<config::Pool>,
    nodes: Arc<[Arc<Node>]>,
    balancer: Arc<Balancer>,
    prober: Arc<Prober>,
    /// Ends the probes together with the pool.
    probing: OnceLock<DropGuard>,
    memory: Option<Memory>,
}

impl Pool {
    /// The pool of a configuration; probes start with [`Pool::watch`].
    pub fn new(config: Arc<config::Pool>) -> Arc<Self> {
        let now = clock::now();
        let node = |(index, system)| {
            let name = Arc::clone(&config.name);
            Arc::new(Node::new(name, index, system, config.max_requests, now))
        };
        let nodes: Arc<[_]> = config.nodes.iter().enumerate().map(node).collect();
        let prober = Prober::new(config.check.clone(), Arc::clone(&nodes));
        let balancer = Balancer::new(config.strategy, Arc::clone(&nodes), Arc::clone(&prober));
        let memory = match &config.persistence {
            Persistence::Cookie { name, idle } => Some(Memory::new(Arc::clone(name), *idle)),
            Persistence::None => None,
        };
        Arc::new(Self {
            config,
            nodes,
            balancer: Arc::new(balancer),
            prober,
            probing: OnceLock::new(),
            memory,
        })
    }

    /// Probes the nodes until a drain begins, or the pool is dropped. When it does so already, its
    /// probes go out through this dialer from now on.
    pub fn watch(&self, dialer: Arc<Dialer>, tasks: &Tasks) {
        if self.config.check.kind == CheckKind::None || !self.prober.connect(dialer) {
            return;
        }
        let stop = tasks.draining().child_token();
        let _first = self.probing.set(stop.clone().drop_guard());
        let balancer = Arc::clone(&self.balancer);
        drop(tasks.spawn(async move { balancer.run(&stop).await }));
    }

    /// The configuration that it was made from.
    pub fn config(&self) -> &Arc<config::Pool> {
        &self.config
    }

    /// Its nodes, in the order of the configuration.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The place of the node that a request's persistence cookie leads to.
    pub fn sticky(&self, request: &HeaderMap, now: Instant) -> Option<usize> {
        self.memory.as_ref()?.node(request, now)
    }

    /// Learns from an answer which persistence cookie leads to its node.
    pub fn learn(&self, answer: &HeaderMap, node: &Node, now: Instant) {
        if let Some(memory) = &self.memory {
            memory.learn(answer, node.index, now);
        }
    }

    /// The node for a request. `prefer` is the node that the request should stay on; `tried` are
    /// nodes that already failed it.
    ///
    /// Nodes that answered come first, then those that no probe has reached yet, then those whose
    /// connections failed lately. Nodes that failed their probes are not picked.
    ///
    /// # Errors
    ///
    /// When no node is healthy, or all healthy ones are full. A preferred node that is healthy but
    /// full is `Full`: another one would not know the device.
    pub fn pick(
        &self,
        prefer: Option<usize>,
        tried: &[usize],
        now: Instant,
    ) -> Result<Lease, Error> {
        let preferred = prefer
            .filter(|index| !tried.contains(index))
            .and_then(|index| self.nodes.get(index))
            .filter(|node| !matches!(self.state(node, now), State::Down | State::Suspended));
        if let Some(node) = preferred {
            return Lease::take(node).ok_or_else(|| Error::Full(Arc::clone(&self.config.name)));
        }
        for state in [State::Up, State::Unknown, State::Suspended] {
            // A picked node may fill up before it is taken; then the others are asked.
            for _ in 0..self.nodes.len() {
                let accept = |index: usize| {
                    !tried.contains(&index)
                        && self
                            .nodes
                            .get(index)
                            .is_some_and(|node| self.state(node, now) == state && !node.is_full())
                };
                let Some(index) = self.balancer.next(accept) else {
                    break;
                };
                if let Some(lease) = self.nodes.get(index).and_then(Lease::take) {
                    return Ok(lease);
                }
            }
        }
        let name = Arc::clone(&self.config.name);
        let full = |node: &Arc<Node>| {
            !tried.contains(&node.index) && self.state(node, now) != State::Down && node.is_full()
        };
        Err(if self.nodes.iter().any(full) {
            Error::Full(name)
        } else {
            Error::Down(name)
        })
    }

    /// A connection to a node could not be made: others are preferred for a while, longer each
    /// time it happens in a row.
    pub fn failed(&self, node: &Node, error: &dyn std::error::Error, now: Instant) {
        node.failed(health::chain(error), now);
    }

    /// A connection to a node was made.
    pub fn reached(&self, node: &Node, now: Instant) {
        node.reached(now);
    }

    /// What is known about every node.
    pub fn status(&self, now: Instant) -> Vec<Status> {
        let status = |node: &Arc<Node>| {
            let (since, error) = node.since();
            Status {
                node: Arc::clone(node.name()),
                state: self.state(node, now),
                since,
                in_hand: node.in_hand(),
                error,
            }
        };
        self.nodes.iter().map(status).collect()
    }

    fn state(&self, node: &Node, now: Instant) -> State {
        if node.is_down() {
            State::Down
        } else if node.is_suspended(now) {
            State::Suspended
        } else if node.is_known() || self.config.check.kind == CheckKind::None {
            State::Up
        } else {
            State::Unknown
        }
    }
}

/// A node in use; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    node: Arc<Node>,
}

impl Lease {
    fn take(node: &Arc<Node>) -> Option<Self> {
        node.take().then(|| Self {
            node: Arc::clone(node),
        })
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.node.give_back();
    }
}

/// What is known about one node.
#[derive(Clone, Debug)]
pub struct Status {
    /// `host:port`.
    pub node: Arc<str>,
    /// Whether it is picked.
    pub state: State,
    /// When it last went out, came back, or answered first.
    pub since: Instant,
    /// Requests, `WebSocket`s and relays in hand.
    pub in_hand: usize,
    /// What the last probe or connection failed with, if it failed.
    pub error: Option<Arc<str>>,
}

/// Whether a node is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its probes failed: it is not picked.
    Down,
    /// Connections failed lately: it is picked when there is no other.
    Suspended,
    /// No probe has answered yet: it is picked when none is up.
    Unknown,
    /// It is picked.
    Up,
}

/// Why there is no node.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No node passed its probe.
    #[error("no node of pool {0} is healthy")]
    Down(Arc<str>),
    /// Every healthy node has its maximum of requests.
    #[error("every node of pool {0} is full")]
    Full(Arc<str>),
}

#[cfg(test)]
mod tests;
