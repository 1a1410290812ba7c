//! Names to addresses: which servers are asked, and what their answers mean (the door to hickory).

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{
        ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
        ServerOrderingStrategy,
    },
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use tokio::time::timeout;

use crate::config::{Dns, Source};

/// Asks the configured servers, by the longest suffix that fits.
#[derive(Debug)]
pub(super) struct Names {
    /// Longest suffix first.
    zones: Vec<(Arc<str>, Result<TokioResolver, NetError>)>,
    default: Result<TokioResolver, NetError>,
    limit: Duration,
}

impl Names {
    /// For the servers of a configuration. `/etc/hosts` and `/etc/resolv.conf` are not read.
    ///
    /// Queries start from the zone's source, else from that of DNS, else from `source`.
    pub(super) fn new(dns: &Dns, source: &Source) -> Self {
        let mut zones: Vec<_> = dns
            .zones
            .iter()
            .map(|zone| {
                let sources = [&zone.source, &dns.source, source];
                let resolver = resolver(&zone.servers, &sources, dns);
                (Arc::clone(&zone.suffix), resolver)
            })
            .collect();
        zones.sort_by_key(|(suffix, _)| Reverse(suffix.len()));
        Self {
            zones,
            default: resolver(&dns.servers, &[&dns.source, source], dns),
            // One query and one more try; hickory's own limits are for each of its steps.
            limit: dns.timeout.saturating_mul(2),
        }
    }

    /// The addresses of a name, IPv4 and IPv6 asked at once, in no order of preference yet.
    ///
    /// # Errors
    ///
    /// Told apart: no such name, no address, servers that are silent or fail.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let resolver = self
            .resolver(name)
            .as_ref()
            .map_err(|error| Error::Failed {
                rcode: None,
                source: error.clone(),
            })?;
        let (first, other) = select(
            Box::pin(self.ask(resolver, name, RecordType::AAAA)),
            Box::pin(self.ask(resolver, name, RecordType::A)),
        )
        .await
        .factor_first();
        let second = match &first {
            // A server that never answers for one family must not cost the other one's time.
            Ok(_) => timeout(RESOLUTION_DELAY, other).await.ok(),
            Err(_) => Some(other.await),
        };
        join(first, second)
    }

    async fn ask(
        &self,
        resolver: &TokioResolver,
        name: &str,
        kind: RecordType,
    ) -> Result<Vec<IpAddr>, Error> {
        // With its final dot no search list is used.
        let name = Name::from_ascii(format!("{name}.")).map_err(|source| Error::Failed {
            rcode: None,
            source: source.into(),
        })?;
        let answer = timeout(self.limit, resolver.lookup(name, kind))
            .await
            .map_err(|_elapsed| Error::Silent(self.limit))?
            .map_err(|source| self.sort(source))?;
        let addresses: Vec<_> = answer
            .answers()
            .iter()
            .filter_map(|record| {
                if let RData::A(v4) = &record.data {
                    Some(IpAddr::V4(v4.0))
                } else if let RData::AAAA(v6) = &record.data {
                    Some(IpAddr::V6(v6.0).to_canonical())
                } else {
                    None
                }
            })
            .take(MAX_ADDRESSES)
            .collect();
        if addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        Ok(addresses)
    }

    fn resolver(&self, name: &str) -> &Result<TokioResolver, NetError> {
        self.zones
            .iter()
            .find(|(suffix, _)| is_under(name, suffix))
            .map_or(&self.default, |(_, resolver)| resolver)
    }

    fn sort(&self, error: NetError) -> Error {
        if error.is_nx_domain() {
            return Error::NoSuchName;
        }
        if error.is_no_records_found() {
            return Error::NoAddress;
        }
        if matches!(error, NetError::Timeout) {
            return Error::Silent(self.limit);
        }
        let rcode = if let NetError::Dns(DnsError::ResponseCode(code)) = &error {
            Some(rcode(*code))
        } else {
            None
        };
        Error::Failed {
            rcode,
            source: error,
        }
    }
}

/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No server gave a usable answer.
    #[error("no DNS server gave a usable answer")]
    Failed {
        /// The server's own word, if it had one (`SERVFAIL`, `REFUSED`).
        rcode: Option<&'static str>,
        /// The last failure.
        source: NetError,
    },
    /// The name is there, but has neither A nor AAAA.
    #[error("the name has no address")]
    NoAddress,
    /// There is no such name.
    #[error("there is no such name")]
    NoSuchName,
    /// No server answered.
    #[error("no DNS server answered within {0:?}")]
    Silent(Duration),
}

/// Orders addresses for trying: the preferred family first, then in turn (RFC 8305, section 4).
///
/// The precedence is RFC 6724's: IPv6 when this machine has it, then IPv4, then unique local
/// IPv6. Within a family the server's order stays.
pub(super) fn order(addresses: &[IpAddr], has_ipv6: bool) -> Vec<IpAddr> {
    let rank = |address: &IpAddr| match address {
        IpAddr::V4(_) => 1,
        IpAddr::V6(v6) if has_ipv6 && !v6.is_unique_local() => 0,
        IpAddr::V6(_) => 2,
    };
    let mut sorted: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !sorted.contains(address) {
            sorted.push(*address);
        }
    }
    sorted.sort_by_key(rank);
    let Some(preferred) = sorted.first().map(IpAddr::is_ipv6) else {
        return sorted;
    };
    let (first, second): (Vec<_>, Vec<_>) =
        sorted.into_iter().partition(|a| a.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            break;
        }
        ordered.extend(pair.0);
        ordered.extend(pair.1);
    }
    ordered.truncate(MAX_ADDRESSES);
    ordered
}

