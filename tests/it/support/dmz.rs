//! A company with a DMZ: two firewalls, NAT, paths of 1280 bytes without ICMP, split DNS.
//!
//! ```text
//! device -- isp ==1280== outer -- dmz -- inner ==1280== core -- inside
//!           NAT          NAT      gateway NAT                   intranet, portal, nodes, DNS
//! ```

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    client::{self, Curl},
    gateway::{ALICE, Gateway, Site, policy, ravelin},
    namespace::Namespace,
    peers::{self, Peer},
};

/// The whole of it, with the gateway running.
pub(crate) struct Dmz {
    // In the order in which they are taken down: programs before the machines they run on.
    pub(crate) gateway: Gateway,
    peers: Vec<Peer>,
    /// On the Internet, behind its carrier's NAT.
    pub(crate) device: Namespace,
    _isp: Namespace,
    /// Between Internet and DMZ. Counters: `late`, `leak`.
    pub(crate) outer: Namespace,
    /// The gateway's machine.
    pub(crate) dmz: Namespace,
    /// Between DMZ and inside. Counters: `directory`, `dns`, `late`, `pools`, `tunnels`, `wrong`.
    pub(crate) inner: Namespace,
    _core: Namespace,
    _inside: Namespace,
    pub(crate) site: Site,
    /// The kernel has IPv6.
    pub(crate) ipv6: bool,
}

impl Dmz {
    /// alice may tunnel wherever the house rules let her, and open both apps.
    pub(crate) fn new() -> Self {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let machine = |role| Namespace::new(role, PUBLIC_DNS);
        let [device, isp, outer, dmz, inner, core, inside] =
            ["device", "isp", "outer", "dmz", "inner", "core", "inside"].map(machine);
        device.link("device", &isp, "isp", 1500);
        isp.link("isp", &outer, "outer", 1280);
        outer.link("outer", &dmz, "dmz", 1500);
        dmz.link("dmz", &inner, "inner", 1500);
        inner.link("inner", &core, "core", 1280);
        core.link("core", &inside, "inside", 1500);
        for (machine, lines) in [
            (&device, DEVICE),
            (&isp, ISP),
            (&outer, OUTER),
            (&dmz, GATEWAY),
            (&inner, INNER),
            (&core, CORE),
            (&inside, INSIDE),
        ] {
            machine.ip(&for_kernel(lines, ipv6));
        }
        for router in [&isp, &outer, &inner, &core] {
            router.sysctl(&["net.ipv4.ip_forward=1"]);
            if ipv6 {
                router.sysctl(&["net.ipv6.conf.all.forwarding=1"]);
            }
        }
        for firewall in [&outer, &inner] {
            // What is not known is not let through: real firewalls pick nothing up midway.
            firewall.sysctl(&["net.netfilter.nf_conntrack_tcp_loose=0"]);
            forget_after(firewall, IDLE_LIMIT);
        }
        isp.nft(ISP_RULES);
        outer.nft(OUTER_RULES);
        inner.nft(INNER_RULES);
        core.nft(CORE_RULES);

        let site = Site::new();
        let peers = company(&site, &isp, &inside, ipv6);
        policy(&site, POLICY);
        let mut program = dmz.command(ravelin().get_program());
        program.env_remove("RUST_LOG");
        let gateway = Gateway::start_with(&site, &configuration(ipv6), program);
        Self {
            gateway,
            peers,
            device,
            _isp: isp,
            outer,
            dmz,
            inner,
            _core: core,
            _inside: inside,
            site,
            ipv6,
        }
    }

    /// Runs curl on the device. Names are those of the public DNS.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Curl {
        client::run(self.device.command("curl"), &self.authority(), arguments)
    }

    /// Opens an app as alice.
    pub(crate) fn open(&self, url: &str, more: &[&str]) -> Curl {
        let user = format!("alice:{ALICE}");
        self.curl(&[&["--user", &user, url], more].concat())
    }

    /// Fetches a URL through a tunnel of alice's.
    pub(crate) fn tunnel(&self, url: &str, more: &[&str]) -> Curl {
        let user = format!("alice:{ALICE}");
        let proxy = [
            "--proxytunnel",
            "--proxy",
            GATEWAY_URL,
            "--proxy-user",
            &user,
            url,
        ];
        self.curl(&[&proxy, more].concat())
    }

    /// curl on the gateway's own machine, past the gateway: what the firewalls make of it.
    pub(crate) fn curl_from_dmz(&self) -> Command {
        let mut curl = self.dmz.command("curl");
        curl.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{size_download}",
        ]);
        curl
    }

    /// The root directories of portal and intranet.
    pub(crate) fn roots(&self) -> [PathBuf; 2] {
        [0, 1].map(|peer| self.peers[peer].directory().join("root"))
    }

    /// The certificate that signs everything.
    pub(crate) fn authority(&self) -> PathBuf {
        self.site.path("ca.pem")
    }
}

