//! The TOML as written: one struct for each table, defaults beside them, no logic.
//!
//! The JSON Schema, the reference and the checks of keys and types all come from these structs.
//! A key that must be there is an `Option` marked `required`, which the schema takes up into its
//! table's list: checking reports it when it is missing, and the rest can still be read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{
    Address, Attribute, Ca, Characters, CookieName, DnsServer, DomainName, Filter, HostHeader, Ip,
    KeyFile, LdapUrl, LogFilter, LogTarget, Network, NodeUrl, Path, PathPrefix, Pattern, Period,
    PeriodOrZero, Pin, ProbePath, SecretName, Size, Text,
};

/// A table of tables by name. The name is a key of its own in messages.
pub(super) type Named<T> = BTreeMap<String, T>;

/// The configuration of a ravelin gateway.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "ravelin.toml")]
pub(super) struct File {
    /// The gateway's own name. Login, device tokens and tunnels live here and nowhere else.
    #[schemars(extend("required" = true))]
    pub(super) host: Option<DomainName>,
    /// The stand-ins of `ravelin demo` are allowed, and every listener must be on loopback.
    pub(super) demo: bool,
    /// 32 bytes or more that two nodes share, so that a ticket or cookie of one is good at the
    /// other. Without it every start makes a fresh key.
    pub(super) shared_key: Option<SecretName>,
    /// Where devices connect, by name.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub(super) listener: Named<Listener>,
    /// Certificates that are shown to devices, by name.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub(super) certificate: Named<Certificate>,
    /// TLS towards devices.
    pub(super) tls: Tls,
    /// What one device may cost.
    pub(super) limits: Limits,
    /// Login, sessions and guessing.
    pub(super) login: Login,
    /// Who knows users and their passwords, by name.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub(super) directory: Named<Directory>,
    /// Where tunnels and backends may go.
    #[schemars(extend("required" = true))]
    pub(super) network: Option<Networks>,
    /// Who resolves names.
    pub(super) dns: Dns,
    /// Interchangeable backends, by name.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub(super) pool: Named<Pool>,
    /// Sites and servers behind the gateway, by name.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub(super) app: Named<App>,
    /// The micro-VPN.
    pub(super) tunnel: Tunnel,
    /// Who may do what.
    #[schemars(extend("required" = true))]
    pub(super) policy: Option<Policy>,
    /// What an operator reaches.
    pub(super) admin: Admin,
    /// Logs.
    pub(super) log: Log,
}

/// Where devices connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listener {
    /// Addresses that it binds; with port 0 the kernel chooses one.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) addresses: Option<Vec<Address>>,
    /// Names of certificates. The first is shown when no name fits.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) certificates: Option<Vec<String>>,
    /// Bind addresses that this machine does not hold yet (VRRP).
    pub(super) freebind: bool,
    /// TCP keepalive of devices' connections, below the firewalls' limit on idle ones.
    pub(super) keepalive: Period,
    /// Largest TCP segment either way, where ICMP does not tell what a path can carry.
    #[schemars(range(min = 536, max = 32_767))]
    pub(super) mss: Option<u16>,
    /// Balancers in front that send a PROXY protocol header, always; all others must not.
    pub(super) proxy_protocol_from: Vec<Network>,
    /// Whether devices are asked for a certificate.
    pub(super) client_certificate: ClientCertificate,
    /// The authorities of devices' certificates (PEM). Needed when devices are asked for one.
    pub(super) client_ca: Option<Path>,
    /// Refuse an unknown name in the handshake instead of with 421.
    pub(super) strict_sni: bool,
    /// Serve `CONNECT` and absolute-form requests here.
    pub(super) tunnels: bool,
    /// Connections at once; more wait in the kernel's backlog.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_connections: usize,
    /// Connections at once from one source (/32 or /64).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_connections_per_source: usize,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            addresses: None,
            certificates: None,
            freebind: false,
            keepalive: Period::seconds(45),
            mss: None,
            proxy_protocol_from: Vec::new(),
            client_certificate: ClientCertificate::None,
            client_ca: None,
            strict_sni: false,
            tunnels: true,
            max_connections: 16_000,
            max_connections_per_source: 2_000,
        }
    }
}

/// Whether devices are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ClientCertificate {
    /// Not asked for.
    None,
    /// Asked for; a device may have none.
    Optional,
    /// Asked for; a device without one is refused in the handshake.
    Required,
}

/// A certificate chain and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Certificate {
    /// The chain (PEM), leaf first.
    #[schemars(extend("required" = true))]
    pub(super) chain: Option<Path>,
    /// The key (PEM), as `file:PATH`.
    #[schemars(extend("required" = true))]
    pub(super) key: Option<KeyFile>,
}

