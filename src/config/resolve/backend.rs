//! What stands behind the gateway: pools, their nodes and checks, DNS.

use std::{collections::BTreeMap, sync::Arc};

use super::Resolver;
use crate::{
    config::{
        BackendTls, Check, CheckKind, Directory, DirectoryKind, Dns, Network, Persistence, Pool,
        Source, Strategy, System, Zone,
        file::{self, CheckType, Named},
        tree::join,
        value::{Ca, DomainName, Pin, Url},
    },
    permit::Host,
};

impl Resolver {
    pub(super) fn pools(
        &mut self,
        pools: Named<file::Pool>,
        network: &Network,
    ) -> BTreeMap<Arc<str>, Arc<Pool>> {
        pools
            .into_iter()
            .filter_map(|(name, pool)| {
                let name: Arc<str> = name.into();
                let pool = self.pool(Arc::clone(&name), pool, network)?;
                Some((name, Arc::new(pool)))
            })
            .collect()
    }

    fn pool(&mut self, name: Arc<str>, file: file::Pool, network: &Network) -> Option<Pool> {
        let key = join("pool", &name);
        let nodes = file.nodes.as_deref()?;
        let urls: Vec<Url> = nodes.iter().map(|node| node.0.clone()).collect();
        let secure = urls.first()?.tls;
        if let Some(other) = urls.iter().position(|url| url.tls != secure) {
            let key = format!("{key}.nodes[{other}]");
            self.problem(
                &key,
                "differs from the first node: all http:// or all https://",
            );
        }
        self.nodes_once(&key, &urls);
        let tls = self.pool_tls(&key, &file, secure);
        let source = self.source(
            &format!("{key}.source"),
            file.source.as_deref(),
            &network.source,
        );
        let what: Arc<str> = format!("pool {name}").into();
        let nodes: Vec<System> = urls
            .into_iter()
            .map(|url| System {
                what: Arc::clone(&what),
                host: url.host,
                port: url.port,
                source: source.clone(),
                tls: tls.clone(),
            })
            .collect();
        self.nodes_inside(&key, &nodes, network);
        Some(Pool {
            name,
            nodes,
            strategy: match file.strategy {
                file::Strategy::LeastConnections => Strategy::LeastConnections,
                file::Strategy::RoundRobin => Strategy::RoundRobin,
            },
            tls,
            check: self.check(&format!("{key}.check"), file.check, secure),
            persistence: persistence(file.persistence),
            source,
            kept_connections: file.kept_connections,
            max_requests: file.max_requests,
        })
    }

    fn pool_tls(&mut self, key: &str, file: &file::Pool, secure: bool) -> Option<Arc<BackendTls>> {
        if !secure {
            for option in ["ca", "tls_name", "pins", "http2", "post_quantum"] {
                let key = format!("{key}.{option}");
                if self.origin.has(&key) {
                    self.problem(&key, "has no effect on http:// nodes: write https://");
                }
            }
            return None;
        }
        let trust = Trust {
            ca: file.ca.as_ref(),
            name: file.tls_name.as_ref(),
            pins: &file.pins,
        };
        Some(Arc::new(BackendTls {
            http2: file.http2,
            post_quantum: file.post_quantum,
            ..self.backend_tls(key, &trust)
        }))
    }

    fn nodes_once(&mut self, key: &str, urls: &[Url]) {
        for (index, url) in urls.iter().enumerate() {
            let mut before = urls.iter().take(index);
            if before.any(|first| first.host == url.host && first.port == url.port) {
                self.problem(&format!("{key}.nodes[{index}]"), "stands twice");
            }
        }
    }

    /// A node by address that nothing lets the gateway reach is a slip.
    fn nodes_inside(&mut self, key: &str, nodes: &[System], network: &Network) {
        for (index, node) in nodes.iter().enumerate() {
            let Host::Address(address) = node.host else {
                continue;
            };
            let inside = network
                .inside
                .iter()
                .any(|network| network.contains(&address));
            let allowed = network
                .allow
                .iter()
                .any(|allowed| allowed.ip() == address && allowed.port() == node.port);
            if !inside && !allowed && self.good("network") {
                let key = format!("{key}.nodes[{index}]");
                self.problem(&key, "is not inside: network.inside does not hold it");
            }
        }
    }

