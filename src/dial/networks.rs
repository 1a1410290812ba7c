//! The rules of the house: which addresses tunnels and backends may reach, whatever their names.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

use crate::config::Network;

/// Judges addresses, never names.
#[derive(Debug)]
pub(super) struct Networks {
    inside: Vec<IpNet>,
    allow: Vec<SocketAddr>,
    public: Vec<IpAddr>,
    /// The gateway's own, of all interfaces.
    own: ArcSwap<HashSet<IpAddr>>,
    /// Of its DNS, directory and other servers: refused on every port, since whoever steers one
    /// of them through a tunnel steers the gateway.
    systems: ArcSwap<HashSet<IpAddr>>,
}

impl Networks {
    /// The rules of a configuration. `systems` are the servers known by address; those known by
    /// name are [learned](Self::learn) when they are resolved.
    pub(super) fn new(network: &Network, systems: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            inside: network.inside.clone(),
            allow: network
                .allow
                .iter()
                .map(|allowed| SocketAddr::new(allowed.ip().to_canonical(), allowed.port()))
                .collect(),
            public: network
                .public_addresses
                .iter()
                .map(IpAddr::to_canonical)
                .collect(),
            own: ArcSwap::default(),
            systems: ArcSwap::from_pointee(systems.into_iter().map(|a| a.to_canonical()).collect()),
        }
    }

    /// Whether this address may be reached on this port.
    ///
    /// An exact `network.allow` goes before every rule. IPv4 inside IPv6 is judged as IPv4; where
    /// it stays IPv6 on the wire (NAT64, 6to4), the IPv6 address must be inside as well.
    ///
    /// # Errors
    ///
    /// What is wrong with it, to follow "which is".
    pub(super) fn judge(&self, address: IpAddr, port: u16) -> Result<(), &'static str> {
        let address = address.to_canonical();
        if self.allow.contains(&SocketAddr::new(address, port)) {
            return Ok(());
        }
        self.judge_kind(address)?;
        if let Some(embedded) = embedded(address) {
            if self.allow.contains(&SocketAddr::new(embedded, port)) {
                return self.judge_inside(address);
            }
            self.judge_kind(embedded)?;
            self.judge_inside(embedded)?;
        }
        self.judge_inside(address)
    }

    /// Replaces the gateway's own addresses.
    pub(super) fn set_own(&self, own: HashSet<IpAddr>) {
        if **self.own.load() != own {
            self.own.store(Arc::new(own));
        }
    }

    /// Adds addresses of a configured server.
    pub(super) fn learn(&self, addresses: &[IpAddr]) {
        let known = self.systems.load();
        if addresses.iter().all(|a| known.contains(&a.to_canonical())) {
            return;
        }
        self.systems.rcu(|known| {
            let mut known = HashSet::clone(known);
            known.extend(addresses.iter().map(IpAddr::to_canonical));
            known
        });
    }

    /// Whether this machine has an IPv6 address that is good beyond its own networks.
    pub(super) fn has_ipv6(&self) -> bool {
        self.own.load().iter().any(|address| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => {
                !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unique_local()
            }
        })
    }

    fn judge_kind(&self, address: IpAddr) -> Result<(), &'static str> {
        if METADATA.contains(&address) {
            return Err("a metadata service");
        }
        match address {
            IpAddr::V4(v4) => judge_v4(v4)?,
            IpAddr::V6(v6) => judge_v6(v6)?,
        }
        if self.own.load().contains(&address) || self.public.contains(&address) {
            return Err("the gateway's own");
        }
        if self.systems.load().contains(&address) {
            return Err("a server of the gateway");
        }
        Ok(())
    }

    fn judge_inside(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.inside.iter().any(|network| network.contains(&address)) {
            Ok(())
        } else {
            Err("not inside")
        }
    }
}

/// The addresses of all interfaces.
///
/// # Errors
///
/// When the kernel does not tell.
pub(super) fn own_addresses() -> Result<HashSet<IpAddr>, nix::Error> {
    Ok(getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .map(|address| address.to_canonical())
        .collect())
}

