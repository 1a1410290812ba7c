//! Apps behind the gateway: identity of headers, paths, nodes that fail, keeping a device on its node.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::support::{
    eventually,
    gateway::{ALICE, BOB},
    peers::{self, Peer},
    world::World,
};

#[test]
fn a_device_opens_an_app_with_basic_and_the_credential_stays_here() {
    let world = World::new();
    let url = world.url("intranet.apps.test") + "/headers";

    let got = world.curl(&["--user", &format!("alice:{ALICE}"), &url]);

    assert_eq!(got.status, 200, "{got:?}");
    assert!(got.body.contains("auth= "), "{got:?}");
    assert!(got.body.contains("xff=127.0.0.1 "), "{got:?}");
    assert!(got.body.contains("proto=https "), "{got:?}");
    let host = format!("host=intranet.apps.test:{} ", world.gateway.address.port());
    assert!(got.body.contains(&host), "{got:?}");
}

#[test]
fn what_a_device_claims_about_itself_does_not_reach_the_backend() {
    let world = World::new();
    let url = world.url("intranet.apps.test") + "/headers";
    let credential = format!("alice:{ALICE}");

    let got = world.curl(&[
        "--http1.1",
        "--user",
        &credential,
        "--header",
        "X-Forwarded-For: 10.9.8.7",
        "--header",
        "X_Forwarded_For: 10.9.8.7",
        "--header",
        "x-forwarded-proto: http",
        "--header",
        "X-Citrix-Via: evil",
        "--header",
        "Connection: X-Forwarded-For",
        &url,
    ]);

    assert!(got.body.contains("xff=127.0.0.1 "), "{got:?}");
    assert!(got.body.contains("via=\n"), "{got:?}");
    assert!(!got.body.contains("10.9.8.7"), "{got:?}");
}

#[test]
fn the_same_site_is_open_over_http2() {
    let world = World::new();

    let got = world.curl(&[
        "--http2",
        "--user",
        &format!("alice:{ALICE}"),
        &world.url("intranet.apps.test"),
    ]);

    assert_eq!(got.status, 200, "{got:?}");
    assert!(got.trace.contains("using HTTP/2"), "{got:?}");
}

#[test]
fn an_app_that_no_policy_allows_looks_like_one_that_does_not_exist() {
    let world = World::new();
    let credential = format!("bob:{BOB}");

    let denied = world.curl(&["--user", &credential, &world.url("intranet.apps.test")]);

    assert_eq!(denied.status, 403, "{denied:?}");
    let id = crate::connect::refusal_id(&denied.body);
    let line = world
        .gateway
        .log_line("the refusal", |line| line["refusal"] == id.as_str());
    assert_eq!(line["user"], "bob");
}

#[test]
fn nobody_learns_which_paths_exist_before_logging_in() {
    let world = World::with(
        "[app.deep]\nhost = \"store.apps.test\"\npath = \"/deep\"\npool = \"intranet\"\n",
    );
    let there = world.url("store.apps.test") + "/deep";
    let nowhere = world.url("store.apps.test") + "/nowhere";
    let credential = format!("bob:{BOB}");

    let statuses = [&there, &nowhere].map(|url| world.curl(&[url]).status);
    let denied = [&there, &nowhere].map(|url| world.curl(&["--user", &credential, url]).status);

    assert_eq!(statuses, [401, 401]);
    assert_eq!(denied, [403, 403]);
}

#[test]
fn an_unknown_host_is_421() {
    let world = World::new();

    let got = world.curl(&[
        "--user",
        &format!("alice:{ALICE}"),
        &world.url("other.apps.test"),
    ]);

    assert_eq!(got.status, 421, "{got:?}");
}

