//! Cookies of the gateway's own: how they are found in a request and written into an answer.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

/// Holds a browser's token, on the gateway's own host.
pub(super) const SESSION: &str = "__Host-ravelin";
/// Holds a browser's token, on an app's host.
pub(super) const APP: &str = "__Host-ravelin-app";
/// Binds a login that is under way to the browser, on an app's host.
pub(super) const ENTER: &str = "__Host-ravelin-enter";
/// Binds the login form to the browser, on the gateway's own host.
pub(super) const LOGIN: &str = "__Host-ravelin-login";

/// The value of a cookie; `None` also when it comes twice, since one of the two is not ours.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = found.next()?;
    found.next().is_none().then_some(value)
}

/// 128 bits that a cookie holds.
pub(super) fn find_bits(headers: &HeaderMap, name: &str) -> Option<[u8; 16]> {
    let value = find(headers, name)?;
    let bits = data_encoding::BASE64URL_NOPAD
        .decode(value.as_bytes())
        .ok()?;
    bits.try_into().ok()
}

/// A `Set-Cookie` for this host and no script; until the browser is closed, or for `life`.
///
/// `Lax`: the cookie must come with the redirects between our hosts, and forms have a check of
/// their own.
pub(super) fn set(name: &str, value: &str, life: Option<Duration>) -> Option<HeaderValue> {
    let life = life.map_or_else(String::new, |life| format!("; Max-Age={}", life.as_secs()));
    HeaderValue::try_from(format!(
        "{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{life}"
    ))
    .ok()
}

/// Adds a `Set-Cookie` to an answer.
pub(super) fn add(headers: &mut HeaderMap, name: &str, value: &str, life: Option<Duration>) {
    if let Some(cookie) = set(name, value, life) {
        headers.append(SET_COOKIE, cookie);
    }
}

/// Adds a `Set-Cookie` that makes the browser forget.
pub(super) fn forget(headers: &mut HeaderMap, name: &str) {
    add(headers, name, "", Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others_and_in_crumbs() {
        let together = headers(&["a=b; __Host-ravelin=x.y=z; c=d"]);
        assert_eq!(find(&together, SESSION), Some("x.y=z"));
        let crumbs = headers(&["a=b", "__Host-ravelin=x"]);
        assert_eq!(find(&crumbs, SESSION), Some("x"));
    }

    #[test]
    fn names_are_whole_and_their_case_counts() {
        let others = headers(&["__Host-ravelin-app=1; __host-ravelin=2; x__Host-ravelin=3"]);
        assert_eq!(find(&others, SESSION), None);
    }

    #[test]
    fn a_cookie_that_comes_twice_is_none() {
        assert_eq!(
            find(&headers(&["__Host-ravelin=a; __Host-ravelin=b"]), SESSION),
            None
        );
    }

    #[test]
    fn a_cookie_is_for_its_host_alone() {
        let cookie = set(SESSION, "x", None).unwrap();
        assert_eq!(
            cookie,
            "__Host-ravelin=x; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
    }
}