fn judge_v4(address: Ipv4Addr) -> Result<(), &'static str> {
    let [first, ..] = address.octets();
    if address.is_loopback() {
        Err("loopback")
    } else if first == 0 {
        Err("in 0.0.0.0/8")
    } else if address.is_link_local() {
        Err("link-local")
    } else if address.is_multicast() {
        Err("multicast")
    } else if address.is_broadcast() {
        Err("broadcast")
    } else if first >= 240 {
        Err("reserved")
    } else {
        Ok(())
    }
}

fn judge_v6(address: Ipv6Addr) -> Result<(), &'static str> {
    let [a, b, c, d, e, f, ..] = address.segments();
    if address.is_loopback() {
        Err("loopback")
    } else if address.is_unspecified() {
        Err("unspecified")
    } else if address.is_multicast() {
        Err("multicast")
    } else if address.is_unicast_link_local() {
        Err("link-local")
    } else if a & 0xffc0 == 0xfec0 {
        Err("site-local")
    } else if [a, b, c, d, e, f] == [0; 6] {
        // Obsolete (RFC 4291, section 2.5.5.1), and a way to write 127.0.0.1.
        Err("an IPv4-compatible address")
    } else if [a, b] == [0x2001, 0] {
        Err("a Teredo address")
    } else {
        Ok(())
    }
}

/// The IPv4 address at which packets to an IPv6 address come out: NAT64 (RFC 6052 and RFC 8215,
/// taken as /96) and 6to4 (RFC 3056).
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let well_known = [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0];
    let local = [a, b, c] == [0x64, 0xff9b, 1];
    let (high, low) = if well_known || local {
        (g, h)
    } else if a == 0x2002 {
        (b, c)
    } else {
        return None;
    };
    let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(IpAddr::V4(Ipv4Addr::new(w, x, y, z)))
}