/// TLS towards devices.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    /// Speak TLS 1.2 besides 1.3.
    pub(super) tls12: bool,
    /// How long one ticket key signs; it is accepted for twice as long. "0s": no resumption.
    pub(super) ticket_lifetime: PeriodOrZero,
    /// How often certificate files are looked at for changes.
    pub(super) reload_interval: Period,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            tls12: true,
            ticket_lifetime: PeriodOrZero(Period::seconds(6 * HOUR).0),
            reload_interval: Period::seconds(10),
        }
    }
}

/// What one device may cost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// From accept to the end of the TLS handshake (and PROXY header).
    pub(super) handshake: Period,
    /// From the first wait for a request's head to its last byte.
    pub(super) head: Period,
    /// Without a request on a kept connection.
    pub(super) idle: Period,
    /// Without a byte of a request's body, or of the device taking the answer.
    pub(super) body_progress: Period,
    /// Bytes of a request's head; from 1 KiB to 1 MiB.
    pub(super) head_bytes: Size,
    /// Header fields of a request.
    #[schemars(range(min = 1, max = 1_000))]
    pub(super) head_fields: usize,
    /// Bytes of a request target.
    pub(super) target_bytes: Size,
    /// Bytes of a body that nobody read, drained before a connection is used again.
    pub(super) drain_bytes: Size,
    /// Streams at once on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) h2_streams: u32,
    /// HTTP/2 window of one stream; at most 2 GiB less one byte.
    pub(super) h2_stream_window: Size,
    /// HTTP/2 window of a connection; at most 2 GiB less one byte.
    pub(super) h2_connection_window: Size,
    /// Resets that one HTTP/2 connection may cause before it is closed.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) h2_resets: usize,
    /// From SIGTERM to the end of the last connection.
    pub(super) drain: Period,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Period::seconds(5),
            head: Period::seconds(10),
            idle: Period::seconds(MINUTE),
            body_progress: Period::seconds(30),
            head_bytes: Size(32 << 10),
            head_fields: 100,
            target_bytes: Size(8 << 10),
            drain_bytes: Size(256 << 10),
            h2_streams: 250,
            h2_stream_window: Size(1 << 20),
            h2_connection_window: Size(4 << 20),
            h2_resets: 100,
            drain: Period::seconds(30),
        }
    }
}

/// Login, sessions and guessing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Login {
    /// What the login page calls this gateway.
    pub(super) title: Text,
    /// Names of directories, asked in this order. May be left out while there is only one.
    pub(super) directories: Option<Vec<String>>,
    /// Failed logins are answered at the next multiple of this.
    pub(super) step: Period,
    /// Failures before a user, or a source, is slowed down.
    #[schemars(range(min = 1, max = 1_000))]
    pub(super) attempts: u32,
    /// In which time those failures count.
    pub(super) attempts_window: Period,
    /// Sources that many people share (carrier NAT): no limit by source.
    pub(super) shared_sources: Vec<Network>,
    /// Password checks at once.
    #[schemars(range(min = 1, max = 1_000))]
    pub(super) checks_at_once: usize,
    /// Logins that wait for a check; more are answered with 503.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) check_queue: usize,
    /// A session without a request.
    pub(super) session_idle: Period,
    /// A session from its login.
    pub(super) session_absolute: Period,
    /// A device token from its issue.
    pub(super) device_token: Period,
    /// A browser's token before it is renewed from the session's record.
    pub(super) browser_token: Period,
    /// How long a correct Basic credential is remembered.
    pub(super) basic_memory: Period,
    /// Sessions in all.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub(super) max_sessions: usize,
    /// Sessions of one user.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_sessions_per_user: usize,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            title: Text("ravelin".to_owned()),
            directories: None,
            step: Period::millis(500),
            attempts: 5,
            attempts_window: Period::seconds(15 * MINUTE),
            shared_sources: Vec::new(),
            checks_at_once: 8,
            check_queue: 256,
            session_idle: Period::seconds(30 * MINUTE),
            session_absolute: Period::seconds(8 * HOUR),
            device_token: Period::seconds(7 * DAY),
            browser_token: Period::seconds(5 * MINUTE),
            basic_memory: Period::seconds(5 * MINUTE),
            max_sessions: 200_000,
            max_sessions_per_user: 50,
        }
    }
}

/// Who knows users and their passwords.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Directory {
    /// LDAP or Active Directory.
    Ldap(Box<Ldap>),
    /// A file of `name:group,group:hash` lines.
    Users(Users),
}

