//! The gateway where it belongs: between two firewalls, with the rules that administrators write.

use std::{
    fs,
    path::Path,
    process::Output,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{
    dmz::{Dmz, IDLE_LIMIT, forget_after},
    eventually,
    gateway::ALICE,
    wire::Wire,
};

#[test]
#[ignore = "needs root, iproute2 and nftables"]
fn devices_reach_what_both_firewalls_let_through_and_nothing_else() {
    let world = Dmz::new();

    // One name, two answers: what a tunnel reaches is what the inside's DNS knows.
    let public = world.curl(&["-4", "http://intranet.corp.test/"]);
    assert_eq!(public.body, "public site\n", "{public:?}");
    let inside = world.tunnel("http://intranet.corp.test/", &["-4"]);
    assert!(inside.body.starts_with("intranet "), "{inside:?}");

    let portal = world.open("https://portal.apps.test/", &["-4"]);
    assert!(portal.body.starts_with("portal "), "{portal:?}");
    // Seen from inside, all comes from the inner firewall; the device is behind its carrier.
    assert!(
        portal.body.contains(" from=10.3.0.1 device=203.0.113.1"),
        "{portal:?}"
    );

    if world.ipv6 {
        let inside = world.tunnel("http://intranet6.corp.test/", &["-6"]);
        assert!(inside.body.contains(" from=fd00:2::6"), "{inside:?}");
        assert_ne!(world.inner.packets("tunnels6"), 0);
    }

    for counter in ["directory", "dns", "pools", "tunnels"] {
        assert_ne!(world.inner.packets(counter), 0, "{counter}");
    }
    // Health checks and all included, nothing has left from an address that no rule names, and
    // nobody asked the public DNS, which this machine is told to use.
    assert_eq!(world.inner.packets("wrong"), 0);
    assert_eq!(world.outer.packets("leak"), 0);

    // The rules are worth something: the same from what the kernel chooses, and from the source
    // of pools to the network of tunnels.
    refused(&world, &["http://10.10.0.10/"]);
    refused(&world, &["--interface", "10.2.0.5", "http://10.20.0.10/"]);
}

/// Asserts that the inner firewall drops what the gateway's machine tries.
fn refused(world: &Dmz, arguments: &[&str]) {
    let before = world.inner.packets("wrong");
    let mut curl = world.curl_from_dmz();
    let output = curl
        .args(["--connect-timeout", "0.5"])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(TIMED_OUT), "{output:?}");
    assert!(world.inner.packets("wrong") > before, "{arguments:?}");
}

#[test]
#[ignore = "needs root, iproute2 and nftables"]
fn a_device_stays_on_its_node_behind_the_firewalls() {
    let world = Dmz::new();
    let jar = world.site.path("jar");
    let cookies = ["-4", "--cookie-jar", path(&jar), "--cookie", path(&jar)];

    let nodes: Vec<String> = (0..6)
        .map(|_| world.open("https://xm.apps.test/", &cookies).body)
        .collect();

    assert!(nodes[0] == "node1\n" || nodes[0] == "node2\n", "{nodes:?}");
    assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
    assert_eq!(world.inner.packets("wrong"), 0);
}

#[test]
#[ignore = "needs root, iproute2 and nftables"]
fn the_gateway_itself_and_all_that_is_not_inside_are_refused() {
    let world = Dmz::new();

    for (target, why) in [
        ("10.1.0.4:443", "the gateway's own"),
        ("10.2.0.5:443", "the gateway's own"),
        ("gateway.corp.test:443", "the gateway's own"),
        ("203.0.113.7:443", "the gateway's own"),
        ("published.corp.test:443", "the gateway's own"),
        ("10.10.0.53:53", "a server of the gateway"),
        ("ldap.corp.test:636", "a server of the gateway"),
        ("elsewhere.corp.test:80", "not inside"),
        ("10.3.0.2:22", "not inside"),
    ] {
        let got = world.tunnel(&format!("http://{target}/"), &["-4"]);

        assert_eq!(got.status, 403, "{target}: {got:?}");
        let id = crate::connect::refusal_id(&got.trace);
        let line = world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
        assert!(line.to_string().contains(why), "{target}: {line}");
    }
    // Not one packet was spent on them.
    assert_eq!(world.inner.packets("wrong"), 0);
    assert_eq!(world.outer.packets("leak"), 0);
}

