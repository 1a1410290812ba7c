//! One connection to a node, and who may use it.

use std::{net::SocketAddr, sync::Arc};

use super::{
    http1::Http1,
    http2::{Http2, Settings, Stream},
    pool::Shelf,
};
use crate::{balance::Lease, clock, dial, shutdown::Tasks};

/// A connection in use.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Box<Http1>),
    Http2(Stream),
}

impl Connection {
    /// Starts HTTP on a connection that was just made.
    pub(super) async fn start(
        connected: dial::Connected,
        settings: &Settings,
        tasks: &Tasks,
    ) -> Result<Self, hyper::Error> {
        let dial::Connected {
            stream,
            address,
            http2,
        } = connected;
        if http2 {
            let stream = Http2::start(settings, stream, address, tasks).await?;
            return Ok(Self::Http2(stream));
        }
        Ok(Self::Http1(Box::new(Http1::new(stream, address))))
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(connection) => connection.address,
            Self::Http2(stream) => stream.address(),
        }
    }

    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(stream) => stream.reused,
        }
    }
}

/// Who a connection belongs to after NTLM or Negotiate: one session on one device connection. A
/// login takes several requests, so two connections of one session must not share theirs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) session: Option<Arc<str>>,
    pub(super) connection: u64,
}

/// Where a connection goes after its exchange. Until then the node counts as busy.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) lease: Lease,
    pub(super) shelf: Arc<Shelf>,
}

impl Home {
    /// The exchange is complete: the connection is kept for the next one, if it may be.
    pub(super) fn take_back(self, mut connection: Box<Http1>) {
        if connection.park() {
            self.shelf.put(connection, clock::now());
        }
    }
}
