//! Header fields that must not pass from one side to the other, and those that we add ourselves.

use std::fmt;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, COOKIE, HOST, LOCATION, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, REFRESH, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
    },
    uri::Scheme,
};

pub use self::forwarded::Forwarded;
use super::head;
use crate::permit::Host;

mod forwarded;

/// Drops what was meant for one hop only (RFC 9110, section 7.6.1). `Trailer` stays: what it
/// announces is passed on.
///
/// `Connection` may name more fields than the fixed list; those go as well. Call this before
/// adding fields of ours: a device could name those too.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none: one look at each name is less than a search for every field.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        // What is said most often names no field, or one that goes anyway.
        .filter(|name| {
            !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive")
        })
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        // A request without these would be another request.
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Drops every field by which a device could claim what only we may say (rule R23).
///
/// Names are compared in lower case and with `_` as `-`, as many backends do. `also` are further
/// names, in that form; one that ends in `*` stands for all that begin so. Fields that frame a
/// request, or are for one hop, go when they are written with `_`: nobody here reads those.
pub fn strip_identity(headers: &mut HeaderMap, also: &[&str]) {
    let claimed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_identity(name.as_str(), also) || is_disguised(name.as_str()))
        .cloned()
        .collect();
    for name in &claimed {
        headers.remove(name);
    }
}

/// Takes our own cookies out of `Cookie`: no backend ever sees them.
pub fn strip_cookies(headers: &mut HeaderMap) {
    let ours = |value: &HeaderValue| cookies(value.as_bytes()).any(|(name, _)| is_our_cookie(name));
    if !headers.get_all(COOKIE).iter().any(ours) {
        return;
    }
    let mut rest = Vec::new();
    for value in headers.get_all(COOKIE) {
        for (name, cookie) in cookies(value.as_bytes()) {
            if !is_our_cookie(name) {
                if !rest.is_empty() {
                    rest.extend_from_slice(b"; ");
                }
                rest.extend_from_slice(cookie);
            }
        }
    }
    headers.remove(COOKIE);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(rest))
        && !value.is_empty()
    {
        headers.insert(COOKIE, value);
    }
}

/// Drops every `Set-Cookie` by which a backend would set one of our cookies. Gives their names,
/// for the log.
pub fn strip_set_cookies(headers: &mut HeaderMap) -> Vec<String> {
    let mut dropped = Vec::new();
    edit_all(headers, &SET_COOKIE, |value| {
        let name = cookies(value.as_bytes()).next().map(|(name, _)| name)?;
        if is_our_cookie(name) {
            dropped.push(String::from_utf8_lossy(name).into_owned());
            return Some(None);
        }
        None
    });
    dropped
}

/// Joins cookies that HTTP/2 sent as crumbs (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = first.as_bytes().to_vec();
        for crumb in [second].into_iter().chain(crumbs) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        headers.remove(COOKIE);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
            headers.insert(COOKIE, value);
        }
    }
}

/// Drops trailers that could change what was already decided (RFC 9110, section 6.5.1).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    if trailers.is_empty() {
        return;
    }
    strip_identity(trailers, &NEVER_TRAILERS);
}

/// Host and port that a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Name or address, canonical.
    pub host: Host,
    /// The port, where the device wrote one.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host[:port]`, strictly.
    ///
    /// # Errors
    ///
    /// When it is not a DNS name or a strictly written address, or the port is no port.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let (host, port) = head::authority(text).ok_or(Error::Invalid)?;
        let host = host
            .strip_prefix(b"[")
            .and_then(|host| host.strip_suffix(b"]"))
            .unwrap_or(host);
        let host = std::str::from_utf8(host).map_err(|_not_text| Error::Invalid)?;
        if port == Some(0) {
            return Err(Error::Invalid);
        }
        Ok(Self {
            host: Host::parse(host).map_err(|_not_a_host| Error::Invalid)?,
            port,
        })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

/// The one text that says for which authority a request is; `None` when there is none, or several.
pub fn written_authority<B>(request: &Request<B>) -> Option<&[u8]> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (request.uri().authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => Some(authority.as_str().as_bytes()),
        (None, Some(host), None) => Some(host.as_bytes()),
        _ => None,
    }
}

