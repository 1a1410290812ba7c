//! Builds every stage from a [`Config`]; runs, reloads, drains.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tracing::{error, warn};

use self::relays::{Place, Relays};
pub(crate) use self::{relays::Open, snapshot::Snapshot};
use crate::{
    Config, admin,
    auth::{self, Lockout},
    clock,
    config::{self, Problems},
    control,
    crypto::MasterKey,
    listener::{self, Listener, Settings, peer::Peer},
    metrics::{ByListener, ByResult, Held, Metrics, access_log::AccessLog},
    policy,
    session::Sessions,
    shutdown::Tasks,
    tls,
    web::{self, journal::chain, service::Service},
};

mod operator;
mod relays;
mod snapshot;

/// A running gateway.
///
/// It serves from the moment it is started, and stops at [`Gateway::drain`]. Dropping it stops
/// nothing: its tasks go on with the runtime.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all connections share. What a reload replaces is the snapshot; the rest outlives it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) metrics: Metrics,
    pub(crate) access: AccessLog,
    snapshot: ArcSwap<Snapshot>,
    relays: Arc<Relays>,
    sessions: Arc<Sessions>,
    lockout: Arc<Lockout>,
    master: MasterKey,
    tasks: Tasks,
    started: Instant,
    doors: Vec<Door>,
    admin: Option<SocketAddr>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// When the gateway began to drain, if it did.
    draining: Mutex<Option<Instant>>,
}

/// One listener that runs.
#[derive(Debug)]
struct Door {
    addresses: Vec<SocketAddr>,
    settings: Arc<ArcSwap<Settings>>,
    counts: Arc<listener::Counts>,
}

impl Gateway {
    /// Binds everything and begins to serve. Needs a tokio runtime with its drivers.
    ///
    /// # Errors
    ///
    /// When an address, certificate, user file, policy or log cannot be used: nothing runs then.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let tasks = Tasks::new();
        let master = match &config.shared_key {
            Some(secret) => MasterKey::from_secret(secret.expose()),
            None => MasterKey::generate(),
        };
        let access = AccessLog::open(&config.log.access).map_err(Error::AccessLog)?;
        let sessions = Arc::new(Sessions::new(&config, &master));
        let lockout = Lockout::new();
        let bound = Bound::bind(&config).await?;
        let doors = bound.doors(&config, &master)?;
        let metrics = Metrics::new();
        let parts = snapshot::Parts {
            sessions: &sessions,
            lockout: &lockout,
            metrics: &metrics,
            master: &master,
            tasks: &tasks,
        };
        let snapshot = Snapshot::build(config, None, &parts)?;
        let shared = Arc::new(Shared {
            metrics,
            access,
            snapshot: ArcSwap::from_pointee(snapshot),
            relays: Arc::default(),
            sessions,
            lockout,
            master,
            tasks,
            started: clock::now(),
            doors,
            admin: bound
                .admin
                .as_ref()
                .and_then(|socket| socket.local_addr().ok()),
            reloading: tokio::sync::Mutex::default(),
            draining: Mutex::default(),
        });
        bound.serve(&shared);
        Ok(Self { shared })
    }

    /// Where devices connect, with the ports that the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.addresses()
    }

    /// The admin address, with the port that the kernel chose.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.shared.admin
    }

    /// Puts a new configuration in force. What runs keeps running; the next request of every
    /// connection sees it.
    ///
    /// # Errors
    ///
    /// When the new configuration cannot be used: the old one stays in force.
    pub async fn reload(&self, config: Config) -> Result<(), Error> {
        self.shared.reload(config).await
    }

    /// The same from the file that the gateway was started with; also opens the access log anew.
    ///
    /// # Errors
    ///
    /// What is wrong with the new configuration, in words: the old one stays in force.
    pub async fn reload_file(&self) -> Result<(), String> {
        self.shared.reload_file().await
    }

    /// Accepts nothing new, finishes what is in hand, and ends the rest after `limits.drain`.
    /// `true` when nothing had to be cut.
    pub async fn drain(&self) -> bool {
        let limit = self.shared.snapshot().config.limits.drain;
        self.shared
            .draining
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(clock::now);
        let complete = self.shared.tasks.drain(limit).await;
        let shared = Arc::clone(&self.shared);
        // The log's last lines: a disk that stands still must not hold the process for ever.
        let closed = tokio::task::spawn_blocking(move || shared.access.close(LOG_LIMIT));
        if closed.await.is_err() {
            warn!("the access log could not be closed");
        }
        complete
    }
}

