//! The load of `ravelin bench`: what it counts is what was done, and errors are errors.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    eventually, free_address,
    gateway::{ALICE, Gateway, Site, policy, ravelin},
};

#[test]
fn units_are_counted_exactly_without_a_gateway() {
    let origin = Origin::start();
    for (work, address, units, bytes) in [
        ("requests", "http", 300, 300 * 1024),
        ("tunnel-download", "source", 40_000_007, 40_000_007),
        ("tunnel-upload", "sink", 40_000_007, 40_000_007),
        ("ping-pong", "echo", 300, 300 * 128),
    ] {
        let outcome = load(&json!({
            "work": work, "seconds": 60.0, "units": units, "connections": 3, "sources": 2,
            "target": { "address": origin.addresses[address], "host": "origin" },
        }));

        assert_eq!(outcome["errors"], 0, "{outcome}");
        assert_eq!(outcome["units"], units, "{outcome}");
        assert_eq!(outcome["bytes"], bytes, "{outcome}");
    }
}

#[test]
fn every_counted_request_is_one_that_the_gateway_has_logged() {
    let world = World::new();
    let mut requests = 0;
    for (work, protocol, units) in [
        ("requests", "h1", 60),
        ("requests", "h2", 60),
        ("new", "h1", 12),
    ] {
        let outcome = world.load(work, units, &world.app(protocol));

        assert_eq!(outcome["errors"], 0, "{outcome}");
        assert_eq!(outcome["units"], units, "{outcome}");
        assert_eq!(outcome["bytes"], units * 1024, "{outcome}");
        assert_eq!(outcome["cipher"], "TLS13_AES_128_GCM_SHA256", "{outcome}");
        assert_eq!(outcome["group"], "X25519", "{outcome}");
        assert!(outcome["p50_us"].as_f64() <= outcome["p99_us"].as_f64());
        requests += units;
    }
    let count = || {
        let logged = world.gateway.log();
        logged.iter().filter(|line| line["path"] == "/1k").count() as u64
    };
    eventually("the log to be written", || {
        (count() >= requests).then_some(())
    });
    assert_eq!(count(), requests);
}

#[test]
fn a_download_is_as_long_as_its_bodies() {
    let world = World::new();
    for protocol in ["h1", "h2"] {
        let mut target = world.app(protocol);
        target["path"] = json!("/bytes/3000000");

        let outcome = world.load("download", 6_000_000, &target);

        assert_eq!(outcome["errors"], 0, "{outcome}");
        let bytes = outcome["units"].as_u64().unwrap();
        assert!(
            bytes >= 6_000_000 && bytes.is_multiple_of(3_000_000),
            "{outcome}"
        );
        assert_eq!(outcome["bytes"], bytes, "{outcome}");
    }
}

#[test]
fn tunnels_move_exactly_what_is_counted() {
    let world = World::new();
    for protocol in ["h1", "h2"] {
        for (work, end, units) in [
            ("tunnel-download", "source", 40_000_007),
            ("tunnel-upload", "sink", 40_000_007),
            ("ping-pong", "echo", 100),
        ] {
            let outcome = world.load(work, units, &world.tunnel(protocol, end));

            assert_eq!(outcome["errors"], 0, "{work} {protocol}: {outcome}");
            assert_eq!(outcome["units"], units, "{work} {protocol}: {outcome}");
        }
    }
}

#[test]
fn handshakes_are_full_or_resumed_as_was_asked() {
    let world = World::new();
    for (work, resumed) in [("handshakes", 0), ("resumptions", 20)] {
        let outcome = world.load(work, 20, &world.app("h1"));

        assert_eq!(outcome["errors"], 0, "{outcome}");
        assert_eq!(outcome["units"], 20, "{outcome}");
        assert_eq!(outcome["resumed"], resumed, "{outcome}");
    }
}

