//! What heads towards and from nodes say: trailers that are wanted, logins that bind a connection.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE, TE, WWW_AUTHENTICATE},
};

/// The request wants trailers: it says so, or it is gRPC, which cannot do without.
pub(super) fn wants_trailers(request: &HeaderMap) -> bool {
    let says = list(request, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    let grpc = request
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    says || grpc
}

/// The request carries a login that the node ties to the connection (NTLM, Negotiate).
pub(super) fn carries_connection_login(request: &HeaderMap) -> bool {
    request
        .get_all(AUTHORIZATION)
        .iter()
        .any(names_connection_login)
}

/// The answer offers or goes on with such a login.
pub(super) fn offers_connection_login(answer: &HeaderMap) -> bool {
    answer
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .any(names_connection_login)
}

fn names_connection_login(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes());
    // Challenges may share a line; a token is followed by a space, a comma or the end.
    text.split(',').any(|challenge| {
        challenge
            .split_ascii_whitespace()
            .next()
            .is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case("ntlm") || scheme.eq_ignore_ascii_case("negotiate")
            })
    })
}

/// Whether a list field names this token.
pub(super) fn names(headers: &HeaderMap, field: &HeaderName, token: &str) -> bool {
    list(headers, field).any(|item| item.eq_ignore_ascii_case(token))
}

fn list<'a>(headers: &'a HeaderMap, field: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(field)
        .iter()
        // What is not text is an item that equals no token.
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_value_panics(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let mut map = HeaderMap::new();
            for value in values.iter().filter_map(|v| HeaderValue::from_bytes(v).ok()) {
                for name in [TE, AUTHORIZATION, WWW_AUTHENTICATE] {
                    map.append(name, value.clone());
                }
            }
            let _seen = (carries_connection_login(&map), offers_connection_login(&map));
            let _wants = wants_trailers(&map);
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn logins_of_a_connection_are_seen_among_others() {
        for (line, seen) in [
            ("NTLM", true),
            ("ntlm TlRMTVNTUAAB", true),
            ("Basic realm=\"x\", Negotiate", true),
            ("Negotiate YII=", true),
            ("Basic realm=\"NTLM\"", false),
            ("Bearer x", false),
            ("", false),
        ] {
            let mut map = HeaderMap::new();
            map.insert(WWW_AUTHENTICATE, line.parse().unwrap());
            map.insert(AUTHORIZATION, line.parse().unwrap());
            assert_eq!(offers_connection_login(&map), seen, "{line}");
            assert_eq!(carries_connection_login(&map), seen, "{line}");
        }
    }

    #[test]
    fn grpc_and_te_want_trailers() {
        assert!(wants_trailers(&headers(&[("te", "gzip, Trailers")])));
        assert!(wants_trailers(&headers(&[(
            "content-type",
            "application/grpc+proto"
        )])));
        assert!(!wants_trailers(&headers(&[("te", "gzip")])));
    }
}
