//! Permit: what may be dialled, and until when. Only the policy can fill it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

/// Where a device wants to go, before any address is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name or address.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A name or an address; never a text that could be read as either.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address that was written as a literal. IPv4 inside IPv6 has become IPv4.
    Address(IpAddr),
    /// A DNS name: lower case, no final dot, letters, digits, `-` and `_` in labels.
    Name(Arc<str>),
}

impl Host {
    /// Reads a name, an IPv4 literal of four decimal parts, or an IPv6 literal without brackets.
    ///
    /// What looks like an address but is not written strictly (`127.1`, `0x7f.0.0.1`,
    /// `2130706433`, a zone id) is refused, as some resolvers would still understand it (R32).
    ///
    /// # Errors
    ///
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, NotAHost> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit())
            || (last.len() > 1
                && last.get(..2).is_some_and(|x| x.eq_ignore_ascii_case("0x"))
                && last.bytes().skip(2).all(|b| b.is_ascii_hexdigit()));
        let labels = name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        if name.len() > 253 || numeric || !labels {
            return Err(NotAHost);
        }
        Ok(Self::Name(
            if name.bytes().any(|b| b.is_ascii_uppercase()) {
                name.to_ascii_lowercase().into()
            } else {
                name.into()
            },
        ))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A text that is neither a DNS name nor a strictly written address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a DNS name nor an IP address")]
pub struct NotAHost;

impl Target {
    /// Reads `host:port` or `[v6]:port`; the port is required (RFC 9110, section 9.3.6).
    ///
    /// # Errors
    ///
    /// When host or port are not written strictly, or the port is 0.
    pub fn parse(authority: &str) -> Result<Self, NotAHost> {
        let (host, port) = authority.rsplit_once(':').ok_or(NotAHost)?;
        let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        let port = match port.parse() {
            Ok(port) if digits && port != 0 => port,
            _ => return Err(NotAHost),
        };
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => Host::Address(IpAddr::from(
                v6.parse::<std::net::Ipv6Addr>().map_err(|_not| NotAHost)?,
            ))
            .canonical(),
            None if host.contains(':') => return Err(NotAHost),
            None => Host::parse(host)?,
        };
        Ok(Self { host, port })
    }
}

impl Host {
    fn canonical(self) -> Self {
        match self {
            Self::Address(address) => Self::Address(address.to_canonical()),
            Self::Name(name) => Self::Name(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Proof that the policy allows something: it holds what, and `dial` connects to nothing else.
#[derive(Clone, Debug)]
pub struct Permit {
    what: What,
    until: Option<Instant>,
    policies: Arc<[Arc<str>]>,
}

/// What a permit allows.
#[derive(Clone, Debug)]
pub enum What {
    /// An app: any node of its pool.
    App {
        /// The app's name.
        app: Arc<str>,
        /// Its pool's name.
        pool: Arc<str>,
    },
    /// These addresses, and no other, under the name they were found by.
    Tunnel {
        /// What the device asked for.
        target: Target,
        /// What it resolved to, judged.
        addresses: Arc<[SocketAddr]>,
    },
}

impl Permit {
    /// A permit; `crate::policy` alone can make a [`crate::policy::Seal`].
    pub(crate) fn new(
        _seal: crate::policy::Seal,
        what: What,
        until: Option<Instant>,
        policies: Arc<[Arc<str>]>,
    ) -> Self {
        Self {
            what,
            until,
            policies,
        }
    }

    /// What it allows.
    pub fn what(&self) -> &What {
        &self.what
    }

    /// When it ends, if it ends by itself.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The ids of the policies that allowed it.
    pub fn policies(&self) -> &Arc<[Arc<str>]> {
        &self.policies
    }

    /// A permit for a test of what comes after the policy.
    #[cfg(test)]
    pub(crate) fn for_test(what: What, until: Option<Instant>) -> Self {
        Self {
            what,
            until,
            policies: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_lower_case_without_a_final_dot() {
        for (text, name) in [
            ("intranet.corp.test", "intranet.corp.test"),
            ("Intranet.CORP.test.", "intranet.corp.test"),
            ("intranet", "intranet"),
            ("_sip._tcp.corp.test", "_sip._tcp.corp.test"),
            ("1and1.test", "1and1.test"),
            ("10.in-addr.arpa", "10.in-addr.arpa"),
            ("0xyz", "0xyz"),
            ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ] {
            assert_eq!(Host::parse(text), Ok(Host::Name(name.into())), "{text}");
        }
    }

    #[test]
    fn addresses_are_read_strictly() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("FD00::1", "fd00::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:7f00:1", "127.0.0.1"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Host::parse(text), Ok(Host::Address(address)), "{text}");
        }
    }

    #[test]
    fn what_some_resolvers_take_for_an_address_is_refused() {
        for text in [
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0x7F.1",
            "a.0x1",
            "a.0X",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "256.0.0.1",
            "1.2.3.4.5",
            "corp.1",
            "fe80::1%eth0",
            "[::1]",
            "::1.",
            ":::",
        ] {
            assert_eq!(Host::parse(text), Err(NotAHost), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        let long_label = format!("{}.test", "a".repeat(64));
        let long_name = ["a".repeat(50).as_str(); 6].join(".");
        for text in [
            "",
            ".",
            "..",
            ".test",
            "a..test",
            "a.test..",
            "-a.test",
            "a-.test",
            "a b.test",
            "a/b.test",
            "a@b.test",
            "a%2eb.test",
            "a\0.test",
            "a\r\n.test",
            "b\u{fc}cher.test",
            "a\u{3002}test",
            long_label.as_str(),
            long_name.as_str(),
        ] {
            assert_eq!(Host::parse(text), Err(NotAHost), "{text:?}");
        }
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for (text, shown) in [
            ("intranet.corp.test:443", "intranet.corp.test:443"),
            ("Intranet.:80", "intranet:80"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[fd00::1]:65535", "[fd00::1]:65535"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("a.test:0443", "a.test:443"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_target_without_a_strict_port_is_refused() {
        for text in [
            "",
            ":",
            ":80",
            "a.test",
            "a.test:",
            "a.test:0",
            "a.test:65536",
            "a.test:+80",
            "a.test:-80",
            "a.test: 80",
            "a.test:80 ",
            "a.test:000080",
            "a.test:http",
            "user@a.test:80",
            "http://a.test:80",
            "::1:80",
            "fd00::1:80",
            "[::1]",
            "[::1]80",
            "[::1%1]:80",
            "[127.0.0.1]:80",
            "[a.test]:80",
            "[]:80",
            "127.1:80",
            "a.test:80/",
        ] {
            assert_eq!(Target::parse(text), Err(NotAHost), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            drop(Host::parse(&text));
            drop(Target::parse(&text));
        }

        #[test]
        fn what_was_read_reads_the_same_again(text in "[a-zA-Z0-9._:\\[\\]-]{1,30}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Ok(target));
            }
        }
    }
}
