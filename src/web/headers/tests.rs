//! What devices and backends try with header fields, and what is left of it.

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::*;
use crate::tls::testing;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn hop_by_hop_fields_go_with_all_that_connection_names() {
    let mut fields = headers(&[
        ("Connection", "keep-alive, X-Secret ,, bad name"),
        ("Connection", "X-Other"),
        ("Keep-Alive", "5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "a"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "websocket"),
        ("X-Secret", "1"),
        ("X-Other", "2"),
        ("Accept", "*/*"),
    ]);

    strip_hop_by_hop(&mut fields);

    assert_eq!(names(&fields), ["accept", "trailer"]);
}

#[test]
fn connection_cannot_name_away_what_makes_the_request() {
    let mut fields = headers(&[
        ("Connection", "host, cookie, authorization, content-length"),
        ("Host", "a"),
        ("Cookie", "a=b"),
        ("Authorization", "Basic x"),
        ("Content-Length", "5"),
    ]);

    strip_hop_by_hop(&mut fields);

    assert_eq!(
        names(&fields),
        ["authorization", "content-length", "cookie", "host"]
    );
}

#[test]
fn what_a_backend_could_read_as_framing_is_dropped() {
    let mut fields = headers(&[
        ("Content_Length", "5"),
        ("Transfer_Encoding", "chunked"),
        ("transfer_encoding", "chunked"),
        ("Proxy_Connection", "keep-alive"),
        ("Content-Length", "0"),
        ("Content_Type", "text/plain"),
    ]);

    strip_identity(&mut fields, &[]);

    assert_eq!(names(&fields), ["content-length", "content_type"]);
}

#[test]
fn every_spelling_of_an_identity_is_dropped() {
    let reserved = [
        "X-Forwarded-For",
        "x_forwarded_for",
        "X_Forwarded-For",
        "X-FORWARDED-HOST",
        "X-Forwarded-Client-Cert",
        "X-Forwarded",
        "Forwarded",
        "X-Real-IP",
        "x_real_ip",
        "X-Citrix-Via",
        "X-Citrix-Via-VIP",
        "x_citrix_via",
        "X-Ravelin-User",
        "x_ravelin_user",
        "Via",
        "True-Client-IP",
        "X-Original-URL",
        "X_Rewrite_Url",
        "Remote-User",
        "REMOTE_USER",
        "X-Remote-User",
        "Client-Cert",
        "X-SSL-Client-CN",
        "Proxy",
    ];
    for name in reserved {
        let mut fields = headers(&[(name, "evil"), (name, "twice"), ("Accept", "*/*")]);
        strip_identity(&mut fields, &[]);
        assert_eq!(names(&fields), ["accept"], "{name}");
    }
}

#[test]
fn other_fields_stay_and_more_names_can_be_given() {
    let mut fields = headers(&[
        ("X-Requested-With", "a"),
        ("X-Citrix-IsUsingHTTPS", "Yes"),
        ("X-Forward", "a"),
        ("SSO_User", "evil"),
        ("X-Corp-Id", "evil"),
    ]);

    strip_identity(&mut fields, &["sso-user", "x-corp-*"]);

    assert_eq!(
        names(&fields),
        ["x-citrix-isusinghttps", "x-forward", "x-requested-with"]
    );
}

#[test]
fn forwarded_says_what_we_know_and_nothing_else() {
    let peer = testing::peer(false);
    let mut fields = headers(&[("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=1.2.3.4")]);
    let authority = Authority::parse(b"Apps.Example.com:8443").unwrap();

    Forwarded::new(&peer, &authority).set(&mut fields);

    assert_eq!(fields["x-forwarded-for"], "127.0.0.1");
    assert_eq!(fields["x-real-ip"], "127.0.0.1");
    assert_eq!(fields["x-forwarded-proto"], "https");
    assert_eq!(fields["x-forwarded-host"], "apps.example.com:8443");
    assert_eq!(fields["x-forwarded-port"], "8443");
    assert_eq!(
        fields["forwarded"],
        "for=127.0.0.1;host=\"apps.example.com:8443\";proto=https"
    );
    assert_eq!(fields.len(), 6);
}

#[test]
fn our_cookies_never_reach_a_backend() {
    let mut fields = headers(&[
        ("Cookie", "a=b; __Host-ravelin=secret; c=d"),
        ("Cookie", "__host-RAVELIN-x=secret; e"),
        ("Cookie", " __Host-ravelin "),
        ("Cookie", "=__Host-ravelin=secret"),
    ]);

    strip_cookies(&mut fields);

    let left: Vec<_> = fields.get_all("cookie").iter().collect();
    assert_eq!(left, ["a=b; c=d; e"]);
}

#[test]
fn cookies_of_others_are_left_as_they_are() {
    let mut fields = headers(&[("Cookie", "a=\"x;y\";b"), ("Cookie", "x__Host-ravelin=1")]);
    let before = fields.clone();

    strip_cookies(&mut fields);

    assert_eq!(fields, before);
    let mut fields = headers(&[("Cookie", "__Host-ravelin=1")]);
    strip_cookies(&mut fields);
    assert!(fields.is_empty());
}

#[test]
fn a_backend_cannot_set_our_cookies() {
    let mut fields = headers(&[
        ("Set-Cookie", "a=b; Path=/"),
        ("Set-Cookie", "__Host-ravelin=evil; Path=/; Secure"),
        ("Set-Cookie", "__HOST-Ravelin-csrf=evil"),
        ("Set-Cookie", "= =__Host-ravelin-app=evil"),
        ("Set-Cookie", "c=d"),
    ]);

    let dropped = strip_set_cookies(&mut fields);

    assert_eq!(
        dropped,
        [
            "__Host-ravelin",
            "__HOST-Ravelin-csrf",
            "__Host-ravelin-app"
        ]
    );
    let left: Vec<_> = fields.get_all("set-cookie").iter().collect();
    assert_eq!(left, ["a=b; Path=/", "c=d"]);
}

#[test]
fn crumbs_become_one_cookie() {
    let mut fields = headers(&[("Cookie", "a=b"), ("Cookie", "c=d"), ("Cookie", "e=f")]);

    join_cookies(&mut fields);

    let left: Vec<_> = fields.get_all("cookie").iter().collect();
    assert_eq!(left, ["a=b; c=d; e=f"]);
}

#[test]
fn trailers_cannot_change_what_was_decided() {
    let mut fields = headers(&[
        ("Authorization", "x"),
        ("Content-Length", "5"),
        ("Host", "evil"),
        ("Cookie", "x"),
        ("X_Forwarded_For", "x"),
        ("Content-Digest", "sha-256=:x:"),
        ("grpc-status", "0"),
    ]);

    clean_trailers(&mut fields);

    assert_eq!(names(&fields), ["content-digest", "grpc-status"]);
}

fn authority(method: &str, target: &str, hosts: &[&str]) -> Result<String, Error> {
    let mut request = Request::builder().method(method).uri(target);
    for host in hosts {
        request = request.header("host", *host);
    }
    authority_of(&request.body(()).unwrap()).map(|authority| authority.to_string())
}

#[test]
fn a_request_has_one_authority() {
    let good = [
        ("GET", "/", &["A.Example"][..], "a.example"),
        ("GET", "/", &["a.example:443"], "a.example:443"),
        ("GET", "/", &["a.example."], "a.example"),
        ("GET", "/", &["[2001:DB8::1]:8443"], "[2001:db8::1]:8443"),
        ("GET", "/", &["[::ffff:10.0.0.1]"], "10.0.0.1"),
        ("GET", "https://a.example/", &[], "a.example"),
        ("GET", "https://a.example/", &["A.example:443"], "a.example"),
        (
            "GET",
            "http://a.example:80/",
            &["a.example"],
            "a.example:80",
        ),
        (
            "CONNECT",
            "b.example:22",
            &["proxy.example"],
            "b.example:22",
        ),
        ("CONNECT", "b.example:22", &[], "b.example:22"),
    ];
    for (method, target, hosts, expected) in good {
        assert_eq!(
            authority(method, target, hosts).as_deref(),
            Ok(expected),
            "{target} {hosts:?}"
        );
    }
}

#[test]
fn other_authorities_are_refused() {
    let bad = [
        ("/", &[][..], Error::Missing),
        ("/", &["a", "a"], Error::Invalid),
        ("/", &[""], Error::Invalid),
        ("/", &["a:"], Error::Invalid),
        ("/", &["a:0"], Error::Invalid),
        ("/", &["u@a"], Error::Invalid),
        ("/", &["127.1"], Error::Invalid),
        ("/", &["0x7f.0.0.1"], Error::Invalid),
        ("/", &["2130706433"], Error::Invalid),
        ("/", &["-a"], Error::Invalid),
        ("/", &["a..b"], Error::Invalid),
        ("/", &["a%2e"], Error::Invalid),
        ("https://a.example/", &["b.example"], Error::Mismatch),
        ("https://a.example/", &["a.example:8443"], Error::Mismatch),
        ("http://a.example/", &["a.example:443"], Error::Mismatch),
        ("https://u@a.example/", &[], Error::Invalid),
    ];
    for (target, hosts, expected) in bad {
        assert_eq!(
            authority("GET", target, hosts),
            Err(expected),
            "{target} {hosts:?}"
        );
    }
}

fn outside(authority: &Authority) -> Option<String> {
    (authority.to_string() == "sf.corp.test:8443").then(|| "https://apps.example.com".into())
}

#[test]
fn locations_are_mapped_between_configured_names_only() {
    let table = [
        (
            "https://sf.corp.test:8443/a?b#c",
            "https://apps.example.com/a?b#c",
        ),
        ("HTTPS://SF.corp.test:8443", "https://apps.example.com"),
        ("http://sf.corp.test:8443/", "https://apps.example.com/"),
        ("//sf.corp.test:8443/a", "https://apps.example.com/a"),
        ("https://sf.corp.test/a", "https://sf.corp.test/a"),
        ("https://other.test:8443/", "https://other.test:8443/"),
        (
            "https://u@sf.corp.test:8443/",
            "https://u@sf.corp.test:8443/",
        ),
        (
            "https://sf.corp.test:8443.evil/",
            "https://sf.corp.test:8443.evil/",
        ),
        ("/relative", "/relative"),
        ("ftp://sf.corp.test:8443/", "ftp://sf.corp.test:8443/"),
    ];
    for (inside, expected) in table {
        let mut fields = headers(&[("Location", inside), ("Content-Location", inside)]);
        map_locations(&mut fields, outside);
        assert_eq!(fields["location"], expected, "{inside}");
        assert_eq!(fields["content-location"], expected, "{inside}");
    }
}

#[test]
fn refresh_is_mapped_too() {
    let table = [
        (
            "5; url=https://sf.corp.test:8443/a",
            "5; url=https://apps.example.com/a",
        ),
        (
            "0;URL='https://sf.corp.test:8443/a'",
            "0;URL=https://apps.example.com/a",
        ),
        ("5; url=/a", "5; url=/a"),
        ("5", "5"),
    ];
    for (inside, expected) in table {
        let mut fields = headers(&[("Refresh", inside)]);
        map_locations(&mut fields, outside);
        assert_eq!(fields["refresh"], expected, "{inside}");
    }
}

#[test]
fn a_cookie_for_the_inside_name_becomes_one_of_the_host() {
    let table = [
        ("a=b; Domain=sf.corp.test; Path=/", "a=b; Path=/"),
        ("a=b; domain=.corp.test", "a=b"),
        ("a=b; DOMAIN = CORP.TEST ;Secure", "a=b;Secure"),
        (
            "a=b; Domain=apps.example.com",
            "a=b; Domain=apps.example.com",
        ),
        ("a=b; Domain=example.com", "a=b; Domain=example.com"),
        ("a=b; Domain=other.test", "a=b; Domain=other.test"),
        ("a=b; Domain=f.corp.test", "a=b; Domain=f.corp.test"),
        ("a=b; Path=/", "a=b; Path=/"),
    ];
    for (inside, expected) in table {
        let mut fields = headers(&[("Set-Cookie", inside)]);
        map_cookie_domains(&mut fields, "sf.corp.test", "apps.example.com");
        assert_eq!(fields["set-cookie"], expected, "{inside}");
    }
}
