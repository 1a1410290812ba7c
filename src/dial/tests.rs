//! Dialling on real sockets: a DNS server that answers what a test wants, TLS peers with
//! certificates of every kind.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use self::dns::{Reply, Server};
use super::*;
use crate::config::{BackendTls, Zone};

mod dns;
mod peer;

#[tokio::test]
async fn a_name_is_resolved_and_judged() {
    let dns =
        Server::start(|_, _, _| Reply::Addresses(vec![ip("10.255.76.1"), ip("fd00:10::1")])).await;
    let dialer = dialer(&dns, |_| {});

    let found = dialer.resolve(&target("Intranet.corp.test:443")).await;

    assert_eq!(found.unwrap(), [ip("10.255.76.1"), ip("fd00:10::1")]);
    assert!(dns.asked("intranet.corp.test."));
}

#[tokio::test]
async fn answers_that_point_at_the_gateway_are_refused() {
    for (answer, why) in [
        ("127.0.0.1", "loopback"),
        ("0.0.0.0", "in 0.0.0.0/8"),
        ("169.254.169.254", "a metadata service"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "a metadata service"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("192.0.2.200", "not inside"),
    ] {
        let dns = Server::start(move |_, _, _| Reply::Addresses(vec![ip(answer)])).await;
        let dialer = dialer(&dns, |_| {});

        let error = dialer
            .resolve(&target("evil.corp.test:80"))
            .await
            .unwrap_err();

        assert!(
            matches!(&error, Error::Refused { why: told, .. } if *told == why),
            "{answer}: {error}"
        );
    }
}

#[tokio::test]
async fn literals_are_judged_and_never_asked_for() {
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |_| {});

    assert_eq!(
        dialer.resolve(&target("10.255.76.9:80")).await.unwrap(),
        [ip("10.255.76.9")]
    );
    assert!(matches!(
        dialer.resolve(&target("[::ffff:127.0.0.1]:80")).await,
        Err(Error::Refused {
            why: "loopback",
            ..
        })
    ));
    assert_eq!(dns.questions(), 0);
}

#[tokio::test]
async fn refused_answers_are_left_out_beside_good_ones() {
    let dns = Server::start(|_, _, _| {
        Reply::Addresses(vec![
            ip("127.0.0.1"),
            ip("10.255.76.1"),
            ip("169.254.169.254"),
        ])
    })
    .await;
    let dialer = dialer(&dns, |_| {});

    let found = dialer.resolve(&target("mixed.corp.test:80")).await.unwrap();

    assert_eq!(found, [ip("10.255.76.1")]);
}

#[tokio::test]
async fn what_was_judged_is_connected_though_the_name_flips() {
    let backend = greeter().await;
    let port = backend.port();
    let dns = Server::start(|_, _, count| {
        let answer = if count < 2 {
            "127.0.0.1"
        } else {
            "169.254.169.254"
        };
        Reply::Short(vec![ip(answer)])
    })
    .await;
    let dialer = dialer(&dns, |network| network.allow.push(backend));
    let target = target(&format!("flips.corp.test:{port}"));

    let judged = dialer.resolve(&target).await.unwrap();
    let permit = permit(&target, &judged);
    assert!(matches!(
        dialer.resolve(&target).await,
        Err(Error::Refused {
            why: "a metadata service",
            ..
        })
    ));
    let (mut stream, address) = dialer.tunnel(&permit).await.unwrap();

    assert_eq!(address, backend);
    assert_eq!(read_all(&mut stream).await, "hello");
}

#[tokio::test]
async fn dns_failures_are_told_apart() {
    for (reply, fits) in [
        (
            Reply::NoSuchName,
            (|e| matches!(e, resolve::Error::NoSuchName)) as fn(&_) -> bool,
        ),
        (Reply::Addresses(vec![]), |e| {
            matches!(e, resolve::Error::NoAddress)
        }),
        (Reply::Silent, |e| matches!(e, resolve::Error::Silent(_))),
        (Reply::Fails, |e| {
            matches!(
                e,
                resolve::Error::Failed {
                    rcode: Some("SERVFAIL"),
                    ..
                }
            )
        }),
        (Reply::Refuses, |e| {
            matches!(
                e,
                resolve::Error::Failed {
                    rcode: Some("REFUSED"),
                    ..
                }
            )
        }),
        (Reply::Garbage, |e| {
            matches!(e, resolve::Error::Silent(_) | resolve::Error::Failed { .. })
        }),
    ] {
        let shown = format!("{reply:?}");
        let dns = Server::start(move |_, _, _| reply.clone()).await;
        let dialer = dialer(&dns, |_| {});

        let error = dialer
            .resolve(&target("name.corp.test:80"))
            .await
            .unwrap_err();

        let Error::Unresolved { source, .. } = &error else {
            panic!("{shown}: {error}");
        };
        assert!(fits(source), "{shown}: {source:?}");
    }
}