impl Shared {
    /// What is in force now. A request takes it once, and keeps it to its end.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Enters a tunnel or WebSocket that was judged by `gateway` among those that are judged
    /// again when policies change.
    pub(crate) fn watch(&self, gateway: &Snapshot, open: Open) -> Place {
        self.relays.enter(open, gateway, || self.snapshot())
    }

    /// A drain is over: what still runs is dropped.
    pub(crate) fn is_ending(&self) -> bool {
        self.tasks.is_ending()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.doors
            .iter()
            .flat_map(|door| door.addresses.clone())
            .collect()
    }

    async fn reload(&self, config: Config) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        if self.is_draining() {
            return Err(Error::Draining);
        }
        let old = self.snapshot();
        same_doors(&old.config, &config)?;
        let mut acceptors = Vec::new();
        for listener in &config.listeners {
            acceptors.push(acceptor(listener, &config, &self.master)?);
        }
        let parts = snapshot::Parts {
            sessions: &self.sessions,
            lockout: &self.lockout,
            metrics: &self.metrics,
            master: &self.master,
            tasks: &self.tasks,
        };
        let new = Snapshot::build(config, Some(&old), &parts)?;
        // From here on nothing can fail.
        for (door, acceptor) in self.doors.iter().zip(acceptors) {
            door.settings.store(Arc::new(acceptor));
        }
        self.sessions.apply(&new.config);
        let new = Arc::new(new);
        self.snapshot.store(Arc::clone(&new));
        self.access.reopen();
        let relays = Arc::clone(&self.relays);
        let judged = self.tasks.spawn_blocking(move || relays.judge(&new));
        if judged.await.is_err() {
            error!("judging open tunnels again failed; some may go on that are denied now");
        }
        Ok(())
    }

    async fn reload_file(&self) -> Result<(), String> {
        let path = self.snapshot().config.path.clone();
        let result = match load(path).await {
            Ok(config) => self.reload(config).await.map_err(|error| chain(&error)),
            Err(problems) => Err(problems.to_string()),
        };
        let label = if result.is_ok() { "good" } else { "bad" };
        self.metrics
            .reloads
            .get_or_create(&ByResult { result: label })
            .inc();
        result
    }
}

/// Sockets that are bound, before anything serves on them.
struct Bound {
    listeners: Vec<Listener>,
    admin: Option<TcpListener>,
    control: Option<control::Socket>,
}

impl Bound {
    async fn bind(config: &Config) -> Result<Self, Error> {
        let listeners = config
            .listeners
            .iter()
            .map(|listener| Listener::bind(listener));
        let listeners = listeners.collect::<Result<_, _>>()?;
        let admin = match config.admin.address {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| Error::Admin { address, source })?,
            ),
            None => None,
        };
        let control = match &config.admin.control {
            Some(path) => Some(
                control::Socket::bind(path).map_err(|source| Error::Control {
                    path: path.clone(),
                    source,
                })?,
            ),
            None => None,
        };
        Ok(Self {
            listeners,
            admin,
            control,
        })
    }

    fn doors(&self, config: &Config, master: &MasterKey) -> Result<Vec<Door>, Error> {
        let doors = self
            .listeners
            .iter()
            .zip(&config.listeners)
            .map(|(bound, listener)| {
                Ok(Door {
                    addresses: bound.addresses(),
                    settings: Arc::new(ArcSwap::from_pointee(acceptor(listener, config, master)?)),
                    counts: Arc::clone(bound.counts()),
                })
            });
        doors.collect()
    }

    fn serve(self, shared: &Arc<Shared>) {
        let tasks = &shared.tasks;
        for (listener, door) in self.listeners.into_iter().zip(&shared.doors) {
            let serve = {
                let shared = Arc::clone(shared);
                move |stream, peer| connection(Arc::clone(&shared), stream, peer)
            };
            tasks.spawn(listener.run(tasks.clone(), Arc::clone(&door.settings), serve));
        }
        if let Some(socket) = self.admin {
            let config = Arc::clone(&shared.snapshot().config);
            drop(tasks.spawn_watcher(admin::serve(
                socket,
                config,
                Arc::clone(shared),
                tasks.clone(),
            )));
        }
        if let Some(socket) = self.control {
            drop(tasks.spawn_watcher(socket.serve(Arc::clone(shared))));
        }
        tasks.spawn(watch_certificates(Arc::clone(shared)));
        drop(tasks.spawn_watcher(Arc::clone(&shared.sessions).watch()));
    }
}

