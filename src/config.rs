//! What the program runs on: a [`Config`] that cannot be wrong, made from TOML in one step.
//!
//! `config::file` is the TOML as written, `config::resolve` turns it into this. No other module
//! sees the file. Defaults stand in `config::file`, beside their fields.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

pub use self::{
    load::Files,
    problem::{Place, Problem, Problems},
    reference::reference,
    schema::schema,
    secret::Secret,
};

pub(crate) use self::problem::nearest;

mod file;
#[cfg(test)]
pub(crate) mod for_test;
mod load;
mod problem;
mod reference;
mod resolve;
mod schema;
mod secret;
#[cfg(test)]
mod tests;
mod tree;
mod value;

/// Everything a gateway runs on.
#[derive(Debug)]
pub struct Config {
    /// The file that was loaded, for messages and reloads.
    pub path: PathBuf,
    /// The gateway's own canonical host name, lower case: login, tokens and tunnels live here.
    pub host: Arc<str>,
    /// The stand-ins of `ravelin demo` are allowed, and every listener is on loopback.
    pub demo: bool,
    /// Where devices connect.
    pub listeners: Vec<Arc<Listener>>,
    /// TLS towards devices, for all listeners.
    pub tls: Tls,
    /// Keys that outlive a process or are shared by two nodes; `None`: fresh ones at each start.
    pub shared_key: Option<Secret>,
    /// Limits that are not per app.
    pub limits: Limits,
    /// Login page, sessions, cookies and guessing.
    pub login: Login,
    /// Directories in the order in which they are asked.
    pub directories: Vec<Arc<Directory>>,
    /// Where tunnels and backends may go.
    pub network: Network,
    /// Who resolves names.
    pub dns: Dns,
    /// Pools by name.
    pub pools: BTreeMap<Arc<str>, Arc<Pool>>,
    /// Apps, longest path prefix first within a host.
    pub apps: Vec<Arc<App>>,
    /// Micro-VPN.
    pub tunnel: Tunnel,
    /// Cedar files.
    pub policy: Policy,
    /// Admin address and control socket.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// What is allowed but deserves a second look.
    pub warnings: Problems,
    /// Where each key stands.
    origin: load::Origin,
}

/// The name of the authority that every demo makes for itself. A gateway that is no demo refuses
/// certificates that bear it.
pub const DEMO_CA: &str = "ravelin demo CA";

/// One place where devices connect.
#[derive(Debug)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Addresses it binds; port 0 lets the kernel choose.
    pub addresses: Vec<SocketAddr>,
    /// Bind an address that this machine does not hold yet (`IP_FREEBIND`), for VRRP.
    pub freebind: bool,
    /// TCP keepalive of devices' connections.
    pub keepalive: Duration,
    /// Largest TCP segment either way; `None`: as the interfaces allow.
    pub mss: Option<u16>,
    /// Peers that must send a PROXY protocol header; all others must not.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Certificates; the first is shown when no other fits the SNI.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whether devices are asked for a certificate.
    pub client_certificate: ClientCertificate,
    /// An unknown SNI is refused with `unrecognized_name` instead of 421.
    pub strict_sni: bool,
    /// `CONNECT` and absolute-form requests are served here.
    pub tunnels: bool,
    /// Connections at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Connections at once from one source (/32 or /64).
    pub max_connections_per_source: usize,
}

/// A certificate chain and its key, as files that may change.
#[derive(Debug)]
pub struct Certificate {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// PEM file with the chain, leaf first.
    pub chain: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// Whether a listener asks devices for a certificate (what it means is the login's business).
#[derive(Clone, Debug)]
pub enum ClientCertificate {
    /// Not asked for.
    None,
    /// Asked for; a device may have none. The file holds the authorities' certificates.
    Optional(PathBuf),
    /// Asked for; a device without one is refused in the handshake.
    Required(PathBuf),
}

/// TLS towards devices.
#[derive(Clone, Debug)]
pub struct Tls {
    /// TLS 1.2 is spoken besides 1.3.
    pub tls12: bool,
    /// How long one ticket key signs; it is accepted for twice as long. Zero: no resumption.
    pub ticket_lifetime: Duration,
    /// How often certificate files are looked at for changes.
    pub reload_interval: Duration,
}

/// Limits on what a device may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the end of the TLS handshake (and PROXY header).
    pub handshake: Duration,
    /// From the first wait for a request's head to its last byte.
    pub head: Duration,
    /// Without a request on a kept connection.
    pub idle: Duration,
    /// Without a byte of a request's body, or of the device taking the answer.
    pub body_progress: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub head_fields: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Bytes of a body that nobody read, drained before a connection is used again.
    pub drain_bytes: u64,
    /// Streams at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// HTTP/2 window of one stream in bytes.
    pub h2_stream_window: u32,
    /// HTTP/2 window of a connection in bytes.
    pub h2_connection_window: u32,
    /// Resets that one HTTP/2 connection may cause before it is closed.
    pub h2_resets: usize,
    /// From SIGTERM to the end of the last connection.
    pub drain: Duration,
}