#[test]
fn idle_connections_are_counted_when_they_are_let_go() {
    let mut world = World::new();
    for (target, cut) in [
        (world.app("h1"), false),
        (world.app("h2"), false),
        (world.tunnel("h1", "echo"), false),
        (world.tunnel("h2", "echo"), false),
        (world.app("h1"), true),
    ] {
        let mut job = Load::start(&json!({
            "work": "idle", "seconds": 60.0, "connections": 20, "sources": 2, "target": target,
        }));
        assert_eq!(job.line()["ready"], 20);
        if cut {
            world.gateway.signal("KILL");
            world.gateway.wait();
        }

        let outcome = job.outcome();

        let (units, errors) = if cut { (0, 20) } else { (20, 0) };
        assert_eq!(outcome["units"], units, "{outcome}");
        assert_eq!(outcome["errors"], errors, "{outcome}");
    }
}

#[test]
fn an_answer_that_is_no_success_is_an_error() {
    let world = World::new();
    for (protocol, streams) in [("h1", 2), ("h2", 4)] {
        let mut target = world.app(protocol);
        target["path"] = json!("/nowhere");

        let outcome = world.load("requests", 100, &target);

        assert_eq!(outcome["units"], 0, "{outcome}");
        // Each connection or stream stops at its first.
        assert_eq!(outcome["errors"], streams, "{outcome}");
        let first = outcome["first_error"].as_str().unwrap();
        assert!(first.contains("404 Not Found"), "{first}");
    }
    let mut tunnel = world.tunnel("h1", "echo");
    tunnel["connect"]["authority"] = json!("127.0.0.1:1");
    let outcome = world.load("ping-pong", 1, &tunnel);
    assert_eq!(
        outcome["first_error"],
        "answered \"HTTP/1.1 403 Forbidden\""
    );
}

#[test]
fn an_origin_that_dies_ends_the_job_with_errors() {
    let mut origin = Origin::start();
    let mut job = Load::start(&json!({
        "work": "ping-pong", "seconds": 600.0, "connections": 3,
        "target": { "address": origin.addresses["echo"] },
    }));
    assert_eq!(job.line()["ready"], 3);
    origin.child.kill().unwrap();

    let outcome = job.outcome();

    assert_eq!(outcome["errors"], 3, "{outcome}");
}

#[test]
fn a_gateway_that_is_not_there_is_an_error_too() {
    let address = free_address();

    let outcome = Load::start(&json!({
        "work": "requests", "seconds": 1.0, "connections": 3, "target": { "address": address },
    }))
    .outcome();

    assert_eq!(outcome["errors"], 1, "{outcome}");
    let first = outcome["first_error"].as_str().unwrap();
    assert!(first.starts_with("connect: "), "{first}");
}

#[test]
fn curl_counts_the_same_bytes() {
    let world = World::new();
    for (work, end) in [("download", None), ("tunnel-download", Some("http"))] {
        let mut target = end.map_or_else(|| world.app("h1"), |end| world.tunnel("h1", end));
        target["path"] = json!("/bytes/3000000");

        let outcome = load(&json!({
            "work": work, "generator": "curl", "seconds": 60.0, "connections": 2, "target": target,
        }));

        assert_eq!(outcome["errors"], 0, "{outcome}");
        assert_eq!(outcome["units"], 6_000_000, "{outcome}");
        target["path"] = json!("/nowhere");
        let outcome = load(&json!({
            "work": work, "generator": "curl", "seconds": 60.0, "connections": 2, "target": target,
        }));
        assert_eq!(outcome["errors"], 2, "{outcome}");
    }
}