/// One device's connection, from the handshake to its end.
async fn connection(shared: Arc<Shared>, stream: Box<tls::Stream>, peer: Arc<Peer>) {
    let _open = {
        let listener = ByListener {
            listener: peer.listener.name.to_string(),
        };
        shared.metrics.accepted.get_or_create(&listener).inc();
        Held::new(&shared.metrics.connections.get_or_create(&listener))
    };
    let limits = Arc::clone(&shared.snapshot().limits);
    let service = Arc::new(Service::new(Arc::clone(&shared), Arc::clone(&peer)));
    web::serve(stream, peer, limits, &shared.tasks, service).await;
}

/// Looks at certificate files at the configured interval.
async fn watch_certificates(shared: Arc<Shared>) {
    while shared
        .tasks
        .pause(shared.snapshot().config.tls.reload_interval.max(LOOK_PAUSE))
        .await
    {
        let acceptors: Vec<_> = shared
            .doors
            .iter()
            .map(|door| Arc::clone(&door.settings.load().acceptor))
            .collect();
        let look = move || acceptors.iter().for_each(|acceptor| acceptor.reload());
        if shared.tasks.spawn_blocking(look).await.is_err() {
            warn!("looking for new certificates failed; the next round tries again");
        }
    }
}

fn acceptor(
    listener: &Arc<config::Listener>,
    config: &Config,
    master: &MasterKey,
) -> Result<Settings, Error> {
    Ok(Settings {
        config: Arc::clone(listener),
        acceptor: Arc::new(tls::Acceptor::load(
            Arc::clone(listener),
            config.tls.clone(),
            master,
        )?),
        handshake: config.limits.handshake,
    })
}

/// A reload binds nothing: who changes an address has to restart, and is told so.
fn same_doors(old: &Config, new: &Config) -> Result<(), Error> {
    let doors = |config: &Config| -> Vec<_> {
        config
            .listeners
            .iter()
            .map(|listener| (Arc::clone(&listener.name), listener.addresses.clone()))
            .collect()
    };
    if doors(old) != doors(new) {
        return Err(Error::Restart("the listeners and their addresses"));
    }
    if old.admin.address != new.admin.address || old.admin.control != new.admin.control {
        return Err(Error::Restart("the admin address and the control socket"));
    }
    if old.log.access != new.log.access {
        return Err(Error::Restart("where the access log goes"));
    }
    Ok(())
}

async fn load(path: PathBuf) -> Result<Config, Problems> {
    let loaded = tokio::task::spawn_blocking(move || Config::load(&path));
    match loaded.await {
        Ok(loaded) => loaded,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Why a gateway does not start, or a new configuration is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The access log.
    #[error("opening the access log")]
    AccessLog(#[source] io::Error),
    /// The admin address.
    #[error("admin.address: cannot bind {address}")]
    Admin {
        /// Which.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// A listener's address.
    #[error(transparent)]
    Bind(#[from] listener::BindError),
    /// The control socket.
    #[error("admin.control: cannot bind {path}", path = path.display())]
    Control {
        /// Which.
        path: PathBuf,
        /// What is in the way.
        source: io::Error,
    },
    /// It ends: nothing new comes into force.
    #[error("the gateway is draining")]
    Draining,
    /// Policies; all their problems.
    #[error("policies cannot be used: {}", join(.0))]
    Policy(Vec<policy::Error>),
    /// It can only be changed by a restart.
    #[error("{0} can only change with a restart")]
    Restart(&'static str),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

fn join(errors: &[policy::Error]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// Whatever is configured, certificate files are not looked at without a pause.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

const LOG_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