/// LDAP or Active Directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ldap {
    /// Servers in order of preference: `ldaps://HOST` or `ldap://HOST`.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) servers: Option<Vec<LdapUrl>>,
    /// Protect `ldap://` servers with `StartTLS`. `false` needs `plain_ldap`.
    pub(super) start_tls: bool,
    /// "I accept": passwords cross the network readable, because `start_tls` is off.
    pub(super) plain_ldap: Option<String>,
    /// Authorities of the servers' certificates: a PEM file, or "system".
    pub(super) ca: Option<Ca>,
    /// The name that the servers' certificates have, when it is not the host.
    pub(super) tls_name: Option<DomainName>,
    /// Acceptable keys of the servers, as `sha256/` and the base64 of the SPKI's hash.
    pub(super) pins: Vec<Pin>,
    /// Distinguished name of the service account; Active Directory also takes `user@domain`.
    #[schemars(extend("required" = true))]
    pub(super) bind_dn: Option<Text>,
    /// Its password.
    #[schemars(extend("required" = true))]
    pub(super) bind_password: Option<SecretName>,
    /// Where users are searched.
    #[schemars(extend("required" = true))]
    pub(super) user_base: Option<Text>,
    /// What holds the name that a user types: `uid`, `sAMAccountName`, `mail`.
    pub(super) user_attribute: Attribute,
    /// What a user must match besides.
    pub(super) user_filter: Option<Filter>,
    /// The user's attribute that holds the DNs of groups; `memberOf` unless `group_base` is set.
    pub(super) group_attribute: Option<Attribute>,
    /// Where groups are searched, instead of `group_attribute`.
    pub(super) group_base: Option<Text>,
    /// The groups' attribute that holds the DNs of members. With `group_base`; else `member`.
    pub(super) group_member: Option<Attribute>,
    /// The groups' attribute that is their name. With `group_base`; else `cn`.
    pub(super) group_name: Option<Attribute>,
    /// TCP and TLS together.
    pub(super) connect_timeout: Period,
    /// One operation.
    pub(super) operation_timeout: Period,
    /// One whole login.
    pub(super) total_timeout: Period,
    /// Bytes of one message from the server; from 64 KiB to 64 MiB.
    pub(super) max_message: Size,
    /// Addresses that connections start from; else `network.source`.
    pub(super) source: Option<Vec<Ip>>,
}

impl Default for Ldap {
    fn default() -> Self {
        Self {
            servers: None,
            start_tls: true,
            plain_ldap: None,
            ca: None,
            tls_name: None,
            pins: Vec::new(),
            bind_dn: None,
            bind_password: None,
            user_base: None,
            user_attribute: Attribute("uid".to_owned()),
            user_filter: None,
            group_attribute: None,
            group_base: None,
            group_member: None,
            group_name: None,
            connect_timeout: Period::seconds(2),
            operation_timeout: Period::seconds(5),
            total_timeout: Period::seconds(10),
            max_message: Size(1 << 20),
            source: None,
        }
    }
}

/// A file of users.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Users {
    /// The file: `name:group,group:hash` lines (`ravelin hash-password` makes the hashes).
    #[schemars(extend("required" = true))]
    pub(super) file: Option<Path>,
}

/// Where tunnels and backends may go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Networks {
    /// Networks that may be reached at all. There is no default.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) inside: Option<Vec<Network>>,
    /// Exact addresses and ports that are allowed although a rule of the house refuses them.
    pub(super) allow: Vec<Address>,
    /// The gateway's own public addresses behind NAT: refused as targets.
    pub(super) public_addresses: Vec<Ip>,
    /// Addresses that outward connections start from: what the inner firewall's rules name.
    pub(super) source: Vec<Ip>,
    /// Other sources for tunnels, by target network; the first that fits.
    pub(super) tunnel_source: Vec<TunnelSource>,
    /// One connection attempt.
    pub(super) connect_timeout: Period,
    /// Head start of one address over the next attempt.
    pub(super) attempt_delay: Period,
    /// Age at which an idle backend connection is closed. Keep it below the firewalls' own.
    pub(super) kept_idle: Period,
    /// TCP keepalive of outward connections.
    pub(super) keepalive: Period,
    /// Largest TCP segment either way, where ICMP does not tell what a path can carry.
    #[schemars(range(min = 536, max = 32_767))]
    pub(super) mss: Option<u16>,
    /// Unacknowledged data for this long ends an outward connection.
    pub(super) user_timeout: Period,
}

