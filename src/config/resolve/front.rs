//! What devices see: listeners, certificates, apps.

use std::{collections::BTreeMap, sync::Arc};

use super::Resolver;
use crate::config::{
    App, Authorization, Certificate, ClientCertificate, Listener, Pool,
    file::{self, Named},
    tree::join,
};

impl Resolver {
    pub(super) fn listeners(
        &mut self,
        listeners: Named<file::Listener>,
        certificates: Named<file::Certificate>,
    ) -> Vec<Arc<Listener>> {
        let certificates = self.certificate_files(certificates);
        if listeners.is_empty() && !self.origin.has("listener") {
            self.problem("listener", "is missing: devices could not connect");
        }
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|(name, listener)| Arc::new(self.listener(name, listener, &certificates)))
            .collect();
        self.addresses_once(&listeners);
        for name in certificates.keys() {
            let used = |l: &Arc<Listener>| l.certificates.iter().any(|c| c.name == *name);
            if !listeners.iter().any(used) {
                let key = join("certificate", name);
                self.warn(&key, "is used by no listener");
            }
        }
        listeners
    }

    fn listener(
        &mut self,
        name: String,
        file: file::Listener,
        certificates: &BTreeMap<Arc<str>, Arc<Certificate>>,
    ) -> Listener {
        let key = join("listener", &name);
        let addresses: Vec<_> = file.addresses.into_iter().flatten().map(|a| a.0).collect();
        for (index, address) in addresses.iter().enumerate() {
            if self.demo && !address.ip().is_loopback() {
                let key = format!("{key}.addresses[{index}]");
                self.problem(&key, "is not on loopback, and this is a demo");
            }
        }
        let mut shown = Vec::new();
        for (index, name) in file.certificates.iter().flatten().enumerate() {
            match certificates.get(name.as_str()) {
                Some(certificate) => shown.push(Arc::clone(certificate)),
                None => self.known(
                    &format!("{key}.certificates[{index}]"),
                    "certificate",
                    name,
                    certificates.keys().map(|name| &**name),
                ),
            }
        }
        let ca_key = format!("{key}.client_ca");
        let ca = file
            .client_ca
            .map(|path| self.certificates(&ca_key, &path.0));
        let client_certificate = match (file.client_certificate, ca) {
            (file::ClientCertificate::None, None) => ClientCertificate::None,
            (file::ClientCertificate::None, Some(_)) => {
                self.warn(
                    &ca_key,
                    "has no effect while client_certificate is \"none\"",
                );
                ClientCertificate::None
            }
            (file::ClientCertificate::Optional, Some(ca)) => ClientCertificate::Optional(ca),
            (file::ClientCertificate::Required, Some(ca)) => ClientCertificate::Required(ca),
            (file::ClientCertificate::Optional | file::ClientCertificate::Required, None) => {
                let message = "is missing: devices are asked for a certificate";
                self.problem(&ca_key, message);
                ClientCertificate::None
            }
        };
        Listener {
            name: name.into(),
            addresses,
            freebind: file.freebind,
            keepalive: self.keepalive(&format!("{key}.keepalive"), &file.keepalive),
            mss: file.mss,
            proxy_protocol_from: file.proxy_protocol_from.into_iter().map(|n| n.0).collect(),
            certificates: shown,
            client_certificate,
            strict_sni: file.strict_sni,
            tunnels: file.tunnels,
            max_connections: file.max_connections,
            max_connections_per_source: file.max_connections_per_source,
        }
    }

    fn certificate_files(
        &mut self,
        certificates: Named<file::Certificate>,
    ) -> BTreeMap<Arc<str>, Arc<Certificate>> {
        let mut resolved = BTreeMap::new();
        for (name, file) in certificates {
            let key = join("certificate", &name);
            let chain = file
                .chain
                .map(|path| self.certificates(&format!("{key}.chain"), &path.0));
            let private = file
                .key
                .map(|path| self.private_file(&format!("{key}.key"), &path.0));
            if let (Some(chain), Some(private)) = (chain, private) {
                let name: Arc<str> = name.into();
                let certificate = Certificate {
                    name: Arc::clone(&name),
                    chain,
                    key: private,
                };
                resolved.insert(name, Arc::new(certificate));
            }
        }
        resolved
    }

    fn addresses_once(&mut self, listeners: &[Arc<Listener>]) {
        let mut seen = BTreeMap::new();
        for listener in listeners {
            for (index, address) in listener.addresses.iter().enumerate() {
                let key = format!("{}.addresses[{index}]", join("listener", &listener.name));
                if address.port() == 0 {
                    continue;
                }
                if let Some(first) = seen.insert(*address, key.clone()) {
                    let place = self.origin.short_place(&first);
                    self.problem(&key, format!("stands twice: the first is {place}"));
                }
            }
        }
    }

    pub(super) fn apps(
        &mut self,
        apps: Named<file::App>,
        pools: &BTreeMap<Arc<str>, Arc<Pool>>,
        gateway: Option<&Arc<str>>,
    ) -> Vec<Arc<App>> {
        let mut resolved: Vec<Arc<App>> = apps
            .into_iter()
            .filter_map(|(name, app)| self.app(name, app, pools, gateway))
            .map(Arc::new)
            .collect();
        self.places_once(&resolved);
        for name in pools.keys() {
            let key = join("pool", name);
            if !resolved.iter().any(|app| app.pool.name == *name) {
                self.warn(&key, "is used by no app");
            }
        }
        resolved.sort_by(|a, b| {
            let longest_first = b.path.len().cmp(&a.path.len());
            a.host
                .cmp(&b.host)
                .then(longest_first)
                .then(a.path.cmp(&b.path))
        });
        resolved
    }

    fn app(
        &mut self,
        name: String,
        file: file::App,
        pools: &BTreeMap<Arc<str>, Arc<Pool>>,
        gateway: Option<&Arc<str>>,
    ) -> Option<App> {
        let key = join("app", &name);
        let host: Option<Arc<str>> = file.host.map(|host| host.0.into());
        if host.is_some() && host.as_ref() == gateway {
            let message = "is the gateway's own: an app has a host of its own";
            self.problem(&format!("{key}.host"), message);
        }
        let pool_name = file.pool?;
        let Some(pool) = pools.get(pool_name.as_str()) else {
            let known = pools.keys().map(|name| &**name);
            self.known(&format!("{key}.pool"), "pool", &pool_name, known);
            return None;
        };
        Some(App {
            name: name.into(),
            host: host?,
            path: file.path.0.into(),
            pool: Arc::clone(pool),
            authorization: match file.authorization {
                file::Authorization::Backend => Authorization::Backend,
                file::Authorization::Gateway => Authorization::Gateway,
            },
            upstream_host: file.upstream_host.map(|host| host.0.into()),
            path_characters: file.path_characters.map(|c| c.0).unwrap_or_default().into(),
            first_byte: file.first_byte.0,
            progress: file.progress.0,
            upgrade_idle: file.upgrade_idle.0,
            max_body: file.max_body.0,
            retries: file.retries,
        })
    }

    /// One app for one host and path; apps that share a host are pointed out.
    fn places_once(&mut self, apps: &[Arc<App>]) {
        let mut places = BTreeMap::new();
        let mut hosts: BTreeMap<&str, &str> = BTreeMap::new();
        for app in apps {
            let key = join("app", &app.name);
            if let Some(first) = places.insert((&app.host, &app.path), key.clone()) {
                let place = self.origin.short_place(&first);
                let message = format!("has the host and path of {first} ({place})");
                self.problem(&key, message);
            } else if let Some(first) = hosts.insert(&app.host, &app.name) {
                let message = format!(
                    "shares the host of {}: in a browser they are one origin, trust them alike",
                    join("app", first)
                );
                self.warn(&format!("{key}.host"), message);
            }
        }
    }
}
