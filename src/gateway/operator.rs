//! What operators see and do: the facts behind the admin address, and commands on the socket.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use super::{Door, Shared};
use crate::{
    admin, balance, clock,
    control::{self, Answer, Command, Kill, Operator},
    metrics::{ListenerReading, NodeReading, Reading},
    session::Session,
};

impl admin::Facts for Shared {
    fn ready(&self) -> bool {
        !self.is_draining()
    }

    fn metrics(&self) -> String {
        let now = clock::now();
        let nodes = self
            .snapshot()
            .pools()
            .flat_map(|pool| {
                let name = pool.config().name.clone();
                pool.status(now).into_iter().map(move |status| NodeReading {
                    pool: name.clone(),
                    node: status.node.to_string(),
                    up: status.state == balance::State::Up,
                    requests: status.in_hand,
                })
            })
            .collect();
        let certificates = self
            .doors
            .iter()
            .flat_map(|door| door.settings.load().acceptor.facts());
        let expiry = |time: std::time::SystemTime| {
            let seconds = time
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs();
            i64::try_from(seconds).unwrap_or(i64::MAX)
        };
        let certificates = certificates
            .map(|fact| (fact.certificate, expiry(fact.not_after)))
            .collect();
        self.metrics.page(&Reading {
            sessions: self.sessions.list().len(),
            panics: self.tasks.panics(),
            log_lines_lost: self.access.lost(),
            nodes,
            certificates,
            listeners: self.doors.iter().map(Door::reading).collect(),
        })
    }
}

impl Door {
    fn reading(&self) -> ListenerReading {
        let counts = &self.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let resumed = read(&counts.resumed);
        ListenerReading {
            listener: Arc::clone(&self.settings.load().config.name),
            handshakes: [
                ("full", read(&counts.handshakes).saturating_sub(resumed)),
                ("resumed", resumed),
            ],
            turned_away: [
                ("deadline", read(&counts.refused_deadline)),
                ("proxy", read(&counts.refused_proxy)),
                ("silent", read(&counts.silent)),
                ("source", read(&counts.refused_source)),
                ("tls", read(&counts.refused_tls)),
            ],
        }
    }
}

impl Operator for Shared {
    async fn carry_out(&self, command: Command) -> Answer {
        match command {
            Command::Kill { what } => {
                let killed = match &what {
                    Kill::All => self.sessions.end_all(),
                    Kill::Session(id) => usize::from(self.sessions.end(id)),
                    Kill::User(user) => self.sessions.end_user(user),
                };
                tracing::warn!(?what, killed, "sessions were ended by an operator");
                Answer::Killed(killed)
            }
            Command::Pools => Answer::Pools(self.pools()),
            Command::Reload => match self.reload_file().await {
                Ok(()) => Answer::Reloaded,
                Err(problem) => {
                    tracing::error!(problem, "the old configuration stays in force");
                    Answer::Error(problem)
                }
            },
            Command::Sessions => {
                let now = clock::now();
                let mut sessions: Vec<_> =
                    self.sessions.list().iter().map(|s| shown(s, now)).collect();
                sessions.sort_by(|a, b| (&a.user, a.age).cmp(&(&b.user, b.age)));
                Answer::Sessions(sessions)
            }
            Command::Status => Answer::Status(self.status()),
        }
    }
}

impl Shared {
    pub(super) fn is_draining(&self) -> bool {
        self.draining
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn pools(&self) -> Vec<control::Node> {
        let now = clock::now();
        let snapshot = self.snapshot();
        let nodes = snapshot.pools().flat_map(|pool| {
            pool.status(now).into_iter().map(|status| control::Node {
                pool: pool.config().name.to_string(),
                node: status.node.to_string(),
                state: match status.state {
                    balance::State::Down => "down",
                    balance::State::Suspended => "suspended",
                    balance::State::Unknown => "unknown",
                    balance::State::Up => "up",
                }
                .into(),
                requests: status.in_hand,
                reason: status.error.map(|error| error.to_string()),
            })
        });
        nodes.collect()
    }

    fn status(&self) -> control::Status {
        let open = self
            .doors
            .iter()
            .map(|door| door.counts.open.load(Ordering::Relaxed))
            .sum();
        control::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: clock::now()
                .saturating_duration_since(self.started)
                .as_secs(),
            pid: std::process::id(),
            admin: self.admin.map(|address| address.to_string()),
            listeners: self.addresses().iter().map(ToString::to_string).collect(),
            sessions: self.sessions.list().len(),
            connections: open,
            tunnels: self.metrics.tunnels.get(),
            generation: self.snapshot().generation,
            draining: self.is_draining(),
        }
    }
}

fn shown(session: &Session, now: std::time::Instant) -> control::Session {
    let identity = session.identity();
    control::Session {
        id: session.id().to_string(),
        user: identity.user.to_string(),
        directory: identity.directory.to_string(),
        class: session.class().as_str().into(),
        age: now.saturating_duration_since(session.started()).as_secs(),
        idle: session.idle(now).as_secs(),
        tunnels: session.usage().tunnels(),
    }
}