/// Login, sessions and guessing.
#[derive(Clone, Debug)]
pub struct Login {
    /// What the login page calls this gateway.
    pub title: Arc<str>,
    /// Failed logins are answered at the next multiple of this.
    pub step: Duration,
    /// Failures before a user, or a source, is slowed down.
    pub attempts: u32,
    /// In which time those failures count.
    pub attempts_window: Duration,
    /// Sources that many people share: no limit by source.
    pub shared_sources: Vec<IpNet>,
    /// Password checks at once; more wait in a queue of `check_queue`.
    pub checks_at_once: usize,
    /// Logins that wait for a check; more are answered with 503.
    pub check_queue: usize,
    /// Session without a request.
    pub session_idle: Duration,
    /// Session from its login.
    pub session_absolute: Duration,
    /// Device token from its issue.
    pub device_token: Duration,
    /// Browser token before it must be renewed from the session record.
    pub browser_token: Duration,
    /// A correct Basic credential is remembered.
    pub basic_memory: Duration,
    /// Sessions in all.
    pub max_sessions: usize,
    /// Sessions of one user.
    pub max_sessions_per_user: usize,
}

/// Who knows users and their passwords.
#[derive(Debug)]
pub struct Directory {
    /// Its name in the configuration, in logs and in `directory` of a session.
    pub name: Arc<str>,
    /// Which kind, with its settings.
    pub kind: DirectoryKind,
}

/// The kinds of directory.
#[derive(Debug)]
pub enum DirectoryKind {
    /// LDAP: service bind, search, user bind, groups.
    Ldap(Box<Ldap>),
    /// A file of users with Argon2id hashes.
    Users(PathBuf),
}

/// An LDAP directory.
#[derive(Clone, Debug)]
pub struct Ldap {
    /// Servers in order of preference; each says whether it is TLS from the first byte.
    pub servers: Vec<LdapServer>,
    /// Distinguished name of the service account.
    pub bind_dn: String,
    /// Its password.
    pub bind_password: Secret,
    /// Where users are searched.
    pub user_base: String,
    /// Attribute that holds the name a user types (`uid`, `sAMAccountName`, `mail`).
    pub user_attribute: String,
    /// Filter that a user must match besides, for example `(objectClass=person)`.
    pub user_filter: Option<String>,
    /// How groups are found.
    pub groups: LdapGroups,
    /// TCP and TLS together.
    pub connect_timeout: Duration,
    /// One operation.
    pub operation_timeout: Duration,
    /// One whole login.
    pub total_timeout: Duration,
    /// Bytes of one message from the server.
    pub max_message: usize,
}

/// One LDAP server.
#[derive(Clone, Debug)]
pub struct LdapServer {
    /// Where, and from which source.
    pub system: System,
    /// How the connection is protected.
    pub security: LdapSecurity,
}

/// How a connection to an LDAP server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LdapSecurity {
    /// Not at all; only where the configuration insists.
    Plain,
    /// `StartTLS` (RFC 4511, section 4.14) before anything else.
    StartTls,
    /// TLS from the first byte.
    Tls,
}

/// How the groups of an LDAP user are found.
#[derive(Clone, Debug)]
pub enum LdapGroups {
    /// An attribute of the user holds group DNs; the group's name is its first RDN value.
    Attribute(String),
    /// Groups are searched by a member attribute that holds the user's DN.
    Search {
        /// Where.
        base: String,
        /// The member attribute (`member`, `uniqueMember`).
        member_attribute: String,
        /// The attribute that is the group's name (`cn`).
        name_attribute: String,
    },
}