#[tokio::test]
async fn an_answer_too_long_for_udp_comes_over_tcp() {
    let dns = Server::start(|_, _, _| Reply::OverTcp(vec![ip("10.255.76.1")])).await;
    let dialer = dialer(&dns, |_| {});

    let found = dialer.resolve(&target("long.corp.test:80")).await.unwrap();

    assert_eq!(found, [ip("10.255.76.1")]);
}

#[tokio::test]
async fn an_alias_is_judged_by_where_it_leads() {
    let good = Server::start(|_, _, _| Reply::Alias(vec![ip("10.255.76.1")])).await;
    let evil = Server::start(|_, _, _| Reply::Alias(vec![ip("169.254.169.254")])).await;
    let target = target("alias.corp.test:80");

    let found = dialer(&good, |_| {}).resolve(&target).await;
    assert_eq!(found.unwrap(), [ip("10.255.76.1")]);
    let refused = dialer(&evil, |_| {}).resolve(&target).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn questions_start_from_the_source() {
    let dns = Server::start(|_, _, _| Reply::OverTcp(vec![ip("10.255.76.1")])).await;
    let dialer = dialer(&dns, |network| {
        network.source = Source([ip("::1"), ip("127.0.0.2")].into());
    });

    dialer.resolve(&target("name.corp.test:80")).await.unwrap();

    let askers = dns.askers();
    assert!(
        askers.len() >= 4,
        "both families, over UDP and TCP: {askers:?}"
    );
    assert!(
        askers.iter().all(|asker| *asker == ip("127.0.0.2")),
        "{askers:?}"
    );
}

#[tokio::test]
async fn one_silent_family_does_not_keep_the_other_waiting() {
    let dns = Server::start(|_, ipv6, _| {
        if ipv6 {
            Reply::Silent
        } else {
            Reply::Addresses(vec![ip("10.255.76.1")])
        }
    })
    .await;
    let dialer = dialer(&dns, |_| {});
    let began = clock::now();

    let found = dialer.resolve(&target("v4.corp.test:80")).await.unwrap();

    assert_eq!(found, [ip("10.255.76.1")]);
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_longest_suffix_decides_who_is_asked() {
    let [other, corp, branch] = [
        Server::start(|_, _, _| Reply::Addresses(vec![ip("10.255.77.1")])).await,
        Server::start(|_, _, _| Reply::Addresses(vec![ip("10.255.77.2")])).await,
        Server::start(|_, _, _| Reply::Addresses(vec![ip("10.255.77.3")])).await,
    ];
    let zone = |suffix: &str, server: &Server| Zone {
        suffix: suffix.into(),
        servers: vec![server.address],
        source: Source::default(),
    };
    let mut dns = dns(&other);
    dns.zones = vec![zone("corp.test", &corp), zone("branch.corp.test", &branch)];
    let dialer = Dialer::with(&network(), &dns, &[], Tasks::new());

    for (name, answer) in [
        ("a.example.com:1", "10.255.77.1"),
        ("acorp.test:1", "10.255.77.1"),
        ("a.corp.test:1", "10.255.77.2"),
        ("corp.test:1", "10.255.77.2"),
        ("a.branch.corp.test:1", "10.255.77.3"),
    ] {
        assert_eq!(
            dialer.resolve(&target(name)).await.unwrap(),
            [ip(answer)],
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_gateways_servers_are_no_targets() {
    let dns = Server::start(|_, _, _| Reply::Addresses(vec![ip("10.255.75.1")])).await;
    let servers = [
        Host::Name("dc1.corp.test".into()),
        Host::Address(ip("10.255.75.2")),
    ];
    let dialer = Dialer::with(&network(), &self::dns(&dns), &servers, Tasks::new());

    for name in [
        "dc1.corp.test:389",
        "alias.corp.test:443",
        "10.255.75.2:636",
    ] {
        let refused = dialer.resolve(&target(name)).await;
        assert!(
            matches!(
                refused,
                Err(Error::Refused {
                    why: "a server of the gateway",
                    ..
                })
            ),
            "{name}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_dead_first_address_costs_little() {
    let backend = greeter().await;
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    // Nobody answers in this network (RFC 5737); what is refused at once counts as dead too.
    let dead = SocketAddr::new(ip("192.0.2.254"), backend.port());
    let dialer = dialer(&dns, |network| network.allow.extend([dead, backend]));
    let target = target(&format!("two.corp.test:{}", backend.port()));
    let began = clock::now();

    let permit = permit(&target, &[dead.ip(), backend.ip()]);
    let (mut stream, address) = dialer.tunnel(&permit).await.unwrap();

    assert_eq!(address, backend);
    assert_eq!(read_all(&mut stream).await, "hello");
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_closed_port_is_told_with_its_cause() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |network| network.allow.push(closed));
    let target = target(&closed.to_string());

    let error = dialer
        .tunnel(&permit(&target, &[closed.ip()]))
        .await
        .unwrap_err();

    assert!(matches!(
        error,
        Error::Connect { address, source, .. }
            if address == closed && source.kind() == io::ErrorKind::ConnectionRefused
    ));
}

#[tokio::test]
async fn permits_hold_for_what_they_name_alone() {
    let backend = greeter().await;
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |network| network.allow.push(backend));
    let node = System::at("127.0.0.1", backend.port(), None);
    let app = What::App {
        app: "a".into(),
        pool: "p".into(),
    };
    let (here, there): (Arc<str>, Arc<str>) = ("p".into(), "q".into());

    let good = Permit::for_test(app.clone(), None);
    dialer.node(&good, &here, &node).await.unwrap();
    assert!(matches!(
        dialer.node(&good, &there, &node).await,
        Err(Error::Permit)
    ));
    assert!(matches!(dialer.tunnel(&good).await, Err(Error::Permit)));

    let over = Permit::for_test(app, Some(clock::now()));
    assert!(matches!(
        dialer.node(&over, &here, &node).await,
        Err(Error::Expired)
    ));

    // An address that a rule of the house refuses by now.
    let target = target("127.0.0.9:80");
    let stale = permit(&target, &[ip("127.0.0.9")]);
    assert!(matches!(
        dialer.tunnel(&stale).await,
        Err(Error::Refused {
            why: "loopback",
            ..
        })
    ));
    assert!(matches!(
        dialer
            .node(&good, &here, &System::at("127.0.0.9", 80, None))
            .await,
        Err(Error::Refused {
            why: "loopback",
            ..
        })
    ));
}

#[tokio::test]
async fn connections_start_from_their_source_in_turn() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = backend.local_addr().unwrap();
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |network| {
        network.allow.push(address);
        network.source = Source([ip("::1"), ip("127.0.0.2"), ip("127.0.0.3")].into());
    });
    let permit = permit(&target(&address.to_string()), &[address.ip()]);

    let mut seen = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (connected, accepted) = tokio::join!(dialer.tunnel(&permit), backend.accept());
        streams.push(connected.unwrap());
        seen.push(accepted.unwrap().1.ip());
    }

    seen.sort();
    let expected = ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"];
    assert_eq!(seen, expected.map(ip));
}

#[tokio::test]
async fn tunnel_networks_have_their_own_source() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = backend.local_addr().unwrap();
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |network| {
        network.allow.push(address);
        network.source = Source([ip("127.0.0.2")].into());
        network.tunnel_sources = vec![(
            "127.0.0.0/8".parse().unwrap(),
            Source([ip("127.0.0.4")].into()),
        )];
        network.mss = Some(1000);
    });
    let permit = permit(&target(&address.to_string()), &[address.ip()]);

    let (connected, accepted) = tokio::join!(dialer.tunnel(&permit), backend.accept());

    let (stream, _) = connected.unwrap();
    assert_eq!(accepted.unwrap().1.ip(), ip("127.0.0.4"));
    let socket = socket2::SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(
        socket.tcp_user_timeout().unwrap(),
        Some(Duration::from_secs(30))
    );
    // Less what the timestamps of every segment take.
    assert_eq!(socket.tcp_mss().unwrap(), 1000 - 12);
}