    fn check(&mut self, key: &str, file: file::Check, secure: bool) -> Check {
        let kind = file.kind.unwrap_or(if secure {
            CheckType::Tls
        } else {
            CheckType::Tcp
        });
        if kind == CheckType::Tls && !secure {
            let message = "needs https:// nodes: these are http://";
            self.problem(&format!("{key}.type"), message);
        }
        if kind != CheckType::Http {
            for option in ["path", "host", "expect_status", "expect_body"] {
                let key = format!("{key}.{option}");
                if self.origin.has(&key) {
                    self.problem(&key, "needs type = \"http\"");
                }
            }
        }
        if file.timeout.0 >= file.interval.0 {
            self.cross_check(
                &format!("{key}.timeout"),
                &[&format!("{key}.interval")],
                "must be shorter than the interval",
            );
        }
        Check {
            kind: match kind {
                CheckType::Http => CheckKind::Http {
                    path: file.path.map_or_else(|| "/".to_owned(), |path| path.0),
                    host: file.host.map(|host| host.0),
                    expect_status: file.expect_status.unwrap_or_else(|| vec![200]),
                    expect_body: file.expect_body,
                },
                CheckType::None => CheckKind::None,
                CheckType::Tcp => CheckKind::Tcp,
                CheckType::Tls => CheckKind::Tls,
            },
            interval: file.interval.0,
            timeout: file.timeout.0,
            fall: file.fall,
            rise: file.rise,
        }
    }

    /// How TLS to a backend is verified; HTTP/1 and no post-quantum share.
    pub(super) fn backend_tls(&mut self, key: &str, trust: &Trust<'_>) -> BackendTls {
        BackendTls {
            authorities: self.authorities(&format!("{key}.ca"), trust.ca),
            name: trust.name.map(|name| name.0.as_str().into()),
            pins: trust.pins.iter().map(|pin| pin.0).collect(),
            http2: false,
            post_quantum: false,
        }
    }

    pub(super) fn dns(
        &mut self,
        file: file::Dns,
        network: &Source,
        pools: &BTreeMap<Arc<str>, Arc<Pool>>,
        directories: &[Arc<Directory>],
    ) -> Dns {
        let source = self.source("dns.source", file.source.as_deref(), network);
        let zones: Vec<Zone> = file
            .zone
            .into_iter()
            .map(|(suffix, zone)| {
                let key = format!("{}.source", join("dns.zone", &suffix));
                let suffix = suffix.trim_end_matches('.').to_ascii_lowercase();
                Zone {
                    suffix: suffix.into(),
                    servers: zone.servers.into_iter().flatten().map(|s| s.0).collect(),
                    source: self.source(&key, zone.source.as_deref(), &source),
                }
            })
            .collect();
        for (index, zone) in zones.iter().enumerate() {
            if zones
                .iter()
                .skip(index + 1)
                .any(|z| z.suffix == zone.suffix)
            {
                self.problem("dns.zone", format!("{} stands twice", zone.suffix));
            }
        }
        if file.servers.is_empty()
            && let Some(name) = systems(pools, directories).find_map(|system| match &system.host {
                Host::Name(name) if !zones.iter().any(|zone| claims(zone, name)) => Some(name),
                Host::Name(_) | Host::Address(_) => None,
            })
        {
            self.problem(
                "dns.servers",
                format!("is missing: nobody could resolve {name}"),
            );
        }
        Dns {
            servers: file.servers.into_iter().map(|server| server.0).collect(),
            zones,
            source,
            timeout: file.timeout.0,
            cache_entries: file.cache_entries,
            max_ttl: file.max_ttl.0,
        }
    }
}

/// What is written about whom to trust.
pub(super) struct Trust<'a> {
    pub(super) ca: Option<&'a Ca>,
    pub(super) name: Option<&'a DomainName>,
    pub(super) pins: &'a [Pin],
}

fn persistence(file: Option<file::Persistence>) -> Persistence {
    match file {
        Some(file::Persistence {
            cookie: Some(cookie),
            idle,
        }) => Persistence::Cookie {
            name: cookie.0.into(),
            idle: idle.0,
        },
        Some(_) | None => Persistence::None,
    }
}

fn systems<'a>(
    pools: &'a BTreeMap<Arc<str>, Arc<Pool>>,
    directories: &'a [Arc<Directory>],
) -> impl Iterator<Item = &'a System> {
    let servers = directories
        .iter()
        .flat_map(|directory| match &directory.kind {
            DirectoryKind::Ldap(ldap) => ldap.servers.as_slice(),
            DirectoryKind::Users(_) => &[],
        });
    pools
        .values()
        .flat_map(|pool| &pool.nodes)
        .chain(servers.map(|server| &server.system))
}

fn claims(zone: &Zone, name: &str) -> bool {
    name.strip_suffix(&*zone.suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