#[test]
#[ignore = "needs wrk and h2load"]
fn other_generators_are_started_and_understood() {
    let world = World::new();
    for (generator, protocol, work) in [
        ("wrk", "h1", "requests"),
        ("wrk", "h1", "new"),
        ("h2load", "h2", "requests"),
    ] {
        let mut job = json!({
            "work": work, "generator": generator, "seconds": 1.0, "connections": 2, "streams": 2,
            "target": world.app(protocol),
        });
        // wrk cannot be told where another name is.
        job["target"]["host"] = json!("localhost");
        job["target"]["tls"]["sni"] = json!("localhost");

        let outcome = load(&job);

        assert_eq!(outcome["errors"], 0, "{outcome}");
        assert!(outcome["units"].as_u64().unwrap() > 0, "{outcome}");
        assert_eq!(outcome["generator"], generator);

        job["target"]["path"] = json!("/nowhere");
        let outcome = load(&job);
        assert!(outcome["errors"].as_u64().unwrap() > 0, "{outcome}");
    }
}

/// A gateway in front of the origin, which alice may reach as an app and by tunnel.
struct World {
    origin: Origin,
    gateway: Gateway,
    site: Site,
}

impl World {
    fn new() -> Self {
        let origin = Origin::start();
        let site = Site::new();
        policy(
            &site,
            "permit (principal in Group::\"sales\", action == Action::\"tunnel\", resource)\n\
             when { resource.host like \"127.*\" };\n\
             permit (principal in Group::\"sales\", action == Action::\"open\", resource);\n",
        );
        let ends = ["http", "sink", "source", "echo"].map(|end| origin.addresses[end].to_string());
        let toml = format!(
            "{base}\n[network]\ninside = [\"127.0.0.0/8\"]\nallow = [{ends}]\n\
             [pool.origin]\nnodes = [\"http://{http}\"]\n\
             [app.origin]\nhost = \"origin.apps.test\"\npool = \"origin\"\n\
             [app.local]\nhost = \"localhost\"\npool = \"origin\"\n",
            base = site.base(),
            ends = ends.join(", "),
            http = origin.addresses["http"].as_str().unwrap(),
        );
        let gateway = Gateway::start(&site, &toml);
        Self {
            origin,
            gateway,
            site,
        }
    }

    /// The origin's HTTP, as an app.
    fn app(&self, protocol: &str) -> Value {
        json!({
            "address": self.gateway.address, "protocol": protocol, "host": "origin.apps.test",
            "headers": [["Authorization", basic()]],
            "tls": self.tls("origin.apps.test"),
        })
    }

    /// A tunnel to one of the origin's ports.
    fn tunnel(&self, protocol: &str, end: &str) -> Value {
        json!({
            "address": self.gateway.address, "protocol": protocol,
            "tls": self.tls("gw.ravelin.test"),
            "connect": { "authority": self.origin.addresses[end], "authorization": basic() },
        })
    }

    fn tls(&self, name: &str) -> Value {
        let trust = self.site.path("ca.pem");
        json!({ "sni": name, "trust": trust, "cipher": "aes128", "group": "x25519" })
    }

    fn load(&self, work: &str, units: u64, target: &Value) -> Value {
        load(&json!({
            "work": work, "seconds": 60.0, "units": units, "connections": 2, "target": target,
            "streams": if target["protocol"] == "h2" { 2 } else { 1 },
        }))
    }
}

fn basic() -> String {
    let pair = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    format!("Basic {pair}")
}

/// `ravelin bench origin`, ended by the end of its input.
struct Origin {
    child: Child,
    addresses: Value,
    _input: ChildStdin,
}

impl Origin {
    fn start() -> Self {
        let mut child = ravelin()
            .args(["bench", "origin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        Self {
            addresses: serde_json::from_str(&line).unwrap(),
            _input: child.stdin.take().unwrap(),
            child,
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `ravelin bench load`.
struct Load {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Load {
    fn start(job: &Value) -> Self {
        let mut child = ravelin()
            .args(["bench", "load", &job.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// What came of it, once its input is closed.
    fn outcome(&mut self) -> Value {
        drop(self.child.stdin.take());
        let mut outcome = self.line();
        if outcome.get("ready").is_some() {
            outcome = self.line();
        }
        assert!(self.child.wait().unwrap().success());
        outcome
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a job to its end.
fn load(job: &Value) -> Value {
    Load::start(job).outcome()
}
