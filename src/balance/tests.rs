//! Pools: whose turn it is, and who is left out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Error, Lease, Pool, State};
use crate::{
    clock,
    config::{self, CheckKind, Dns, Source, Strategy, for_test},
    dial::Dialer,
    shutdown::Tasks,
};

fn pool(nodes: usize, change: impl FnOnce(&mut config::Pool)) -> Arc<Pool> {
    let names: Vec<_> = (1..=nodes)
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut config = for_test::pool_value("p", &names);
    change(&mut config);
    Pool::new(Arc::new(config))
}

fn pick(pool: &Pool) -> Result<Lease, Error> {
    pool.pick(None, &[], clock::now())
}

fn counts(picks: impl IntoIterator<Item = usize>) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for index in picks {
        *counts.entry(index).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_gives_every_node_its_turn() {
    let pool = pool(3, |_| {});
    let picks = (0..30).map(|_| pick(&pool).unwrap().node().index);
    assert_eq!(counts(picks), HashMap::from([(0, 10), (1, 10), (2, 10)]));
}

#[test]
fn least_connections_takes_the_node_with_the_fewest_in_hand() {
    let pool = pool(3, |config| config.strategy = Strategy::LeastConnections);
    let held: Vec<_> = (0..30).map(|_| pick(&pool).unwrap()).collect();
    let picks = held.iter().map(|lease| lease.node().index);
    assert_eq!(counts(picks), HashMap::from([(0, 10), (1, 10), (2, 10)]));
    let (freed, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|l| l.node().index == 1);
    drop(freed);
    let more: Vec<_> = (0..10).map(|_| pick(&pool).unwrap()).collect();
    assert!(more.iter().all(|lease| lease.node().index == 1));
    drop((rest, more));
    // Equal nodes take turns.
    let picks = (0..30).map(|_| pick(&pool).unwrap().node().index);
    assert_eq!(counts(picks), HashMap::from([(0, 10), (1, 10), (2, 10)]));
}

#[test]
fn a_lease_is_given_back_and_a_full_pool_says_so() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastConnections] {
        let pool = pool(2, |config| {
            config.max_requests = 2;
            config.strategy = strategy;
        });
        let held: Vec<_> = (0..4).map(|_| pick(&pool).unwrap()).collect();
        assert!(matches!(pick(&pool), Err(Error::Full(_))));
        assert!(matches!(
            pool.pick(Some(1), &[], clock::now()),
            Err(Error::Full(_))
        ));
        drop(held);
        assert!(pool.nodes().iter().all(|node| node.in_hand() == 0));
        drop(pick(&pool).unwrap());
    }
}

#[test]
fn tried_nodes_are_left_out_and_the_preferred_one_comes_first() {
    let (pool, now) = (pool(3, |_| {}), clock::now());
    for _ in 0..10 {
        assert_eq!(pool.pick(None, &[0, 2], now).unwrap().node().index, 1);
        assert_eq!(pool.pick(Some(2), &[], now).unwrap().node().index, 2);
        assert_ne!(pool.pick(Some(2), &[2], now).unwrap().node().index, 2);
        drop(pool.pick(Some(9), &[], now).unwrap());
    }
    assert!(matches!(
        pool.pick(None, &[0, 1, 2], now),
        Err(Error::Down(_))
    ));
}

#[test]
fn a_node_that_cannot_be_reached_waits_longer_each_time() {
    let (pool, start) = (pool(2, |_| {}), clock::now());
    let node = &pool.nodes()[0];
    let at = |seconds| start + Duration::from_secs(seconds);
    let state = |now| pool.status(now)[0].state;
    let failure = std::io::Error::other("refused");
    pool.failed(node, &failure, at(1));
    // Many at once are one outage.
    pool.failed(node, &failure, at(1));
    assert_eq!((state(at(1)), state(at(3))), (State::Suspended, State::Up));
    pool.failed(node, &failure, at(3));
    assert_eq!((state(at(4)), state(at(6))), (State::Suspended, State::Up));
    for _ in 0..10 {
        assert_eq!(pool.pick(None, &[], at(4)).unwrap().node().index, 1);
    }
    // The last resort.
    assert_eq!(pool.pick(None, &[1], at(4)).unwrap().node().index, 0);
    // It may stick to it no longer.
    assert_eq!(pool.pick(Some(0), &[], at(4)).unwrap().node().index, 1);
    assert_eq!(pool.status(at(4))[0].error.as_deref(), Some("refused"));
    pool.reached(node, at(4));
    assert_eq!(state(at(4)), State::Up);
    assert_eq!(pool.status(at(4))[0].error, None);
}

#[test]
fn many_threads_lose_no_lease_and_find_every_healthy_node() {
    let pool = pool(5, |_| {});
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    drop(pool.pick(None, &[0, 1, 2, 3], clock::now()).unwrap());
                    drop(pick(&pool).unwrap());
                }
            });
        }
    });
    assert!(pool.nodes().iter().all(|node| node.in_hand() == 0));
}

/// A node that answers `GET`s with what `answer` holds, and whose port is known.
struct Site {
    port: u16,
    answer: Arc<std::sync::Mutex<&'static str>>,
}

