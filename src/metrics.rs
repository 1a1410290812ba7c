//! Every counter and gauge, declared in one place.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub mod access_log;

/// The numbers of one gateway. Nothing that a device chose is a label.
pub struct Metrics {
    /// Open connections, by listener.
    pub connections: Family<ByListener, Gauge>,
    /// Connections accepted, by listener.
    pub accepted: Family<ByListener, Counter>,
    /// Requests that ended, by app and status.
    pub requests: Family<ByAnswer, Counter>,
    /// Requests in hand.
    pub in_hand: Gauge,
    /// Seconds to the head of an answer, by app.
    pub latency: Family<ByApp, Histogram>,
    /// Refusals, by stage and status.
    pub refusals: Family<ByStage, Counter>,
    /// Open tunnels and upgraded connections.
    pub tunnels: Gauge,
    /// Tunnels that ended, by the way they ended.
    pub tunnels_ended: Family<ByEnd, Counter>,
    /// Bytes of tunnels and upgraded connections, by direction.
    pub tunnel_bytes: Family<ByDirection, Counter>,
    /// Checks of passwords, by outcome.
    pub password_checks: PasswordChecks,
    /// Reloads, by result.
    pub reloads: Family<ByResult, Counter>,
    sessions: Gauge,
    panics: Gauge,
    log_lines_lost: Gauge,
    node_up: Family<ByNode, Gauge>,
    node_requests: Family<ByNode, Gauge>,
    certificate_expiry: Family<ByCertificate, Gauge<f64, AtomicU64>>,
    handshakes: Family<ByHandshake, Counter>,
    turned_away: Family<ByReason, Counter>,
    registry: Mutex<Registry>,
    /// Stands for an app where the gateway itself answered.
    no_app: Arc<str>,
}

/// One node as the metrics show it.
#[derive(Debug)]
pub struct NodeReading {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The node's address as configured.
    pub node: String,
    /// It takes requests.
    pub up: bool,
    /// Requests it has in hand.
    pub requests: usize,
}

