//! The only way out: a `Permit` or a configured system, connected. TCP and UDP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tracing::warn;

use self::{
    networks::{Networks, own_addresses},
    race::race,
    resolve::{Names, order},
    socket::Options,
};
use crate::{
    clock,
    config::{Config, DirectoryKind, Dns, Network, Source, System},
    permit::{Host, Permit, Target, What},
    shutdown::Tasks,
};

mod networks;
mod race;
pub mod resolve;
mod socket;
#[cfg(test)]
mod tests;
pub mod tls;

/// Opens every outward connection of the gateway.
#[derive(Debug)]
pub struct Dialer {
    networks: Arc<Networks>,
    names: Arc<Names>,
    clients: tls::Clients,
    options: Options,
    source: Source,
    tunnel_sources: Vec<(ipnet::IpNet, Source)>,
    attempt_delay: Duration,
    /// Names of the gateway's own servers: their addresses are refused to tunnels.
    servers: Arc<[Arc<str>]>,
    turn: AtomicUsize,
}

impl Dialer {
    /// For the networks, sources and DNS servers of a configuration.
    ///
    /// A task keeps the gateway's own addresses and those of its servers up to date until the
    /// dialer is dropped.
    pub fn new(config: &Config, tasks: Tasks) -> Self {
        let mut servers = Vec::new();
        for directory in &config.directories {
            if let DirectoryKind::Ldap(ldap) = &directory.kind {
                servers.extend(ldap.servers.iter().map(|s| s.system.host().clone()));
            }
        }
        Self::with(&config.network, &config.dns, &servers, tasks)
    }

    /// The same from the parts of a configuration; `servers` are the gateway's own.
    pub(crate) fn with(network: &Network, dns: &Dns, servers: &[Host], tasks: Tasks) -> Self {
        let mut addresses = Vec::new();
        let mut names = Vec::new();
        for server in servers {
            match server {
                Host::Address(address) => addresses.push(*address),
                Host::Name(name) => names.push(Arc::clone(name)),
            }
        }
        let zones = dns.zones.iter().flat_map(|zone| &zone.servers);
        addresses.extend(dns.servers.iter().chain(zones).map(SocketAddr::ip));
        let dialer = Self {
            networks: Arc::new(Networks::new(network, addresses)),
            names: Arc::new(Names::new(dns, &network.source)),
            clients: tls::Clients::new(tasks.clone()),
            options: Options {
                connect_timeout: network.connect_timeout,
                keepalive: network.keepalive,
                mss: network.mss,
                user_timeout: network.user_timeout,
            },
            source: network.source.clone(),
            tunnel_sources: network.tunnel_sources.clone(),
            attempt_delay: network.attempt_delay,
            servers: names.into(),
            turn: AtomicUsize::new(0),
        };
        look_around(&dialer.networks);
        let watch = watch(
            Arc::downgrade(&dialer.networks),
            Arc::clone(&dialer.names),
            Arc::clone(&dialer.servers),
            tasks.clone(),
        );
        drop(tasks.spawn(watch));
        dialer
    }

    /// The addresses of a target that the house rules let tunnels reach, in the order in which
    /// they are to be tried (RFC 6724 and RFC 8305, section 4).
    ///
    /// # Errors
    ///
    /// When the name has no address, no server answered, or every address is refused.
    pub async fn resolve(&self, target: &Target) -> Result<Vec<IpAddr>, Error> {
        let what: Arc<str> = target.to_string().into();
        let found = self.find(&what, &target.host).await?;
        self.judge(&what, &found, target.port)
    }

    /// Whether the house rules let an address be reached: for what is connected already, when
    /// they may have changed.
    ///
    /// # Errors
    ///
    /// When they refuse it.
    pub(crate) fn allows(&self, address: SocketAddr) -> Result<(), Error> {
        let judged = self.networks.judge(address.ip(), address.port());
        judged.map_err(|why| Error::Refused {
            what: address.to_string().into(),
            address: address.ip(),
            why,
        })
    }

    /// Connects to one of a tunnel permit's addresses, IPv6 and IPv4 raced (RFC 8305).
    ///
    /// # Errors
    ///
    /// When the permit is not for a tunnel or is over, or no address could be connected, with
    /// the last cause.
    pub async fn tunnel(&self, permit: &Permit) -> Result<(TcpStream, SocketAddr), Error> {
        let What::Tunnel { target, addresses } = permit.what() else {
            return Err(Error::Permit);
        };
        in_force(permit)?;
        let what: Arc<str> = target.to_string().into();
        // An interface may have got one of these addresses since they were judged.
        let mut first_refusal = None;
        let mut judged = Vec::with_capacity(addresses.len());
        for address in addresses.iter() {
            match self.networks.judge(address.ip(), address.port()) {
                Ok(()) => judged.push(*address),
                Err(why) => {
                    first_refusal.get_or_insert(Error::Refused {
                        what: Arc::clone(&what),
                        address: address.ip(),
                        why,
                    });
                }
            }
        }
        if let (true, Some(refusal)) = (judged.is_empty(), first_refusal) {
            return Err(refusal);
        }
        self.connect(&what, &judged, |address| {
            self.tunnel_sources
                .iter()
                .find(|(network, _)| network.contains(&address))
                .map(|(_, source)| source)
        })
        .await
    }

