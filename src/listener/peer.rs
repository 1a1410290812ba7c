//! Peer: all that is known about the device at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

use crate::config::Listener;

/// What listener and TLS found out about one connection. Shared by all its requests.
#[derive(Debug)]
pub struct Peer {
    /// Number of the connection in this process, for logs.
    pub connection: u64,
    /// The device's address: from a PROXY header where one is required, else the socket's.
    pub address: SocketAddr,
    /// Who is at the other end of the TCP connection.
    pub socket: SocketAddr,
    /// Where the device connected to (from the PROXY header too).
    pub local: SocketAddr,
    /// The listener that accepted it.
    pub listener: Arc<Listener>,
    /// What the handshake settled.
    pub tls: Handshake,
}

/// What a TLS handshake settled.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The name that the device asked for, lower case.
    pub sni: Option<Arc<str>>,
    /// The certificate fits that name; `false` for the default certificate of an unknown name.
    pub known_name: bool,
    /// HTTP/2 was agreed on.
    pub http2: bool,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Cipher suite, as rustls names it.
    pub cipher: &'static str,
    /// Key exchange group, as rustls names it.
    pub group: &'static str,
    /// A ticket was used: no certificate was exchanged.
    pub resumed: bool,
    /// Hash (SHA-256) of the device's certificate, when it showed one.
    pub certificate: Option<[u8; 32]>,
}
