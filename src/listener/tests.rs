//! Connections from accept to the end of their handshake, over real sockets.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rcgen::PKCS_ECDSA_P256_SHA256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

use super::{Counts, Listener, Settings, peer::Peer};
use crate::{
    config,
    shutdown::Tasks,
    tls::testing::{Device, World, connect},
};

/// A running listener. What it serves echoes, and is told to the test.
struct Running {
    world: World,
    addresses: Vec<SocketAddr>,
    settings: Arc<ArcSwap<Settings>>,
    counts: Arc<Counts>,
    tasks: Tasks,
    peers: mpsc::UnboundedReceiver<Arc<Peer>>,
}

impl Running {
    fn start(change: impl FnOnce(&mut config::Listener)) -> Self {
        Self::start_with(GENEROUS, change)
    }

    fn start_with(handshake: Duration, change: impl FnOnce(&mut config::Listener)) -> Self {
        let world = World::new();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        let mut config = world.listener(&["gw"]);
        change(&mut config);
        let listener = Listener::bind(&config).unwrap();
        let settings = settings(&world, config, handshake);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let tasks = Tasks::new();
        let (told, peers) = mpsc::unbounded_channel();
        let (addresses, counts) = (listener.addresses(), Arc::clone(listener.counts()));
        let serve = move |mut stream: Box<crate::tls::Stream>, peer| {
            let told = told.clone();
            async move {
                told.send(peer).unwrap();
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    stream.write_all(&byte).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        };
        drop(tasks.spawn(listener.run(tasks.clone(), Arc::clone(&settings), serve)));
        Self {
            world,
            addresses,
            settings,
            counts,
            tasks,
            peers,
        }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    /// A device's handshake after these bytes.
    async fn device(&self, first: &[u8]) -> std::io::Result<Device> {
        let mut tcp = self.tcp().await;
        tcp.write_all(first).await?;
        connect(&self.world.device(), "gw.test", tcp).await
    }

    async fn peer(&mut self) -> Arc<Peer> {
        timeout(GENEROUS, self.peers.recv()).await.unwrap().unwrap()
    }

    /// Waits until one of the counters has this value.
    async fn counted(&self, counter: fn(&Counts) -> &AtomicU64, value: u64) {
        let reached = async {
            while counter(&self.counts).load(Ordering::Relaxed) != value {
                tokio::task::yield_now().await;
            }
        };
        timeout(GENEROUS, reached).await.unwrap();
    }
}

fn settings(world: &World, config: config::Listener, handshake: Duration) -> Settings {
    let config = Arc::new(config);
    let acceptor = world.acceptor(config::Listener {
        certificates: config.certificates.clone(),
        ..world.listener(&[])
    });
    Settings {
        acceptor: Arc::new(acceptor),
        config,
        handshake,
    }
}

/// A byte to the listener and back.
async fn echo(device: &mut Device) {
    device.write_all(b"x").await.unwrap();
    let mut byte = [0];
    device.read_exact(&mut byte).await.unwrap();
}

async fn closed(mut tcp: TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(GENEROUS, tcp.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_err() || rest.first().is_none_or(|&first| first == 21));
}

fn from_loopback(config: &mut config::Listener) {
    config.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn a_device_is_served_and_known_by_its_address() {
    let mut running = Running::start(|_| ());

    let mut device = running.device(b"").await.unwrap();
    let peer = running.peer().await;
    echo(&mut device).await;

    assert_eq!(peer.address, device.get_ref().0.local_addr().unwrap());
    assert_eq!(peer.socket, peer.address);
    assert_eq!(peer.local, running.addresses[0]);
    assert!(peer.tls.known_name);
    running.counted(|c| &c.open, 1).await;
    let second = running.device(b"").await.unwrap();
    assert!(running.peer().await.connection > peer.connection);
    drop((device, second));
    running.counted(|c| &c.open, 0).await;
}

#[tokio::test]
async fn all_addresses_of_a_listener_are_served() {
    let mut running = Running::start(|config| {
        config.addresses = vec![
            (Ipv4Addr::LOCALHOST, 0).into(),
            (Ipv6Addr::LOCALHOST, 0).into(),
        ];
        // One slot at a time must do for both.
        config.max_connections = 1;
    });
    for address in running.addresses.clone() {
        let tcp = TcpStream::connect(address).await.unwrap();
        let device = connect(&running.world.device(), "gw.test", tcp).await;
        assert_eq!(running.peer().await.local, address);
        drop(device.unwrap());
    }
}

#[tokio::test]
async fn accepted_connections_inherit_their_options() {
    let running = Running::start(|config| {
        config.keepalive = Duration::from_secs(7);
        config.mss = Some(1000);
    });
    let listener = Listener::bind(&running.settings.load().config).unwrap();
    let (accepted, _device) = tokio::join!(
        listener.sockets[0].accept(),
        TcpStream::connect(listener.addresses()[0])
    );
    let (tcp, _address) = accepted.unwrap();
    assert!(tcp.nodelay().unwrap());
    let options = socket2::SockRef::from(&tcp);
    assert!(options.keepalive().unwrap());
    assert_eq!(
        options.tcp_keepalive_time().unwrap(),
        Duration::from_secs(7)
    );
    // Less what the timestamps of every segment take.
    assert_eq!(options.tcp_mss().unwrap(), 1000 - 12);
}

#[tokio::test]
async fn an_address_that_moves_here_later_can_be_bound() {
    let world = World::new();
    let bind = |freebind| {
        Listener::bind(&config::Listener {
            addresses: vec![
                "192.0.2.1:0".parse().unwrap(),
                "[2001:db8::1]:0".parse().unwrap(),
            ],
            freebind,
            ..world.listener(&[])
        })
    };
    assert_eq!(bind(true).unwrap().addresses().len(), 2);
    let error = bind(false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "listener public: cannot bind 192.0.2.1:0"
    );
}

#[tokio::test]
async fn sockets_from_outside_are_served() {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let world = World::new();
    let listener = Listener::from_sockets(&world.listener(&[]), vec![socket]).unwrap();
    assert_eq!(listener.addresses(), [address]);
    let (accepted, _device) =
        tokio::join!(listener.sockets[0].accept(), TcpStream::connect(address));
    assert!(accepted.unwrap().0.nodelay().unwrap());
}

#[tokio::test]
async fn a_listed_balancer_tells_who_the_device_is() {
    let mut running = Running::start(from_loopback);
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([198, 51, 100, 7, 203, 0, 113, 1, 0xdc, 0x04, 0x01, 0xbb]);

    for header in [
        &b"PROXY TCP4 198.51.100.7 203.0.113.1 56324 443\r\n"[..],
        &v2,
    ] {
        let mut device = running.device(header).await.unwrap();
        let peer = running.peer().await;
        echo(&mut device).await;
        assert_eq!(peer.address.to_string(), "198.51.100.7:56324");
        assert_eq!(peer.local.to_string(), "203.0.113.1:443");
        assert_eq!(peer.socket, device.get_ref().0.local_addr().unwrap());
    }
    let device = running.device(b"PROXY UNKNOWN\r\n").await.unwrap();
    let peer = running.peer().await;
    assert_eq!(peer.address, device.get_ref().0.local_addr().unwrap());
}

#[tokio::test]
async fn a_header_that_comes_in_pieces_is_waited_for() {
    let mut running = Running::start(from_loopback);
    let mut tcp = running.tcp().await;
    tcp.set_nodelay(true).unwrap();
    for byte in b"PROXY TCP4 198.51.100.7 203.0.113.1 56324 443\r\n" {
        tcp.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let device = connect(&running.world.device(), "gw.test", tcp).await;
    assert_eq!(running.peer().await.address.port(), 56324);
    drop(device.unwrap());
}

#[tokio::test]
async fn a_listed_balancer_without_a_good_header_is_closed() {
    let running = Running::start(from_loopback);
    running.device(b"").await.unwrap_err();
    running.counted(|c| &c.refused_proxy, 1).await;

    let oversize_v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    let oversize_v1 = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
    for (bytes, count) in [
        (&oversize_v1[..], 2),
        (oversize_v2, 3),
        (b"PROXY TCP4 x", 4),
    ] {
        let mut tcp = running.tcp().await;
        tcp.write_all(bytes).await.unwrap();
        if count == 4 {
            tcp.shutdown().await.unwrap();
        }
        closed(tcp).await;
        running.counted(|c| &c.refused_proxy, count).await;
    }
}

#[tokio::test]
async fn a_header_from_anyone_else_is_refused() {
    let running = Running::start(|config| {
        config.proxy_protocol_from = vec!["192.0.2.0/24".parse().unwrap()];
    });
    let header = b"PROXY TCP4 198.51.100.7 203.0.113.1 56324 443\r\n";
    running.device(header).await.unwrap_err();
    running.counted(|c| &c.refused_proxy, 1).await;
    running.device(b"").await.unwrap();
}

#[tokio::test]
async fn what_is_not_tls_is_closed() {
    let running = Running::start(|_| ());
    let mut tcp = running.tcp().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        .await
        .unwrap();
    closed(tcp).await;
    running.counted(|c| &c.refused_tls, 1).await;
}

#[tokio::test]
async fn a_probe_that_says_nothing_is_no_refusal() {
    let running = Running::start(|_| ());
    drop(running.tcp().await);
    running.counted(|c| &c.silent, 1).await;
}

#[tokio::test]
async fn one_deadline_ends_a_slow_header_and_a_slow_handshake() {
    let short = Duration::from_millis(50);
    let running = Running::start_with(short, from_loopback);
    let mut slow = running.tcp().await;
    slow.write_all(b"PROXY TCP4 198.51").await.unwrap();
    closed(slow).await;
    running.counted(|c| &c.refused_deadline, 1).await;

    let mut slow = running.tcp().await;
    slow.write_all(b"PROXY UNKNOWN\r\n\x16\x03\x01")
        .await
        .unwrap();
    closed(slow).await;
    running.counted(|c| &c.refused_deadline, 2).await;
    running.counted(|c| &c.open, 0).await;
}

#[tokio::test]
async fn a_source_has_its_limit_and_a_balancer_none() {
    let mut running = Running::start(|config| {
        config.max_connections_per_source = 1;
        config.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let header = |last: u8| format!("PROXY TCP4 198.51.100.{last} 203.0.113.1 56324 443\r\n");

    let first = running.device(header(1).as_bytes()).await.unwrap();
    let second = running.device(header(2).as_bytes()).await.unwrap();
    running.device(header(1).as_bytes()).await.unwrap_err();
    running.counted(|c| &c.refused_source, 1).await;

    drop(first);
    running.counted(|c| &c.open, 1).await;
    let _third = running.device(header(1).as_bytes()).await.unwrap();
    for _ in 0..3 {
        running.peer().await;
    }
    drop(second);
}

#[tokio::test]
async fn a_full_listener_lets_others_wait_until_a_slot_is_free() {
    let mut running = Running::start(|config| config.max_connections = 1);
    let mut first = running.device(b"").await.unwrap();
    running.peer().await;

    let device = running.world.device();
    let waiting = connect(&device, "gw.test", running.tcp().await);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    echo(&mut first).await;
    assert_eq!(running.counts.accepted.load(Ordering::Relaxed), 1);
    drop(first);

    echo(&mut waiting.await.unwrap()).await;
}

#[tokio::test]
async fn new_settings_hold_for_the_next_connection_and_more_slots_at_once() {
    let mut running = Running::start(|config| config.max_connections = 1);
    let mut first = running.device(b"").await.unwrap();
    running.peer().await;
    let waiting = running.tcp().await;

    let mut config = running.world.listener(&["gw"]);
    config.name = "renamed".into();
    running
        .settings
        .store(Arc::new(settings(&running.world, config, GENEROUS)));
    let second = connect(&running.world.device(), "gw.test", waiting)
        .await
        .unwrap();

    assert_eq!(&*running.peer().await.listener.name, "renamed");
    echo(&mut first).await;
    drop(second);
}

#[tokio::test]
async fn a_drain_closes_the_socket_and_leaves_connections_alone() {
    let mut running = Running::start(|_| ());
    let mut device = running.device(b"").await.unwrap();
    running.peer().await;

    running.tasks.begin_drain();

    let refused = async {
        while TcpStream::connect(running.addresses[0]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(GENEROUS, refused).await.unwrap();
    echo(&mut device).await;
    drop(device);
    assert!(running.tasks.drain(GENEROUS).await);
}

const GENEROUS: Duration = Duration::from_secs(20);