/// Makes a firewall forget connections that say nothing for as many seconds.
pub(crate) fn forget_after(firewall: &Namespace, seconds: u64) {
    let limit = format!("net.netfilter.nf_conntrack_tcp_timeout_established={seconds}");
    firewall.sysctl(&[&limit]);
}

/// Seconds for which both firewalls remember an idle connection: a minute, in this small world.
pub(crate) const IDLE_LIMIT: u64 = 5;

/// Where devices find the gateway.
const GATEWAY_URL: &str = "https://gw.ravelin.test";

/// Servers, first the portal and the intranet.
fn company(site: &Site, isp: &Namespace, inside: &Namespace, ipv6: bool) -> Vec<Peer> {
    let listen = |address: &str| {
        if ipv6 {
            format!("listen [{address}]:80;\n")
        } else {
            String::new()
        }
    };
    let portal = listen("fd00:10::10") + PORTAL;
    let intranet = listen("fd00:20::10") + INTRANET;
    let node = site
        .authority
        .issue("xm", &["xm1.corp.test", "xm2.corp.test"]);
    let mut peers = vec![
        peers::nginx_on(&inside.at("10.10.0.10:80"), &portal, None),
        peers::nginx_on(&inside.at("10.20.0.10:80"), &intranet, None),
    ];
    for (name, address) in [("node1", "10.10.0.21:8443"), ("node2", "10.10.0.22:8443")] {
        let locations = NODE.replace("NAME", name);
        peers.push(peers::nginx_on(
            &inside.at(address),
            &locations,
            Some(&node),
        ));
    }
    peers.push(peers::nginx_on(
        &isp.at("198.51.100.80:80"),
        "location / { return 200 \"public site\\n\"; }",
        None,
    ));
    let directory = site.authority.issue("ldap", &["ldap.corp.test"]);
    peers.push(peers::slapd_on(
        &inside.at("10.10.0.9:636"),
        "ldaps",
        Some((&directory, &site.path("ca.pem"))),
    ));
    let secret = site.write("ldap-secret", "service secret\n");
    fs::set_permissions(secret, Permissions::from_mode(0o600)).unwrap();
    // The same names, two answers.
    let names: Vec<_> = PUBLIC_NAMES
        .iter()
        .filter(|name| ipv6 || !name.1.contains(':'))
        .copied()
        .collect();
    peers.push(peers::dns_on(&isp.at(&format!("{PUBLIC_DNS}:53")), &names));
    peers.push(peers::dns_on(&inside.at("10.10.0.53:53"), INSIDE_NAMES));
    for root in [0, 1].map(|peer| peers[peer].directory().join("root")) {
        fs::create_dir(root.join("files")).unwrap();
    }
    peers
}

/// Lines for a kernel with or without IPv6.
fn for_kernel(lines: &str, ipv6: bool) -> String {
    lines
        .lines()
        .filter(|line| ipv6 || !line.contains("::"))
        .flat_map(|line| [line.trim(), "\n"])
        .collect()
}

fn configuration(ipv6: bool) -> String {
    for_kernel(CONFIGURATION, ipv6)
}

const PUBLIC_DNS: &str = "198.51.100.53";

const PUBLIC_NAMES: &[(&str, &str)] = &[
    ("gw.ravelin.test", "203.0.113.7"),
    ("gw.ravelin.test", "2001:db8:3::4"),
    ("portal.apps.test", "203.0.113.7"),
    ("xm.apps.test", "203.0.113.7"),
    ("intranet.corp.test", "198.51.100.80"),
    ("portal.corp.test", "198.51.100.80"),
];

const INSIDE_NAMES: &[(&str, &str)] = &[
    ("intranet.corp.test", "10.20.0.10"),
    ("intranet6.corp.test", "fd00:20::10"),
    ("ldap.corp.test", "10.10.0.9"),
    ("portal.corp.test", "10.10.0.10"),
    ("xm1.corp.test", "10.10.0.21"),
    ("xm2.corp.test", "10.10.0.22"),
    ("gateway.corp.test", "10.2.0.4"),
    ("published.corp.test", "203.0.113.7"),
    ("elsewhere.corp.test", "198.51.100.80"),
];

const DEVICE: &str = "\
    addr add 100.64.1.2/24 dev isp
    addr add 2001:db8:1::2/64 dev isp nodad
    route add default via 100.64.1.1
    route add default via 2001:db8:1::1";

