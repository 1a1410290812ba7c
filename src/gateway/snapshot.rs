//! Snapshot: everything that one configuration put in force; a request sees one from end to end.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::Error;
use crate::{
    Config,
    auth::{Authenticator, Lockout},
    balance::Pool,
    config::{self, App, Authorization, Limits},
    crypto::MasterKey,
    dial::Dialer,
    metrics::Metrics,
    policy::Policy,
    route::Routes,
    session::{Session, Sessions},
    shutdown::Tasks,
    tunnel::Tunnels,
    upstream::Upstream,
    web::login::{Link, Login},
};

/// All stages behind the listeners, as one configuration made them.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// How many configurations were in force before, plus one.
    pub(crate) generation: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) login: Login,
    pub(crate) policy: Policy,
    pub(crate) routes: Routes,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) upstream: Upstream,
    pub(crate) tunnels: Tunnels,
    pools: BTreeMap<Arc<str>, Arc<Pool>>,
}

/// What outlives a snapshot.
pub(super) struct Parts<'a> {
    pub(super) sessions: &'a Arc<Sessions>,
    pub(super) lockout: &'a Arc<Lockout>,
    pub(super) metrics: &'a Metrics,
    pub(super) master: &'a MasterKey,
    pub(super) tasks: &'a Tasks,
}

impl Snapshot {
    /// Builds every stage. Pools that did not change are taken over from `old`, with what they
    /// know of their nodes' health and of devices that stay on them.
    pub(super) fn build(
        config: Config,
        old: Option<&Self>,
        parts: &Parts<'_>,
    ) -> Result<Self, Error> {
        let policy = Policy::load(&config.policy.files).map_err(Error::Policy)?;
        let dialer = Arc::new(Dialer::new(&config, parts.tasks.clone()));
        let authenticator = Arc::new(Authenticator::new(
            &config,
            parts.master,
            Arc::clone(parts.lockout),
            Arc::clone(&dialer),
            parts.metrics.password_checks.clone(),
            parts.tasks.clone(),
        )?);
        let login = Login::new(
            &config,
            Arc::clone(parts.sessions),
            authenticator,
            parts.master,
        );
        let pools = config.pools.values().map(|pool| {
            let kept = old.and_then(|old| old.unchanged(pool));
            let pool = kept.unwrap_or_else(|| Pool::new(Arc::clone(pool)));
            // A kept pool as well: networks, names and authorities may be others now. Nothing can
            // fail after this, so the pool cannot be left with a dialer that never came into force.
            pool.watch(Arc::clone(&dialer), parts.tasks);
            (Arc::clone(&pool.config().name), pool)
        });
        let pools = pools.collect();
        Ok(Self {
            generation: old.map_or(1, |old| old.generation.saturating_add(1)),
            limits: Arc::new(config.limits.clone()),
            login,
            policy,
            routes: Routes::new(&config.apps),
            upstream: Upstream::new(
                &config.network,
                &config.limits,
                config.tunnel.block,
                Arc::clone(&dialer),
                parts.tasks.clone(),
            ),
            tunnels: Tunnels::new(config.tunnel.clone(), Arc::clone(&dialer)),
            dialer,
            pools,
            config: Arc::new(config),
        })
    }

    /// The pool of an app of this configuration.
    pub(crate) fn pool(&self, app: &App) -> Arc<Pool> {
        let pool = self.pools.get(&app.pool.name).map(Arc::clone);
        // An app holds the pool that it names, so the second way is never taken.
        pool.unwrap_or_else(|| Pool::new(Arc::clone(&app.pool)))
    }

    /// All pools.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// The apps that a session may open, for its home page. `port` is where the device reached us.
    pub(crate) fn links(&self, session: &Session, source: IpAddr, port: Option<u16>) -> Vec<Link> {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let apps = self.config.apps.iter();
        apps.filter(|app| app.authorization == Authorization::Gateway)
            .filter(|app| self.policy.open(Some(session), source, app).is_ok())
            .map(|app| Link {
                name: Arc::clone(&app.name),
                url: format!("https://{}{port}{}", app.host, app.path),
            })
            .collect()
    }

    /// The pool of the same name, if its configuration is the same.
    fn unchanged(&self, pool: &config::Pool) -> Option<Arc<Pool>> {
        let old = self.pools.get(&pool.name)?;
        (format!("{:?}", old.config()) == format!("{pool:?}")).then(|| Arc::clone(old))
    }
}
