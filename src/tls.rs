//! Handshake within a deadline; adds SNI, ALPN and device certificate to the peer.

pub use self::{
    gather::{Driven, Flusher, Gathering},
    socket::Socket,
    stream::Stream,
};

mod block;
mod gather;
mod socket;
mod stream;
mod tickets;
