//! A DNS server that answers from a function, over UDP and TCP.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::go;

/// What the server does with one question.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// These of the family that was asked for, kept for a minute.
    Addresses(Vec<IpAddr>),
    /// The name is another name, which has these.
    Alias(Vec<IpAddr>),
    /// `SERVFAIL`.
    Fails,
    /// Bytes that are no message.
    Garbage,
    NoSuchName,
    /// Truncated over UDP, whole over TCP.
    OverTcp(Vec<IpAddr>),
    /// `REFUSED`.
    Refuses,
    /// These, good for no time at all.
    Short(Vec<IpAddr>),
    Silent,
}

/// The server; it ends with the test's runtime.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    from: Arc<Mutex<Vec<IpAddr>>>,
}

impl Server {
    /// `answer` is given the name, whether IPv6 is asked for, and how many questions came before.
    pub(super) async fn start(
        answer: impl Fn(&str, bool, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Another socket may hold the same port of UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let from = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let respond = {
            let asked = Arc::clone(&asked);
            move |question: &[u8], over_tcp: bool| {
                let question = Message::from_vec(question).unwrap();
                let query = question.queries.first().unwrap().clone();
                let name = query.name().to_string();
                let count = {
                    let mut asked = asked.lock().unwrap();
                    asked.push(name.clone());
                    asked.len() - 1
                };
                let reply = answer(&name, query.query_type() == RecordType::AAAA, count);
                message(&question, reply, over_tcp)
            }
        };

        let over_udp = respond.clone();
        let askers = Arc::clone(&from);
        drop(go(async move {
            let mut bytes = [0; 2048];
            while let Ok((length, asker)) = udp.recv_from(&mut bytes).await {
                askers.lock().unwrap().push(asker.ip());
                if let Some(reply) = over_udp(&bytes[..length], false) {
                    drop(udp.send_to(&reply, asker).await);
                }
            }
        }));
        let askers = Arc::clone(&from);
        drop(go(async move {
            while let Ok((mut stream, asker)) = tcp.accept().await {
                askers.lock().unwrap().push(asker.ip());
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; usize::from(length)];
                    stream.read_exact(&mut question).await.unwrap();
                    if let Some(reply) = respond(&question, true) {
                        stream
                            .write_u16(reply.len().try_into().unwrap())
                            .await
                            .unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                }
            }
        }));
        Self {
            address,
            asked,
            from,
        }
    }

    pub(super) fn asked(&self, name: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked == name)
    }

    /// From which addresses questions came.
    pub(super) fn askers(&self) -> Vec<IpAddr> {
        self.from.lock().unwrap().clone()
    }

    pub(super) fn questions(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn message(question: &Message, reply: Reply, over_tcp: bool) -> Option<Vec<u8>> {
    let query = question.queries.first().unwrap().clone();
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.metadata.recursion_available = true;
    let mut owner = query.name().clone();
    let (addresses, ttl) = match reply {
        Reply::Silent => return None,
        Reply::Garbage => return Some(b"\xff\xff no message".to_vec()),
        Reply::Addresses(addresses) => (addresses, 60),
        Reply::Alias(addresses) => {
            let alias = Name::from_ascii("alias.elsewhere.test.").unwrap();
            let data = RData::CNAME(CNAME(alias.clone()));
            message.add_answer(Record::from_rdata(owner, 60, data));
            owner = alias;
            (addresses, 60)
        }
        Reply::Short(addresses) => (addresses, 0),
        Reply::OverTcp(addresses) if over_tcp => (addresses, 60),
        Reply::OverTcp(_) => {
            message.metadata.truncation = true;
            (Vec::new(), 0)
        }
        Reply::Fails => {
            message.metadata.response_code = ResponseCode::ServFail;
            (Vec::new(), 0)
        }
        Reply::NoSuchName => {
            message.metadata.response_code = ResponseCode::NXDomain;
            (Vec::new(), 0)
        }
        Reply::Refuses => {
            message.metadata.response_code = ResponseCode::Refused;
            (Vec::new(), 0)
        }
    };
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        if data.record_type() == query.query_type() {
            message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
        }
    }
    message.add_query(query);
    Some(message.to_vec().unwrap())
}
