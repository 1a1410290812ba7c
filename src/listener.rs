//! Binds, takes a slot, accepts, one task per connection.
//!
//! The door to `socket2` for listening sockets.

use std::{
    future::{Future, poll_fn},
    io,
    net::{self, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::warn;

use self::{
    arrival::{Arrival, Error},
    peer::Peer,
    sources::Sources,
};
use crate::{
    config,
    shutdown::Tasks,
    tls::{self, Stream},
};

mod arrival;
pub mod peer;
pub mod proxy_header;
mod sources;
#[cfg(test)]
mod tests;

/// The bound sockets of one listener of the configuration.
///
/// They are closed when it is dropped, or when a drain begins.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    counts: Arc<Counts>,
}

impl Listener {
    /// Binds all addresses of a listener. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When one of them cannot be bound: none is then.
    pub fn bind(config: &config::Listener) -> Result<Self, BindError> {
        let sockets = config.addresses.iter().map(|&address| {
            bind(address, config).map_err(|source| BindError {
                listener: Arc::clone(&config.name),
                address,
                source,
            })
        });
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            counts: Arc::default(),
        })
    }

    /// Takes sockets that were bound elsewhere and already listen. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When an option cannot be set.
    pub fn from_sockets(
        config: &config::Listener,
        sockets: Vec<net::TcpListener>,
    ) -> io::Result<Self> {
        let sockets = sockets
            .into_iter()
            .map(|socket| listen(socket.into(), config));
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            counts: Arc::default(),
        })
    }

    /// Where devices can connect, with the ports that the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.sockets.iter().map(TcpListener::local_addr);
        addresses.filter_map(Result::ok).collect()
    }

    /// What happened here so far; it goes on counting while the listener runs.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Accepts until a drain begins. Each connection is a task of its own: it makes its way
    /// through PROXY header and TLS handshake within one deadline, then `serve` has it.
    ///
    /// A connection uses the settings that are current when it is accepted.
    pub async fn run<S, F>(self, tasks: Tasks, settings: Arc<ArcSwap<Settings>>, serve: S)
    where
        S: Fn(Box<Stream>, Arc<Peer>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut slots = Slots::default();
        let sources = Sources::default();
        while let Some((slot, accepted)) = tasks
            .draining()
            .run_until_cancelled(self.accept(&mut slots, &settings))
            .await
        {
            match accepted {
                Ok((tcp, socket)) => {
                    let arrival = Arrival {
                        settings: settings.load_full(),
                        sources: sources.clone(),
                        counts: Arc::clone(&self.counts),
                        socket,
                        slot,
                    };
                    let serve = serve.clone();
                    drop(tasks.spawn(arrival.serve(tcp, serve)));
                }
                // The device gave up while it waited: nothing is wrong here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(listener = %settings.load().config.name, %error, "accepting failed");
                    // Out of descriptors, most likely: trying at once would not free any.
                    let _draining = tasks.pause(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes a slot first, so that overload waits in the kernel's backlog; then the first
    /// connection on any of the sockets.
    async fn accept(
        &self,
        slots: &mut Slots,
        settings: &ArcSwap<Settings>,
    ) -> (OwnedSemaphorePermit, io::Result<(TcpStream, SocketAddr)>) {
        let slot = slots.take(settings).await;
        let accepted = poll_fn(|context| {
            // No socket is preferred for long: the next call starts with the next one.
            let first = slots.turn();
            let (before, after) = self
                .sockets
                .split_at(first.checked_rem(self.sockets.len()).unwrap_or(0));
            for socket in after.iter().chain(before) {
                if let Poll::Ready(accepted) = socket.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        });
        (slot, accepted.await)
    }
}

/// What connections are accepted with. A reload swaps it whole.
#[derive(Debug)]
pub struct Settings {
    /// The listener's configuration. Addresses are not read again.
    pub config: Arc<config::Listener>,
    /// Its TLS.
    pub acceptor: Arc<tls::Acceptor>,
    /// From accept to the end of the handshake (`limits.handshake`).
    pub handshake: Duration,
}

/// What happened at one listener, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// TCP connections accepted.
    pub accepted: AtomicU64,
    /// Connections open now, in or past their handshake.
    pub open: AtomicU64,
    /// Handshakes completed.
    pub handshakes: AtomicU64,
    /// Of those, resumed.
    pub resumed: AtomicU64,
    /// Connections closed without a byte: probes by TCP connect.
    pub silent: AtomicU64,
    /// Refused: not done within the deadline.
    pub refused_deadline: AtomicU64,
    /// Refused: PROXY header missing, broken, or from a peer that is not listed.
    pub refused_proxy: AtomicU64,
    /// Refused: its source has too many connections.
    pub refused_source: AtomicU64,
    /// Refused: no TLS, or no agreement in its handshake.
    pub refused_tls: AtomicU64,
}

impl Counts {
    fn refuse(&self, error: &Error) {
        let counter = match error {
            Error::Closed | Error::Read { .. } => &self.silent,
            Error::Deadline { .. } => &self.refused_deadline,
            Error::NotTls { .. } | Error::Tls(_) => &self.refused_tls,
            Error::ProxyHeader(_) | Error::ProxyUnlisted => &self.refused_proxy,
            Error::Source { .. } => &self.refused_source,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// An address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind {address}")]
pub struct BindError {
    /// Which listener.
    pub listener: Arc<str>,
    /// Where.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

/// As many slots as the current settings allow.
#[derive(Debug)]
struct Slots {
    semaphore: Arc<Semaphore>,
    size: usize,
    turn: usize,
}

impl Slots {
    async fn take(&mut self, settings: &ArcSwap<Settings>) -> OwnedSemaphorePermit {
        loop {
            self.resize(settings.load().config.max_connections);
            let wait = Arc::clone(&self.semaphore).acquire_owned();
            // A reload may allow more while all are taken.
            if let Ok(Ok(slot)) = tokio::time::timeout(RESIZE, wait).await {
                return slot;
            }
        }
    }

    /// A smaller size is reached as connections end.
    fn resize(&mut self, wanted: usize) {
        let wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        if wanted > self.size {
            self.semaphore.add_permits(wanted.saturating_sub(self.size));
            self.size = wanted;
        } else {
            let gone = self
                .semaphore
                .forget_permits(self.size.saturating_sub(wanted));
            self.size = self.size.saturating_sub(gone);
        }
    }

    fn turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(0)),
            size: 0,
            turn: 0,
        }
    }
}

fn bind(address: SocketAddr, config: &config::Listener) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the last connections' TIME_WAIT. Never SO_REUSEPORT: a second
    // process would take connections away, and closing one socket loses those in its queue.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(config.freebind)?;
    } else {
        socket.set_freebind_v4(config.freebind)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    listen(socket, config)
}

/// Sets what accepted connections inherit: that saves system calls for each of them.
fn listen(socket: Socket, config: &config::Listener) -> io::Result<TcpListener> {
    socket.set_tcp_nodelay(true)?;
    // Devices vanish without a word, and some relays have no idle limit.
    let keepalive = TcpKeepalive::new()
        .with_time(config.keepalive)
        .with_interval((config.keepalive / 4).max(Duration::from_secs(1)))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    // For what a device sends and for what it is sent.
    if let Some(mss) = config.mss {
        socket.set_tcp_mss(mss.into())?;
    }
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// The kernel's own limit (`net.core.somaxconn`) is 4096 as well.
const BACKLOG: i32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a full listener looks whether a reload allows more.
const RESIZE: Duration = Duration::from_secs(1);