/// Where clouds hand out credentials to whoever asks.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Source;

    #[test]
    fn an_address_inside_may_be_reached() {
        let networks = networks(&["10.0.0.0/8", "fd00:10::/32"], &[]);

        assert_eq!(networks.judge(ip("10.1.2.3"), 443), Ok(()));
        assert_eq!(networks.judge(ip("fd00:10::1"), 443), Ok(()));
        assert_eq!(networks.judge(ip("::ffff:10.1.2.3"), 443), Ok(()));
    }

    #[test]
    fn nothing_is_inside_by_default() {
        let networks = networks(&[], &[]);

        assert_eq!(networks.judge(ip("10.1.2.3"), 443), Err("not inside"));
        assert_eq!(networks.judge(ip("8.8.8.8"), 443), Err("not inside"));
        assert_eq!(networks.judge(ip("2001:db8::1"), 443), Err("not inside"));
    }

    #[test]
    fn kinds_are_refused_even_when_everything_is_inside() {
        let networks = networks(&["0.0.0.0/0", "::/0"], &[]);
        for (address, why) in [
            ("127.0.0.1", "loopback"),
            ("127.255.1.2", "loopback"),
            ("0.0.0.0", "in 0.0.0.0/8"),
            ("0.1.2.3", "in 0.0.0.0/8"),
            ("169.254.1.1", "link-local"),
            ("169.254.169.254", "a metadata service"),
            ("168.63.129.16", "a metadata service"),
            ("fd00:ec2::254", "a metadata service"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("240.0.0.1", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "a metadata service"),
            ("::127.0.0.1", "an IPv4-compatible address"),
            ("::10.0.0.1", "an IPv4-compatible address"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b::169.254.169.254", "a metadata service"),
            ("64:ff9b:1::127.0.0.1", "loopback"),
            ("2002:7f00:1::1", "loopback"),
            ("2002:a9fe:a9fe::", "a metadata service"),
            ("2001:0:1::1", "a Teredo address"),
        ] {
            assert_eq!(networks.judge(ip(address), 80), Err(why), "{address}");
        }
        assert_eq!(networks.judge(ip("2001:db8::1"), 80), Ok(()));
        assert_eq!(networks.judge(ip("64:ff9b::10.0.0.1"), 80), Ok(()));
    }

    #[test]
    fn nat64_needs_both_addresses_inside() {
        let v6_only = networks(&["64:ff9b::/96"], &[]);
        let v4_only = networks(&["10.0.0.0/8"], &[]);
        let both = networks(&["64:ff9b::/96", "10.0.0.0/8"], &[]);

        let address = ip("64:ff9b::10.0.0.1");
        assert_eq!(v6_only.judge(address, 80), Err("not inside"));
        assert_eq!(v4_only.judge(address, 80), Err("not inside"));
        assert_eq!(both.judge(address, 80), Ok(()));
    }

    #[test]
    fn an_exact_address_and_port_can_be_allowed() {
        let networks = networks(&[], &["127.0.0.1:8000"]);

        assert_eq!(networks.judge(ip("127.0.0.1"), 8000), Ok(()));
        assert_eq!(networks.judge(ip("::ffff:127.0.0.1"), 8000), Ok(()));
        assert_eq!(networks.judge(ip("127.0.0.1"), 8001), Err("loopback"));
        assert_eq!(networks.judge(ip("127.0.0.2"), 8000), Err("loopback"));
    }

    #[test]
    fn own_addresses_and_public_ones_are_refused() {
        let networks = networks(&["0.0.0.0/0", "::/0"], &["10.0.0.7:80"]);
        networks.set_own([ip("10.0.0.7"), ip("fd00::7")].into());

        assert_eq!(
            networks.judge(ip("10.0.0.7"), 443),
            Err("the gateway's own")
        );
        assert_eq!(networks.judge(ip("10.0.0.7"), 80), Ok(()));
        assert_eq!(networks.judge(ip("fd00::7"), 1), Err("the gateway's own"));
        assert_eq!(
            networks.judge(ip("64:ff9b::10.0.0.7"), 443),
            Err("the gateway's own")
        );
        assert_eq!(
            networks.judge(ip("198.51.100.7"), 443),
            Err("the gateway's own")
        );
        assert!(!networks.has_ipv6());
        networks.set_own([ip("2001:db8::7")].into());
        assert!(networks.has_ipv6());
    }

    #[test]
    fn servers_of_the_gateway_are_refused_on_every_port() {
        let networks = networks(&["10.0.0.0/8"], &["10.0.0.9:443"]);
        networks.learn(&[ip("10.0.0.9")]);

        for (address, port) in [("10.0.0.53", 53), ("10.0.0.53", 443), ("10.0.0.9", 636)] {
            assert_eq!(
                networks.judge(ip(address), port),
                Err("a server of the gateway")
            );
        }
        assert_eq!(networks.judge(ip("10.0.0.9"), 443), Ok(()));
    }

    #[test]
    fn the_kernel_tells_own_addresses() {
        assert!(own_addresses().unwrap().contains(&ip("127.0.0.1")));
    }

    proptest! {
        #[test]
        fn what_is_let_through_is_inside_or_allowed(bits: u128, port: u16) {
            let networks = networks(&["10.0.0.0/8", "fd00:10::/32"], &["127.0.0.1:80"]);
            let address = IpAddr::V6(Ipv6Addr::from(bits)).to_canonical();
            if networks.judge(address, port).is_ok() {
                let inside = networks.inside.iter().any(|n| n.contains(&address));
                prop_assert!(inside || (address == ip("127.0.0.1") && port == 80));
            }
        }

        #[test]
        fn a_mapped_address_is_judged_as_ipv4(bits: u32, port: u16) {
            let networks = networks(&["10.0.0.0/8"], &[]);
            let v4 = Ipv4Addr::from(bits);
            prop_assert_eq!(
                networks.judge(v4.into(), port),
                networks.judge(v4.to_ipv6_mapped().into(), port)
            );
        }
    }

    fn networks(inside: &[&str], allow: &[&str]) -> Networks {
        let network = Network {
            inside: inside.iter().map(|n| n.parse().unwrap()).collect(),
            allow: allow.iter().map(|a| a.parse().unwrap()).collect(),
            public_addresses: vec![ip("198.51.100.7")],
            source: Source::default(),
            tunnel_sources: Vec::new(),
            connect_timeout: Duration::from_secs(1),
            attempt_delay: Duration::from_millis(250),
            kept_idle: Duration::from_secs(1),
            keepalive: Duration::from_secs(1),
            mss: None,
            user_timeout: Duration::from_secs(1),
        };
        Networks::new(&network, [ip("10.0.0.53")])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
