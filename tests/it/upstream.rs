//! Backends and their habits: uploads, early answers, logins of a connection, failures told apart.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tokio::io::AsyncWriteExt;
use x509_parser::pem::Pem;

use crate::{
    connect::refusal_id,
    reverse_proxy::raw_backend,
    support::{
        certificates::{Authority, Pair},
        client::Curl,
        device::{Device, read_all, read_head},
        eventually, peers, script,
        world::World,
    },
};

#[test]
fn a_large_upload_with_expect_arrives_intact_over_either_protocol() {
    let world = World::new();
    fs::write(world.site.path("big"), large()).unwrap();
    let file = world.site.path("big");

    for version in ["--http1.1", "--http2"] {
        let stored = world.intranet.directory().join("root/upload");
        drop(fs::remove_file(&stored));
        let got = world.curl(&[
            version,
            "--user",
            CREDENTIAL,
            "--expect100-timeout",
            "40",
            "--header",
            "Expect: 100-continue",
            "--upload-file",
            file.to_str().unwrap(),
            &(world.url("intranet.apps.test") + "/upload"),
        ]);

        assert_eq!(got.status, 201, "{version}: {got:?}");
        assert!(
            fs::read(&stored).unwrap() == large(),
            "{version}: another file"
        );
        if version == "--http1.1" {
            assert!(got.trace.contains("< HTTP/1.1 100 Continue"), "{got:?}");
        }
    }
}

#[test]
fn a_large_upload_without_a_length_arrives_intact() {
    let world = World::new();
    let file = world.site.path("big");
    fs::write(&file, large()).unwrap();

    for version in ["--http1.1", "--http2"] {
        let stored = world.intranet.directory().join("root/upload");
        drop(fs::remove_file(&stored));
        let got = world.curl(&[
            version,
            "--user",
            CREDENTIAL,
            "--header",
            "Transfer-Encoding: chunked",
            "--upload-file",
            file.to_str().unwrap(),
            &(world.url("intranet.apps.test") + "/upload"),
        ]);

        assert_eq!(got.status, 201, "{version}: {got:?}");
        assert!(
            fs::read(&stored).unwrap() == large(),
            "{version}: another file"
        );
    }
}

#[test]
fn head_has_the_length_and_no_body() {
    let world = World::new();

    for version in ["--http1.1", "--http2"] {
        let url = world.url("intranet.apps.test");
        let got = world.curl(&[version, "--user", CREDENTIAL, "--head", &url, &url]);

        assert_eq!(got.status, 200, "{got:?}");
        let lower = got.body.to_lowercase();
        assert_eq!(lower.matches("content-length: 24").count(), 2, "{got:?}");
        assert!(!lower.contains("welcome"), "{got:?}");
        assert!(
            got.trace.contains("Re-using existing"),
            "the connection lives on: {got:?}"
        );
    }
}

