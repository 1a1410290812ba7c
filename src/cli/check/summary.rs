//! What a good configuration means, on one page.

use std::{fmt::Write, path::Path, time::Duration};

use crate::{
    config::{
        App, Authorities, Authorization, Check, CheckKind, ClientCertificate, Config,
        DirectoryKind, Files, LdapSecurity, Listener, LogOutput, Persistence, Pool, Source,
        Strategy,
    },
    web::surface,
};

/// The page.
pub(super) fn of(config: &Config, files: Files, color: bool) -> String {
    let mut page = Page {
        text: String::new(),
        color,
    };
    page.line(&format!("{} is good", config.path.display()));
    if files == Files::Unchecked {
        page.line("Its text alone: the files and secrets that it names were not looked at.");
    }
    if config.demo {
        page.line("This is a demo: its certificates and passwords are worth nothing.");
    }

    page.section("Gateway");
    page.row("host", &[config.host.to_string()]);
    page.row("keys", &[keys(config)]);
    page.section("Listeners");
    for listener in &config.listeners {
        page.row(&listener.name, &listener_lines(listener));
    }
    page.section("Certificates");
    for certificate in certificates(config) {
        page.row(&certificate.0, &[certificate.1]);
    }
    page.section("Directories, in the order in which they are asked");
    for directory in &config.directories {
        page.row(&directory.name, &directory_lines(&directory.kind));
    }
    page.section("Apps");
    let port = surface::port(config);
    for app in &config.apps {
        page.row(&app.name, &app_lines(app, &port));
    }
    page.section("Pools");
    for pool in config.pools.values() {
        page.row(&pool.name, &pool_lines(pool));
    }
    page.section("Networks");
    networks(&mut page, config);
    page.section("Names are resolved by");
    page.row("all others", &[list(&config.dns.servers)]);
    for zone in &config.dns.zones {
        page.row(&zone.suffix, &[list(&zone.servers)]);
    }
    page.section("Policies");
    for file in &config.policy.files {
        page.row("", &[shown(file)]);
    }
    page.section("Reached without a login");
    for open in surface::of(config) {
        page.row(open.methods, &[open.place, open.does]);
    }
    page.section("Operation");
    operation(&mut page, config);
    page.text
}

fn keys(config: &Config) -> String {
    if config.shared_key.is_some() {
        "from the shared key: tickets and cookies outlive a restart".to_owned()
    } else {
        "fresh at each start: a restart ends every session".to_owned()
    }
}

fn listener_lines(listener: &Listener) -> Vec<String> {
    let names: Vec<&str> = listener.certificates.iter().map(|c| &*c.name).collect();
    let mut lines = vec![
        list(&listener.addresses),
        format!("certificates {}", names.join(", ")),
    ];
    let mut rules = vec![if listener.tunnels {
        "tunnels and apps"
    } else {
        "apps, no tunnels"
    }];
    rules.push(match listener.client_certificate {
        ClientCertificate::None => "no device certificates",
        ClientCertificate::Optional(_) => "device certificates asked for",
        ClientCertificate::Required(_) => "device certificates required",
    });
    if listener.strict_sni {
        rules.push("unknown names refused in the handshake");
    }
    lines.push(rules.join(", "));
    if !listener.proxy_protocol_from.is_empty() {
        let from = list(&listener.proxy_protocol_from);
        lines.push(format!("PROXY protocol from {from}"));
    }
    lines
}

fn certificates(config: &Config) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = config
        .listeners
        .iter()
        .flat_map(|listener| &listener.certificates)
        .map(|certificate| (certificate.name.to_string(), shown(&certificate.chain)))
        .collect();
    rows.sort();
    rows.dedup();
    rows
}

fn directory_lines(kind: &DirectoryKind) -> Vec<String> {
    match kind {
        DirectoryKind::Users(path) => vec![format!("user file {}", shown(path))],
        DirectoryKind::Ldap(ldap) => {
            let servers = ldap.servers.iter().map(|server| {
                let how = match server.security {
                    LdapSecurity::Plain => "NOT PROTECTED",
                    LdapSecurity::StartTls => "StartTLS",
                    LdapSecurity::Tls => "TLS",
                };
                format!("{}:{}, {how}", server.system.host(), server.system.port())
            });
            let search = format!("{} below {}", ldap.user_attribute, ldap.user_base);
            servers.chain([search]).collect()
        }
    }
}

