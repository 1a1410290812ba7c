//! Directories: LDAP and user files, in the order in which they are asked.

use std::{collections::BTreeMap, sync::Arc};

use super::{Resolver, backend::Trust};
use crate::config::{
    Directory, DirectoryKind, Files, Ldap, LdapGroups, LdapSecurity, LdapServer, Source, System,
    file::{self, Named},
    tree::join,
    value::Url,
};

impl Resolver {
    pub(super) fn directories(
        &mut self,
        directories: Named<file::Directory>,
        order: Option<&[String]>,
        network: &Source,
    ) -> Vec<Arc<Directory>> {
        let mut resolved: BTreeMap<String, Arc<Directory>> = BTreeMap::new();
        for (name, directory) in directories {
            let kind = match directory {
                file::Directory::Ldap(ldap) => self
                    .ldap(&name, *ldap, network)
                    .map(|ldap| DirectoryKind::Ldap(Box::new(ldap))),
                file::Directory::Users(users) => self.users(&name, users),
            };
            if let Some(kind) = kind {
                let directory = Directory {
                    name: name.as_str().into(),
                    kind,
                };
                resolved.insert(name, Arc::new(directory));
            }
        }
        let Some(order) = order else {
            if resolved.len() > 1 {
                let message = "is missing: there are several, in which order are they asked?";
                self.problem("login.directories", message);
            } else if resolved.is_empty() && self.good("directory") {
                self.warn("directory", "is missing: nobody can log in");
            }
            return resolved.into_values().collect();
        };
        let mut asked: Vec<Arc<Directory>> = Vec::new();
        for (index, name) in order.iter().enumerate() {
            let key = format!("login.directories[{index}]");
            match resolved.get(name) {
                Some(directory) if asked.iter().any(|a| a.name == directory.name) => {
                    self.problem(&key, "stands twice");
                }
                Some(directory) => asked.push(Arc::clone(directory)),
                None => {
                    let known = resolved.keys().map(String::as_str);
                    self.known(&key, "directory", name, known);
                }
            }
        }
        if order.is_empty() {
            self.warn("login.directories", "is empty: nobody can log in");
        }
        for name in resolved.keys().filter(|name| !order.contains(name)) {
            let message = "is never asked: login.directories does not name it";
            self.warn(&join("directory", name), message);
        }
        asked
    }

    fn users(&mut self, name: &str, users: file::Users) -> Option<DirectoryKind> {
        let key = join(&join("directory", name), "file");
        let path = self.private_file(&key, &users.file?.0);
        self.not_of_demo(&key, &path);
        Some(DirectoryKind::Users(path))
    }

    fn ldap(&mut self, name: &str, file: file::Ldap, network: &Source) -> Option<Ldap> {
        let key = join("directory", name);
        let accepted = self.plain_accepted(&key, &file);
        let groups = self.groups(&key, &file);
        let password = file
            .bind_password
            .as_ref()
            .and_then(|name| self.secret(&format!("{key}.bind_password"), name));
        if let Some(password) = &password
            && self.files == Files::Checked
            && password
                .expose_text()
                .is_none_or(|text| text.contains('\0'))
        {
            self.problem(
                &format!("{key}.bind_password"),
                "names a secret that is no text",
            );
        }
        let servers = self.ldap_servers(name, &file, network, accepted);
        let max_message = self.bytes(
            &format!("{key}.max_message"),
            file.max_message,
            64 << 10,
            64 << 20,
        );
        Some(Ldap {
            servers,
            bind_dn: file.bind_dn?.0,
            bind_password: password?,
            user_base: file.user_base?.0,
            user_attribute: file.user_attribute.0,
            user_filter: file.user_filter.map(|filter| filter.0),
            groups: groups?,
            connect_timeout: file.connect_timeout.0,
            operation_timeout: file.operation_timeout.0,
            total_timeout: file.total_timeout.0,
            max_message,
        })
    }

    fn ldap_servers(
        &mut self,
        name: &str,
        file: &file::Ldap,
        network: &Source,
        accepted: bool,
    ) -> Vec<LdapServer> {
        let key = join("directory", name);
        let source = self.source(&format!("{key}.source"), file.source.as_deref(), network);
        let urls: Vec<Url> = file
            .servers
            .iter()
            .flatten()
            .map(|url| url.0.clone())
            .collect();
        let trust = Trust {
            ca: file.ca.as_ref(),
            name: file.tls_name.as_ref(),
            pins: &file.pins,
        };
        let some_tls = file.start_tls || urls.iter().any(|url| url.tls);
        let tls = some_tls.then(|| Arc::new(self.backend_tls(&key, &trust)));
        let what: Arc<str> = format!("directory {name}").into();
        urls.into_iter()
            .map(|url| {
                let security = match (url.tls, file.start_tls || !accepted) {
                    (true, _) => LdapSecurity::Tls,
                    (false, true) => LdapSecurity::StartTls,
                    (false, false) => LdapSecurity::Plain,
                };
                let protected = security != LdapSecurity::Plain;
                LdapServer {
                    system: System {
                        what: Arc::clone(&what),
                        host: url.host,
                        port: url.port,
                        source: source.clone(),
                        tls: tls.clone().filter(|_| protected),
                    },
                    security,
                }
            })
            .collect()
    }

    /// Whether passwords may cross the network readable, which has to be said in so many words.
    fn plain_accepted(&mut self, key: &str, file: &file::Ldap) -> bool {
        let acceptance = format!("{key}.plain_ldap");
        let accepted = file.plain_ldap.as_deref() == Some(ACCEPTANCE);
        let plain = file
            .servers
            .iter()
            .flatten()
            .any(|server| !server.0.tls && !file.start_tls);
        if file.plain_ldap.is_some() && !accepted {
            self.problem(&acceptance, "can only be \"I accept\"");
        } else if plain && !accepted {
            let message = "lets passwords cross the network readable: say so with \
                           plain_ldap = \"I accept\", or remove it";
            self.problem(&format!("{key}.start_tls"), message);
        } else if plain {
            self.warn(&acceptance, "lets passwords cross the network readable");
        }
        accepted
    }

    fn groups(&mut self, key: &str, file: &file::Ldap) -> Option<LdapGroups> {
        let Some(base) = &file.group_base else {
            for option in ["group_member", "group_name"] {
                let option = format!("{key}.{option}");
                if self.origin.has(&option) {
                    self.problem(&option, "needs group_base");
                }
            }
            let attribute = file.group_attribute.as_ref();
            let attribute = attribute.map_or("memberOf", |attribute| &attribute.0);
            return Some(LdapGroups::Attribute(attribute.to_owned()));
        };
        if file.group_attribute.is_some() {
            let message = "and group_base exclude each other";
            self.problem(&format!("{key}.group_attribute"), message);
            return None;
        }
        let or = |written: &Option<crate::config::value::Attribute>, default: &str| {
            written
                .as_ref()
                .map_or_else(|| default.to_owned(), |attribute| attribute.0.clone())
        };
        Some(LdapGroups::Search {
            base: base.0.clone(),
            member_attribute: or(&file.group_member, "member"),
            name_attribute: or(&file.group_name, "cn"),
        })
    }
}

const ACCEPTANCE: &str = "I accept";
