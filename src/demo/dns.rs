//! Stand-in: the DNS server of `corp.test`, over UDP and TCP.

use std::{io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

use super::site;
use crate::shutdown::Tasks;

/// Serves the zone at one port, by UDP and TCP, until the tasks end.
///
/// # Errors
///
/// When no port is free for both.
pub(super) async fn serve(tasks: &Tasks, zone: Zone) -> io::Result<SocketAddr> {
    let (listener, socket) = bind().await?;
    let address = listener.local_addr()?;
    let zone = Arc::new(zone);
    drop(tasks.spawn(datagrams(tasks.clone(), socket, Arc::clone(&zone))));
    site::accept(tasks, listener, move |stream, _peer| {
        streamed(stream, Arc::clone(&zone))
    });
    Ok(address)
}

/// The names of a zone, all on this machine.
#[derive(Debug)]
pub(super) struct Zone {
    suffix: Name,
    hosts: Vec<Name>,
}

impl Zone {
    /// `hosts` are the first labels of the names that exist.
    ///
    /// # Errors
    ///
    /// When one of them is not a DNS name.
    pub(super) fn new(suffix: &str, hosts: &[&str]) -> io::Result<Self> {
        let name = |text: &str| Name::from_str(text).map_err(io::Error::other);
        Ok(Self {
            suffix: name(&format!("{suffix}."))?,
            hosts: hosts
                .iter()
                .map(|host| name(&format!("{host}.{suffix}.")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The answer to one message; `None` when it is not a query that can be answered.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        match query.queries.as_slice() {
            [question] if query.metadata.op_code == OpCode::Query => {
                answer.add_query(question.clone());
                self.fill(&mut answer, question.name(), question.query_type());
            }
            _ => answer.metadata.response_code = ResponseCode::NotImp,
        }
        answer.to_vec().ok()
    }

    fn fill(&self, answer: &mut Message, name: &Name, kind: RecordType) {
        if !self.suffix.zone_of(name) {
            answer.metadata.response_code = ResponseCode::Refused;
            return;
        }
        answer.metadata.authoritative = true;
        let known = self.hosts.contains(name);
        if known && matches!(kind, RecordType::A | RecordType::ANY) {
            let address = RData::A(A::new(127, 0, 0, 1));
            answer.add_answer(Record::from_rdata(name.clone(), TTL, address));
            return;
        }
        if !known && *name != self.suffix {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        // How long "no" may be believed (RFC 2308, section 3).
        let soa = SOA::new(
            self.suffix.clone(),
            self.suffix.clone(),
            1,
            3600,
            600,
            86400,
            TTL,
        );
        let soa = Record::from_rdata(self.suffix.clone(), TTL, RData::SOA(soa));
        answer.add_authority(soa);
    }
}

/// The kernel chooses for TCP; UDP may have given that port to somebody else.
async fn bind() -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = 0;
    loop {
        let listener = site::bind().await?;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(socket) => return Ok((listener, socket)),
            Err(error) if tries == TRIES => return Err(error),
            Err(_taken) => tries += 1,
        }
    }
}

async fn datagrams(tasks: Tasks, socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = [0; MESSAGE];
    let ending = tasks.draining();
    while let Some(received) = ending
        .run_until_cancelled(socket.recv_from(&mut buffer))
        .await
    {
        let Ok((length, peer)) = received else {
            continue;
        };
        let query = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = zone.answer(query) {
            // A lost answer is asked for again.
            let _sent = socket.send_to(&answer, peer).await;
        }
    }
}

async fn streamed(mut stream: TcpStream, zone: Arc<Zone>) {
    // A peer that goes away, or stays silent, ends its own connection and nothing else.
    let _ended: io::Result<()> = async {
        loop {
            let length = timeout(IDLE, stream.read_u16()).await??;
            let mut query = vec![0; usize::from(length)];
            timeout(IDLE, stream.read_exact(&mut query)).await??;
            let Some(answer) = zone.answer(&query) else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }
    .await;
}

const IDLE: Duration = Duration::from_secs(30);
const MESSAGE: usize = 4096;
const TRIES: usize = 16;
const TTL: u32 = 60;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::Query;

    use super::*;

    fn query(name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.metadata.id = 4711;
        query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        query
    }

    async fn by_udp(server: SocketAddr, query: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket
            .send_to(&query.to_vec().unwrap(), server)
            .await
            .unwrap();
        let mut buffer = [0; 4096];
        let length = timeout(IDLE, socket.recv(&mut buffer)).await.unwrap();
        Message::from_vec(&buffer[..length.unwrap()]).unwrap()
    }

    async fn by_tcp(server: SocketAddr, query: &Message) -> Message {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let bytes = query.to_vec().unwrap();
        stream
            .write_u16(u16::try_from(bytes.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&bytes).await.unwrap();
        let length = timeout(IDLE, stream.read_u16()).await.unwrap().unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }

    async fn started() -> (Tasks, SocketAddr) {
        let tasks = Tasks::new();
        let zone = Zone::new("corp.test", &["intranet", "payroll"]).unwrap();
        let server = serve(&tasks, zone).await.unwrap();
        (tasks, server)
    }

    #[tokio::test]
    async fn a_known_name_has_one_loopback_address_by_udp_and_by_tcp() {
        let (_tasks, server) = started().await;
        let query = query("Intranet.corp.test.", RecordType::A);

        for answer in [by_udp(server, &query).await, by_tcp(server, &query).await] {
            assert_eq!(answer.metadata.id, 4711);
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            assert_eq!(answer.answers.len(), 1);
            assert_eq!(answer.answers[0].data, RData::A(A(Ipv4Addr::LOCALHOST)));
        }
    }

    #[tokio::test]
    async fn a_name_without_ipv6_exists_all_the_same() {
        let (_tasks, server) = started().await;

        let answer = by_udp(server, &query("intranet.corp.test.", RecordType::AAAA)).await;

        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities.len(), 1);
    }

    #[tokio::test]
    async fn unknown_names_and_other_zones_are_told_apart() {
        let (_tasks, server) = started().await;

        let unknown = by_udp(server, &query("nobody.corp.test.", RecordType::A)).await;
        let other = by_udp(server, &query("example.com.", RecordType::A)).await;

        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(other.metadata.response_code, ResponseCode::Refused);
    }

    #[tokio::test]
    async fn garbage_does_not_stop_the_server() {
        let (_tasks, server) = started().await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&[0xff; 40], server).await.unwrap();
        socket.send_to(&[], server).await.unwrap();

        let answer = by_udp(server, &query("payroll.corp.test.", RecordType::A)).await;

        assert_eq!(answer.answers.len(), 1);
    }
}