const ISP: &str = "\
    addr add 198.51.100.53/32 dev lo
    addr add 198.51.100.80/32 dev lo
    addr add 100.64.1.1/24 dev device
    addr add 2001:db8:1::1/64 dev device nodad
    addr add 203.0.113.1/24 dev outer
    addr add 2001:db8:2::1/64 dev outer nodad
    route add 2001:db8:3::/64 via 2001:db8:2::7";

const OUTER: &str = "\
    addr add 203.0.113.7/24 dev isp
    addr add 2001:db8:2::7/64 dev isp nodad
    addr add 10.1.0.1/24 dev dmz
    addr add 2001:db8:3::1/64 dev dmz nodad
    route add default via 203.0.113.1
    route add default via 2001:db8:2::1";

/// 10.2.0.4 is what the kernel would choose towards the inside.
const GATEWAY: &str = "\
    addr add 10.1.0.4/24 dev outer
    addr add 2001:db8:3::4/64 dev outer nodad
    addr add 10.2.0.4/24 dev inner
    addr add 10.2.0.5/24 dev inner
    addr add 10.2.0.6/24 dev inner
    addr add 10.2.0.7/24 dev inner
    addr add fd00:2::5/64 dev inner nodad
    addr add fd00:2::6/64 dev inner nodad
    addr add fd00:2::4/64 dev inner nodad
    route add default via 10.1.0.1
    route add default via 2001:db8:3::1
    route add 10.10.0.0/16 via 10.2.0.1
    route add 10.20.0.0/16 via 10.2.0.1
    route add fd00:10::/32 via fd00:2::1
    route add fd00:20::/32 via fd00:2::1";

const INNER: &str = "\
    addr add 10.2.0.1/24 dev dmz
    addr add fd00:2::1/64 dev dmz nodad
    addr add 10.3.0.1/24 dev core
    addr add fd00:3::1/64 dev core nodad
    route add 10.10.0.0/16 via 10.3.0.2
    route add 10.20.0.0/16 via 10.3.0.2
    route add fd00:10::/32 via fd00:3::2
    route add fd00:20::/32 via fd00:3::2";

const CORE: &str = "\
    addr add 10.3.0.2/24 dev inner
    addr add fd00:3::2/64 dev inner nodad
    addr add 10.4.0.1/24 dev inside
    addr add fd00:4::1/64 dev inside nodad
    route add default via 10.3.0.1
    route add default via fd00:3::1
    route add 10.10.0.0/16 via 10.4.0.2
    route add 10.20.0.0/16 via 10.4.0.2
    route add fd00:10::/32 via fd00:4::2
    route add fd00:20::/32 via fd00:4::2";

const INSIDE: &str = "\
    addr add 10.4.0.2/24 dev core
    addr add fd00:4::2/64 dev core nodad
    addr add 10.10.0.9/32 dev lo
    addr add 10.10.0.10/32 dev lo
    addr add 10.10.0.21/32 dev lo
    addr add 10.10.0.22/32 dev lo
    addr add 10.10.0.53/32 dev lo
    addr add 10.20.0.10/32 dev lo
    addr add fd00:10::10/128 dev lo nodad
    addr add fd00:20::10/128 dev lo nodad
    route add default via 10.4.0.1
    route add default via fd00:4::1";