#[test]
fn an_answer_that_comes_before_the_body_was_read_is_delivered() {
    let early = raw_backend(|mut stream| {
        drop(read_request(&mut stream));
        drop(stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"));
        // Not a byte of the body is read until the gateway gives up.
        thread::sleep(Duration::from_secs(2));
    });
    let world = apps(&[("early", &[early], "")]);
    let file = world.site.path("big");
    fs::write(&file, large()).unwrap();

    for (curls, expect) in [
        ("Expect: 100-continue", "expect: 100-continue"),
        ("Expect:", "x-none: x"),
    ] {
        let got = world.curl(&[
            "--http1.1",
            "--header",
            curls,
            "--upload-file",
            file.to_str().unwrap(),
            &(world.url("xm.apps.test") + "/early/"),
        ]);
        // curl 7 itself gives up an upload over HTTP/2 that is answered early.
        let arguments = [
            CREDENTIAL,
            "xm.apps.test",
            "/early/",
            "20000000",
            "end",
            expect,
        ];
        let got_h2 = script::run(&world, "http2.py", "upload", &arguments);

        assert_eq!(
            (got.status, got.body.as_str()),
            (413, "too large"),
            "{expect}: {got:?}"
        );
        assert_eq!(
            (&got_h2["status"], &got_h2["body"]),
            (&413.into(), &"too large".into())
        );
        assert!(is_gentle(&got_h2), "{got_h2}");
    }
}

/// The answer is whole, and the device is told to stop sending, without an error.
fn is_gentle(got: &serde_json::Value) -> bool {
    got["ended"] == true && (got["reset"] == 0 || got["reset"].is_null())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_408() {
    let world = World::with("[limits]\nbody_progress = \"500ms\"\n");
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    for framing in [
        "Content-Length: 1000\r\n\r\nbut no more than this",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut connection = device.connect("intranet.apps.test").await;
        let request = format!(
            "PUT /upload HTTP/1.1\r\nHost: intranet.apps.test\r\nAuthorization: {}\r\n{framing}",
            basic()
        );
        connection.write_all(request.as_bytes()).await.unwrap();

        let answer = String::from_utf8(read_all(&mut connection).await).unwrap();

        assert!(answer.starts_with("HTTP/1.1 408 "), "{framing:?}: {answer}");
        let line = explained(&world, &answer);
        assert!(
            line["reason"].as_str().unwrap().contains("500ms"),
            "the limit is named: {line}"
        );
    }
}

#[test]
fn a_body_above_the_apps_limit_is_413_however_it_is_framed() {
    let server = peers::nginx("location / { dav_methods PUT; }", None);
    let world = apps(&[("small", &[server.address], "max_body = \"1MiB\"")]);
    let (big, fits) = (world.site.path("big"), world.site.path("fits"));
    fs::write(&big, large()).unwrap();
    fs::write(&fits, vec![1; 1 << 20]).unwrap();
    fs::create_dir(server.directory().join("root/small")).unwrap();
    let url = world.url("xm.apps.test") + "/small/file";

    for framing in ["Transfer-Encoding: chunked", "X-None: x"] {
        let put = |file: &Path| {
            let file = file.to_str().unwrap();
            world.curl(&[
                "--http1.1",
                "--header",
                framing,
                "--upload-file",
                file,
                &url,
            ])
        };
        let (refused, taken) = (put(&big), put(&fits));

        assert_eq!(refused.status, 413, "{framing}: {refused:?}");
        assert!(matches!(taken.status, 201 | 204), "{framing}: {taken:?}");
        explained(&world, &refused.body);
    }
    for length in ["content-length: 20000000", "x-none: x"] {
        let arguments = [
            CREDENTIAL,
            "xm.apps.test",
            "/small/file",
            "20000000",
            "end",
            length,
        ];
        let refused = script::run(&world, "http2.py", "upload", &arguments);

        assert_eq!(refused["status"], 413, "{length}: {refused}");
        assert!(is_gentle(&refused), "{refused}");
        explained(&world, refused["body"].as_str().unwrap());
    }
}

#[test]
fn a_method_that_nobody_knows_is_the_backends_to_refuse() {
    let world = World::new();
    let url = world.url("intranet.apps.test") + "/files/";

    for version in ["--http1.1", "--http2"] {
        let got = world.curl(&[version, "--user", CREDENTIAL, "--request", "BREW", &url]);

        assert_eq!(got.status, 405, "{version}: {got:?}");
        assert!(
            got.body.contains("nginx"),
            "the backend itself answers: {got:?}"
        );
    }
    let line = world
        .gateway
        .log_line("the request", |line| line["status"] == 405);
    assert_eq!(line["method"], "BREW", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_the_target_that_are_not_for_sites_lead_nowhere() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let own = format!("gw.ravelin.test:{}", world.gateway.address.port());
    let inside = world.intranet.address.to_string();
    let credential = basic();
    let mut wrong = Vec::new();

    for (name, statuses, lines) in LEAD_NOWHERE {
        for line in lines {
            let line = line.replace("OWN", &own).replace("INSIDE", &inside);
            let host = line.split_once("://").map_or(name, |(_, rest)| {
                rest.split(['/', ' ']).next().unwrap_or_default()
            });
            let mut connection = device.connect(name).await;
            let request = format!(
                "{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {credential}\r\n\
                 Proxy-Authorization: {credential}\r\nConnection: close\r\n\r\n"
            );
            connection.write_all(request.as_bytes()).await.unwrap();

            let answer = read_all(&mut connection).await;

            let answer = String::from_utf8_lossy(&answer).into_owned();
            let status: u16 = answer.split(' ').nth(1).unwrap_or("0").parse().unwrap();
            if statuses.contains(&status) {
                explained(&world, &answer);
            } else {
                wrong.push((line, status));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The name of the handshake, the statuses that are right, and request lines.
const LEAD_NOWHERE: [(&str, &[u16], &[&str]); 6] = [
    ("intranet.apps.test", &[400, 403], &["OPTIONS *", "GET *"]),
    // Only what the handshake was made for, and never another place through a site.
    (
        "intranet.apps.test",
        &[405],
        &["GET http://INSIDE/", "CONNECT INSIDE"],
    ),
    (
        "intranet.apps.test",
        &[400, 421],
        &["GET https://INSIDE/", "GET https://other.apps.test/"],
    ),
    ("gw.ravelin.test", &[404], &["OPTIONS *"]),
    // A tunnel to the gateway itself is none; nor are addresses that only some can read.
    (
        "gw.ravelin.test",
        &[400, 403, 502],
        &[
            "GET http://OWN/",
            "CONNECT OWN",
            "CONNECT 0x7f.1:80",
            "CONNECT 2130706433:80",
        ],
    ),
    (
        "gw.ravelin.test",
        &[400],
        &[
            "CONNECT intranet.corp.test",
            "CONNECT intranet.corp.test:",
            "CONNECT intranet.corp.test:0",
            "CONNECT intranet.corp.test:99999",
            "CONNECT alice@intranet.corp.test:80",
            "CONNECT http://intranet.corp.test:80/",
            "CONNECT /",
            "CONNECT *",
            "GET ftp://intranet.corp.test/",
            "GET http:///path",
            "GET http://alice@intranet.corp.test/",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_with_our_own_name_is_the_same_as_a_path() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let port = world.gateway.address.port();

    for name in ["gw.ravelin.test", "intranet.apps.test"] {
        let mut connection = device.connect(name).await;
        let path = if name == "gw.ravelin.test" {
            "/login"
        } else {
            "/headers"
        };
        let request = format!(
            "GET https://{name}:{port}{path} HTTP/1.1\r\nHost: {name}:{port}\r\n\
             Authorization: {}\r\n\r\n",
            basic()
        );
        connection.write_all(request.as_bytes()).await.unwrap();

        let head = read_head(&mut connection).await;

        assert!(head.starts_with("HTTP/1.1 200 "), "{name}: {head}");
    }
}

#[test]
fn a_connection_that_logged_in_by_ntlm_serves_its_device_alone() {
    let node = ntlm_backend();
    let world = apps(&[("ntlm", &[node], "")]);
    let url = world.url("xm.apps.test") + "/ntlm/";

    thread::scope(|scope| {
        let devices = ["alice", "bob"].map(|user| {
            let (world, url) = (&world, url.as_str());
            scope.spawn(move || {
                for _ in 0..5 {
                    // The login takes three requests; the two others carry no credential at all.
                    let credential = format!("{user}:secret");
                    let got =
                        world.curl(&["--http1.1", "--ntlm", "--user", &credential, url, url, url]);
                    let own = format!("you are {user}\n");
                    assert_eq!(got.body.matches("you are").count(), 3, "{got:?}");
                    assert_eq!(got.body.matches(&own).count(), 3, "{got:?}");
                }
            })
        });
        let nobody = scope.spawn(|| {
            for _ in 0..20 {
                let got = world.curl(&["--http1.1", &url]);
                assert_eq!((got.status, got.body.as_str()), (401, "who?\n"), "{got:?}");
            }
        });
        devices
            .into_iter()
            .for_each(|device| device.join().unwrap());
        nobody.join().unwrap();
    });
}

#[test]
fn failures_of_a_backend_are_told_apart_and_explained_by_the_refusal_id() {
    let refusing = crate::support::free_address();
    let closing = raw_backend(|mut stream| drop(read_request(&mut stream)));
    let babbling = raw_backend(|mut stream| {
        drop(read_request(&mut stream));
        drop(stream.write_all(b"220 mail.corp.test ESMTP\r\n"));
    });
    let silent = raw_backend(|mut stream| {
        drop(read_request(&mut stream));
        drop(stream.read(&mut [0]));
    });
    let ill = raw_backend(|mut stream| {
        drop(read_request(&mut stream));
        drop(stream.write_all(b"HTTP/1.1 500 Ill\r\nContent-Length: 0\r\n\r\n"));
    });
    let world = World::build(&[refusing, closing, babbling, silent, ill], |_| {
        let pools = [
            app("refusing", &[refusing], ""),
            app("closing", &[closing], ""),
            app("babbling", &[babbling], ""),
            app("silent", &[silent], "first_byte = \"500ms\""),
            app("ill", &[ill], "").replace(
                "check = { type = \"none\" }",
                "check = { type = \"http\", path = \"/\", interval = \"200ms\", timeout = \"100ms\", fall = 1 }",
            ),
        ];
        pools.concat()
    });
    eventually("the ill node to be out", || {
        let name = format!("ravelin_node_up{{pool=\"ill\",node=\"{ill}\"}}");
        (world.gateway.metric(&name)? == 0.0).then_some(())
    });

    for (path, status, stage, word) in [
        ("refusing", 502, "upstream", "refused"),
        ("closing", 502, "upstream", "broke off before an answer"),
        ("babbling", 502, "upstream", "did not answer with http"),
        ("silent", 504, "upstream", "no answer for 500ms"),
        ("ill", 503, "balance", "ill"),
    ] {
        let got = world.curl(&[&(world.url("xm.apps.test") + "/" + path + "/")]);

        assert_eq!(got.status, status, "{path}: {got:?}");
        let line = explained(&world, &got.body);
        assert_eq!(line["stage"], stage, "{line}");
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.to_lowercase().contains(word), "{path}: {line}");
        assert!(
            !got.body.contains("127.0.0.1"),
            "the page tells of the inside: {got:?}"
        );
    }
}

#[test]
fn a_node_that_fails_before_an_answer_is_passed_over_unseen() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let bad = raw_backend(|mut stream| {
        drop(read_request(&mut stream));
        SEEN.fetch_add(1, Ordering::Relaxed);
    });
    let refusing = crate::support::free_address();
    let good = peers::nginx("location / { return 200 \"here\\n\"; }", None);
    let nodes = [bad, refusing, good.address];
    let world = apps(&[("several", &nodes, "retries = 2")]);
    let url = world.url("xm.apps.test") + "/several/";

    for _ in 0..9 {
        let got = world.curl(&[&url]);
        assert_eq!((got.status, got.body.as_str()), (200, "here\n"), "{got:?}");
    }

    assert!(
        SEEN.load(Ordering::Relaxed) > 0,
        "the bad node was never asked"
    );
    // A post is never sent twice: what the node did with it, nobody knows.
    let posts: Vec<Curl> = (0..9).map(|_| world.curl(&["--data", "x", &url])).collect();
    let lost = posts.iter().filter(|got| got.status == 502).count();
    assert!(
        posts.iter().all(|got| [200, 502].contains(&got.status)),
        "{posts:?}"
    );
    let seen = SEEN.load(Ordering::Relaxed);
    assert!(
        lost > 0 && lost <= seen,
        "{lost} lost of {seen} seen: {posts:?}"
    );
}

#[test]
fn a_backend_whose_certificate_is_not_the_expected_one_gets_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "nodes-ca");
    let other = Authority::new(directory.path(), "other-ca");
    let pair = authority.issue("node", &["node.corp.test"]);
    let unused = other.issue("unused", &["node.corp.test"]);
    let backend = peers::nginx("location / { return 200 \"secret\\n\"; }", Some(&pair));
    let node = backend.address;
    let world = World::build(&[node], |site| {
        for name in ["nodes-ca", "other-ca"] {
            let from = directory.path().join(format!("{name}.pem"));
            fs::copy(from, site.path(&format!("{name}.pem"))).unwrap();
        }
        let tls = |name: &str, tls: String| {
            app(name, &[node], "")
                .replace("http://", "https://")
                .replace("check =", &format!("{tls}\ncheck ="))
        };
        [
            tls("right", trust("nodes-ca", "node.corp.test", &pair)),
            tls("authority", trust("other-ca", "node.corp.test", &pair)),
            tls("name", trust("nodes-ca", "another.corp.test", &pair)),
            tls("pin", trust("nodes-ca", "node.corp.test", &unused)),
        ]
        .concat()
    });
    let get = |path: &str| world.curl(&[&(world.url("xm.apps.test") + "/" + path + "/")]);

    let right = get("right");
    assert_eq!(
        (right.status, right.body.as_str()),
        (200, "secret\n"),
        "{right:?}"
    );
    for (path, word) in [("authority", "issuer"), ("name", "name"), ("pin", "pin")] {
        let refused = get(path);
        assert_eq!(refused.status, 502, "{path}: {refused:?}");
        let line = explained(&world, &refused.body);
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.to_lowercase().contains(word), "{path}: {line}");
    }
    let log = fs::read_to_string(backend.directory().join("access.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// The line of the log that explains a refusal.
fn explained(world: &World, answer: &str) -> serde_json::Value {
    let id = refusal_id(answer);
    let gateway = &world.gateway;
    gateway.log_line("the refusal", |line| line["refusal"] == id.as_str())
}

/// `ca`, `tls_name` and `pins` of a pool.
fn trust(ca: &str, name: &str, pinned: &Pair) -> String {
    let file = fs::read(&pinned.chain).unwrap();
    let pem = Pem::iter_from_buffer(&file).next().unwrap().unwrap();
    let certificate = pem.parse_x509().unwrap();
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
    let pin = data_encoding::BASE64.encode(digest.as_ref());
    format!("ca = \"{ca}.pem\"\ntls_name = \"{name}\"\npins = [\"sha256/{pin}\"]")
}

/// Apps that do their own login, at `xm.apps.test/NAME`.
fn apps(list: &[(&str, &[SocketAddr], &str)]) -> World {
    let nodes: Vec<SocketAddr> = list
        .iter()
        .flat_map(|(_, nodes, _)| *nodes)
        .copied()
        .collect();
    World::build(&nodes, |_| {
        list.iter()
            .map(|(name, nodes, more)| app(name, nodes, more))
            .collect()
    })
}

fn app(name: &str, nodes: &[SocketAddr], more: &str) -> String {
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| format!("\"http://{node}\""))
        .collect();
    format!(
        "[pool.{name}]\nnodes = [{}]\nstrategy = \"round-robin\"\ncheck = {{ type = \"none\" }}\n\
         [app.{name}]\nhost = \"xm.apps.test\"\npath = \"/{name}\"\npool = \"{name}\"\n\
         authorization = \"backend\"\n{more}\n",
        nodes.join(", ")
    )
}

/// The lines of a request's head.
fn read_request(stream: &mut TcpStream) -> Option<HashMap<String, String>> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut fields = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some(fields);
        }
        if let Some((name, value)) = line.split_once(": ") {
            fields.insert(name.to_lowercase(), value.to_owned());
        }
    }
}

/// Knows who asks by the connection alone, once that has logged in (MS-NLMP).
fn ntlm_backend() -> SocketAddr {
    raw_backend(|mut stream| {
        let mut user: Option<String> = None;
        while let Some(request) = read_request(&mut stream) {
            let token = request
                .get("authorization")
                .and_then(|value| value.strip_prefix("NTLM "))
                .map(|token| data_encoding::BASE64.decode(token.as_bytes()).unwrap());
            let mut challenge = "NTLM".to_owned();
            match token.as_deref() {
                Some(token) if token[8] == 3 => user = Some(ntlm_user(token)),
                Some(_) => challenge = format!("NTLM {}", ntlm_challenge()),
                None => {}
            }
            let answer = user.as_ref().map_or_else(
                || {
                    format!(
                        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\n\
                         Content-Length: 5\r\n\r\nwho?\n"
                    )
                },
                |user| {
                    let body = format!("you are {user}\n");
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                },
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A CHALLENGE_MESSAGE with empty target fields.
fn ntlm_challenge() -> String {
    let mut message = b"NTLMSSP\0\x02\0\0\0".to_vec();
    let at_the_end = [0, 0, 0, 0, 48, 0, 0, 0];
    message.extend(at_the_end);
    // Unicode, NTLM, target information.
    message.extend(0x0080_0201_u32.to_le_bytes());
    message.extend(*b"12345678");
    message.extend([0; 8]);
    message.extend(at_the_end);
    data_encoding::BASE64.encode(&message)
}

/// The user's name in an AUTHENTICATE_MESSAGE.
fn ntlm_user(message: &[u8]) -> String {
    let length = usize::from(u16::from_le_bytes([message[36], message[37]]));
    let start = u32::from_le_bytes(message[40..44].try_into().unwrap()) as usize;
    let units: Vec<u16> = message[start..start + length]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    String::from_utf16(&units).unwrap()
}

fn basic() -> String {
    format!(
        "Basic {}",
        data_encoding::BASE64.encode(CREDENTIAL.as_bytes())
    )
}

/// 20 MB in which no two blocks are the same.
fn large() -> Vec<u8> {
    (0..5_000_000_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect()
}

const CREDENTIAL: &str = "alice:correct horse";