/// A system of the company that the configuration names: what `dial` connects to without a permit.
///
/// Only resolving a configuration makes one.
#[derive(Clone, Debug)]
pub struct System {
    what: Arc<str>,
    host: crate::permit::Host,
    port: u16,
    source: Source,
    tls: Option<Arc<BackendTls>>,
}

impl System {
    /// What it is, for messages: `directory corp`, `dns server`, `pool xms`.
    pub fn what(&self) -> &Arc<str> {
        &self.what
    }

    /// Its name or address.
    pub fn host(&self) -> &crate::permit::Host {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From which address it is reached.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How TLS to it is verified, if it speaks TLS.
    pub fn tls(&self) -> Option<&Arc<BackendTls>> {
        self.tls.as_ref()
    }

    /// The same system, HTTP/2 not offered: for what only HTTP/1.1 can carry.
    #[must_use]
    pub fn without_http2(&self) -> Self {
        let mut system = self.clone();
        if let Some(tls) = self.tls.as_ref().filter(|tls| tls.http2) {
            system.tls = Some(Arc::new(BackendTls {
                authorities: tls.authorities.clone(),
                name: tls.name.clone(),
                pins: tls.pins.clone(),
                http2: false,
                post_quantum: tls.post_quantum,
            }));
        }
        system
    }

    /// The same system without TLS: for a probe that only asks whether the port is open.
    #[must_use]
    pub fn without_tls(&self) -> Self {
        Self {
            tls: None,
            ..self.clone()
        }
    }
}

/// Local addresses that outward connections start from; several for more ports, used in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source(pub Arc<[IpAddr]>);

/// How TLS towards a backend is verified.
#[derive(Debug)]
pub struct BackendTls {
    /// Authorities: a PEM file, or the machine's own.
    pub authorities: Authorities,
    /// Name that the certificate must have; `None`: the node's host.
    pub name: Option<Arc<str>>,
    /// SHA-256 of acceptable subject public keys; empty: any that the authorities signed.
    pub pins: Vec<[u8; 32]>,
    /// HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// Also offer X25519MLKEM768 (a `ClientHello` of two packets: old Java chokes on it).
    pub post_quantum: bool,
}

/// Whose signatures are trusted.
#[derive(Clone, Debug)]
pub enum Authorities {
    /// A PEM file.
    File(PathBuf),
    /// What the operating system trusts.
    System,
}

/// Where tunnels and backends may go.
#[derive(Clone, Debug)]
pub struct Network {
    /// Networks that may be reached at all; there is no default.
    pub inside: Vec<IpNet>,
    /// Exact addresses and ports that are allowed although a rule of the house refuses them
    /// (loopback in the demo, a directory that also serves a site).
    pub allow: Vec<SocketAddr>,
    /// The gateway's own public addresses behind NAT: refused as targets.
    pub public_addresses: Vec<IpAddr>,
    /// Default source of outward connections.
    pub source: Source,
    /// Source of tunnels, by target network; first match.
    pub tunnel_sources: Vec<(IpNet, Source)>,
    /// One connection attempt.
    pub connect_timeout: Duration,
    /// Head start of one address family over the next attempt (RFC 8305, section 5).
    pub attempt_delay: Duration,
    /// Idle age after which a kept backend connection is closed.
    pub kept_idle: Duration,
    /// TCP keepalive of outward connections.
    pub keepalive: Duration,
    /// Largest TCP segment either way; `None`: as the interfaces allow.
    pub mss: Option<u16>,
    /// Unacknowledged data for this long ends an outward connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
}

/// Who resolves names.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Servers for names that no zone claims.
    pub servers: Vec<SocketAddr>,
    /// Servers by suffix; the longest suffix wins.
    pub zones: Vec<Zone>,
    /// Source of queries.
    pub source: Source,
    /// One query.
    pub timeout: Duration,
    /// Answers kept.
    pub cache_entries: u64,
    /// Upper bound on the time an answer is kept.
    pub max_ttl: Duration,
}

/// Servers for one suffix.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The suffix, lower case, without dots at its ends.
    pub suffix: Arc<str>,
    /// Its servers.
    pub servers: Vec<SocketAddr>,
    /// Source of queries; empty: the default of `Dns`.
    pub source: Source,
}

