//! The way of one connection from accept to the end of its handshake.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tracing::{debug, trace};

use super::{
    Counts, Settings,
    peer::Peer,
    proxy_header::{self, Decoded, Header},
    sources::{Entered, Sources},
};
use crate::{
    refusal,
    tls::{Refused, Socket, Stream},
};

/// A connection that was just accepted, with all that it needs.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) settings: Arc<Settings>,
    pub(super) sources: Sources,
    pub(super) counts: Arc<Counts>,
    /// Who is at the other end of the TCP connection.
    pub(super) socket: SocketAddr,
    /// Held until the connection ends.
    pub(super) slot: OwnedSemaphorePermit,
}

impl Arrival {
    /// Settles who the device is, then has it served; holds its slot until the end.
    pub(super) fn serve<S, F>(self, tcp: TcpStream, serve: S) -> impl Future<Output = ()> + Send
    where
        S: FnOnce(Box<Stream>, Arc<Peer>) -> F + Send,
        F: Future<Output = ()> + Send,
    {
        // In a box that goes with the handshake: a connection that lives needs nothing of it.
        let arriving = Box::pin(self.arrive(tcp, serve));
        async move {
            if let Some((served, held)) = arriving.await {
                served.await;
                drop(held);
            }
        }
    }

    /// What serves the device, not begun yet; `None` when it gets no further.
    async fn arrive<S, F>(self, tcp: TcpStream, serve: S) -> Option<(Pin<Box<F>>, Held)>
    where
        S: FnOnce(Box<Stream>, Arc<Peer>) -> F,
    {
        let open = Open::count(&self.counts);
        let mut seen = Seen {
            address: canonical(self.socket),
            sni: None,
        };
        match self.settle(tcp, &mut seen).await {
            Ok((stream, peer, entered)) => {
                let held = Held {
                    _open: open,
                    _entered: entered,
                    _slot: self.slot,
                };
                // A box of its own, or the task would keep room for it at each step.
                Some((Box::pin(serve(Box::new(stream), Arc::new(peer))), held))
            }
            Err(error) => {
                self.refuse(&error, &seen);
                None
            }
        }
    }

    /// Everything here happens within one deadline.
    async fn settle(
        &self,
        tcp: TcpStream,
        seen: &mut Seen,
    ) -> Result<(Stream, Peer, Entered), Error> {
        let limit = self.settings.handshake;
        let deadline = Instant::now() + limit;
        timeout_at(deadline, self.settle_in_time(tcp, seen))
            .await
            .map_err(|_elapsed| Error::Deadline { limit })?
    }

    async fn settle_in_time(
        &self,
        tcp: TcpStream,
        seen: &mut Seen,
    ) -> Result<(Stream, Peer, Entered), Error> {
        let config = &self.settings.config;
        let mut local = tcp.local_addr().map_err(|source| Error::Read { source })?;
        let mut socket = Socket::new(tcp);
        let listed = config
            .proxy_protocol_from
            .iter()
            .any(|network| network.contains(&seen.address.ip()));
        // A balancer's connections are counted by the devices behind it.
        if listed
            && let Header::Proxied {
                source,
                destination,
            } = read_proxy_header(&mut socket).await?
        {
            (seen.address, local) = (source, destination);
        }
        let limit = config.max_connections_per_source;
        let entered = self
            .sources
            .enter(seen.address.ip(), limit)
            .ok_or(Error::Source { limit })?;
        look_at_first_bytes(&mut socket, listed).await?;

        let hello = self
            .settings
            .acceptor
            .hello(socket)
            .await
            .map_err(Error::Tls)?;
        seen.sni = hello.sni().cloned();
        let (stream, tls) = hello.finish().await.map_err(Error::Tls)?;
        self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
        if tls.resumed {
            self.counts.resumed.fetch_add(1, Ordering::Relaxed);
        }
        let peer = Peer {
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            address: seen.address,
            socket: self.socket,
            local,
            listener: Arc::clone(config),
            tls,
        };
        Ok((stream, peer, entered))
    }