fn resolver(
    servers: &[SocketAddr],
    sources: &[&Source],
    dns: &Dns,
) -> Result<TokioResolver, NetError> {
    let servers = servers
        .iter()
        .map(|server| {
            let bind = sources
                .iter()
                .flat_map(|source| source.0.iter())
                .find(|source| source.is_ipv4() == server.is_ipv4())
                .map(|source| SocketAddr::new(*source, 0));
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
                connection.bind_addr = bind;
            }
            NameServerConfig::new(server.ip(), true, connections)
        })
        .collect();
    let mut builder = Resolver::builder_with_config(
        ResolverConfig::from_name_servers(servers),
        TokioRuntimeProvider::default(),
    );
    *builder.options_mut() = options(dns);
    builder.build()
}

fn options(dns: &Dns) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = dns.timeout;
    options.attempts = 1;
    options.cache_size = dns.cache_entries;
    options.positive_max_ttl = Some(dns.max_ttl);
    options.negative_max_ttl = Some(dns.max_ttl.min(NEGATIVE_MAX_TTL));
    options.use_hosts_file = ResolveHosts::Never;
    // Some servers of company networks do not keep the case of a question.
    options.case_randomization = false;
    options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
    options.max_active_requests = MAX_ACTIVE;
    options
}

fn join(
    first: Result<Vec<IpAddr>, Error>,
    second: Option<Result<Vec<IpAddr>, Error>>,
) -> Result<Vec<IpAddr>, Error> {
    match (first, second) {
        (Ok(mut addresses), second) => {
            addresses.extend(second.into_iter().flatten().flatten());
            Ok(addresses)
        }
        (Err(_), Some(Ok(addresses))) => Ok(addresses),
        (Err(first), Some(Err(second))) => Err(worse(first, second)),
        (Err(first), None) => Err(first),
    }
}

/// The error of two that says more: "no such name" is for both families, and a silent server
/// may have had an address.
fn worse(first: Error, second: Error) -> Error {
    let rank = |error: &Error| match error {
        Error::NoSuchName => 0,
        Error::Failed { .. } => 1,
        Error::Silent(_) => 2,
        Error::NoAddress => 3,
    };
    if rank(&second) < rank(&first) {
        second
    } else {
        first
    }
}

/// Whether a name is a suffix itself, or is under it: whole labels.
fn is_under(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn rcode(code: ResponseCode) -> &'static str {
    if code == ResponseCode::ServFail {
        "SERVFAIL"
    } else if code == ResponseCode::Refused {
        "REFUSED"
    } else if code == ResponseCode::FormErr {
        "FORMERR"
    } else if code == ResponseCode::NotImp {
        "NOTIMP"
    } else if code == ResponseCode::NotAuth {
        "NOTAUTH"
    } else {
        "OTHER"
    }
}

/// How long the second family is waited for when the first has answered (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A name that does not exist may exist soon.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(60);

/// Addresses of one name that are looked at.
const MAX_ADDRESSES: usize = 16;

/// Queries at once over one TCP connection to a server.
const MAX_ACTIVE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_preferred_one_begins() {
        let given = ips(&[
            "10.0.0.1",
            "10.0.0.2",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
        ]);

        assert_eq!(
            order(&given, true),
            ips(&[
                "2001:db8::1",
                "10.0.0.1",
                "2001:db8::2",
                "10.0.0.2",
                "2001:db8::3"
            ])
        );
        assert_eq!(
            order(&given, false),
            ips(&[
                "10.0.0.1",
                "2001:db8::1",
                "10.0.0.2",
                "2001:db8::2",
                "2001:db8::3"
            ])
        );
    }

    #[test]
    fn unique_local_addresses_come_after_ipv4() {
        let given = ips(&["fd00::1", "10.0.0.1"]);

        assert_eq!(order(&given, true), ips(&["10.0.0.1", "fd00::1"]));
    }

    #[test]
    fn an_address_given_twice_is_tried_once() {
        assert_eq!(
            order(&ips(&["10.0.0.1", "10.0.0.1"]), true),
            ips(&["10.0.0.1"])
        );
        assert!(order(&[], true).is_empty());
    }

    #[test]
    fn a_suffix_is_whole_labels() {
        assert!(is_under("a.corp.test", "corp.test"));
        assert!(is_under("corp.test", "corp.test"));
        assert!(!is_under("acorp.test", "corp.test"));
        assert!(!is_under("test", "corp.test"));
    }

    #[test]
    fn the_error_that_says_more_wins() {
        let silent = || Err(Error::Silent(Duration::ZERO));

        assert!(matches!(
            join(Err(Error::NoAddress), Some(silent())),
            Err(Error::Silent(_))
        ));
        assert!(matches!(
            join(silent(), Some(Err(Error::NoSuchName))),
            Err(Error::NoSuchName)
        ));
        join(silent(), Some(Ok(ips(&["10.0.0.1"])))).unwrap();
        join(Ok(ips(&["10.0.0.1"])), None).unwrap();
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
}
