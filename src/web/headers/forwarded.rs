//! Forwarded: what a backend is told about the device, and the name by which it reached us.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use super::{Authority, HTTPS, strip_identity};
use crate::listener::peer::Peer;

/// For whom and by which name we forward, as a backend is told: the same for all requests of one
/// connection to one name.
#[derive(Debug)]
pub struct Forwarded {
    address: HeaderValue,
    host: HeaderValue,
    port: HeaderValue,
    all: HeaderValue,
}

impl Forwarded {
    /// What is true of this device, and of the authority by which it reached us.
    pub fn new(peer: &Peer, authority: &Authority) -> Self {
        let address = peer.address.ip().to_canonical();
        let host = authority.to_string();
        let all = match address {
            IpAddr::V4(address) => format!("for={address};host=\"{host}\";proto=https"),
            IpAddr::V6(address) => format!("for=\"[{address}]\";host=\"{host}\";proto=https"),
        };
        Self {
            address: told(address.to_string()),
            host: told(host),
            port: authority.port.unwrap_or(HTTPS).into(),
            all: told(all),
        }
    }

    /// Sets `X-Forwarded-*`, `X-Real-IP` and `Forwarded` (RFC 7239). What the headers claimed
    /// before is gone.
    pub fn set(&self, headers: &mut HeaderMap) {
        strip_identity(headers, &[]);
        headers.insert(X_FORWARDED_FOR, self.address.clone());
        headers.insert(X_FORWARDED_HOST, self.host.clone());
        headers.insert(X_FORWARDED_PORT, self.port.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        headers.insert(X_REAL_IP, self.address.clone());
        headers.insert(FORWARDED, self.all.clone());
    }

    /// The authority as it was written.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }
}

/// Addresses and judged names are always valid values.
fn told(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
