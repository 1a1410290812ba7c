//! Pool: picks a healthy node, and counts what it has open.

use std::sync::Arc;

use crate::config::{self, System};

/// Interchangeable nodes behind one or more apps.
#[derive(Debug)]
pub struct Pool {}

impl Pool {
    /// The pool of a configuration; probes start with [`Pool::watch`].
    pub fn new(_config: Arc<config::Pool>) -> Arc<Self> {
        todo!()
    }

    /// The node for a request. `stick` is the value of the persistence cookie, if the request
    /// has one; `tried` are nodes that already failed this request.
    ///
    /// # Errors
    ///
    /// When no node is healthy, or all healthy ones are full.
    pub fn pick(self: &Arc<Self>, _stick: Option<&str>, _tried: &[usize]) -> Result<Lease, Error> {
        todo!()
    }
}

/// A node in use; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    node: Arc<Node>,
}

impl Lease {
    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// A member of a pool.
#[derive(Debug)]
pub struct Node {
    /// Its place in the pool.
    pub index: usize,
    /// Where it is.
    pub system: System,
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