#[tokio::test]
async fn a_source_that_is_not_ours_is_told() {
    let backend = greeter().await;
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |network| {
        network.allow.push(backend);
        network.source = Source([ip("192.0.2.77")].into());
    });

    let error = dialer
        .tunnel(&permit(&target(&backend.to_string()), &[backend.ip()]))
        .await
        .unwrap_err();

    assert!(
        matches!(error, Error::Source { from, .. } if from == ip("192.0.2.77")),
        "{error}"
    );
}

#[tokio::test]
async fn a_silent_peer_costs_the_connect_timeout() {
    // A backlog that is full drops further SYNs: connecting hangs.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _fills: Vec<_> = (0..2)
        .map(|_| std::net::TcpStream::connect(address).ok())
        .take(1)
        .collect();
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |network| {
        network.allow.push(address);
        network.connect_timeout = Duration::from_millis(300);
    });

    let permit = permit(&target(&address.to_string()), &[address.ip()]);
    let mut held = Vec::new();
    let error = loop {
        match dialer.tunnel(&permit).await {
            Ok(connected) if held.len() < 10 => held.push(connected),
            other => break other.unwrap_err(),
        }
    };

    assert!(
        matches!(error, Error::Timeout { limit, .. } if limit.as_millis() == 300),
        "{error}"
    );
}