#[test]
fn a_large_file_and_a_range_arrive_whole() {
    let world = World::new();
    let bytes: Vec<u8> = (0..20_000_000_u32)
        .flat_map(|i| i.to_be_bytes())
        .skip(1)
        .step_by(3)
        .collect();
    let files = world.intranet.directory().join("root/files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("big.bin"), &bytes).unwrap();
    let out = world.site.path("out.bin");
    let credential = format!("alice:{ALICE}");
    let url = world.url("intranet.apps.test") + "/files/big.bin";

    for version in ["--http1.1", "--http2"] {
        let got = world.curl(&[
            version,
            "--user",
            &credential,
            "--output",
            out.to_str().unwrap(),
            &url,
        ]);
        assert_eq!(got.status, 200, "{got:?}");
        assert!(
            std::fs::read(&out).unwrap() == bytes,
            "{version}: the file differs"
        );
        let part = world.curl(&[
            version,
            "--user",
            &credential,
            "--range",
            "1000-1999",
            "--output",
            out.to_str().unwrap(),
            &url,
        ]);
        assert_eq!(part.status, 206, "{part:?}");
        assert!(
            std::fs::read(&out).unwrap() == bytes[1000..2000],
            "{version}: the range differs"
        );
    }
}

#[test]
fn a_device_stays_on_the_node_whose_cookie_it_carries() {
    let (one, two) = (node("one"), node("two"));
    let world = xenmobile(&one, &two);
    let url = world.url("xm.apps.test") + "/zdm/";
    let jar = world.site.path("jar");
    let jar = jar.to_str().unwrap();

    let first = world.curl(&["--cookie-jar", jar, &url]).body;
    for _ in 0..6 {
        let again = world.curl(&["--cookie", jar, &url]).body;
        assert_eq!(again, first);
    }
    let others: Vec<String> = (0..6).map(|_| world.curl(&[&url]).body).collect();

    assert!(
        others.iter().any(|body| *body != first),
        "without a cookie the load is shared: {others:?}"
    );
}

#[test]
fn a_device_moves_on_when_its_node_dies_and_the_node_comes_back_into_use() {
    let (mut one, two) = (node("one"), node("two"));
    let world = xenmobile(&one, &two);
    let url = world.url("xm.apps.test") + "/zdm/";
    let jar = world.site.path("jar");
    let jar = jar.to_str().unwrap();
    eventually("a cookie of node one", || {
        let got = world.curl(&["--cookie-jar", jar, &url]);
        (got.body == "one\n").then_some(())
    });

    one.kill();

    let moved = world.curl(&["--cookie", jar, &url]);
    assert_eq!(
        (moved.status, moved.body.as_str()),
        (200, "two\n"),
        "{moved:?}"
    );
    eventually("the metric to say that the node is down", || {
        let name = format!("ravelin_node_up{{pool=\"xm\",node=\"{}\"}}", one.address);
        (world.gateway.metric(&name)? == 0.0).then_some(())
    });
}

#[test]
fn a_backend_that_is_down_is_503_or_502_with_an_id_and_one_that_dies_midway_breaks_the_answer() {
    let dead = crate::support::free_address();
    let halfway = raw_backend(|mut stream| {
        let mut head = [0; 4096];
        drop(stream.read(&mut head));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"));
    });
    let world = World::build(&[dead, halfway], |_| {
        format!(
            "[pool.dead]\nnodes = [\"http://{dead}\"]\ncheck = {{ type = \"none\" }}\n\
         [pool.half]\nnodes = [\"http://{halfway}\"]\ncheck = {{ type = \"none\" }}\n\
         [app.dead]\nhost = \"store.apps.test\"\npool = \"dead\"\nauthorization = \"backend\"\n\
         [app.half]\nhost = \"xm.apps.test\"\npool = \"half\"\nauthorization = \"backend\"\n"
        )
    });

    let down = world.curl(&[&world.url("store.apps.test")]);
    let broken = world.curl(&["--http1.1", &world.url("xm.apps.test")]);
    let broken_h2 = world.curl(&["--http2", &world.url("xm.apps.test")]);

    assert!(matches!(down.status, 502 | 503), "{down:?}");
    let id = crate::connect::refusal_id(&down.body);
    world
        .gateway
        .log_line("the refusal", |line| line["refusal"] == id.as_str());
    assert_eq!(
        (broken.code, broken_h2.code),
        (18, 92),
        "curl must notice that the answer is cut: {broken:?}\n{broken_h2:?}"
    );
}

/// A pool of two nodes on TLS that set `ACNODEID`.
fn xenmobile(one: &Peer, two: &Peer) -> World {
    let (a, b) = (one.address, two.address);
    World::build(&[a, b], |site| {
        let mut both = std::fs::read_to_string(one.directory().join("nodes-ca.pem")).unwrap();
        both += &std::fs::read_to_string(two.directory().join("nodes-ca.pem")).unwrap();
        site.write("nodes.pem", &both);
        format!(
            "[pool.xm]\nnodes = [\"https://{a}\", \"https://{b}\"]\nca = \"nodes.pem\"\ntls_name = \"xm.corp.test\"\n\
             strategy = \"round-robin\"\n\
             check = {{ type = \"http\", path = \"/health\", expect_status = [200], interval = \"300ms\", timeout = \"200ms\", fall = 2, rise = 1 }}\n\
             persistence = {{ cookie = \"ACNODEID\", idle = \"1h\" }}\n\
             [app.xm]\nhost = \"xm.apps.test\"\npool = \"xm\"\nauthorization = \"backend\"\n"
        )
    })
}

fn node(name: &str) -> Peer {
    let certificates = tempfile::tempdir().unwrap();
    let authority = crate::support::certificates::Authority::new(certificates.path(), "nodes-ca");
    let pair = authority.issue("node", &["xm.corp.test"]);
    let peer = peers::nginx(
        &format!(
            "location /health {{ return 200 ok; }} location / {{ add_header Set-Cookie \"ACNODEID={name}; Path=/; Secure\"; return 200 \"{name}\\n\"; }}"
        ),
        Some(&pair),
    );
    std::fs::copy(
        certificates.path().join("nodes-ca.pem"),
        peer.directory().join("nodes-ca.pem"),
    )
    .unwrap();
    peer
}

/// A backend that does what `answer` does with each connection.
pub(crate) fn raw_backend(
    answer: impl Fn(std::net::TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    let connections = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            connections.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::clone(&answer);
            thread::spawn(move || answer(stream));
        }
    });
    address
}
