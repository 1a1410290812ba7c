//! Tables of raw request heads, and what each of them must be.

use bytes::Bytes;
use proptest::prelude::*;

use super::{Error, Framing, Head, Limits, Scanner};

const LIMITS: Limits = Limits {
    bytes: 2048,
    fields: 20,
    target: 256,
};

/// Everything that a connection does with a head: finds its end, then reads it.
fn read(raw: &[u8]) -> Result<Head, Error> {
    let length = Scanner::default()
        .advance(raw, &LIMITS)?
        .ok_or(Error::Incomplete)?;
    Head::parse(&Bytes::copy_from_slice(&raw[..length]), &LIMITS)
}

/// Fields after a good request line; `Host` and the empty line are added.
fn with_fields(fields: &str) -> Result<Head, Error> {
    read(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())
}

fn with_line(line: &[u8]) -> Result<Head, Error> {
    read(&[line, b"\r\nHost: a\r\n\r\n"].concat())
}

fn check<T: std::fmt::Debug + ?Sized>(
    table: &[(&T, Result<(), Error>)],
    read: impl Fn(&T) -> Result<Head, Error>,
) {
    for (raw, expected) in table {
        let found = read(raw).map(|_head| ());
        assert_eq!(found, *expected, "{raw:?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn request_lines_are_read_strictly() {
    let line = Err(Error::RequestLine);
    let target = Err(Error::Target);
    let method = Err(Error::Method);
    let version = Err(Error::Version);
    let table: &[(&[u8], _)] = &[
        (b"GET / HTTP/1.1", Ok(())),
        (b"GET / HTTP/1.0", Ok(())),
        (b"HEAD / HTTP/1.1", Ok(())),
        (b"POST / HTTP/1.1", Ok(())),
        (b"PUT /a HTTP/1.1", Ok(())),
        (b"DELETE /a HTTP/1.1", Ok(())),
        (b"PATCH /a HTTP/1.1", Ok(())),
        (b"TRACE /a HTTP/1.1", Ok(())),
        (b"PROPFIND /dav HTTP/1.1", Ok(())),
        (b"get / HTTP/1.1", Ok(())),
        (b"M-SEARCH / HTTP/1.1", Ok(())),
        (b"!#$%&'*+-.^_`|~09 / HTTP/1.1", Ok(())),
        (b"ABCDEFGHIJABCDEFGHIJABCDEFGHIJAB / HTTP/1.1", Ok(())),
        (b"ABCDEFGHIJABCDEFGHIJABCDEFGHIJABC / HTTP/1.1", method),
        (b"G(T / HTTP/1.1", method),
        (b"G\x00T / HTTP/1.1", method),
        (b"G\xc3\x89T / HTTP/1.1", method),
        (b"G\tT / HTTP/1.1", method),
        (b"G:T / HTTP/1.1", method),
        (b"\x7fGET / HTTP/1.1", method),
        (b"\xef\xbb\xbfGET / HTTP/1.1", method),
        (b" / HTTP/1.1", method),
        (b"GET\r / HTTP/1.1", method),
        (b"GET", line),
        (b"GET /", line),
        (b"GET / ", line),
        (b"GET  / HTTP/1.1", line),
        (b" GET / HTTP/1.1", line),
        (b"GET /  HTTP/1.1", line),
        (b"GET / HTTP/1.1 ", line),
        (b"GET\t/ HTTP/1.1", line),
        (b"GET /\tHTTP/1.1", line),
        (b"GET / a HTTP/1.1", line),
        (b"GET /a b HTTP/1.1", line),
        (b"GET / http/1.1", line),
        (b"GET / HTTP/11", line),
        (b"GET / HTTP/1.", line),
        (b"GET / HTTP/.1", line),
        (b"GET / HTTP/1,1", line),
        (b"GET / HTTP/1.1x", line),
        (b"GET / HTTP/1.10", line),
        (b"GET / HTTP/01.1", line),
        (b"GET / HTTP/-1.1", line),
        (b"GET / HTTPS/1.1", line),
        (b"GET / HTTP 1.1", line),
        (b"GET / ICY/1.1", line),
        (b"GET / HTTP/1.1\r", line),
        (b"GET / HTTP/1.1\x00", line),
        (b"GET / HTTP/0.9", version),
        (b"GET / HTTP/1.2", version),
        (b"GET / HTTP/1.9", version),
        (b"GET / HTTP/2.0", version),
        (b"GET / HTTP/3.0", version),
        (b"PRI * HTTP/2.0", version),
        (b"GET / HTTP/9.9", version),
        (b"GET  HTTP/1.1", target),
        (b"GET a HTTP/1.1", target),
        (b"GET a/b HTTP/1.1", target),
        (b"GET ?a HTTP/1.1", target),
        (b"GET * HTTP/1.1", target),
        (b"OPTIONS * HTTP/1.1", Ok(())),
        (b"OPTIONS ** HTTP/1.1", target),
        (b"OPTIONS / HTTP/1.1", Ok(())),
        (b"GET /* HTTP/1.1", Ok(())),
        (b"GET // HTTP/1.1", Ok(())),
        (b"GET //evil.example/a HTTP/1.1", Ok(())),
        (b"GET /a?b=c&d HTTP/1.1", Ok(())),
        (b"GET /a?b?c HTTP/1.1", Ok(())),
        (b"GET /? HTTP/1.1", Ok(())),
        (b"GET /%2e%2e/ HTTP/1.1", Ok(())),
        (b"GET /a;b=c HTTP/1.1", Ok(())),
        (b"GET /a[1]|{} HTTP/1.1", Ok(())),
        (b"GET /a\\b HTTP/1.1", Ok(())),
        (b"GET /a#b HTTP/1.1", target),
        (b"GET /# HTTP/1.1", target),
        (b"GET /?a#b HTTP/1.1", target),
        (b"GET http://a/#b HTTP/1.1", target),
        (b"GET /\x00 HTTP/1.1", target),
        (b"GET /a\x01 HTTP/1.1", target),
        (b"GET /a\x1b[0m HTTP/1.1", target),
        (b"GET /a\tb HTTP/1.1", target),
        (b"GET /a\rb HTTP/1.1", target),
        (b"GET /a\x7f HTTP/1.1", target),
        (b"GET /\xc3\xa9 HTTP/1.1", target),
        (b"GET /\xff HTTP/1.1", target),
        (b"GET /a\x0bb HTTP/1.1", target),
        (b"GET http://a HTTP/1.1", Ok(())),
        (b"GET http://a/ HTTP/1.1", Ok(())),
        (b"GET HTTP://A/ HTTP/1.1", Ok(())),
        (b"GET http://a:80/b?c HTTP/1.1", Ok(())),
        (b"GET https://a.example:8443/ HTTP/1.1", Ok(())),
        (b"GET http://[::1]:80/ HTTP/1.1", Ok(())),
        (b"GET http://a?b HTTP/1.1", Ok(())),
        (b"GET http:// HTTP/1.1", target),
        (b"GET http:/// HTTP/1.1", target),
        (b"GET http:/a HTTP/1.1", target),
        (b"GET http:a HTTP/1.1", target),
        (b"GET http://a:/ HTTP/1.1", target),
        (b"GET http://a:0/ HTTP/1.1", target),
        (b"GET http://a:99999/ HTTP/1.1", target),
        (b"GET http://a:8a/ HTTP/1.1", target),
        (b"GET http://a:-1/ HTTP/1.1", target),
        (b"GET http://u@a/ HTTP/1.1", target),
        (b"GET http://u:p@a/ HTTP/1.1", target),
        (b"GET http://a%41/ HTTP/1.1", target),
        (b"GET http://a,b/ HTTP/1.1", target),
        (b"GET http://a\\b/ HTTP/1.1", target),
        (b"GET http://[::1/ HTTP/1.1", target),
        (b"GET http://[fe80::1%25eth0]/ HTTP/1.1", target),
        (b"GET ftp://a/ HTTP/1.1", target),
        (b"GET file:///etc/passwd HTTP/1.1", target),
        (b"GET javascript:alert(1) HTTP/1.1", target),
        (b"CONNECT a:443 HTTP/1.1", Ok(())),
        (b"CONNECT a.example:443 HTTP/1.0", Ok(())),
        (b"CONNECT 10.0.0.1:443 HTTP/1.1", Ok(())),
        (b"CONNECT [::1]:443 HTTP/1.1", Ok(())),
        (b"CONNECT a HTTP/1.1", target),
        (b"CONNECT a: HTTP/1.1", target),
        (b"CONNECT a:0 HTTP/1.1", target),
        (b"CONNECT a:65536 HTTP/1.1", target),
        (b"CONNECT a:443/ HTTP/1.1", target),
        (b"CONNECT :443 HTTP/1.1", target),
        (b"CONNECT / HTTP/1.1", target),
        (b"CONNECT * HTTP/1.1", target),
        (b"CONNECT http://a:443 HTTP/1.1", target),
        (b"CONNECT u@a:443 HTTP/1.1", target),
        (b"CONNECT ::1:443 HTTP/1.1", target),
        (b"CONNECT [::1] HTTP/1.1", target),
        (b"CONNECT [::1]443 HTTP/1.1", target),
        (b"CONNECT a:+443 HTTP/1.1", target),
        (b"CONNECT a:443:443 HTTP/1.1", target),
        (b"GET a:443 HTTP/1.1", target),
        (b"POST a:443 HTTP/1.1", target),
    ];

    check(table, with_line);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn fields_are_read_strictly() {
    let name = Err(Error::FieldName);
    let value = Err(Error::FieldValue);
    let table: &[(&str, _)] = &[
        ("", Ok(())),
        ("A: b\r\n", Ok(())),
        ("A:b\r\n", Ok(())),
        ("A:\r\n", Ok(())),
        ("A: \r\n", Ok(())),
        ("A: \t b \t \r\n", Ok(())),
        ("A: b\tc\r\n", Ok(())),
        ("A: b: c\r\n", Ok(())),
        ("A: \"quoted, : string\"\r\n", Ok(())),
        ("A: \u{e9}\r\n", Ok(())),
        ("!#$%&'*+-.^_`|~1: b\r\n", Ok(())),
        ("A: b\r\nA: c\r\na: d\r\n", Ok(())),
        ("A_b: c\r\n", Ok(())),
        ("A : b\r\n", name),
        ("A\t: b\r\n", name),
        ("A b: c\r\n", name),
        (": b\r\n", name),
        ("A\r\n", name),
        ("AAAA BBBB\r\n", name),
        ("A;: b\r\n", name),
        ("A\"b\": c\r\n", name),
        ("A(b): c\r\n", name),
        ("A/b: c\r\n", name),
        ("A[0]: c\r\n", name),
        ("A{}: c\r\n", name),
        ("A@b: c\r\n", name),
        ("A=b: c\r\n", name),
        ("A,b: c\r\n", name),
        ("A\u{0}: b\r\n", name),
        ("A\u{7f}: b\r\n", name),
        ("\u{e9}: b\r\n", name),
        ("\u{feff}A: b\r\n", name),
        ("Host : evil\r\n", name),
        ("Content-Length : 1\r\n", name),
        ("Transfer-Encoding : chunked\r\n", name),
        ("Transfer-Encoding\u{b}: chunked\r\n", name),
        ("\rA: b\r\n", name),
        ("A: b\u{0}\r\n", value),
        ("A: \u{0}\r\n", value),
        ("A: b\u{1}c\r\n", value),
        ("A: b\u{b}c\r\n", value),
        ("A: b\u{c}c\r\n", value),
        ("A: b\u{1b}[31m\r\n", value),
        ("A: b\u{7f}\r\n", value),
        ("A: b\rc\r\n", value),
        ("A: b\r\r\n", value),
        ("A: \r\r\n", value),
        ("A: b\rContent-Length: 5\r\n", value),
        (" A: b\r\n", Err(Error::Folded)),
        ("\tA: b\r\n", Err(Error::Folded)),
        ("A: b\r\n c\r\n", Err(Error::Folded)),
        ("A: b\r\n\tc\r\n", Err(Error::Folded)),
        ("A: b\r\n \r\n", Err(Error::Folded)),
        ("Transfer-Encoding:\r\n chunked\r\n", Err(Error::Folded)),
        ("Content-Length:\r\n 5\r\n", Err(Error::Folded)),
        ("A: b\n", Err(Error::BareLineFeed)),
        ("A: b\nC: d\r\n", Err(Error::BareLineFeed)),
        ("A: b\n\r\n", Err(Error::BareLineFeed)),
        ("\n", Err(Error::BareLineFeed)),
        ("A: b\r\n\n", Err(Error::BareLineFeed)),
        ("Content-Length: 5\nA: b\r\n", Err(Error::BareLineFeed)),
        ("Host: a\r\n", Err(Error::Host)),
        ("Host: b\r\n", Err(Error::Host)),
        ("host: a\r\n", Err(Error::Host)),
        ("HOST:\r\n", Err(Error::Host)),
        ("Expect: 100-continue\r\n", Ok(())),
        ("Expect: 100-Continue\r\n", Ok(())),
        ("Expect: 200-ok\r\n", Err(Error::Expectation)),
        ("Expect:\r\n", Err(Error::Expectation)),
        ("Expect: 100-continue, x\r\n", Err(Error::Expectation)),
        (
            "Expect: 100-continue\r\nExpect: 100-continue\r\n",
            Err(Error::Expectation),
        ),
    ];

    check(table, with_fields);
}

#[test]
fn names_are_tokens_and_values_have_no_controls_for_every_byte() {
    let field = |line: &[u8]| read(&[b"GET / HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n"].concat());
    for byte in 0..=u8::MAX {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        // A colon ends the name.
        if byte != b':' {
            let name = field(&[b"x", &[byte][..], b"y: v"].concat());
            assert_eq!(name.is_ok(), token, "{byte:#x} in a name");
        }
        let text = matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
        let value = field(&[b"x: a", &[byte][..], b"b"].concat());
        assert_eq!(value.is_ok(), text, "{byte:#x} in a value");
    }
    assert_eq!(field(b": v").unwrap_err(), Error::FieldName);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_request_has_one_framing_or_is_refused() {
    let length = Err(Error::ContentLength);
    let coding = Err(Error::TransferEncoding);
    let both = Err(Error::TwoFramings);
    let table: &[(&str, _)] = &[
        ("Content-Length: 0\r\n", Ok(())),
        ("Content-Length: 5\r\n", Ok(())),
        ("content-length:5\r\n", Ok(())),
        ("Content-Length:   5  \r\n", Ok(())),
        ("Content-Length: 0005\r\n", Ok(())),
        ("Content-Length: 18446744073709551615\r\n", Ok(())),
        ("Content-Length: 18446744073709551616\r\n", length),
        ("Content-Length: 99999999999999999999999\r\n", length),
        ("Content-Length:\r\n", length),
        ("Content-Length: +5\r\n", length),
        ("Content-Length: -5\r\n", length),
        ("Content-Length: 5 5\r\n", length),
        ("Content-Length: 5, 5\r\n", length),
        ("Content-Length: 5,5\r\n", length),
        ("Content-Length: 5,\r\n", length),
        ("Content-Length: 5;\r\n", length),
        ("Content-Length: 0x5\r\n", length),
        ("Content-Length: 5.0\r\n", length),
        ("Content-Length: 1e3\r\n", length),
        ("Content-Length: 1_000\r\n", length),
        ("Content-Length: \"5\"\r\n", length),
        ("Content-Length: five\r\n", length),
        ("Content-Length: \u{665}\r\n", length),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", length),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", length),
        ("Content-Length: 5\r\ncontent-length: 0\r\n", length),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", length),
        ("Content-Length: 5\r\nContent-Length:\r\n", length),
        ("Transfer-Encoding: chunked\r\n", Ok(())),
        ("transfer-encoding: CHUNKED\r\n", Ok(())),
        ("Transfer-Encoding:chunked\r\n", Ok(())),
        ("Transfer-Encoding: \t chunked \t\r\n", Ok(())),
        ("Transfer-Encoding:\r\n", coding),
        ("Transfer-Encoding: chunked,\r\n", coding),
        ("Transfer-Encoding: ,chunked\r\n", coding),
        ("Transfer-Encoding: chunked, chunked\r\n", coding),
        ("Transfer-Encoding: gzip, chunked\r\n", coding),
        ("Transfer-Encoding: chunked, gzip\r\n", coding),
        ("Transfer-Encoding: chunked, identity\r\n", coding),
        ("Transfer-Encoding: identity\r\n", coding),
        ("Transfer-Encoding: gzip\r\n", coding),
        ("Transfer-Encoding: xchunked\r\n", coding),
        ("Transfer-Encoding: chunkedx\r\n", coding),
        ("Transfer-Encoding: \"chunked\"\r\n", coding),
        ("Transfer-Encoding: 'chunked'\r\n", coding),
        ("Transfer-Encoding: chunked;q=1\r\n", coding),
        ("Transfer-Encoding: chu nked\r\n", coding),
        ("Transfer-Encoding: chunk\r\n", coding),
        ("Transfer-Encoding: cow\r\n", coding),
        ("Transfer-Encoding: \u{ff43}hunked\r\n", coding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            coding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            coding,
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            coding,
        ),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", both),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", both),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", both),
        ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", both),
        (
            "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n",
            Ok(()),
        ),
    ];

    check(table, with_fields);
}

#[test]
fn a_1_0_request_may_not_be_chunked() {
    let raw = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";

    assert_eq!(read(raw).unwrap_err(), Error::TransferEncoding);
}

#[test]
fn a_connect_has_no_body() {
    let table: &[(&str, _)] = &[
        ("Content-Length: 0\r\n", Ok(())),
        ("Content-Length: 1\r\n", Err(Error::ConnectBody)),
        ("Transfer-Encoding: chunked\r\n", Err(Error::ConnectBody)),
    ];

    check(table, |fields| {
        read(format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n{fields}\r\n").as_bytes())
    });
}

#[test]
fn exactly_one_valid_host_is_needed() {
    let bad = Err(Error::Host);
    let table: &[(&str, _)] = &[
        ("a", Ok(())),
        ("A.Example", Ok(())),
        ("a.example.", Ok(())),
        ("a_b-c.example", Ok(())),
        ("a:1", Ok(())),
        ("a:65535", Ok(())),
        ("127.0.0.1:8443", Ok(())),
        ("[2001:db8::1]", Ok(())),
        ("[2001:db8::1]:443", Ok(())),
        ("", bad),
        (":443", bad),
        ("a:", bad),
        ("a:0", bad),
        ("a:65536", bad),
        ("a:1:2", bad),
        ("a:x", bad),
        ("a b", bad),
        ("a,b", bad),
        ("a, b", bad),
        ("a/b", bad),
        ("a?b", bad),
        ("a#b", bad),
        ("a@b", bad),
        ("u:p@b", bad),
        ("a%2eb", bad),
        ("a\\b", bad),
        ("\"a\"", bad),
        ("http://a", bad),
        ("[::1", bad),
        ("::1", bad),
        ("[::1]a", bad),
        ("[v1.a]", bad),
        ("[fe80::1%eth0]", bad),
        ("a\tb", bad),
        ("\u{e9}", bad),
        ("<a>", bad),
        ("a*", bad),
    ];

    check(table, |host| {
        read(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
    });
    assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").unwrap_err(), Error::Host);
    assert_eq!(
        read(b"GET http://a/ HTTP/1.1\r\n\r\n").unwrap_err(),
        Error::Host
    );
    read(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let long = "a".repeat(256);
    let raw = format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n");
    assert_eq!(read(raw.as_bytes()).unwrap_err(), Error::Host);
}

#[test]
fn a_head_says_what_the_connection_needs() {
    let head = with_fields("Content-Length: 5\r\nX-A: 1\r\nx-a: 2\r\nExpect: 100-continue\r\n");
    let head = head.unwrap();

    assert_eq!(head.framing, Framing::Length(5));
    assert!(head.expects_continue && head.keep_alive);
    let values: Vec<_> = head.headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(head.headers["host"], "a");
    assert_eq!(head.target.path(), "/");
}

#[test]
fn a_connection_is_kept_when_the_version_and_the_device_say_so() {
    let kept = |version: &str, field: &str| {
        let raw = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
        read(raw.as_bytes()).unwrap().keep_alive
    };

    assert!(kept("1.1", ""));
    assert!(kept("1.1", "Connection: upgrade\r\n"));
    assert!(!kept("1.1", "Connection: Close\r\n"));
    assert!(!kept("1.1", "Connection: upgrade,  close\r\n"));
    assert!(!kept(
        "1.1",
        "Connection: keep-alive\r\nConnection: close\r\n"
    ));
    assert!(!kept("1.0", ""));
    assert!(kept("1.0", "Connection: Keep-Alive\r\n"));
    assert!(!kept("1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn a_1_0_device_cannot_expect_anything() {
    let head = read(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");

    assert!(!head.unwrap().expects_continue);
}

#[test]
fn limits_tell_target_fields_and_bytes_apart() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length));
    read(target(255).as_bytes()).unwrap();
    assert_eq!(
        read(target(256).as_bytes()).unwrap_err(),
        Error::TargetTooLong
    );
    assert_eq!(
        read(target(4096).as_bytes()).unwrap_err(),
        Error::TargetTooLong
    );

    let fields = |count: usize| with_fields(&"A: b\r\n".repeat(count));
    fields(19).unwrap();
    assert_eq!(fields(20).unwrap_err(), Error::TooManyFields);

    let bytes = |length: usize| with_fields(&format!("A: {}\r\n", "b".repeat(length)));
    bytes(2000).unwrap();
    assert_eq!(bytes(2048).unwrap_err(), Error::TooLarge);
}

#[test]
fn a_head_without_an_end_is_refused_at_its_limit() {
    let endless_line = vec![b'a'; 512];
    let endless_field = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 4096]].concat();

    let found = |raw: &[u8]| Scanner::default().advance(raw, &LIMITS);
    assert_eq!(found(&endless_line), Err(Error::TargetTooLong));
    assert_eq!(found(&endless_field), Err(Error::TooLarge));
}

#[test]
fn a_bare_line_feed_is_refused_before_the_end_comes() {
    let found = Scanner::default().advance(b"GET / HTTP/1.1\n", &LIMITS);

    assert_eq!(found, Err(Error::BareLineFeed));
}

#[test]
fn every_split_of_a_head_gives_the_same_length() {
    let raw = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n";
    let whole = Scanner::default().advance(raw, &LIMITS).unwrap();
    assert_eq!(whole, Some(50));

    for split in 0..raw.len() {
        let mut scanner = Scanner::default();
        let early = scanner.advance(&raw[..split], &LIMITS).unwrap();
        let late = early.or_else(|| scanner.advance(raw, &LIMITS).unwrap());
        assert_eq!(late, whole, "split at {split}");
    }
}

#[test]
fn every_truncation_of_a_head_is_incomplete() {
    let raw = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";

    for end in 0..raw.len() {
        let found = Scanner::default().advance(&raw[..end], &LIMITS);
        assert_eq!(found, Ok(None), "cut at {end}");
        let cut = Bytes::copy_from_slice(&raw[..end]);
        assert!(Head::parse(&cut, &LIMITS).is_err(), "cut at {end}");
    }
}

#[test]
fn every_refusal_has_a_client_status_or_505() {
    for error in [
        Error::BareLineFeed,
        Error::TooLarge,
        Error::TargetTooLong,
        Error::Version,
    ] {
        assert!(error.status().is_client_error() || error.status().as_u16() == 505);
        assert!(!error.reason().is_empty());
    }
}

proptest! {
    #[test]
    fn no_input_panics(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let _read = read(&raw);
        let _parsed = Head::parse(&Bytes::from(raw), &LIMITS);
    }

    #[test]
    fn no_nearly_good_input_panics(
        place in 0..80_usize,
        byte in any::<u8>(),
        insert in any::<bool>(),
    ) {
        let mut raw = b"POST http://a.example:80/b HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        if insert {
            raw.insert(place, byte);
        } else {
            raw[place] = byte;
        }
        if let Ok(head) = read(&raw) {
            // Whatever passes has one framing and no hidden line.
            prop_assert!(head.headers.values().all(|value| !value.as_bytes().contains(&b'\n')));
        }
    }
}