/// Interchangeable backends.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// The nodes.
    pub nodes: Vec<System>,
    /// How the load is shared.
    pub strategy: Strategy,
    /// TLS towards the nodes; `None`: plain HTTP.
    pub tls: Option<Arc<BackendTls>>,
    /// How health is probed.
    pub check: Check,
    /// Keeping a device on its node.
    pub persistence: Persistence,
    /// Source of connections to nodes.
    pub source: Source,
    /// Connections kept to each node when idle.
    pub kept_connections: usize,
    /// Requests at once to each node; more are answered with 503.
    pub max_requests: usize,
}

/// How a pool shares the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The node with the fewest requests in hand.
    LeastConnections,
    /// Each in turn.
    RoundRobin,
}

/// How health is probed.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// From one probe to the next.
    pub interval: Duration,
    /// One probe.
    pub timeout: Duration,
    /// Failed probes in a row that take a node out.
    pub fall: usize,
    /// Good probes in a row that put it back.
    pub rise: usize,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// One HTTP request, over TLS when the pool has TLS.
    Http {
        /// Path and query.
        path: String,
        /// `Host`; `None`: the node's.
        host: Option<String>,
        /// Good status codes.
        expect_status: Vec<u16>,
        /// Text that the first 64 KiB of the body must contain.
        expect_body: Option<String>,
    },
    /// None: a node is good until a connection to it fails.
    None,
    /// A TCP connection.
    Tcp,
    /// A TCP connection and a TLS handshake.
    Tls,
}

/// Keeping a device on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Learned from a cookie that the backend sets.
    Cookie {
        /// Its name (`ACNODEID`).
        name: Arc<str>,
        /// Forgotten when not seen for this long.
        idle: Duration,
    },
    /// None.
    None,
}

/// A site or server behind the gateway.
#[derive(Debug)]
pub struct App {
    /// Its name in policies, logs and metrics.
    pub name: Arc<str>,
    /// Host that devices use, lower case.
    pub host: Arc<str>,
    /// Path prefix, whole segments, beginning with `/`.
    pub path: Arc<str>,
    /// Where its requests go.
    pub pool: Arc<Pool>,
    /// Whose credential `Authorization` is.
    pub authorization: Authorization,
    /// `Host` towards the node; `None`: the name that the device used.
    pub upstream_host: Option<Arc<str>>,
    /// Characters besides the usual that a path may hold (`;`).
    pub path_characters: Arc<str>,
    /// To the first byte of an answer.
    pub first_byte: Duration,
    /// Without a byte of the answer.
    pub progress: Duration,
    /// Without a byte either way after an upgrade (WebSocket).
    pub upgrade_idle: Duration,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// Requests that failed before a byte of the answer are tried on another node this often.
    pub retries: u32,
}

/// Whose credential `Authorization` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// The backend's: passes untouched, and no login happens here. Listed as pre-auth.
    Backend,
    /// The gateway's: consumed.
    Gateway,
}

/// Micro-VPN.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Without a byte either way.
    pub idle: Duration,
    /// Without a byte once one side has closed its half.
    pub half_closed: Duration,
    /// From its opening.
    pub absolute: Duration,
    /// Idle limits by port, for mail.
    pub idle_by_port: BTreeMap<u16, Duration>,
    /// Tunnels at once of one session.
    pub max_per_session: usize,
    /// Tunnels opened a second by one session, sustained; twice that as a burst.
    pub opens_per_second: u32,
    /// Bytes of one relay block.
    pub block: usize,
    /// Ports that may be asked for at all; empty: all.
    pub ports: Vec<u16>,
}

/// Cedar files.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The files, in order.
    pub files: Vec<PathBuf>,
}

/// What an operator reaches.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Read-only address: `/healthz`, `/readyz`, `/metrics`.
    pub address: Option<SocketAddr>,
    /// `Host` values accepted there, besides the address itself.
    pub hosts: Vec<String>,
    /// Control socket.
    pub control: Option<PathBuf>,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where the access log goes.
    pub access: LogOutput,
    /// Filter of the diagnostic log (standard error).
    pub level: String,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// A file, opened again at SIGHUP.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
}

#[cfg(test)]
impl System {
    /// A system as a test needs it.
    pub(crate) fn at(host: &str, port: u16, tls: Option<BackendTls>) -> Self {
        Self {
            what: format!("test {host}:{port}").into(),
            host: crate::permit::Host::parse(host).unwrap(),
            port,
            source: Source::default(),
            tls: tls.map(Arc::new),
        }
    }
}
