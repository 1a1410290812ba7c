//! Handshake within a deadline; adds SNI, ALPN and device certificate to the peer.

pub use self::stream::Stream;

mod stream;