    /// Connects to a node of the pool that an app permit names. TLS as the node's system says.
    ///
    /// # Errors
    ///
    /// When the permit is for another pool or over, the node's addresses are refused, or
    /// connecting failed.
    pub async fn node(
        &self,
        permit: &Permit,
        pool: &Arc<str>,
        node: &System,
    ) -> Result<Connected, Error> {
        match permit.what() {
            What::App { pool: allowed, .. } if allowed == pool => {}
            What::App { .. } | What::Tunnel { .. } => return Err(Error::Permit),
        }
        in_force(permit)?;
        self.probe(node).await
    }

    /// Connects to a node of a pool to see whether it is healthy. The house rules hold for it as
    /// they do for requests.
    ///
    /// # Errors
    ///
    /// When its addresses are refused, or resolving or connecting failed.
    pub async fn probe(&self, node: &System) -> Result<Connected, Error> {
        let found = self.find(node.what(), node.host()).await?;
        let judged = self.judge(node.what(), &found, node.port())?;
        let (stream, address) = self.open(node, &judged).await?;
        self.finish(stream, address, node).await
    }

    /// Connects to a system that the configuration names (a directory). The house rules are for
    /// what devices can ask for; they do not hold here.
    ///
    /// # Errors
    ///
    /// When resolving or connecting failed.
    pub async fn system(&self, system: &System) -> Result<Connected, Error> {
        let (stream, address) = self.open_anywhere(system).await?;
        self.finish(stream, address, system).await
    }

    /// Connects to a system without TLS, whatever its configuration says: what `StartTLS` needs.
    ///
    /// # Errors
    ///
    /// When resolving or connecting failed.
    pub async fn plain(&self, system: &System) -> Result<TcpStream, Error> {
        Ok(self.open_anywhere(system).await?.0)
    }

    /// Starts TLS on a connection from [`Dialer::plain`], as the system's configuration says.
    ///
    /// # Errors
    ///
    /// When the system has no TLS, or the handshake failed.
    pub async fn secure(&self, stream: TcpStream, system: &System) -> Result<Connected, Error> {
        let address = stream.peer_addr().map_err(|source| Error::Socket {
            what: Arc::clone(system.what()),
            source,
        })?;
        if system.tls().is_none() {
            return Err(Error::NoTls(Arc::clone(system.what())));
        }
        self.finish(stream, address, system).await
    }

    async fn finish(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        system: &System,
    ) -> Result<Connected, Error> {
        let Some(tls) = system.tls() else {
            return Ok(Connected {
                stream: Stream::Plain(stream),
                address,
                http2: false,
            });
        };
        let stream = self
            .clients
            .handshake(stream, tls, system.host(), self.options.connect_timeout)
            .await
            .map_err(|source| Error::Tls {
                what: Arc::clone(system.what()),
                address,
                source: Box::new(source),
            })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected {
            stream: Stream::Tls(Box::new(stream)),
            address,
            http2,
        })
    }

    async fn open_anywhere(&self, system: &System) -> Result<(TcpStream, SocketAddr), Error> {
        let found = self.find(system.what(), system.host()).await?;
        let ordered = order(&found, self.networks.has_ipv6());
        self.open(system, &ordered).await
    }

    async fn open(
        &self,
        system: &System,
        addresses: &[IpAddr],
    ) -> Result<(TcpStream, SocketAddr), Error> {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| SocketAddr::new(*address, system.port()))
            .collect();
        self.connect(system.what(), &addresses, |_| Some(system.source()))
            .await
    }

    async fn connect<'a>(
        &'a self,
        what: &Arc<str>,
        addresses: &[SocketAddr],
        source_for: impl Fn(IpAddr) -> Option<&'a Source>,
    ) -> Result<(TcpStream, SocketAddr), Error> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        race(addresses, self.attempt_delay, |address| {
            let sources = self.sources(source_for(address.ip()), address.ip(), turn);
            async move {
                let stream = self.options.connect(what, address, &sources).await?;
                Ok((stream, address))
            }
        })
        .await
        .map_err(|last| {
            last.unwrap_or_else(|| Error::Unresolved {
                what: Arc::clone(what),
                source: resolve::Error::NoAddress,
            })
        })
    }

    /// Local addresses of the target's family, this connection's first. Those of its own, else
    /// the network's; none: the kernel chooses.
    fn sources(&self, own: Option<&Source>, address: IpAddr, turn: usize) -> Vec<IpAddr> {
        let mut sources: Vec<IpAddr> = Vec::new();
        for source in own.into_iter().chain([&self.source]) {
            let fitting = source.0.iter().filter(|s| s.is_ipv4() == address.is_ipv4());
            sources.extend(fitting);
            if !sources.is_empty() {
                break;
            }
        }
        if let Some(first) = turn.checked_rem(sources.len()) {
            sources.rotate_left(first);
        }
        sources
    }

    async fn find(&self, what: &Arc<str>, host: &Host) -> Result<Vec<IpAddr>, Error> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let found = self
            .names
            .addresses(name)
            .await
            .map_err(|source| Error::Unresolved {
                what: Arc::clone(what),
                source,
            })?;
        if self.servers.contains(name) {
            self.networks.learn(&found);
        }
        Ok(found)
    }

    fn judge(&self, what: &Arc<str>, found: &[IpAddr], port: u16) -> Result<Vec<IpAddr>, Error> {
        let mut refused = None;
        let mut judged = Vec::with_capacity(found.len());
        for address in found {
            match self.networks.judge(*address, port) {
                Ok(()) => judged.push(address.to_canonical()),
                Err(why) => {
                    refused.get_or_insert((*address, why));
                }
            }
        }
        match (judged.is_empty(), refused) {
            (true, Some((address, why))) => Err(Error::Refused {
                what: Arc::clone(what),
                address,
                why,
            }),
            _ => Ok(order(&judged, self.networks.has_ipv6())),
        }
    }
}

