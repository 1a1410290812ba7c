//! The kinds of text that a configuration is written in: durations, sizes, addresses, URLs.
//!
//! Each kind has one reader. Its name is the `format` in the JSON Schema, by which checking the
//! tree finds the same reader that serde uses afterwards.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use data_encoding::BASE64;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::permit::Host;

/// Why a text is not of its kind, and perhaps what was meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) meant: Option<String>,
}

impl<T: Into<String>> From<T> for Refused {
    fn from(why: T) -> Self {
        Self {
            why: why.into(),
            meant: None,
        }
    }
}

type Read<T> = Result<T, Refused>;

/// Reads a text of the kind that a schema's `format` names, for its problems alone.
pub(super) fn check(format: &str, text: &str) -> Read<()> {
    KINDS
        .iter()
        .find(|(name, _)| *name == format)
        .map_or(Ok(()), |(_, check)| check(text))
}

/// One kind of text: a type, its `format`, its reader; all kinds are found by [`check`].
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $format:literal, $read:path;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug)]
            pub(super) struct $name(pub(super) $inner);

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = Cow::<'de, str>::deserialize(deserializer)?;
                    // The text may be a secret by mistake: it is never repeated.
                    $read(&text).map(Self).map_err(|refused| D::Error::custom(refused.why))
                }
            }

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($name))
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "format": $format })
                }
            }
        )*

        const KINDS: &[(&str, fn(&str) -> Read<()>)] = &[
            $(($format, |text| $read(text).map(drop)),)*
            ("size", |text| read_size(text).map(drop)),
            ("name", read_name),
            ("port", read_port),
        ];
    };
}

kinds! {
    /// An IP address and a port.
    Address(SocketAddr) = "address", read_address;
    /// An LDAP attribute.
    Attribute(String) = "attribute", read_attribute;
    /// A PEM file, or `system`.
    Ca(Option<PathBuf>) = "ca", read_ca;
    /// Characters that a path may hold besides the usual.
    Characters(String) = "characters", read_characters;
    /// The name of a cookie.
    CookieName(String) = "cookie-name", read_cookie_name;
    /// A DNS server, port 53 unless another is written.
    DnsServer(SocketAddr) = "dns-server", read_dns_server;
    /// A DNS name, no address.
    DomainName(String) = "domain-name", read_domain_name;
    /// A time longer than zero.
    Period(Duration) = "duration", read_period;
    /// A time that may be zero.
    PeriodOrZero(Duration) = "duration-or-zero", read_duration;
    /// An LDAP filter.
    Filter(String) = "ldap-filter", read_filter;
    /// A `Host` value: a name or address, perhaps a port.
    HostHeader(String) = "host-header", read_host_header;
    /// An IP address.
    Ip(IpAddr) = "ip-address", read_ip;
    /// The file of a private key, as `file:PATH`.
    KeyFile(PathBuf) = "key-file", read_key_file;
    /// An LDAP server as `ldap://` or `ldaps://`.
    LdapUrl(Url) = "ldap-url", read_ldap_url;
    /// The filter of the diagnostic log.
    LogFilter(String) = "log-filter", read_log_filter;
    /// Where a log goes.
    LogTarget(super::LogOutput) = "log-output", read_log_target;
    /// A network.
    Network(IpNet) = "network", read_network;
    /// A node as `http://` or `https://`.
    NodeUrl(Url) = "node-url", read_node_url;
    /// A file, relative to the file that names it.
    Path(PathBuf) = "path", read_path;
    /// The beginning of a path, whole segments.
    PathPrefix(String) = "path-prefix", read_path_prefix;
    /// Files, with at most one `*` in the last segment.
    Pattern(String) = "file-pattern", read_pattern;
    /// The SHA-256 of a subject public key.
    Pin([u8; 32]) = "pin", read_pin;
    /// Path and query of a probe.
    ProbePath(String) = "probe-path", read_probe_path;
    /// Where a secret is.
    SecretName(SecretPlace) = "secret", read_secret;
    /// Any text that is not empty.
    Text(String) = "text", read_text;
}

/// Where a secret is.
#[derive(Clone, Debug)]
pub(super) enum SecretPlace {
    /// In a variable of the environment.
    Environment(String),
    /// In a file.
    File(PathBuf),
}

/// Where a server is: host, port, and whether it speaks TLS from the first byte.
#[derive(Clone, Debug)]
pub(super) struct Url {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// A number of bytes: `"64KiB"`, or a plain number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => read_size(&text)
                .map(Self)
                .map_err(|refused| D::Error::custom(refused.why)),
        }
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Size")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": "size",
            "minimum": 1,
            "maximum": MAX_SIZE,
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, bytes)| self.0.is_multiple_of(*bytes));
        let (name, bytes) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Period {
    /// So many milliseconds.
    pub(super) const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// So many seconds.
    pub(super) const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written_duration(self.0))
    }
}

