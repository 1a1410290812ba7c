//! The only way out: a `Permit` or a configured system, connected. TCP and UDP.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::net::TcpStream;

use crate::{
    config::{Config, System},
    permit::{Permit, Target},
    shutdown::Tasks,
};

/// Opens every outward connection of the gateway.
#[derive(Debug)]
pub struct Dialer {}

impl Dialer {
    /// For the networks, sources and DNS servers of a configuration.
    pub fn new(_config: &Config, _tasks: Tasks) -> Self {
        todo!()
    }

    /// The addresses of a target that the house rules let tunnels reach, in the order in which
    /// they are to be tried (RFC 6724 and RFC 8305, section 4).
    ///
    /// # Errors
    ///
    /// When the name has no address, no server answered, or every address is refused.
    pub async fn resolve(&self, _target: &Target) -> Result<Vec<IpAddr>, Error> {
        todo!()
    }

    /// Connects to one of a tunnel permit's addresses, IPv6 and IPv4 raced (RFC 8305).
    ///
    /// # Errors
    ///
    /// When no address could be connected, with the last cause.
    pub async fn tunnel(&self, _permit: &Permit) -> Result<(TcpStream, SocketAddr), Error> {
        todo!()
    }

    /// Connects to a node of the pool that an app permit names. TLS as the node's system says.
    ///
    /// # Errors
    ///
    /// When the permit is for another pool, or connecting failed.
    pub async fn node(
        &self,
        _permit: &Permit,
        _pool: &Arc<str>,
        _node: &System,
    ) -> Result<Connected, Error> {
        todo!()
    }

    /// Connects to a system that the configuration names (directory, health check).
    ///
    /// # Errors
    ///
    /// When resolving or connecting failed.
    pub async fn system(&self, _system: &System) -> Result<Connected, Error> {
        todo!()
    }

    /// Connects to a system by TCP alone, for a protocol that starts TLS later.
    ///
    /// # Errors
    ///
    /// When resolving or connecting failed.
    pub async fn plain(&self, _system: &System) -> Result<TcpStream, Error> {
        todo!()
    }

    /// Starts TLS on a connection from [`Dialer::plain`], as the system's configuration says.
    ///
    /// # Errors
    ///
    /// When the system has no TLS configured, or the handshake failed.
    pub async fn secure(&self, _stream: TcpStream, _system: &System) -> Result<Connected, Error> {
        todo!()
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

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target's addresses are all refused by the rules of the house.
    #[error("{target} is at {address}, which is {why}")]
    Refused {
        /// What was asked for.
        target: Target,
        /// The first address refused.
        address: IpAddr,
        /// `loopback`, `not inside`, `the gateway's own` …
        why: &'static str,
    },
}