#[tokio::test]
async fn tls_with_the_right_authority_and_name_is_taken() {
    let authority = peer::Authority::new();
    let server = peer::start(authority.leaf(&["node.corp.test"]), &[b"h2", b"http/1.1"]).await;
    let dns = Server::start(|_, _, _| Reply::Addresses(vec![ip("127.0.0.1")])).await;
    let dialer = dialer(&dns, |_| {});

    let mut tls = authority.trust();
    tls.http2 = true;
    let system = System::at("node.corp.test", server.port(), Some(tls));
    let mut connected = dialer.system(&system).await.unwrap();

    assert!(connected.http2);
    assert_eq!(connected.address, server);
    let mut hello = String::new();
    connected.stream.read_to_string(&mut hello).await.unwrap();
    assert_eq!(hello, "hello");

    let plain = System::at("node.corp.test", server.port(), Some(authority.trust()));
    assert!(!dialer.system(&plain).await.unwrap().http2);
}

#[tokio::test]
async fn tls_starts_on_a_connection_that_was_plain() {
    let authority = peer::Authority::new();
    let server = peer::start(authority.leaf(&["127.0.0.1"]), &[]).await;
    let dns = Server::start(|_, _, _| Reply::NoSuchName).await;
    let dialer = dialer(&dns, |_| {});

    let system = System::at("127.0.0.1", server.port(), Some(authority.trust()));
    let stream = dialer.plain(&system).await.unwrap();
    let mut connected = dialer.secure(stream, &system).await.unwrap();

    let mut hello = String::new();
    connected.stream.read_to_string(&mut hello).await.unwrap();
    assert_eq!(hello, "hello");

    let without = System::at("127.0.0.1", server.port(), None);
    let stream = dialer.plain(&without).await.unwrap();
    assert!(matches!(
        dialer.secure(stream, &without).await,
        Err(Error::NoTls(_))
    ));
}

#[tokio::test]
async fn bad_certificates_are_refused_in_words() {
    let authority = peer::Authority::new();
    let stranger = peer::Authority::new();
    for (leaf, words) in [
        (
            authority.leaf(&["other.corp.test"]),
            "its certificate is for another name",
        ),
        (
            authority.expired("node.corp.test"),
            "its certificate has expired",
        ),
        (
            stranger.leaf(&["node.corp.test"]),
            "its certificate is not signed by a configured authority",
        ),
        (
            authority.for_clients("node.corp.test"),
            "its certificate is not for a TLS server",
        ),
    ] {
        let server = peer::start(leaf, &[]).await;
        assert_eq!(refusal(&server, authority.trust()).await, words);
    }
}

#[tokio::test]
async fn pins_are_asked_for_besides_the_chain() {
    let authority = peer::Authority::new();
    let leaf = authority.leaf(&["node.corp.test"]);
    let server = peer::start(leaf.clone(), &[]).await;
    let with = |pins: &[[u8; 32]]| BackendTls {
        pins: pins.to_vec(),
        ..authority.trust()
    };

    assert_eq!(refusal(&server, with(&[leaf.pin])).await, "");
    assert_eq!(
        refusal(&server, with(&[[7; 32], authority.pin()])).await,
        ""
    );
    assert_eq!(
        refusal(&server, with(&[[7; 32]])).await,
        "its certificate has no pinned key in its chain"
    );

    // A pin does not replace the authority.
    let stranger = peer::Authority::new();
    let theirs = stranger.leaf(&["node.corp.test"]);
    let server = peer::start(theirs.clone(), &[]).await;
    assert_eq!(
        refusal(&server, with(&[theirs.pin])).await,
        "its certificate is not signed by a configured authority"
    );
}