impl Default for Networks {
    fn default() -> Self {
        Self {
            inside: None,
            allow: Vec::new(),
            public_addresses: Vec::new(),
            source: Vec::new(),
            tunnel_source: Vec::new(),
            connect_timeout: Period::seconds(5),
            attempt_delay: Period::millis(250),
            kept_idle: Period::seconds(4 * MINUTE),
            keepalive: Period::seconds(30),
            mss: None,
            user_timeout: Period::seconds(30),
        }
    }
}

/// Another source for tunnels to one network.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TunnelSource {
    /// The targets.
    #[schemars(extend("required" = true))]
    pub(super) network: Option<Network>,
    /// Addresses that tunnels to them start from.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) source: Option<Vec<Ip>>,
}

/// Who resolves names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dns {
    /// Servers for names that no zone claims.
    pub(super) servers: Vec<DnsServer>,
    /// Addresses that queries start from; else `network.source`.
    pub(super) source: Option<Vec<Ip>>,
    /// One query.
    pub(super) timeout: Period,
    /// Answers kept.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) cache_entries: u64,
    /// The longest that an answer is kept.
    pub(super) max_ttl: Period,
    /// Other servers, by the suffix of names; the longest suffix wins.
    #[schemars(extend("propertyNames" = { "format": "domain-name" }))]
    pub(super) zone: Named<Zone>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            source: None,
            timeout: Period::seconds(2),
            cache_entries: 8192,
            max_ttl: Period::seconds(HOUR),
            zone: Named::new(),
        }
    }
}

/// Servers for one suffix.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Zone {
    /// Its servers.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) servers: Option<Vec<DnsServer>>,
    /// Addresses that queries start from; else `dns.source`.
    pub(super) source: Option<Vec<Ip>>,
}

/// Interchangeable backends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pool {
    /// The nodes: `http://HOST:PORT`, or all of them `https://HOST:PORT`.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) nodes: Option<Vec<NodeUrl>>,
    /// How the load is shared.
    pub(super) strategy: Strategy,
    /// Authorities of the nodes' certificates: a PEM file, or "system", which is the default.
    pub(super) ca: Option<Ca>,
    /// The name that the nodes' certificates have, when it is not the host.
    pub(super) tls_name: Option<DomainName>,
    /// Acceptable keys of the nodes, as `sha256/` and the base64 of the SPKI's hash.
    pub(super) pins: Vec<Pin>,
    /// Offer HTTP/2 to the nodes.
    pub(super) http2: bool,
    /// Offer X25519MLKEM768 too. Old Java chokes on the longer handshake.
    pub(super) post_quantum: bool,
    /// How health is probed.
    pub(super) check: Check,
    /// Keep a device on its node.
    pub(super) persistence: Option<Persistence>,
    /// Addresses that connections start from; else `network.source`.
    pub(super) source: Option<Vec<Ip>>,
    /// Idle connections kept to each node.
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) kept_connections: usize,
    /// Requests at once to each node; more are answered with 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_requests: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            nodes: None,
            strategy: Strategy::RoundRobin,
            ca: None,
            tls_name: None,
            pins: Vec::new(),
            http2: false,
            post_quantum: false,
            check: Check::default(),
            persistence: None,
            source: None,
            kept_connections: 64,
            max_requests: 1000,
        }
    }
}

/// How a pool shares the load.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Strategy {
    /// The node with the fewest requests in hand.
    LeastConnections,
    /// Each in turn.
    RoundRobin,
}

/// How health is probed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Check {
    /// What is done; `tls` for `https://` nodes and `tcp` for others, unless written.
    #[serde(rename = "type")]
    pub(super) kind: Option<CheckType>,
    /// From one probe to the next.
    pub(super) interval: Period,
    /// One probe; shorter than the interval.
    pub(super) timeout: Period,
    /// Failed probes in a row that take a node out.
    #[schemars(range(min = 1, max = 100))]
    pub(super) fall: usize,
    /// Good probes in a row that put it back.
    #[schemars(range(min = 1, max = 100))]
    pub(super) rise: usize,
    /// With type `http`: path and query; else `/`.
    pub(super) path: Option<ProbePath>,
    /// With type `http`: the `Host` header; else the node's host.
    pub(super) host: Option<HostHeader>,
    /// With type `http`: good status codes; else 200.
    #[schemars(length(min = 1), inner(range(min = 100, max = 599)))]
    pub(super) expect_status: Option<Vec<u16>>,
    /// With type `http`: text that the first 64 KiB of the body must contain.
    #[schemars(length(min = 1))]
    pub(super) expect_body: Option<String>,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: None,
            interval: Period::seconds(10),
            timeout: Period::seconds(3),
            fall: 3,
            rise: 2,
            path: None,
            host: None,
            expect_status: None,
            expect_body: None,
        }
    }
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CheckType {
    /// One HTTP request, over TLS when the nodes are `https://`.
    Http,
    /// None: a node is good until a connection to it fails.
    None,
    /// A TCP connection.
    Tcp,
    /// A TCP connection and a TLS handshake.
    Tls,
}

