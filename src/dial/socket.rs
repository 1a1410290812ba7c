//! One attempt to connect one TCP socket, with its options, source and time limit.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::Error;

/// What every outward socket has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) connect_timeout: Duration,
    pub(super) keepalive: Duration,
    pub(super) mss: Option<u16>,
    pub(super) user_timeout: Duration,
}

impl Options {
    /// Connects from the first source that has a port left; from where the kernel chooses when
    /// there is none.
    ///
    /// # Errors
    ///
    /// A silent or refusing other end, or a source that this machine does not have.
    pub(super) async fn connect(
        &self,
        what: &Arc<str>,
        address: SocketAddr,
        sources: &[IpAddr],
    ) -> Result<TcpStream, Error> {
        let mut sources = sources.iter().peekable();
        loop {
            let source = sources.next().copied();
            let socket = self.socket(what, address, source)?;
            let connected = timeout(self.connect_timeout, socket.connect(address))
                .await
                .map_err(|_elapsed| Error::Timeout {
                    what: Arc::clone(what),
                    address,
                    limit: self.connect_timeout,
                })?;
            return match (connected, source) {
                (Ok(stream), _) => Ok(stream),
                (Err(error), Some(_)) if is_used_up(&error) && sources.peek().is_some() => continue,
                (Err(source), Some(from)) if is_used_up(&source) => Err(Error::Source {
                    what: Arc::clone(what),
                    address,
                    from,
                    source,
                }),
                (Err(source), _) => Err(Error::Connect {
                    what: Arc::clone(what),
                    address,
                    source,
                }),
            };
        }
    }

    fn socket(
        &self,
        what: &Arc<str>,
        address: SocketAddr,
        source: Option<IpAddr>,
    ) -> Result<TcpSocket, Error> {
        let socket = self.prepare(address).map_err(|source| Error::Socket {
            what: Arc::clone(what),
            source,
        })?;
        if let Some(from) = source {
            // The port is chosen at connect time, when the other end is known: the same local
            // port can then serve many other ends.
            setsockopt(&socket, IpBindAddressNoPort, &true)
                .map_err(io::Error::from)
                .and_then(|()| socket.bind(SocketAddr::new(from, 0)))
                .map_err(|source| Error::Source {
                    what: Arc::clone(what),
                    address,
                    from,
                    source,
                })?;
        }
        Ok(socket)
    }

    fn prepare(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive)
            .with_interval(self.keepalive);
        let options = SockRef::from(&socket);
        options.set_tcp_keepalive(&keepalive)?;
        options.set_tcp_user_timeout(Some(self.user_timeout))?;
        if let Some(mss) = self.mss {
            options.set_tcp_mss(mss.into())?;
        }
        Ok(socket)
    }
}

/// The source has no free port towards this address.
fn is_used_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse
    )
}