/// What happened at one listener before anything could be served.
#[derive(Debug)]
pub struct ListenerReading {
    /// Its name.
    pub listener: Arc<str>,
    /// Handshakes completed, by kind.
    pub handshakes: [(&'static str, u64); 2],
    /// Connections closed without being served, by reason.
    pub turned_away: [(&'static str, u64); 5],
}

/// What is read when somebody asks, rather than counted as it happens.
#[derive(Debug, Default)]
pub struct Reading {
    /// Sessions in force.
    pub sessions: usize,
    /// Tasks that panicked.
    pub panics: u64,
    /// Lines that the access log lost.
    pub log_lines_lost: u64,
    /// All nodes.
    pub nodes: Vec<NodeReading>,
    /// Certificates and the end of their validity, in seconds since the epoch.
    pub certificates: Vec<(Arc<str>, i64)>,
    /// All listeners.
    pub listeners: Vec<ListenerReading>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("ravelin");
        let metrics = Self {
            connections: Family::default(),
            accepted: Family::default(),
            requests: Family::default(),
            in_hand: Gauge::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            refusals: Family::default(),
            tunnels: Gauge::default(),
            tunnels_ended: Family::default(),
            tunnel_bytes: Family::default(),
            password_checks: PasswordChecks::default(),
            reloads: Family::default(),
            sessions: Gauge::default(),
            panics: Gauge::default(),
            log_lines_lost: Gauge::default(),
            node_up: Family::default(),
            node_requests: Family::default(),
            certificate_expiry: Family::default(),
            handshakes: Family::default(),
            turned_away: Family::default(),
            registry: Mutex::default(),
            no_app: "gateway".into(),
        };
        metrics.name_events(&mut registry);
        metrics.name_states(&mut registry);
        *metrics
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    /// Names what is counted as it happens.
    fn name_events(&self, r: &mut Registry) {
        r.register("connections", "Open connections", self.connections.clone());
        r.register("accepted", "Connections accepted", self.accepted.clone());
        r.register("requests", "Requests that ended", self.requests.clone());
        r.register("requests_in_hand", "Requests in hand", self.in_hand.clone());
        r.register_with_unit(
            "answer",
            "Time to the head of an answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        r.register(
            "refusals",
            "Refusals by stage and status",
            self.refusals.clone(),
        );
        r.register(
            "tunnels",
            "Open tunnels and upgraded connections",
            self.tunnels.clone(),
        );
        r.register(
            "tunnels_ended",
            "Tunnels that ended",
            self.tunnels_ended.clone(),
        );
        r.register_with_unit(
            "tunnel",
            "Bytes of tunnels and upgraded connections",
            Unit::Bytes,
            self.tunnel_bytes.clone(),
        );
        r.register(
            "password_checks",
            "Passwords that directories were asked about, or that were refused unasked",
            self.password_checks.clone(),
        );
        r.register("reloads", "Reloads by result", self.reloads.clone());
    }

    /// Names what is read when somebody asks.
    fn name_states(&self, r: &mut Registry) {
        r.register("sessions", "Sessions in force", self.sessions.clone());
        r.register("panics", "Tasks that panicked: bugs", self.panics.clone());
        r.register(
            "log_lines_lost",
            "Access log lines lost because the output stood still",
            self.log_lines_lost.clone(),
        );
        r.register(
            "node_up",
            "1 when a node takes requests",
            self.node_up.clone(),
        );
        r.register(
            "node_requests",
            "Requests a node has in hand",
            self.node_requests.clone(),
        );
        r.register(
            "handshakes",
            "TLS handshakes completed, full or resumed",
            self.handshakes.clone(),
        );
        r.register(
            "turned_away",
            "Connections closed before anything was served, by reason",
            self.turned_away.clone(),
        );
        r.register_with_unit(
            "certificate_expiry",
            "End of a certificate's validity, since the epoch",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
    }

    /// The page that Prometheus reads (`OpenMetrics` text, version 1.0.0).
    pub fn page(&self, reading: &Reading) -> String {
        self.sessions.set(clamp(reading.sessions as u64));
        self.panics.set(clamp(reading.panics));
        self.log_lines_lost.set(clamp(reading.log_lines_lost));
        self.node_up.clear();
        self.node_requests.clear();
        for node in &reading.nodes {
            let label = ByNode {
                pool: node.pool.to_string(),
                node: node.node.clone(),
            };
            self.node_up.get_or_create(&label).set(node.up.into());
            self.node_requests
                .get_or_create(&label)
                .set(clamp(node.requests as u64));
        }
        self.certificate_expiry.clear();
        for (certificate, expiry) in &reading.certificates {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit an f64")]
            let expiry = *expiry as f64;
            let certificate = certificate.to_string();
            self.certificate_expiry
                .get_or_create(&ByCertificate { certificate })
                .set(expiry);
        }
        self.handshakes.clear();
        self.turned_away.clear();
        for reading in &reading.listeners {
            let listener = || reading.listener.to_string();
            for (kind, count) in reading.handshakes {
                let by = ByHandshake {
                    listener: listener(),
                    kind,
                };
                self.handshakes.get_or_create(&by).inc_by(count);
            }
            for (reason, count) in reading.turned_away {
                let by = ByReason {
                    listener: listener(),
                    reason,
                };
                self.turned_away.get_or_create(&by).inc_by(count);
            }
        }
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _written = encode(&mut page, &registry);
        page
    }

    /// Counts the end of a request: an app's, or one that the gateway itself answered.
    pub fn request_ended(&self, app: Option<&Arc<str>>, status: u16, took: Duration) {
        let app = Arc::clone(app.unwrap_or(&self.no_app));
        let by_answer = ByAnswer { app, status };
        self.requests.get_or_create(&by_answer).inc();
        let by_app = ByApp { app: by_answer.app };
        self.latency
            .get_or_create(&by_app)
            .observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Adds one now.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Label: a listener's name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByListener {
    /// From the configuration.
    pub listener: String,
}

/// Label: an app's name, or `gateway`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByApp {
    /// From the configuration.
    pub app: Arc<str>,
}

/// Labels: app and status.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByAnswer {
    /// From the configuration.
    pub app: Arc<str>,
    /// HTTP status.
    pub status: u16,
}

/// Labels: stage and status.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByStage {
    /// Which stage refused.
    pub stage: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// Label: how a tunnel ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByEnd {
    /// `closed`, `idle`, …
    pub end: &'static str,
}

/// Label: `up` or `down`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByDirection {
    /// `up`: from the device.
    pub direction: &'static str,
}

/// Checks of passwords, counted by the stage that makes them.
pub type PasswordChecks = Family<ByOutcome, Counter>;

/// Label: `right`, `wrong`, `limited` (refused unasked) or `unanswered`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByOutcome {
    /// What the check came to.
    pub outcome: &'static str,
}

/// Label: `good` or `bad`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByResult {
    /// How it went.
    pub result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByNode {
    pool: String,
    node: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCertificate {
    certificate: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByHandshake {
    listener: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    listener: String,
    reason: &'static str,
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const LATENCY_BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_family_is_named_once() {
        // Whoever reads the page takes a second description of one family for a fault in all of it.
        let reading = Reading {
            listeners: vec![ListenerReading {
                listener: "public".into(),
                handshakes: [("full", 1), ("resumed", 1)],
                turned_away: [("idle", 1), ("a", 1), ("b", 1), ("c", 1), ("d", 1)],
            }],
            ..Reading::default()
        };
        let page = Metrics::new().page(&reading);
        let mut seen = HashSet::new();
        for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
            assert!(seen.insert(line), "twice: {line}");
        }
        assert!(seen.contains("# TYPE ravelin_handshakes counter"), "{page}");
    }
}
