//! Pools, apps and listeners for unit tests, on loopback and with short limits.

use std::{sync::Arc, time::Duration};

use super::{
    App, Authorization, BackendTls, Check, CheckKind, Limits, Network, Persistence, Pool, Source,
    Strategy, System,
};
use crate::permit::Target;

/// A plain HTTP pool without probes; nodes are `host:port`.
pub(crate) fn pool(name: &str, nodes: &[&str]) -> Arc<Pool> {
    Arc::new(pool_value(name, nodes))
}

/// The same, to be changed.
pub(crate) fn pool_value(name: &str, nodes: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        nodes: nodes.iter().map(|node| system(node, None)).collect(),
        strategy: Strategy::RoundRobin,
        tls: None,
        check: Check {
            kind: CheckKind::None,
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(500),
            fall: 2,
            rise: 2,
        },
        persistence: Persistence::None,
        source: Source::default(),
        kept_connections: 8,
        max_requests: 100,
    }
}

/// A system at `host:port`.
pub(crate) fn system(at: &str, tls: Option<Arc<BackendTls>>) -> System {
    let Target { host, port } = Target::parse(at).unwrap();
    System {
        what: "pool test".into(),
        host,
        port,
        source: Source::default(),
        tls,
    }
}

/// An app at `app.test/`.
pub(crate) fn app(name: &str, pool: Arc<Pool>) -> App {
    App {
        name: name.into(),
        host: "app.test".into(),
        path: "/".into(),
        pool,
        authorization: Authorization::Gateway,
        upstream_host: None,
        path_characters: "".into(),
        first_byte: Duration::from_secs(5),
        progress: Duration::from_secs(5),
        upgrade_idle: Duration::from_secs(5),
        max_body: 1 << 20,
        retries: 1,
    }
}

/// A network with the defaults of the configuration and short limits.
pub(crate) fn network() -> Network {
    Network {
        inside: vec!["127.0.0.0/8".parse().unwrap()],
        allow: Vec::new(),
        public_addresses: Vec::new(),
        source: Source::default(),
        tunnel_sources: Vec::new(),
        connect_timeout: Duration::from_secs(1),
        attempt_delay: Duration::from_millis(250),
        kept_idle: Duration::from_secs(60),
        keepalive: Duration::from_secs(30),
        mss: None,
        user_timeout: Duration::from_secs(30),
    }
}

/// The limits of `examples/ravelin.toml`.
pub(crate) fn limits() -> Limits {
    Limits {
        handshake: Duration::from_secs(5),
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        body_progress: Duration::from_secs(30),
        head_bytes: 32 << 10,
        head_fields: 100,
        target_bytes: 8 << 10,
        drain_bytes: 256 << 10,
        h2_streams: 250,
        h2_stream_window: 1 << 20,
        h2_connection_window: 4 << 20,
        h2_resets: 100,
        drain: Duration::from_secs(30),
    }
}