/// The authority that a request is for: the target of `CONNECT`, else a host of ours or a site.
///
/// That of an absolute target or `:authority` counts, and `Host` must not say anything else:
/// backends differ in which of the two they believe. With `CONNECT` `Host` is not looked at.
///
/// # Errors
///
/// When there is none, it is not written strictly, or the two differ.
pub fn authority_of<B>(request: &Request<B>) -> Result<Authority, Error> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.as_bytes()),
        (Some(_), Some(_)) => return Err(Error::Invalid),
    };
    let uri = request.uri();
    match (uri.authority(), host) {
        (None, None) => Err(Error::Missing),
        (None, Some(host)) => Authority::parse(host),
        (Some(authority), Some(host)) if request.method() != Method::CONNECT => {
            let authority = Authority::parse(authority.as_str().as_bytes())?;
            let host = Authority::parse(host)?;
            let default = if uri.scheme() == Some(&Scheme::HTTP) {
                HTTP
            } else {
                HTTPS
            };
            let same = authority.host == host.host
                && authority.port.unwrap_or(default) == host.port.unwrap_or(default);
            if same {
                Ok(authority)
            } else {
                Err(Error::Mismatch)
            }
        }
        (Some(authority), _) => Authority::parse(authority.as_str().as_bytes()),
    }
}

/// Why a request has no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither a DNS name nor a strictly written address, or several.
    #[error("the request's authority is invalid")]
    Invalid,
    /// `Host` and the target say different things.
    #[error("Host differs from the request's target")]
    Mismatch,
    /// There is none.
    #[error("the request names no host")]
    Missing,
}

/// Gives the URLs that an answer points to the origin by which devices reach them.
///
/// `outside` maps an origin of the inside to ours (`https://apps.example.com`), and gives `None`
/// for every name that is not configured: those are left alone, as are relative references.
pub fn map_locations(headers: &mut HeaderMap, outside: impl Fn(&Authority) -> Option<String>) {
    for name in [LOCATION, CONTENT_LOCATION] {
        edit_all(headers, &name, |value| {
            map_url(value.to_str().ok()?, &outside).map(|url| value_of(&url))
        });
    }
    edit_all(headers, &REFRESH, |value| {
        let text = value.to_str().ok()?;
        let place = text.to_ascii_lowercase().find("url=")?.checked_add(4)?;
        let (start, url) = text.split_at_checked(place)?;
        let url = url.trim().trim_matches(['"', '\'']);
        map_url(url, &outside).map(|url| value_of(&format!("{start}{url}")))
    });
}

/// Takes `Domain` off cookies that a backend sets for its inside name: they become cookies of the
/// one host that the device used.
pub fn map_cookie_domains(headers: &mut HeaderMap, inside: &str, outside: &str) {
    let covers = |domain: &str, host: &str| {
        let host = host.to_ascii_lowercase();
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    edit_all(headers, &SET_COOKIE, |value| {
        let text = value.to_str().ok()?;
        let is_inside = |attribute: &str| {
            attribute.split_once('=').is_some_and(|(name, domain)| {
                let domain = domain.trim().trim_start_matches('.').to_ascii_lowercase();
                name.trim().eq_ignore_ascii_case("domain")
                    && !domain.is_empty()
                    && covers(&domain, inside)
                    && !covers(&domain, outside)
            })
        };
        let mut parts = text.split(';');
        let cookie = parts.next()?;
        if !parts.clone().any(is_inside) {
            return None;
        }
        let kept: Vec<&str> = [cookie]
            .into_iter()
            .chain(parts.filter(|attribute| !is_inside(attribute)))
            .collect();
        Some(value_of(&kept.join(";")))
    });
}

fn map_url(url: &str, outside: impl Fn(&Authority) -> Option<String>) -> Option<String> {
    let (scheme, rest) = url.split_once("//")?;
    let known = scheme.is_empty()
        || scheme.eq_ignore_ascii_case("https:")
        || scheme.eq_ignore_ascii_case("http:");
    if !known {
        return None;
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end)?;
    let mut authority = Authority::parse(authority.as_bytes()).ok()?;
    let default = if scheme.eq_ignore_ascii_case("http:") {
        HTTP
    } else {
        HTTPS
    };
    authority.port = authority.port.or(Some(default));
    outside(&authority).map(|origin| format!("{origin}{rest}"))
}

/// Replaces or drops values of one field; `None` from `edit` leaves a value as it is.
fn edit_all(
    headers: &mut HeaderMap,
    name: &HeaderName,
    mut edit: impl FnMut(&HeaderValue) -> Option<Option<HeaderValue>>,
) {
    let edits: Vec<_> = headers.get_all(name).iter().map(&mut edit).collect();
    if edits.iter().all(Option::is_none) {
        return;
    }
    let old: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for (old, edit) in old.into_iter().zip(edits) {
        if let Some(value) = edit.unwrap_or(Some(old)) {
            headers.append(name, value);
        }
    }
}

fn value_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// Name and whole text of each cookie of a `Cookie` value; attributes too, of a `Set-Cookie`.
///
/// A cookie without a name (`=a=b`) has that of what is in it: browsers have sent it back as
/// `a=b`.
fn cookies(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|&byte| byte == b';').map(|cookie| {
        let cookie = cookie.trim_ascii();
        let start = cookie
            .iter()
            .position(|&byte| byte != b'=' && !byte.is_ascii_whitespace())
            .unwrap_or_default();
        let named = cookie.get(start..).unwrap_or_default();
        let name = named.split(|&byte| byte == b'=').next();
        (name.unwrap_or_default().trim_ascii(), cookie)
    })
}