impl Serialize for PeriodOrZero {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written_duration(self.0))
    }
}

impl Serialize for PathPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for Attribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for LogFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for LogTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            super::LogOutput::File(path) => {
                serializer.collect_str(&format_args!("file:{}", path.display()))
            }
            super::LogOutput::Off => serializer.serialize_str("off"),
            super::LogOutput::Stdout => serializer.serialize_str("stdout"),
        }
    }
}

/// A duration as the configuration writes it, in the largest unit that is exact.
pub(super) fn written_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let unit = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, unit)| millis.is_multiple_of(u128::from(*unit)));
    match unit {
        Some((name, unit)) if millis > 0 => format!("{}{name}", millis / u128::from(*unit)),
        Some(_) | None => "0s".to_owned(),
    }
}

fn read_period(text: &str) -> Read<Duration> {
    let duration = read_duration(text)?;
    if duration.is_zero() {
        return Err("must be longer than zero".into());
    }
    Ok(duration)
}

fn read_duration(text: &str) -> Read<Duration> {
    let (number, unit) = number_and_unit(text)
        .ok_or("is not a duration: write a number and ms, s, min, h or d, such as \"30s\"")?;
    let Some((_, millis)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit {
            "m" | "mins" | "minute" | "minutes" => "min",
            "sec" | "secs" | "second" | "seconds" | "" => "s",
            "hour" | "hours" => "h",
            "day" | "days" => "d",
            _ => return Err("has an unknown unit: there are ms, s, min, h and d".into()),
        };
        return Err(Refused {
            why: if unit.is_empty() {
                "has no unit: there are ms, s, min, h and d".to_owned()
            } else {
                "has an unknown unit: there are ms, s, min, h and d".to_owned()
            },
            meant: Some(format!("{number}{meant}")),
        });
    };
    number
        .checked_mul(*millis)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| "is longer than 3650 days".into())
}

fn read_size(text: &str) -> Read<u64> {
    let (number, unit) = number_and_unit(text)
        .ok_or("is not a size: write a number and B, KiB, MiB, GiB or TiB, such as \"64KiB\"")?;
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = SIZE_UNITS.iter().find(|(name, _)| {
            name.get(..1)
                .is_some_and(|first| unit.get(..1).is_some_and(|u| u.eq_ignore_ascii_case(first)))
        });
        return Err(Refused {
            why: "has an unknown unit: there are B, KiB, MiB, GiB and TiB".to_owned(),
            meant: meant.map(|(name, _)| format!("{number}{name}")),
        });
    };
    match number.checked_mul(*bytes) {
        Some(0) => Err("must be more than zero".into()),
        Some(size) if size <= MAX_SIZE => Ok(size),
        Some(_) | None => Err("is more than 16 TiB".into()),
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

fn read_address(text: &str) -> Read<SocketAddr> {
    text.parse().map_err(|_not: std::net::AddrParseError| {
        if text.parse::<IpAddr>().is_ok() {
            Refused::from("has no port: write ADDRESS:PORT, or [ADDRESS]:PORT for IPv6")
        } else {
            Refused::from("is not an address: write ADDRESS:PORT, or [ADDRESS]:PORT for IPv6")
        }
    })
}

fn read_dns_server(text: &str) -> Read<SocketAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, 53),
        Err(_not) => text.parse().map_err(|_not: std::net::AddrParseError| {
            "is not the address of a DNS server: write ADDRESS or ADDRESS:PORT"
        })?,
    };
    if address.port() == 0 {
        return Err("has port 0".into());
    }
    Ok(address)
}

fn read_ip(text: &str) -> Read<IpAddr> {
    text.parse::<IpAddr>()
        .map(|address| address.to_canonical())
        .map_err(|_not| "is not an IP address".into())
}

fn read_network(text: &str) -> Read<IpNet> {
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(Refused {
            why: "is not a network: write ADDRESS/LENGTH, such as \"10.0.0.0/8\"".to_owned(),
            meant: text
                .parse::<IpAddr>()
                .ok()
                .map(|address| IpNet::from(address).to_string()),
        });
    };
    if let IpAddr::V6(address) = network.addr()
        && address.to_ipv4_mapped().is_some()
    {
        return Err("is IPv4 inside IPv6: write it as IPv4".into());
    }
    if network.trunc() != network {
        return Err(Refused {
            why: format!(
                "has bits set after the first {}: it is an address, not a network",
                network.prefix_len()
            ),
            meant: Some(network.trunc().to_string()),
        });
    }
    Ok(network)
}

