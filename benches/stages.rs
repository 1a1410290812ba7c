//! What single stages cost for one request: head, path, route, session, policy, node.
//!
//! Each is in memory and on one core; the sockets around them cost more. Where there can be many of
//! something, a bench has rows for few and for many: they should not differ by much. `make bench`
//! runs this.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use divan::Bencher;
use ravelin::{
    Config,
    auth::Identity,
    balance::Pool,
    clock,
    config::Files,
    crypto::MasterKey,
    permit::Target,
    policy::{Policy, Principal},
    route::Routes,
    session::{Class, Sessions},
    web::{head, path},
};

fn main() {
    divan::main();
}

/// What a browser sends for a page.
#[divan::bench]
fn head_of_a_browser(bencher: Bencher<'_, '_>) {
    let bytes = Bytes::from_static(HEAD.as_bytes());
    let limits = head::Limits {
        bytes: 32 << 10,
        fields: 100,
        target: 8 << 10,
    };
    bencher.bench(|| head::Head::parse(black_box(&bytes), &limits));
}

/// As it is to be forwarded, and one that has to be written anew.
#[divan::bench(args = ["/teams/sales/2026/report.html", "/teams/sales/2026/%C3%BCbersicht.html"])]
fn path_of_a_page(raw: &str) -> Result<path::Judged<'_>, path::Error> {
    path::judge(black_box(raw), "")
}

/// The app of a path, among this many of one host.
#[divan::bench(args = [1, 100, 10_000])]
fn app_of_a_path(bencher: Bencher<'_, '_>, apps: usize) {
    let apps: String = (0..apps)
        .map(|n| {
            format!("[app.n{n}]\nhost = \"many.example.com\"\npath = \"/team{n}/app\"\npool = \"intranet\"\n")
        })
        .collect();
    let routes = Routes::new(&config_with(&apps).apps);
    bencher.bench(|| routes.find("many.example.com", black_box("/team0/app/2026/index.html")));
}

/// A browser's token among this many sessions.
#[divan::bench(args = [1, 1_000, 100_000])]
fn session_of_a_browser(bencher: Bencher<'_, '_>, sessions: usize) {
    let config = config();
    let store = Sessions::new(&config, &MasterKey::generate());
    let now = clock::now();
    let mut token = String::new();
    for number in 0..sessions {
        let identity = identity(&format!("user{number}"));
        let session = store.open(identity, Class::Browser, SOURCE, now);
        token = session.map_or_else(|_full| token, |s| store.browser_token(&s, "gw.example.com"));
    }
    bencher.bench(|| store.find_browser(black_box(&token), "gw.example.com", now));
}

/// A decision that no memory helps with, among this many policies.
#[divan::bench(args = [10, 1_000])]
fn policy_asked_for_the_first_time(bencher: Bencher<'_, '_>, policies: usize) {
    let policy = policy(policies);
    let identity = identity("alice");
    let number = AtomicU64::new(0);
    bencher
        .with_inputs(|| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            (Arc::from(format!("S-{number}")), target())
        })
        .bench_refs(|(session, target)| {
            let principal = Principal {
                session,
                identity: &identity,
            };
            policy.judge_as(principal, SOURCE, target).is_ok()
        });
}

/// A decision that was made before, among this many policies.
#[divan::bench(args = [10, 1_000])]
fn policy_asked_again(bencher: Bencher<'_, '_>, policies: usize) {
    let policy = policy(policies);
    let (identity, session, target) = (identity("alice"), Arc::from("S-1"), target());
    let principal = Principal {
        session: &session,
        identity: &identity,
    };
    bencher.bench(|| policy.judge_as(principal, SOURCE, black_box(&target)));
}

/// A node of a pool of so many, in turn and by what each has in hand.
#[divan::bench(args = [1, 10, 100], consts = [true, false])]
fn node_of_a_pool<const IN_TURN: bool>(bencher: Bencher<'_, '_>, nodes: usize) {
    let strategy = if IN_TURN {
        "round-robin"
    } else {
        "least-connections"
    };
    let nodes: Vec<String> = (0..nodes)
        .map(|n| format!("\"http://10.0.1.{n}:80\""))
        .collect();
    let nodes = nodes.join(", ");
    let config = config_with(&format!(
        "[pool.many]\nstrategy = \"{strategy}\"\nnodes = [{nodes}]\n"
    ));
    let pool = config.pools.values().find(|known| &*known.name == "many");
    let Some(pool) = pool.map(|pool| Pool::new(Arc::clone(pool))) else {
        return;
    };
    let now = clock::now();
    bencher.bench(|| pool.pick(None, &[], now).map(drop));
}

fn config() -> Config {
    config_with("")
}

#[expect(clippy::panic, reason = "a bench without its world must stop")]
fn config_with(more: &str) -> Config {
    let text = format!("{}\n{more}", include_str!("../examples/ravelin.toml"));
    match Config::parse(&text, Path::new("ravelin.toml"), Files::Unchecked) {
        Ok(config) => config,
        Err(problems) => panic!("{problems}"),
    }
}

/// Policies of which one is for alice's group and target.
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench without its world must stop"
)]
fn policy(number: usize) -> Policy {
    let file = tempfile::Builder::new()
        .suffix(".cedar")
        .tempfile()
        .unwrap();
    let text: String = (0..number)
        .map(|n| {
            format!(
                "permit (principal in Group::\"group{n}\", action == Action::\"tunnel\", resource)\n\
                 when {{ resource.host == \"host{n}.corp.example.com\" && resource.port == 443 }};\n"
            )
        })
        .collect();
    std::fs::write(file.path(), text).unwrap();
    match Policy::load(&[file.path().to_owned()]) {
        Ok(policy) => policy,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn identity(user: &str) -> Identity {
    Identity {
        user: user.into(),
        directory: "corp".into(),
        groups: [Arc::from("group7"), Arc::from("staff")].into(),
    }
}

#[expect(clippy::unwrap_used, reason = "it is a target")]
fn target() -> Target {
    Target::parse("host7.corp.example.com:443").unwrap()
}

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

const HEAD: &str = "GET /teams/sales/2026/report.html?page=2 HTTP/1.1\r\n\
    Host: intranet.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: __Host-ravelin-app=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJTLTEifQ.c2lnbmF0dXJl\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Connection: keep-alive\r\n\r\n";