/// A connection outwards: plain, or TLS as the system's configuration says.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub stream: Stream,
    /// Who is at its other end.
    pub address: SocketAddr,
    /// HTTP/2 was agreed on by ALPN.
    pub http2: bool,
}

/// A stream outwards.
#[derive(Debug)]
pub enum Stream {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// The TCP connection itself, for its addresses and options.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

/// Why there is no connection. `what` is the tunnel's target or the system, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other end refused, or cannot be reached.
    #[error("connecting to {what} at {address}")]
    Connect {
        /// For the log.
        what: Arc<str>,
        /// Who was dialled.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The permit's time is over.
    #[error("the permit is over")]
    Expired,
    /// TLS was asked for, but the configuration has none.
    #[error("{0} has no TLS in the configuration")]
    NoTls(Arc<str>),
    /// The permit is for something else.
    #[error("the permit is for something else")]
    Permit,
    /// All addresses are refused by the rules of the house.
    #[error("{what} is at {address}, which is {why}")]
    Refused {
        /// For the log.
        what: Arc<str>,
        /// The first address refused.
        address: IpAddr,
        /// `loopback`, `not inside`, `the gateway's own` …
        why: &'static str,
    },
    /// A configured source address cannot be used.
    #[error("connecting to {what} at {address} from {from}")]
    Source {
        /// For the log.
        what: Arc<str>,
        /// Who was dialled.
        address: SocketAddr,
        /// The local address.
        from: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gave no socket.
    #[error("socket for {what}")]
    Socket {
        /// For the log.
        what: Arc<str>,
        /// What the kernel said.
        source: io::Error,
    },
    /// The other end stayed silent.
    #[error("no connection to {what} at {address} within {limit:?}")]
    Timeout {
        /// For the log.
        what: Arc<str>,
        /// Who was dialled.
        address: SocketAddr,
        /// `network.connect_timeout`.
        limit: Duration,
    },
    /// TCP is there, TLS is not.
    #[error("TLS to {what} at {address}")]
    Tls {
        /// For the log.
        what: Arc<str>,
        /// Who was dialled.
        address: SocketAddr,
        /// Why.
        source: Box<tls::Error>,
    },
    /// The name gave no address.
    #[error("resolving {what}")]
    Unresolved {
        /// For the log.
        what: Arc<str>,
        /// Why.
        source: resolve::Error,
    },
}

fn in_force(permit: &Permit) -> Result<(), Error> {
    match permit.until() {
        Some(until) if until <= clock::now() => Err(Error::Expired),
        _ => Ok(()),
    }
}

/// Keeps the gateway's own addresses and those of its servers up to date.
async fn watch(
    networks: Weak<Networks>,
    names: Arc<Names>,
    servers: Arc<[Arc<str>]>,
    tasks: Tasks,
) {
    loop {
        for name in servers.iter() {
            // A server that cannot be resolved now is told about by whoever needs it.
            let found = names.addresses(name).await.unwrap_or_default();
            match networks.upgrade() {
                Some(networks) => networks.learn(&found),
                None => return,
            }
        }
        if !tasks.pause(LOOK_AROUND).await {
            return;
        }
        match networks.upgrade() {
            Some(networks) => look_around(&networks),
            None => return,
        }
    }
}

fn look_around(networks: &Networks) {
    match own_addresses() {
        Ok(own) => networks.set_own(own),
        // What was known stays.
        Err(error) => warn!(%error, "the kernel does not tell the gateway's own addresses"),
    }
}

/// How often interfaces and servers are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(10);