async fn site(tasks: &Tasks, answer: &'static str) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(std::sync::Mutex::new(answer));
    let said = Arc::clone(&answer);
    drop(tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 1024];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
            if read > 0 {
                assert!(head.starts_with("get /probe?x http/1.1\r\n"), "{head}");
                assert!(head.contains("\r\nhost: site.test\r\n"), "{head}");
            }
            let said = *said.lock().unwrap();
            stream.write_all(said.as_bytes()).await.ok();
        }
    }));
    Site { port, answer }
}

fn watched(tasks: &Tasks, ports: &[u16], kind: CheckKind) -> Arc<Pool> {
    let names: Vec<_> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut config = for_test::pool_value("p", &names);
    config.check.kind = kind;
    config.check.interval = Duration::from_millis(20);
    let mut network = for_test::network();
    network.allow = names.iter().map(|name| name.parse().unwrap()).collect();
    let dns = Dns {
        servers: Vec::new(),
        zones: Vec::new(),
        source: Source::default(),
        timeout: Duration::from_secs(1),
        cache_entries: 1,
        max_ttl: Duration::from_secs(1),
    };
    let dialer = Dialer::with(&network, &dns, &[], tasks.clone());
    let pool = Pool::new(Arc::new(config));
    pool.watch(Arc::new(dialer), tasks);
    pool
}

async fn until_state(pool: &Pool, index: usize, state: State) {
    let reached = async {
        while pool.status(clock::now())[index].state != state {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(reached.is_ok(), "{:?}", pool.status(clock::now()));
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nserverinfo";

fn http() -> CheckKind {
    CheckKind::Http {
        path: "/probe?x".into(),
        host: Some("site.test".into()),
        expect_status: vec![200],
        expect_body: Some("verinf".into()),
    }
}

#[tokio::test]
async fn a_node_goes_out_and_comes_back() {
    let tasks = Tasks::new();
    let sites = [site(&tasks, GOOD).await, site(&tasks, GOOD).await];
    let pool = watched(&tasks, &[sites[0].port, sites[1].port], http());
    until_state(&pool, 0, State::Up).await;
    until_state(&pool, 1, State::Up).await;
    for (bad, error) in [
        (
            "HTTP/1.1 503 Out\r\nContent-Length: 10\r\n\r\nserverinfo",
            "answered 503",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nser",
            "expected text",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nser", ""),
        ("not HTTP at all\r\n\r\n", "not HTTP"),
        ("", ""),
    ] {
        *sites[0].answer.lock().unwrap() = bad;
        until_state(&pool, 0, State::Down).await;
        let status = pool.status(clock::now());
        let said = status[0].error.as_deref().unwrap();
        assert!(said.contains(error), "{said}");
        for _ in 0..10 {
            assert_eq!(pick(&pool).unwrap().node().index, 1);
            // Persistence ends where its node does.
            assert_eq!(
                pool.pick(Some(0), &[], clock::now()).unwrap().node().index,
                1
            );
        }
        *sites[0].answer.lock().unwrap() = GOOD;
        until_state(&pool, 0, State::Up).await;
        assert_eq!(pool.status(clock::now())[0].error, None);
    }
}

#[tokio::test]
async fn a_node_that_was_never_probed_is_picked_only_when_no_other_is_up() {
    let tasks = Tasks::new();
    let good = site(&tasks, GOOD).await;
    // Takes connections and says nothing, so that its first probe takes long.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = [silent.local_addr().unwrap().port(), good.port];
    let pool = watched(&tasks, &ports, http());
    assert_eq!(pool.status(clock::now())[0].state, State::Unknown);
    drop(pick(&pool).unwrap());
    until_state(&pool, 1, State::Up).await;
    if pool.status(clock::now())[0].state == State::Unknown {
        for _ in 0..10 {
            assert_eq!(pick(&pool).unwrap().node().index, 1);
        }
    }
    until_state(&pool, 0, State::Down).await;
    let error = pool.status(clock::now())[0].error.clone().unwrap();
    assert!(error.contains("within"), "{error}");
}

#[tokio::test]
async fn a_port_is_probed_by_connecting_and_tls_needs_a_handshake() {
    let tasks = Tasks::new();
    let open = site(&tasks, "").await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = gone.local_addr().unwrap().port();
    drop(gone);
    let pool = watched(&tasks, &[open.port, closed], CheckKind::Tcp);
    until_state(&pool, 0, State::Up).await;
    until_state(&pool, 1, State::Down).await;
    let pool = watched(&tasks, &[open.port], CheckKind::Tls);
    until_state(&pool, 0, State::Down).await;
    assert!(matches!(pick(&pool), Err(Error::Down(_))));
}

#[tokio::test]
async fn probes_end_with_their_pool_and_with_a_drain() {
    let tasks = Tasks::new();
    let sites = Tasks::new();
    let site = site(&sites, GOOD).await;
    let first = watched(&tasks, &[site.port], http());
    let _second = watched(&tasks, &[site.port], http());
    until_state(&first, 0, State::Up).await;
    drop(first);
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
