//! How a pool shares the load, and the loop that runs its probes: the door to pingora.

use std::{
    cmp::Reverse,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::{
    Backend, Backends, Extensions, LoadBalancer, discovery::Static, health_check::HealthCheck,
    selection::RoundRobin,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{health::Prober, node::Node};
use crate::config::{CheckKind, Strategy};

/// Whose turn it is, and who passed its probes.
pub(super) struct Balancer {
    strategy: Strategy,
    nodes: Arc<[Arc<Node>]>,
    /// Runs the probes. Whose turn it is, is found out here: that costs no allocation.
    pingora: LoadBalancer<RoundRobin>,
    turns: AtomicUsize,
}

impl Balancer {
    /// For these nodes; `prober` looks after their health, unless it has nothing to do.
    pub(super) fn new(strategy: Strategy, nodes: Arc<[Arc<Node>]>, prober: Arc<Prober>) -> Self {
        let backends = (0..u16::MAX).zip(&*nodes).map(|(i, _)| backend(i));
        let members = Static::new(backends.collect());
        let mut pingora = LoadBalancer::from_backends(Backends::new(members));
        if prober.check().kind != CheckKind::None {
            pingora.health_check_frequency = Some(prober.check().interval);
            pingora.parallel_health_check = true;
            pingora.set_health_check(Box::new(Check(prober)));
        }
        // A static membership is known at once: this never waits and never fails.
        let _known = pingora.update().now_or_never();
        Self {
            strategy,
            nodes,
            pingora,
            turns: AtomicUsize::new(0),
        }
    }

    /// Probes all nodes at once, again and again, until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let (_running, never) = watch::channel(false);
        stop.run_until_cancelled(self.pingora.run(never, None))
            .await;
    }

    /// The next node in turn among those that `accept` takes.
    pub(super) fn next(&self, accept: impl Fn(usize) -> bool) -> Option<usize> {
        if self.nodes.len() == 1 {
            return accept(0).then_some(0);
        }
        match self.strategy {
            Strategy::LeastConnections => self.least(accept),
            // A node that is passed over uses its turn up: its neighbour gets no more than others.
            Strategy::RoundRobin => (0..self.nodes.len())
                .filter_map(|_| self.turn())
                .find(|&index| accept(index))
                // Concurrent picks share the turns: one may skip past a node.
                .or_else(|| (0..self.nodes.len()).find(|&index| accept(index))),
        }
    }

    /// The node with the fewest requests in hand; equal ones in turn.
    fn least(&self, accept: impl Fn(usize) -> bool) -> Option<usize> {
        let (late, early) = self.nodes.split_at_checked(self.turn()?)?;
        early
            .iter()
            .chain(late)
            .filter(|node| accept(node.index))
            // The last of equal maxima wins, so the order is turned round.
            .rev()
            .max_by_key(|node| Reverse(node.in_hand()))
            .map(|node| node.index)
    }

    fn turn(&self) -> Option<usize> {
        self.turns
            .fetch_add(1, Ordering::Relaxed)
            .checked_rem(self.nodes.len())
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("strategy", &self.strategy)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

/// pingora knows members by socket address, ours have names that are resolved anew for each
/// connection. So a member is known to it by an address of the discard prefix (RFC 6666) that
/// holds its place in the pool. Nothing dials it: every probe is ours.
fn backend(index: u16) -> Backend {
    let address = std::net::Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, index);
    Backend {
        addr: SocketAddr::Inet((address, 1).into()),
        weight: 1,
        ext: Extensions::new(),
    }
}

fn index(backend: &Backend) -> Option<usize> {
    match backend.addr.as_inet()?.ip() {
        std::net::IpAddr::V6(address) => address.segments().last().copied().map(usize::from),
        std::net::IpAddr::V4(_) => None,
    }
}

/// Our probes as pingora runs them.
struct Check(Arc<Prober>);

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, target: &Backend) -> pingora_core::Result<()> {
        let good = match index(target) {
            Some(index) => self.0.probe(index).await,
            None => false,
        };
        if good {
            return Ok(());
        }
        // The reason stays with the node; pingora only counts.
        Err(pingora_core::Error::new_str("the probe failed"))
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        if let Some(index) = index(target) {
            self.0.changed(index, healthy);
        }
    }

    fn backend_summary(&self, target: &Backend) -> String {
        index(target)
            .and_then(|index| self.0.name(index))
            .unwrap_or_default()
    }

    fn health_threshold(&self, success: bool) -> usize {
        let check = self.0.check();
        if success { check.rise } else { check.fall }
    }
}
