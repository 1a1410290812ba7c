//! Where a request came from: whether a form is our own, which port the device used.

use http::{HeaderMap, Uri, header::HOST, header::ORIGIN};

use crate::crypto::Sealer;

/// Whether a request that changes something comes from our own pages, as the browser tells.
///
/// A form's sealed token decides; this refuses earlier, and also what carries no form.
pub(super) fn is_own(headers: &HeaderMap, host: &str) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &http::HeaderValue| value.to_str())
    };
    let site = text("sec-fetch-site");
    let origin = text(ORIGIN.as_str());
    match (site, origin) {
        // A browser that tells. `Origin: null` is then no contradiction.
        (Some(site), origin) => {
            site.is_ok_and(|site| site == "same-origin")
                && origin.is_none_or(|origin| {
                    origin.is_ok_and(|origin| origin == "null" || is_at(origin, host))
                })
        }
        (None, Some(origin)) => origin.is_ok_and(|origin| is_at(origin, host)),
        // No browser of today, or none at all.
        (None, None) => true,
    }
}

/// The port is not compared: the gateway may stand behind one that maps ports, and cookies do
/// not know ports either.
fn is_at(origin: &str, host: &str) -> bool {
    let Some(rest) = origin.strip_prefix("https://") else {
        return false;
    };
    match rest.strip_prefix(host) {
        Some("") => true,
        Some(port) => port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    }
}

/// `host` with the port that the device used to reach us, when it is not 443.
///
/// Only the port is taken from the request; the name is from the configuration (R2).
pub(super) fn with_port(host: &str, uri: &Uri, headers: &HeaderMap) -> String {
    let port = uri.port_u16().or_else(|| {
        let value = headers.get(HOST)?.to_str().ok()?;
        let (_, port) = value.rsplit_once(':')?;
        port.parse().ok()
    });
    match port {
        None | Some(0 | 443) => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

/// A token for the forms of one page: sealed, bound to `whom`, with the time in it.
pub(super) fn form_token(sealer: &Sealer, whom: &[u8], wall: u64) -> String {
    let plain = [&wall.to_be_bytes(), whom].concat();
    data_encoding::BASE64URL_NOPAD.encode(&sealer.seal(FORM, &plain))
}

/// Whether a form's token was made for `whom` and is not too old.
pub(super) fn is_form_token(sealer: &Sealer, token: &str, whom: &[u8], wall: u64) -> bool {
    let plain = (token.len() <= MAX_TOKEN)
        .then(|| data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).ok())
        .flatten()
        .and_then(|sealed| sealer.open(FORM, &sealed));
    let Some((made, bound)) = plain.as_ref().and_then(|plain| plain.split_first_chunk()) else {
        return false;
    };
    let age = wall.saturating_sub(u64::from_be_bytes(*made));
    bound == whom && age < FORM_AGE
}

const FORM: &str = "form token v1";
const MAX_TOKEN: usize = 256;
/// Seconds that a page may stay open.
const FORM_AGE: u64 = 3600;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OURS: &str = "gw.example.com";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn our_own_pages_may_post() {
        for pairs in [
            [("origin", "https://gw.example.com")].as_slice(),
            &[("origin", "https://gw.example.com:8443")],
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
            &[("sec-fetch-site", "same-origin")],
            &[],
        ] {
            assert!(is_own(&headers(pairs), OURS), "{pairs:?}");
        }
    }

    #[test]
    fn other_pages_may_not() {
        for pairs in [
            [("origin", "https://evil.example")].as_slice(),
            &[("origin", "http://gw.example.com")],
            &[("origin", "https://gw.example.com.evil.example")],
            &[("origin", "https://gw.example.com@evil.example")],
            &[("origin", "null")],
            &[("sec-fetch-site", "same-site")],
            &[
                ("sec-fetch-site", "cross-site"),
                ("origin", "https://gw.example.com"),
            ],
            &[
                ("sec-fetch-site", "same-origin"),
                ("origin", "https://evil.example"),
            ],
        ] {
            assert!(!is_own(&headers(pairs), OURS), "{pairs:?}");
        }
    }

    #[test]
    fn a_form_token_is_good_for_its_browser_and_for_an_hour() {
        let sealer = Sealer::new(&[1; 32]);
        let token = form_token(&sealer, b"alice's browser", 1000);

        assert!(is_form_token(&sealer, &token, b"alice's browser", 4599));
        assert!(!is_form_token(&sealer, &token, b"alice's browser", 4600));
        assert!(!is_form_token(&sealer, &token, b"bob's browser", 1000));
        let other = form_token(&Sealer::new(&[2; 32]), b"alice's browser", 1000);
        assert!(!is_form_token(&sealer, &other, b"alice's browser", 1000));
        for bad in ["", "AAAA", &"A".repeat(10_000)] {
            assert!(!is_form_token(&sealer, bad, b"alice's browser", 1000));
        }
    }

    #[test]
    fn only_the_port_comes_from_the_request() {
        let host = |value| headers(&[("host", value)]);
        let uri = Uri::from_static("/");
        assert_eq!(with_port(OURS, &uri, &host("gw.example.com")), OURS);
        assert_eq!(with_port(OURS, &uri, &host("gw.example.com:443")), OURS);
        assert_eq!(
            with_port(OURS, &uri, &host("evil.example:8443")),
            "gw.example.com:8443"
        );
        assert_eq!(with_port(OURS, &uri, &host("x:8443@evil")), OURS);
        let h2 = Uri::from_static("https://gw.example.com:8443/");
        assert_eq!(
            with_port(OURS, &h2, &HeaderMap::new()),
            "gw.example.com:8443"
        );
    }
}