fn read_domain_name(text: &str) -> Read<String> {
    match Host::parse(text) {
        Ok(Host::Name(name)) => Ok(name.to_string()),
        Ok(Host::Address(_)) => Err("is an address: a DNS name is needed here".into()),
        Err(_not) if text.contains("://") => Err(Refused {
            why: "is a URL: a DNS name is needed here".to_owned(),
            meant: text
                .split_once("://")
                .and_then(|(_, rest)| rest.split(['/', ':']).next())
                .filter(|host| Host::parse(host).is_ok())
                .map(str::to_owned),
        }),
        Err(_not) => Err("is not a DNS name".into()),
    }
}

fn read_host_header(text: &str) -> Read<String> {
    let good = Host::parse(text).is_ok_and(|host| !text.contains(':') || !is_v6(&host))
        || crate::permit::Target::parse(text).is_ok();
    if good {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("is not a host, or a host and a port".into())
    }
}

fn is_v6(host: &Host) -> bool {
    matches!(host, Host::Address(IpAddr::V6(_)))
}

fn read_node_url(text: &str) -> Read<Url> {
    read_url(text, [("http://", 80, false), ("https://", 443, true)])
}

fn read_ldap_url(text: &str) -> Read<Url> {
    read_url(text, [("ldap://", 389, false), ("ldaps://", 636, true)])
}

fn read_url(text: &str, schemes: [(&str, u16, bool); 2]) -> Read<Url> {
    let scheme = schemes
        .iter()
        .find_map(|(scheme, port, tls)| Some((text.strip_prefix(scheme)?, *port, *tls)));
    let [(plain, ..), (secure, ..)] = schemes;
    let Some((rest, default, tls)) = scheme else {
        let meant = text.split_once("://").and_then(|(written, rest)| {
            let known = [plain, secure].into_iter();
            let scheme = super::problem::nearest(&format!("{written}://"), known)?;
            (!rest.contains('@')).then(|| format!("{scheme}{rest}"))
        });
        return Err(Refused {
            why: format!("must begin with {plain} or {secure}"),
            meant,
        });
    };
    if rest.contains('@') {
        return Err("must not hold a user name or password".into());
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("must end after host and port: no path, no query".into());
    }
    let bracketed = authority
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'));
    let host_alone = match bracketed {
        Some(v6) => v6
            .parse::<std::net::Ipv6Addr>()
            .ok()
            .map(|address| Host::Address(IpAddr::from(address).to_canonical())),
        None if authority.contains(':') => None,
        None => Host::parse(authority).ok(),
    };
    let (host, port) = match host_alone {
        Some(host) => (host, default),
        None => crate::permit::Target::parse(authority)
            .map(|target| (target.host, target.port))
            .map_err(|_not| "holds neither a DNS name nor an IP address, or a bad port")?,
    };
    Ok(Url { host, port, tls })
}

fn read_path(text: &str) -> Read<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err("is not a path".into());
    }
    if text.starts_with("file:") {
        return Err(Refused {
            why: "is a plain path here, without file:".to_owned(),
            meant: text.strip_prefix("file:").map(str::to_owned),
        });
    }
    Ok(PathBuf::from(text))
}

fn read_ca(text: &str) -> Read<Option<PathBuf>> {
    if text == "system" {
        return Ok(None);
    }
    read_path(text).map(Some)
}

fn read_key_file(text: &str) -> Read<PathBuf> {
    match text.strip_prefix("file:") {
        Some(path) => read_path(path),
        None if text.starts_with("env:") => {
            Err("must be a file, so that it can be renewed: write \"file:PATH\"".into())
        }
        None => Err("must name the key's file: write \"file:PATH\"".into()),
    }
}

fn read_secret(text: &str) -> Read<SecretPlace> {
    if let Some(path) = text.strip_prefix("file:") {
        return read_path(path).map(SecretPlace::File);
    }
    let name = text
        .strip_prefix("env:")
        .ok_or("must say where the secret is, not what it is: \"file:PATH\" or \"env:NAME\"")?;
    let good = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if good {
        Ok(SecretPlace::Environment(name.to_owned()))
    } else {
        Err("must name a variable after env: (upper case letters, digits and _)".into())
    }
}

fn read_pattern(text: &str) -> Read<String> {
    let mut segments = text.rsplit('/');
    let last = segments.next().unwrap_or_default();
    if last.is_empty() || text.contains('\0') {
        return Err("is not a file, nor a pattern of files".into());
    }
    if last.matches('*').count() > 1 || segments.any(|segment| segment.contains('*')) {
        return Err("may have one * in its last segment".into());
    }
    Ok(text.to_owned())
}