#[test]
#[ignore = "needs root, iproute2 and nftables"]
fn large_transfers_arrive_whole_on_paths_that_swallow_large_packets() {
    let world = Dmz::new();
    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let [portal, intranet] = world.roots();
    for root in [&portal, &intranet] {
        fs::write(root.join("files/big"), &bytes).unwrap();
    }
    let big = portal.join("files/big");
    let out = world.site.path("out");
    let stalled = stalled_downloads(&world);

    let families: &[_] = if world.ipv6 { &["-4", "-6"] } else { &["-4"] };
    for family in families {
        let name = if *family == "-4" {
            "intranet"
        } else {
            "intranet6"
        };
        let url = format!("http://{name}.corp.test/files/big");
        let got = world.tunnel(&url, &[family, "--output", path(&out)]);
        assert_eq!(got.status, 200, "{family}: {got:?}");
        assert!(fs::read(&out).unwrap() == bytes, "{family}: {got:?}");
        fs::remove_file(&out).unwrap();
    }
    for version in ["--http1.1", "--http2"] {
        let url = "https://portal.apps.test/files/big";
        let got = world.open(url, &["-4", "--output", path(&out), version]);
        assert_eq!(got.status, 200, "{version}: {got:?}");
        assert!(fs::read(&out).unwrap() == bytes, "{version}: {got:?}");
        fs::remove_file(&out).unwrap();

        let name = format!("files/sent{version}");
        let url = format!("https://portal.apps.test/{name}");
        let got = world.open(&url, &["-4", "--upload-file", path(&big), version]);
        assert_eq!(got.status, 201, "{version}: {got:?}");
        assert!(
            fs::read(portal.join(&name)).unwrap() == bytes,
            "{version}: {got:?}"
        );
    }

    for stalled in stalled {
        let output = stalled.join().unwrap();
        assert_eq!(output.status.code(), Some(TIMED_OUT), "{output:?}");
        let size: usize = String::from_utf8(output.stdout).unwrap().parse().unwrap();
        assert!(size < bytes.len());
    }
}

/// Downloads by those who take as much at once as their own link carries: one from the gateway's
/// machine past the gateway, one by the device from a listener without `mss`.
fn stalled_downloads(world: &Dmz) -> [JoinHandle<Output>; 2] {
    let mut inside = world.curl_from_dmz();
    inside.args(["--interface", "10.2.0.5", "http://10.10.0.10/files/big"]);
    let mut outside = world.device.command("curl");
    outside.args(["-4", "--silent", "--output", "/dev/null"]);
    outside.args(["--write-out", "%{size_download}"]);
    outside.args(["--user", &format!("alice:{ALICE}")]);
    outside.arg("--cacert").arg(world.authority());
    outside.arg("https://portal.apps.test:8443/files/big");
    [inside, outside].map(|mut curl| {
        curl.args(["--max-time", "3"]);
        thread::spawn(move || curl.output().unwrap())
    })
}

#[test]
#[ignore = "needs root, iproute2 and nftables"]
fn idle_connections_outlive_firewalls_that_forget() {
    let world = Dmz::new();
    let mut tunnel = raw_tunnel(&world, 443);
    let first = ask(&mut tunnel);
    let kept = portal_connection(&world);
    // At this listener nobody keeps connections alive.
    let mut mute = raw_tunnel(&world, 8443);

    thread::sleep(Duration::from_secs(IDLE_LIMIT + 2));

    assert_eq!(
        ask(&mut tunnel),
        first,
        "the tunnel's far end is the same connection"
    );
    assert_eq!(
        portal_connection(&world),
        kept,
        "the portal's connection was kept"
    );
    assert_eq!(world.inner.packets("late"), 0);
    assert_eq!(world.outer.packets("late"), 0);
    mute.send("GET / HTTP/1.1\r\n\r\n");
    eventually("the mute one to be forgotten", || {
        (world.outer.packets("late") > 0).then_some(())
    });

    // For a moment less than any keepalive: what is open dies without a word.
    forget_after(&world.inner, 1);
    eventually("connections to be forgotten", || {
        (world.inner.packets("late") > 0).then_some(())
    });
    forget_after(&world.inner, IDLE_LIMIT);
    tunnel.ended();
    assert_ne!(
        portal_connection(&world),
        kept,
        "the dead connection was replaced"
    );
}

/// A tunnel to the intranet that lasts until it is dropped.
fn raw_tunnel(world: &Dmz, port: u16) -> Wire {
    let gateway = format!("gw.ravelin.test:{port}");
    let mut tunnel = Wire::connect(&world.device, &gateway, &world.authority());
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    tunnel.send(&format!(
        "CONNECT intranet.corp.test:80 HTTP/1.1\r\nHost: intranet.corp.test:80\r\n\
         Proxy-Authorization: Basic {basic}\r\n\r\n"
    ));
    let status = tunnel.line();
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    while !tunnel.line().is_empty() {}
    tunnel
}

/// Which connection of its own the intranet answers on.
fn ask(tunnel: &mut Wire) -> String {
    tunnel.send("GET / HTTP/1.1\r\nHost: intranet.corp.test\r\n\r\n");
    loop {
        let line = tunnel.line();
        if let Some(body) = line.strip_prefix("intranet connection=") {
            return body.to_owned();
        }
    }
}

/// Which connection of its own the portal answers on.
fn portal_connection(world: &Dmz) -> String {
    let got = world.open("https://portal.apps.test/", &["-4", "--max-time", "10"]);
    let body = got.body.strip_prefix("portal connection=");
    let (connection, _) = body
        .and_then(|body| body.split_once(' '))
        .unwrap_or_else(|| panic!("{got:?}"));
    connection.to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// curl's exit code.
const TIMED_OUT: i32 = 28;