    /// The device is told no more than TLS tells it; the log has the rest.
    fn refuse(&self, error: &Error, seen: &Seen) {
        self.counts.refuse(error);
        let listener = &self.settings.config.name;
        if matches!(error, Error::Closed) {
            trace!(%listener, address = %seen.address, "closed without a byte");
            return;
        }
        let unknown = if let Error::Tls(Refused::UnknownName { sni }) = error {
            sni.as_deref()
        } else {
            None
        };
        debug!(
            refusal = %refusal::Id::generate(),
            %listener,
            address = %seen.address,
            socket = %self.socket,
            sni = seen.sni.as_deref().or(unknown),
            reason = crate::tls::told(error),
            "connection refused",
        );
    }
}

/// What is known of a connection, also when it is refused.
#[derive(Debug)]
struct Seen {
    address: SocketAddr,
    sni: Option<Arc<str>>,
}

/// Why a connection gets no further than this.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The device left without a byte.
    #[error("closed without a byte")]
    Closed,
    /// Too slow.
    #[error("the handshake was not done within {limit:?} (limits.handshake)")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// Something else than TLS.
    #[error("the first byte is {first:#04x}, which is not TLS{hint}")]
    NotTls {
        /// The first byte.
        first: u8,
        /// What it may be.
        hint: &'static str,
    },
    /// A listed peer did not send a PROXY header, or a wrong one.
    #[error("a listed balancer sent no good PROXY header")]
    ProxyHeader(#[source] proxy_header::Error),
    /// Another peer sent one.
    #[error("a PROXY header came from a peer that proxy_protocol_from does not list")]
    ProxyUnlisted,
    /// The connection broke before TLS.
    #[error("reading the first bytes")]
    Read {
        /// How.
        source: io::Error,
    },
    /// The source has too many connections.
    #[error("its source has {limit} connections already (max_connections_per_source)")]
    Source {
        /// The limit.
        limit: usize,
    },
    /// No TLS connection came about.
    #[error(transparent)]
    Tls(Refused),
}

/// What a connection counts against, given back at its end.
struct Held {
    _open: Open,
    _entered: Entered,
    _slot: OwnedSemaphorePermit,
}

/// One open connection in the gauge.
struct Open(Arc<Counts>);

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn read_proxy_header(socket: &mut Socket) -> Result<Header, Error> {
    loop {
        match proxy_header::decode(socket.ahead()).map_err(Error::ProxyHeader)? {
            Decoded::Header { header, length } => {
                socket.consume(length);
                return Ok(header);
            }
            Decoded::Incomplete => {
                let silent = socket.ahead().is_empty();
                if fill(socket).await? == 0 {
                    return Err(if silent {
                        Error::Closed
                    } else {
                        Error::ProxyHeader(proxy_header::Error::Missing)
                    });
                }
            }
        }
    }
}

/// Says what is wrong in words that help, where TLS could only say that it is not TLS.
async fn look_at_first_bytes(socket: &mut Socket, listed: bool) -> Result<(), Error> {
    if socket.ahead().is_empty() && fill(socket).await? == 0 {
        return Err(Error::Closed);
    }
    let bytes = socket.ahead();
    if !listed && proxy_header::resembles(bytes) {
        return Err(Error::ProxyUnlisted);
    }
    match bytes.first() {
        None | Some(&TLS_HANDSHAKE) => Ok(()),
        Some(&first) => Err(Error::NotTls {
            first,
            hint: if first.is_ascii_uppercase() {
                "; plain HTTP, perhaps"
            } else {
                ""
            },
        }),
    }
}

async fn fill(socket: &mut Socket) -> Result<usize, Error> {
    socket.fill().await.map_err(|source| Error::Read { source })
}

fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// The record type with which every TLS connection begins (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