fn read_pin(text: &str) -> Read<[u8; 32]> {
    let digest = text
        .strip_prefix("sha256/")
        .ok_or("must begin with sha256/")?;
    BASE64
        .decode(digest.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "must be sha256/ and the base64 of 32 bytes".into())
}

fn read_path_prefix(text: &str) -> Read<String> {
    if !text.starts_with('/') {
        return Err(Refused {
            why: "must begin with /".to_owned(),
            meant: Some(format!("/{text}")),
        });
    }
    if text.len() > 1 && text.ends_with('/') {
        return Err(Refused {
            why: "must not end with /: whole segments are compared".to_owned(),
            meant: Some(format!("/{}", text.trim_matches('/'))),
        });
    }
    let segments = || text.split('/').skip(1);
    if text.len() > 1 && segments().any(|s| s.is_empty() || s == "." || s == "..") {
        return Err("must not hold //, /./ or /../".into());
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !c.is_ascii_graphic() || "%?#;\\\"<>^`{|}".contains(*c))
    {
        return Err(format!("must not hold {bad:?}").into());
    }
    Ok(text.to_owned())
}

fn read_probe_path(text: &str) -> Read<String> {
    if !text.starts_with('/') {
        return Err("must begin with /".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains('#') {
        return Err("must be path and query as sent: no spaces, no #".into());
    }
    Ok(text.to_owned())
}

fn read_cookie_name(text: &str) -> Read<String> {
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err("is not the name of a cookie".into());
    }
    if text.to_ascii_lowercase().starts_with("__host-ravelin") {
        return Err("is a cookie of the gateway itself".into());
    }
    Ok(text.to_owned())
}

/// A `token` character (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn read_characters(text: &str) -> Read<String> {
    let bad = |c: &char| !c.is_ascii_punctuation() || "/\\%?#.".contains(*c);
    match text.chars().find(bad) {
        Some(bad) => Err(format!("must not hold {bad:?}: only other punctuation").into()),
        None => Ok(text.to_owned()),
    }
}

fn read_attribute(text: &str) -> Read<String> {
    let good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b';');
    if good {
        Ok(text.to_owned())
    } else {
        Err("is not the name of an LDAP attribute".into())
    }
}

fn read_filter(text: &str) -> Read<String> {
    let mut depth = 0_u32;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        depth = match byte {
            b'(' => depth.checked_add(1),
            b')' => depth.checked_sub(1),
            _ if depth == 0 => None,
            _ => Some(depth),
        }
        .ok_or("is not one LDAP filter in parentheses, such as \"(objectClass=person)\"")?;
        if depth == 0 && bytes.peek().is_some() {
            return Err("is more than one LDAP filter: join them with (&…)".into());
        }
    }
    if depth != 0 || text.is_empty() {
        return Err(
            "is not one LDAP filter in parentheses, such as \"(objectClass=person)\"".into(),
        );
    }
    Ok(text.to_owned())
}

fn read_log_target(text: &str) -> Read<super::LogOutput> {
    match text {
        "stdout" => Ok(super::LogOutput::Stdout),
        "off" => Ok(super::LogOutput::Off),
        _ => match text.strip_prefix("file:") {
            Some(path) => read_path(path).map(super::LogOutput::File),
            None => Err("must be \"stdout\", \"off\" or \"file:PATH\"".into()),
        },
    }
}

fn read_log_filter(text: &str) -> Read<String> {
    // A single unknown word would be read as the name of a module, and everything else be silent.
    let alone = !text.contains(['=', ',', '[']);
    let level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    if alone && !level {
        return Err(Refused {
            why: format!("is not a level: there are {}", LEVELS.join(", ")),
            meant: super::problem::nearest(text, LEVELS.iter().copied()),
        });
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_not) => {
            Err("is not a filter of log events, such as \"info,ravelin::tls=debug\"".into())
        }
    }
}

fn read_text(text: &str) -> Read<String> {
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".into());
    }
    Ok(text.to_owned())
}

fn read_name(text: &str) -> Read<()> {
    let good = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if good {
        Ok(())
    } else {
        Err("is not a name: 1 to 64 letters, digits, - and _".into())
    }
}

fn read_port(text: &str) -> Read<()> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 && text == port.to_string() => Ok(()),
        Ok(_) | Err(_) => Err("is not a port: 1 to 65535".into()),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// By growing size; in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// By growing size; in bytes.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Far below where adding to an instant would overflow.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 86_400);

const MAX_SIZE: u64 = 16 << 40;
