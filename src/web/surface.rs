//! The pre-auth surface: everything that answers without a session, as one table.

use std::collections::BTreeSet;

use crate::config::{Authorization, Config};

/// One row: what answers without a session, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Methods, with spaces between them; `*` is any.
    pub methods: &'static str,
    /// A URL; with `/*` at its end, that path and all below it. `host:port` for what a proxy is asked.
    pub place: String,
    /// What it does for somebody whom nobody knows.
    pub does: String,
}

/// Everything that a configuration lets answer without a session.
///
/// `ravelin check` prints it, and a test walks a running gateway to see that nothing else does:
/// other pages of the gateway answer 401, 404 or 405, other names 421, tunnels and apps ask for a
/// credential.
pub fn of(config: &Config) -> Vec<Open> {
    let origin = |host: &str| format!("https://{host}{}", port(config));
    let own = OWN.iter().map(|(methods, path, does)| Open {
        methods,
        place: origin(&config.host) + path,
        does: (*does).to_owned(),
    });
    let tunnels = config.listeners.iter().any(|listener| listener.tunnels);
    let proxy = tunnels.then(|| Open {
        methods: "CONNECT",
        place: "host:port".to_owned(),
        does: "asks for a credential (407); so does http://… in absolute form".to_owned(),
    });
    let hosts: BTreeSet<&str> = config
        .apps
        .iter()
        .filter(|app| app.authorization == Authorization::Gateway)
        .map(|app| &*app.host)
        .collect();
    let entrances = hosts.into_iter().map(|host| Open {
        methods: "GET",
        place: origin(host) + "/.ravelin/enter",
        does: "takes a login over, by a code that works once".to_owned(),
    });
    let apps = config.apps.iter().map(|app| Open {
        methods: "*",
        place: format!("{}{}/*", origin(&app.host), app.path.trim_end_matches('/')),
        does: match app.authorization {
            Authorization::Backend => {
                format!("app {}: its backend asks for its own login", app.name)
            }
            Authorization::Gateway => {
                format!("app {}: leads to the login, or asks (401)", app.name)
            }
        },
    });
    own.chain(proxy).chain(entrances).chain(apps).collect()
}

/// `:port` by which devices reach the gateway; nothing where it is 443, or the kernel chooses.
pub fn port(config: &Config) -> String {
    let addresses = config.listeners.iter().flat_map(|l| &l.addresses);
    let mut ports: Vec<u16> = addresses.map(std::net::SocketAddr::port).collect();
    match ports.iter().position(|port| *port == HTTPS) {
        Some(found) => ports.drain(..found).for_each(drop),
        None => ports.retain(|port| *port != 0),
    }
    match ports.first() {
        None | Some(&HTTPS) => String::new(),
        Some(port) => format!(":{port}"),
    }
}

/// The gateway's own host. `HEAD` is answered wherever `GET` is.
const OWN: [(&str, &str, &str); 6] = [
    ("GET HEAD", "/", "leads to the login page"),
    ("GET HEAD", "/login", "the login page"),
    ("POST", "/login", "checks a name and a password"),
    ("POST", "/logout", "leads to the login page"),
    ("POST", "/token", "checks a Basic credential, gives a token"),
    (
        "GET HEAD",
        "/.ravelin/authorize",
        "leads to the login page, for an app that asked",
    ),
];

const HTTPS: u16 = 443;
