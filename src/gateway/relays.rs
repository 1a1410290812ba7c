//! Open tunnels and `WebSocket`s, judged again whenever a new configuration comes into force.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Snapshot;
use crate::{
    metrics::access_log::Relayed,
    permit::{Permit, What},
    session::Session,
    web::error::Error,
};

/// All relays that run.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    open: Mutex<HashMap<u64, Arc<Open>>>,
    next: AtomicU64,
}

/// One relay, and all that its permit was given for.
#[derive(Debug)]
pub(crate) struct Open {
    /// Whose it is; `None` for an app whose backend does the login.
    pub(crate) session: Option<Arc<Session>>,
    /// Where the device is.
    pub(crate) source: IpAddr,
    /// What was permitted.
    pub(crate) permit: Permit,
    /// Who was connected.
    pub(crate) address: SocketAddr,
    /// Ends it.
    pub(crate) stop: CancellationToken,
    /// Told why it was ended.
    pub(crate) relayed: Arc<Relayed>,
}

/// A relay's place among those that run, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    relays: Arc<Relays>,
    number: u64,
}

impl Relays {
    /// Enters a relay that was judged by `judged`. When another configuration has come into force
    /// since, it is judged by `current` at once: the look at all relays may have missed it.
    pub(crate) fn enter(
        self: &Arc<Self>,
        open: Open,
        judged: &Snapshot,
        current: impl FnOnce() -> Arc<Snapshot>,
    ) -> Place {
        let open = Arc::new(open);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&open));
        // Asked only after it was entered: a reload swaps first and looks then.
        let current = current();
        if current.generation != judged.generation {
            open.judge(&current);
        }
        Place {
            relays: Arc::clone(self),
            number,
        }
    }

    /// Judges all relays by a configuration and ends those that it denies, each with a refusal id
    /// in its line of the log. Takes a while with many: not for a runtime's worker.
    pub(crate) fn judge(&self, gateway: &Snapshot) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        let ended = all.iter().filter(|open| !open.judge(gateway)).count();
        info!(
            open = all.len(),
            ended,
            generation = gateway.generation,
            "open tunnels were judged again"
        );
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.relays.lock().remove(&self.number);
    }
}

impl Open {
    /// `false`: it is denied now, and was ended.
    fn judge(&self, gateway: &Snapshot) -> bool {
        let Err(error) = self.may_go_on(gateway) else {
            return true;
        };
        self.relayed.cut(error.stage(), super::chain(&error));
        self.stop.cancel();
        false
    }

    fn may_go_on(&self, gateway: &Snapshot) -> Result<(), Error> {
        match self.permit.what() {
            What::App { app, pool } => {
                let app = gateway.config.apps.iter().find(|other| other.name == *app);
                let app = app
                    .filter(|app| app.pool.name == *pool)
                    .ok_or(Error::NoApp)?;
                gateway
                    .policy
                    .open(self.session.as_deref(), self.source, app)?;
            }
            What::Tunnel { target, .. } => {
                if !gateway.tunnels.is_port_open(target.port) {
                    return Err(Error::Port(target.port));
                }
                // A tunnel always has a session.
                let session = self.session.as_deref().ok_or(Error::TunnelsOff)?;
                let candidate = gateway.policy.judge(session, self.source, target)?;
                gateway.policy.confirm(&candidate, &[self.address.ip()])?;
            }
        }
        Ok(gateway.dialer.allows(self.address)?)
    }
}