fn app_lines(app: &App, port: &str) -> Vec<String> {
    let place = format!(
        "https://{}{port}{} → pool {}",
        app.host, app.path, app.pool.name
    );
    let login = match app.authorization {
        Authorization::Backend => "NO LOGIN here: credentials are the backend's",
        Authorization::Gateway => "after login, as the policies allow",
    };
    vec![place, login.to_owned()]
}

fn pool_lines(pool: &Pool) -> Vec<String> {
    let nodes = pool
        .nodes
        .iter()
        .map(|node| format!("{}:{}", node.host(), node.port()));
    let shared = match pool.strategy {
        Strategy::LeastConnections => "least connections",
        Strategy::RoundRobin => "round robin",
    };
    let kept = match &pool.persistence {
        Persistence::Cookie { name, .. } => format!(", kept by {name}"),
        Persistence::None => String::new(),
    };
    let tls = pool.tls.as_ref().map_or_else(
        || "not encrypted".to_owned(),
        |tls| match &tls.authorities {
            Authorities::File(path) => format!("TLS, trusting {}", shown(path)),
            Authorities::System => "TLS, trusting the system's authorities".to_owned(),
        },
    );
    nodes
        .chain([tls, format!("{shared}{kept}"), probe(&pool.check)])
        .collect()
}

fn probe(check: &Check) -> String {
    let what = match &check.kind {
        CheckKind::Http { path, .. } => format!("GET {path}"),
        CheckKind::None => return "not probed".to_owned(),
        CheckKind::Tcp => "a TCP connection".to_owned(),
        CheckKind::Tls => "a TLS handshake".to_owned(),
    };
    format!("probed by {what} every {}", period(check.interval))
}

fn networks(page: &mut Page, config: &Config) {
    let network = &config.network;
    page.row("inside", &[list(&network.inside)]);
    if !network.allow.is_empty() {
        page.row("besides", &[list(&network.allow)]);
    }
    page.row("from", &[source(&network.source)]);
    for (target, from) in &network.tunnel_sources {
        page.row("", &[format!("{} for tunnels to {target}", source(from))]);
    }
    if !network.public_addresses.is_empty() {
        page.row("our own", &[list(&network.public_addresses)]);
    }
}

fn operation(page: &mut Page, config: &Config) {
    let admin = config.admin.address.map_or_else(
        || "no read-only address".to_owned(),
        |address| format!("http://{address} (health and metrics)"),
    );
    page.row("admin", &[admin]);
    let control = config.admin.control.as_deref();
    page.row(
        "control",
        &[control.map_or_else(|| "none".to_owned(), shown)],
    );
    let log = match &config.log.access {
        LogOutput::File(path) => shown(path),
        LogOutput::Off => "off".to_owned(),
        LogOutput::Stdout => "standard output".to_owned(),
    };
    page.row("access log", &[log]);
}

fn source(source: &Source) -> String {
    if source.0.is_empty() {
        "whichever address the system chooses".to_owned()
    } else {
        list(&source.0)
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    texts.join(", ")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn period(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

struct Page {
    text: String,
    color: bool,
}

impl Page {
    fn section(&mut self, title: &str) {
        let (bold, plain) = if self.color {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.text, "\n{bold}{title}{plain}");
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A name, and lines beside it; long lines go on below.
    fn row(&mut self, name: &str, lines: &[String]) {
        let mut name = name;
        if name.chars().count() >= COLUMN {
            let _infallible = writeln!(self.text, "  {name}");
            name = "";
        }
        for line in lines.iter().flat_map(|line| wrap(line)) {
            let _infallible = writeln!(self.text, "  {name:<COLUMN$}{line}");
            name = "";
        }
    }
}

/// Breaks a text at spaces to what fits beside a name.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

const COLUMN: usize = 14;
const WIDTH: usize = 80 - 2 - COLUMN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_configuration_fits_on_a_narrow_page() {
        let text = include_str!("../../../examples/ravelin.toml");
        let config = Config::parse(text, Path::new("ravelin.toml"), Files::Unchecked).unwrap();
        let page = of(&config, Files::Unchecked, false);

        for needle in [
            "ravelin.toml is good",
            "https://xm.example.com/ → pool xenmobile",
            "least connections, kept by ACNODEID",
            "app xenmobile: its backend asks for its own login",
            "branch.example.com\n",
        ] {
            assert!(page.contains(needle), "{needle} is not in\n{page}");
        }
        for line in page.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