const ISP_RULES: &str = "
define silent = { destination-unreachable, packet-too-big, time-exceeded, echo-request, echo-reply }
table inet wall {
    chain output { type filter hook output priority 0; ip protocol icmp drop; icmpv6 type $silent drop; }
}
table ip nat {
    chain out { type nat hook postrouting priority 100; oifname \"outer\" masquerade; }
}";

const OUTER_RULES: &str = "
define silent = { destination-unreachable, packet-too-big, time-exceeded, echo-request, echo-reply }
table inet wall {
    counter late { }
    counter leak { }
    chain output { type filter hook output priority 0; ip protocol icmp drop; icmpv6 type $silent drop; }
    chain input { type filter hook input priority 0; meta l4proto tcp ct state invalid counter name late drop; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established accept
        iifname \"isp\" ct state new ip daddr 10.1.0.4 tcp dport { 443, 8443 } accept
        iifname \"isp\" ct state new ip6 daddr 2001:db8:3::4 tcp dport 443 accept
        meta l4proto tcp ct state invalid counter name late drop
        iifname \"dmz\" counter name leak drop
    }
}
table ip nat {
    chain in {
        type nat hook prerouting priority -100;
        iifname \"isp\" ip daddr 203.0.113.7 tcp dport { 443, 8443 } dnat to 10.1.0.4
    }
}";

const INNER_RULES: &str = "
define silent = { destination-unreachable, packet-too-big, time-exceeded, echo-request, echo-reply }
table inet wall {
    counter directory { }
    counter dns { }
    counter late { }
    counter pools { }
    counter tunnels { }
    counter tunnels6 { }
    counter wrong { }
    chain output { type filter hook output priority 0; ip protocol icmp drop; icmpv6 type $silent drop; }
    chain input { type filter hook input priority 0; meta l4proto tcp ct state invalid counter name late drop; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established accept
        meta l4proto tcp ct state invalid counter name late drop
        iifname \"dmz\" ct state new jump gateway
    }
    chain gateway {
        ip saddr 10.2.0.5 ip daddr 10.10.0.53 meta l4proto { tcp, udp } th dport 53 counter name dns accept
        ip saddr 10.2.0.7 ip daddr 10.10.0.9 tcp dport 636 counter name directory accept
        ip saddr 10.2.0.5 ip daddr 10.10.0.10 tcp dport 80 counter name pools accept
        ip saddr 10.2.0.5 ip daddr { 10.10.0.21, 10.10.0.22 } tcp dport 8443 counter name pools accept
        ip saddr 10.2.0.6 ip daddr 10.20.0.0/16 tcp dport 80 counter name tunnels accept
        ip6 saddr fd00:2::6 ip6 daddr fd00:20::/32 tcp dport 80 counter name tunnels6 accept
        counter name wrong drop
    }
}
table ip nat {
    chain out { type nat hook postrouting priority 100; oifname \"core\" masquerade; }
}";

const CORE_RULES: &str = "
define silent = { destination-unreachable, packet-too-big, time-exceeded, echo-request, echo-reply }
table inet wall {
    chain output { type filter hook output priority 0; ip protocol icmp drop; icmpv6 type $silent drop; }
}";

const PORTAL: &str = r#"
location / { return 200 "portal connection=$connection from=$remote_addr device=$http_x_forwarded_for\n"; }
location /files/ { dav_methods PUT; client_max_body_size 0; }
"#;

const INTRANET: &str = r#"
location / { return 200 "intranet connection=$connection from=$remote_addr\n"; }
location /files/ { }
"#;

const NODE: &str = r#"
location = /check { return 200 "serverinfo"; }
location / { add_header Set-Cookie "ACNODEID=NAME; Path=/; Secure"; return 200 "NAME\n"; }
"#;

const POLICY: &str = r#"
@id("sales-tunnel")
permit (principal in Group::"sales", action == Action::"tunnel", resource);

@id("sales-apps")
permit (principal in Group::"sales", action == Action::"open", resource);
"#;

/// The listener `unbounded` is there to show what happens without `mss`.
const CONFIGURATION: &str = r#"
    host = "gw.ravelin.test"

    [listener.public]
    addresses = [
    "10.1.0.4:443",
    "[2001:db8:3::4]:443",
    ]
    certificates = ["gw"]
    keepalive = "2s"
    mss = 1220

    [listener.unbounded]
    addresses = ["10.1.0.4:8443"]
    certificates = ["gw"]

    [certificate.gw]
    chain = "gw.pem"
    key = "file:gw.key"

    [directory.corp]
    type = "ldap"
    servers = ["ldaps://ldap.corp.test"]
    ca = "ca.pem"
    bind_dn = "cn=ravelin,dc=corp,dc=test"
    bind_password = "file:ldap-secret"
    user_base = "ou=people,dc=corp,dc=test"
    group_base = "dc=corp,dc=test"
    source = ["10.2.0.7"]

    [network]
    inside = [
    "10.10.0.0/16", "10.20.0.0/16",
    "fd00:10::/32", "fd00:20::/32",
    ]
    public_addresses = ["203.0.113.7"]
    source = [
    "10.2.0.5",
    "fd00:2::5",
    ]
    keepalive = "2s"
    user_timeout = "3s"
    mss = 1220
    tunnel_source = [
    { network = "10.20.0.0/16", source = ["10.2.0.6"] },
    { network = "fd00:20::/32", source = ["fd00:2::6"] },
    ]

    [dns]
    servers = ["10.10.0.53"]

    [pool.portal]
    nodes = ["http://portal.corp.test"]
    check = { type = "tcp", interval = "1s", timeout = "900ms" }

    [pool.xenmobile]
    nodes = ["https://xm1.corp.test:8443", "https://xm2.corp.test:8443"]
    ca = "ca.pem"
    check = { type = "http", path = "/check", expect_body = "serverinfo", interval = "1s", timeout = "900ms" }
    persistence = { cookie = "ACNODEID" }

    [app.portal]
    host = "portal.apps.test"
    pool = "portal"

    [app.xenmobile]
    host = "xm.apps.test"
    pool = "xenmobile"

    [policy]
    files = ["policies/*.cedar"]

    [admin]
    address = "127.0.0.1:0"
    control = "control.sock"

    [log]
    access = "file:access.log"
    level = "debug"
"#;