fn is_our_cookie(name: &[u8]) -> bool {
    name.get(..OUR_COOKIES.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(OUR_COOKIES))
}

fn is_identity(name: &str, also: &[&str]) -> bool {
    let matches = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => {
            name.len() >= start.len() && name.bytes().zip(start.bytes()).all(same_character)
        }
        None => {
            name.len() == pattern.len() && name.bytes().zip(pattern.bytes()).all(same_character)
        }
    };
    identity(name).iter().any(matches) || also.iter().any(matches)
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// What a backend that takes `_` for `-` would read as the framing of the request (R19).
fn is_disguised(name: &str) -> bool {
    let reads_as = |ours: &HeaderName| {
        let ours = ours.as_str();
        name.len() == ours.len() && name.bytes().zip(ours.bytes()).all(same_character)
    };
    name.contains('_') && (reads_as(&CONTENT_LENGTH) || HOP_BY_HOP.iter().any(reads_as))
}

fn same_character((of_device, ours): (u8, u8)) -> bool {
    of_device.to_ascii_lowercase() == ours || (of_device == b'_' && ours == b'-')
}

/// Every cookie of ours begins so.
const OUR_COOKIES: &[u8] = b"__Host-ravelin";

/// Who it is, where it comes from, and what it asks for is never the device's word. The last of
/// `x` make some backends serve another path than the one that was judged.
///
/// By their first letter, which no `_` stands for: most names of a request are none of these.
fn identity(name: &str) -> &'static [&'static str] {
    match name.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'c') => &["cf-connecting-ip", "client-cert*"],
        Some(b'f') => &["fastly-client-ip", "forwarded", "front-end-https"],
        Some(b'p') => &["proxy"],
        Some(b'r') => &["remote-user"],
        Some(b's') => &["ssl-client-*"],
        Some(b't') => &["true-client-ip"],
        Some(b'v') => &["via"],
        Some(b'x') => &[
            "x-citrix-via*",
            "x-client-cert*",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-forwarded*",
            "x-original-*",
            "x-originating-ip",
            "x-ravelin*",
            "x-real-ip",
            "x-remote-*",
            "x-ssl-client-*",
            "x-authenticated-*",
            "x-auth-request-*",
            "x-rewrite-url",
            "x-envoy-*",
            "x-host",
            "x-http-host-override",
            "x-scheme",
            "x-url-scheme",
        ],
        _ => &[],
    }
}

const NEVER_TRAILERS: [&str; 25] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "if-*",
    "keep-alive",
    "max-forwards",
    "pragma",
    "proxy-*",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "age",
    "location",
    "x-http-method*",
];

static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    // Old devices send the next two without naming them in `Connection`.
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Never dropped because `Connection` names them: backends would see no host, or no login.
static KEPT: [HeaderName; 4] = [http::header::AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST];

const HTTP: u16 = 80;
const HTTPS: u16 = 443;

#[cfg(test)]
mod tests;