#[tokio::test]
async fn an_intermediate_counts_for_pins_only_when_the_chain_goes_through_it() {
    let authority = peer::Authority::new();
    let pinned = authority.intermediate();
    let other = authority.intermediate();
    let with = || BackendTls {
        pins: vec![pinned.pin()],
        ..authority.trust()
    };

    let through = peer::start(pinned.leaf(&["node.corp.test"]).beside(&pinned), &[]).await;
    assert_eq!(refusal(&through, with()).await, "");

    let beside = other
        .leaf(&["node.corp.test"])
        .beside(&other)
        .beside(&pinned);
    let beside = peer::start(beside, &[]).await;
    assert_eq!(
        refusal(&beside, with()).await,
        "its certificate has no pinned key in its chain"
    );
}

#[tokio::test]
async fn the_first_message_fits_a_packet_unless_asked_otherwise() {
    let authority = peer::Authority::new();
    for post_quantum in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let tls = BackendTls {
            post_quantum,
            ..authority.trust()
        };

        let (_, length) = tokio::join!(refusal(&server, tls), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 5];
            stream.read_exact(&mut head).await.unwrap();
            u16::from_be_bytes([head[3], head[4]])
        });

        assert_eq!(length > 1200, post_quantum, "{length} bytes");
    }
}

#[tokio::test]
async fn authorities_that_cannot_be_read_are_told() {
    let authority = peer::Authority::new();
    let server = peer::start(authority.leaf(&["node.corp.test"]), &[]).await;
    let tls = BackendTls {
        authorities: crate::config::Authorities::File("/nonexistent/ca.pem".into()),
        ..authority.trust()
    };

    assert_eq!(
        refusal(&server, tls).await,
        "authorities in /nonexistent/ca.pem"
    );
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let authority = peer::Authority::new();

    assert_eq!(
        refusal(&server, authority.trust()).await,
        "no end of the TLS handshake within 1s"
    );
}

/// What TLS to `node.corp.test` at an address fails with; empty when it does not.
async fn refusal(server: &SocketAddr, tls: BackendTls) -> String {
    let dns = Server::start(|_, _, _| Reply::Addresses(vec![ip("127.0.0.1")])).await;
    let dialer = dialer(&dns, |_| {});
    let system = System::at("node.corp.test", server.port(), Some(tls));
    match dialer.system(&system).await {
        Ok(_) => String::new(),
        Err(Error::Tls { source, .. }) => source.to_string(),
        Err(other) => panic!("{other:?}"),
    }
}

fn dialer(server: &Server, change: impl FnOnce(&mut Network)) -> Dialer {
    let mut network = network();
    change(&mut network);
    Dialer::with(&network, &dns(server), &[], Tasks::new())
}

fn network() -> Network {
    Network {
        inside: ["10.0.0.0/8", "fd00:10::/32"]
            .map(|n| n.parse().unwrap())
            .to_vec(),
        allow: Vec::new(),
        public_addresses: Vec::new(),
        source: Source::default(),
        tunnel_sources: Vec::new(),
        connect_timeout: Duration::from_secs(1),
        attempt_delay: Duration::from_millis(100),
        kept_idle: Duration::from_secs(60),
        keepalive: Duration::from_secs(30),
        mss: None,
        user_timeout: Duration::from_secs(30),
    }
}

fn dns(server: &Server) -> Dns {
    Dns {
        servers: vec![server.address],
        zones: Vec::new(),
        source: Source::default(),
        timeout: Duration::from_millis(500),
        cache_entries: 100,
        max_ttl: Duration::from_secs(60),
    }
}

fn permit(target: &Target, addresses: &[IpAddr]) -> Permit {
    let addresses = addresses
        .iter()
        .map(|address| SocketAddr::new(*address, target.port))
        .collect();
    Permit::for_test(
        What::Tunnel {
            target: target.clone(),
            addresses,
        },
        None,
    )
}

/// A backend that says hello to everybody.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(go(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.write_all(b"hello").await);
        }
    }));
    address
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's peers end with its runtime"
)]
fn go<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}
