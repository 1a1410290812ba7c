//! What DNS servers can do to a gateway: lie, change their mind, cut answers short, say nothing.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::{
    load::echo,
    reload::bounce,
    support::{
        device::{Connection, Device, read_head},
        gateway::ALICE,
        world::World,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_mind_is_judged_anew_and_only_what_was_judged_is_dialled() {
    let echo = echo().await;
    let trap = Trap::set(echo.port()).await;
    let dns = Dns::start(Habit::Flip).await;
    let world = world(echo, &dns);
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    let (mut reached, mut refused) = (0, 0);
    for _ in 0..10 {
        let asked = dns.asked();
        let (head, mut connection) = connect(&device, "flip", echo.port()).await;
        if head.starts_with("HTTP/1.1 200") {
            bounce(&mut connection).await;
            reached += 1;
        } else {
            assert!(head.starts_with("HTTP/1.1 403"), "{head}");
            assert!(head.contains("destination_ip_prohibited"), "{head}");
            refused += 1;
        }
        assert_eq!(
            dns.asked(),
            asked + 1,
            "asked again between judging and dialling"
        );
    }

    assert_eq!((reached, refused), (5, 5));
    assert_eq!(trap.sprung(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_addresses_only_the_permitted_ones_are_dialled() {
    let echo = echo().await;
    let trap = Trap::set(echo.port()).await;
    let dns = Dns::start(Habit::Both).await;
    let world = world(echo, &dns);
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    for _ in 0..5 {
        let (head, mut connection) = connect(&device, "both", echo.port()).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        bounce(&mut connection).await;
    }

    assert_eq!(trap.sprung(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_lead_home_are_refused_however_they_are_written() {
    let echo = echo().await;
    for address in [
        "127.0.0.5",
        "169.254.169.254",
        "0.0.0.0",
        "::",
        "::1",
        "::ffff:127.0.0.5",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:5",
        "fe80::1",
        "224.0.0.1",
    ] {
        let dns = Dns::start(Habit::Always(address.parse().unwrap())).await;
        let world = world(echo, &dns);
        let device = Device::new(world.gateway.address, &world.authority(), &[]);

        let (head, _) = connect(&device, "home", echo.port()).await;

        assert!(head.starts_with("HTTP/1.1 403"), "{address}: {head}");
        let line = world
            .gateway
            .log_line("the refusal", |line| line["stage"] == "dial");
        assert!(
            line["reason"].as_str().unwrap().contains("which is"),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_cut_short_is_asked_for_again_by_tcp() {
    let echo = echo().await;
    let dns = Dns::start(Habit::Truncate).await;
    let world = world(echo, &dns);
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    let (head, mut connection) = connect(&device, "long", echo.port()).await;

    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    bounce(&mut connection).await;
    assert!(dns.counts.tcp.load(Ordering::SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_or_fails_is_told_apart() {
    let echo = echo().await;
    for (habit, status, told) in [
        (Habit::Silent, "504", "error=dns_timeout"),
        (
            Habit::Refuse(ResponseCode::ServFail),
            "502",
            "rcode=\"SERVFAIL\"",
        ),
        (
            Habit::Refuse(ResponseCode::NXDomain),
            "502",
            "rcode=\"NXDOMAIN\"",
        ),
    ] {
        let dns = Dns::start(habit).await;
        let world = world(echo, &dns);
        let device = Device::new(world.gateway.address, &world.authority(), &[]);

        let (head, _) = connect(&device, "nothing", echo.port()).await;

        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{habit:?}: {head}"
        );
        assert!(head.contains(told), "{habit:?}: {head}");
        // Another suffix has servers of its own, which are well.
        let (head, _) = connect_to(
            &device,
            &format!("intranet.corp.test:{}", world.intranet.address.port()),
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_policy_can_allow_is_never_asked_for() {
    let echo = echo().await;
    let dns = Dns::start(Habit::Flip).await;
    let world = World::build(&[echo], |_| {
        format!(
            "[dns.zone.\"elsewhere.test\"]\nservers = [\"{}\"]\n",
            dns.address
        )
    });
    let device = Device::new(world.gateway.address, &world.authority(), &[]);

    let (head, _) = connect_to(&device, &format!("secret.elsewhere.test:{}", echo.port())).await;

    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(dns.asked(), 0);
}

/// A world in which `zone.corp.test` has a server of its own.
fn world(echo: SocketAddr, dns: &Dns) -> World {
    World::build(&[echo], |_| {
        format!(
            "[dns.zone.\"zone.corp.test\"]\nservers = [\"{}\"]\n",
            dns.address
        )
    })
}

async fn connect(device: &Device, name: &str, port: u16) -> (String, Connection) {
    connect_to(device, &format!("{name}.zone.corp.test:{port}")).await
}

/// The head of the answer to `CONNECT`, whatever it is.
async fn connect_to(device: &Device, target: &str) -> (String, Connection) {
    let mut connection = device.connect("gw.ravelin.test").await;
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let request = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    (read_head(&mut connection).await, connection)
}

/// Somebody at an address of the house, on the port that is allowed elsewhere.
struct Trap(Arc<AtomicUsize>);

impl Trap {
    async fn set(port: u16) -> Self {
        let listener = TcpListener::bind((HOUSE, port)).await.unwrap();
        let sprung = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&sprung);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self(sprung)
    }

    fn sprung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a DNS server does to its clients.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// One address for every name.
    Always(IpAddr),
    /// A good and a bad address, the bad one first.
    Both,
    /// A good address, then a bad one, then the good one, …
    Flip,
    /// This code.
    Refuse(ResponseCode),
    /// No answer.
    Silent,
    /// By UDP nothing but that the answer was cut short.
    Truncate,
}

/// A DNS server by UDP and TCP.
struct Dns {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Questions for IPv4.
    asked: AtomicUsize,
    /// Questions by TCP.
    tcp: AtomicUsize,
}

impl Dns {
    async fn start(habit: Habit) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // UDP may have given that port to somebody else.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let counts = Arc::<Counts>::default();
        let counting = Arc::clone(&counts);
        tokio::spawn(async move {
            let mut query = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut query).await {
                if let Some(answer) = habit.answer(&query[..length], &counting, false) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let counting = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let counting = Arc::clone(&counting);
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        counting.tcp.fetch_add(1, Ordering::SeqCst);
                        if let Some(answer) = habit.answer(&query, &counting, true) {
                            let length = u16::try_from(answer.len()).unwrap();
                            stream.write_u16(length).await.unwrap();
                            stream.write_all(&answer).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { address, counts }
    }

    fn asked(&self) -> usize {
        self.counts.asked.load(Ordering::SeqCst)
    }
}

impl Habit {
    fn answer(self, query: &[u8], counts: &Counts, by_tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).unwrap();
        let question = query.queries.first().unwrap().clone();
        let four = question.query_type() == RecordType::A;
        let turn = if four {
            counts.asked.fetch_add(1, Ordering::SeqCst)
        } else {
            0
        };
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(question.clone());
        let good = IpAddr::from([127, 0, 0, 1]);
        let bad = IpAddr::from(HOUSE);
        let addresses = match self {
            Self::Always(address) => vec![address],
            Self::Both => vec![bad, good],
            Self::Flip if turn % 2 == 0 => vec![good],
            Self::Flip => vec![bad],
            Self::Refuse(code) => {
                answer.metadata.response_code = code;
                Vec::new()
            }
            Self::Silent => return None,
            Self::Truncate if by_tcp => vec![good],
            Self::Truncate => {
                answer.metadata.truncation = true;
                Vec::new()
            }
        };
        for address in addresses {
            let data = match address {
                IpAddr::V4(v4) if four => RData::A(A(v4)),
                IpAddr::V6(v6) if !four => RData::AAAA(AAAA(v6)),
                IpAddr::V4(_) | IpAddr::V6(_) => continue,
            };
            // Believed for no time at all: every tunnel asks anew.
            answer.add_answer(Record::from_rdata(question.name().clone(), 0, data));
        }
        Some(answer.to_vec().unwrap())
    }
}

/// An address of this machine that nobody allowed.
const HOUSE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