/// Keeping a device on its node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Persistence {
    /// The cookie of the backend that it is learned from.
    #[schemars(extend("required" = true))]
    pub(super) cookie: Option<CookieName>,
    /// Forgotten when not seen for this long.
    pub(super) idle: Period,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            cookie: None,
            idle: Period::seconds(8 * HOUR),
        }
    }
}

/// A site or server behind the gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct App {
    /// The host that devices use.
    #[schemars(extend("required" = true))]
    pub(super) host: Option<DomainName>,
    /// Path prefix, whole segments. Apps on one host share its origin: trust them alike.
    pub(super) path: PathPrefix,
    /// Name of the pool.
    #[schemars(extend("required" = true))]
    pub(super) pool: Option<String>,
    /// Whose credential `Authorization` is.
    pub(super) authorization: Authorization,
    /// `Host` towards the node; else the name that the device used.
    pub(super) upstream_host: Option<HostHeader>,
    /// Characters besides the usual that a path may hold, such as `;` for Tomcat.
    pub(super) path_characters: Option<Characters>,
    /// To the first byte of an answer.
    pub(super) first_byte: Period,
    /// Without a byte of the answer.
    pub(super) progress: Period,
    /// Without a byte either way after an upgrade (WebSocket).
    pub(super) upgrade_idle: Period,
    /// Bytes of a request's body.
    pub(super) max_body: Size,
    /// How often a request that failed before a byte of the answer is tried on another node.
    #[schemars(range(min = 0, max = 10))]
    pub(super) retries: u32,
}

impl Default for App {
    fn default() -> Self {
        Self {
            host: None,
            path: PathPrefix("/".to_owned()),
            pool: None,
            authorization: Authorization::Gateway,
            upstream_host: None,
            path_characters: None,
            first_byte: Period::seconds(MINUTE),
            progress: Period::seconds(MINUTE),
            upgrade_idle: Period::seconds(15 * MINUTE),
            max_body: Size(100 << 20),
            retries: 1,
        }
    }
}

/// Whose credential `Authorization` is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Authorization {
    /// The backend's: it passes untouched, and the gateway asks for no login.
    Backend,
    /// The gateway's: consumed.
    Gateway,
}

/// The micro-VPN.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tunnel {
    /// Without a byte either way.
    pub(super) idle: Period,
    /// Without a byte once one side has closed its half.
    pub(super) half_closed: Period,
    /// From its opening.
    pub(super) absolute: Period,
    /// Other idle limits, by port: `{ 993 = "35min" }`.
    #[schemars(extend("propertyNames" = { "format": "port" }))]
    pub(super) idle_by_port: Named<Period>,
    /// Tunnels at once of one session.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_per_session: usize,
    /// Tunnels opened a second by one session, sustained; twice that as a burst.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) opens_per_second: u32,
    /// Bytes of a long flow's relay blocks, one each way; from 4 KiB to 1 MiB.
    pub(super) block: Size,
    /// Ports that may be asked for at all; empty: whatever the policies say.
    #[schemars(inner(range(min = 1, max = 65535)))]
    pub(super) ports: Vec<u16>,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            idle: Period::seconds(15 * MINUTE),
            half_closed: Period::seconds(5 * MINUTE),
            absolute: Period::seconds(DAY),
            idle_by_port: Named::new(),
            max_per_session: 256,
            opens_per_second: 50,
            block: Size(256 << 10),
            ports: Vec::new(),
        }
    }
}

/// Who may do what.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    /// Cedar files, in order; `policies/*.cedar` stands for all that match, sorted.
    #[schemars(extend("required" = true), length(min = 1))]
    pub(super) files: Option<Vec<Pattern>>,
}

/// What an operator reaches.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// Read-only address: `/healthz`, `/readyz`, `/metrics`.
    pub(super) address: Option<Address>,
    /// `Host` values accepted there besides the address itself.
    pub(super) hosts: Vec<HostHeader>,
    /// The control socket of the `ravelin` commands.
    pub(super) control: Option<Path>,
}

/// Logs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// The access log: `"stdout"`, `"off"` or `"file:PATH"` (opened again at SIGHUP).
    pub(super) access: LogTarget,
    /// Filter of the diagnostic log (standard error).
    pub(super) level: LogFilter,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            access: LogTarget(super::LogOutput::Stdout),
            level: LogFilter("info".to_owned()),
        }
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
