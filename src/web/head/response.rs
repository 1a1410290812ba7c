//! Reads the head of a node's answer; bytes only.
//!
//! Framing is read in one way or the answer is refused: whoever controls what a node says could
//! otherwise give one device's answer to another (RFC 9112, section 11.1). What cannot be misread
//! passes, since backends are old: no reason phrase or one that is not ASCII, empty values.

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::{Limits, Lines, decimal, fields, keep_alive, trim};

/// The head of one answer, with everything that the connection must know about it.
#[derive(Debug)]
pub struct Head {
    /// 100 to 999.
    pub status: StatusCode,
    /// The fields, in order within each name. At most one of `Content-Length` and
    /// `Transfer-Encoding` is there, once.
    pub headers: HeaderMap,
    /// How long the body is; zero where the method or the status says that there is none.
    pub framing: Framing,
    /// The connection may serve another request after this answer.
    pub keep_alive: bool,
}

/// How the end of an answer's body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Chunks.
    Chunked,
    /// By the end of the connection.
    Close,
    /// This many bytes; zero when there is no body.
    Length(u64),
}

impl Head {
    /// Reads a whole head, as [`super::Scanner`] found it: from the status line to the empty
    /// line. `method` is that of the request.
    ///
    /// Field values share the memory of `head`.
    ///
    /// # Errors
    ///
    /// When it is no head of HTTP/1, could be framed in two ways, or exceeds a limit. Folded
    /// fields are refused, as RFC 9112, section 5.2, lets a gateway do: those who unfold differ
    /// in what they make of them.
    pub fn parse(head: &Bytes, method: &Method, limits: &Limits) -> Result<Self, Error> {
        let mut lines = Lines { rest: head };
        let line = lines.next().ok_or(Error::StatusLine)?;
        let (version, status) = status_line(line)?;
        let mut headers = fields(head, &mut lines, limits.fields).map_err(Error::Fields)?;
        let (framing, plain) = settle_framing(&mut headers, version)?;
        let empty = *method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let framed = match (status, framing) {
            // There is none, so a node that announces one is not to be trusted with the next.
            (StatusCode::NO_CONTENT, Framing::Chunked | Framing::Length(1..)) => false,
            (_, Framing::Close) => empty,
            _ => true,
        };
        Ok(Self {
            keep_alive: plain && framed && keep_alive(&headers, version),
            framing: if empty { Framing::Length(0) } else { framing },
            status,
            headers,
        })
    }

    /// Whether these first bytes can become a head: so that a node that speaks another protocol
    /// is not waited for.
    pub fn can_begin(bytes: &[u8]) -> bool {
        PROTOCOL
            .iter()
            .zip(bytes)
            .all(|(wanted, got)| wanted == got)
    }
}

/// `HTTP/1.x SP 3DIGIT [SP reason]` (RFC 9112, section 4).
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), Error> {
    let rest = line.strip_prefix(PROTOCOL).ok_or(Error::StatusLine)?;
    let [minor, b' ', code @ ..] = rest else {
        return Err(Error::StatusLine);
    };
    let version = match minor {
        b'0' => Version::HTTP_10,
        b'1' => Version::HTTP_11,
        _ => return Err(Error::Version),
    };
    let (code, reason) = code.split_at_checked(3).ok_or(Error::StatusLine)?;
    let visible = |&byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
    if !matches!(reason.first(), None | Some(b' ')) || !reason.iter().all(visible) {
        return Err(Error::StatusLine);
    }
    let status = StatusCode::from_bytes(code).map_err(|_invalid| Error::StatusLine)?;
    Ok((version, status))
}

/// One framing, and leaves the fields that say it once. `false`: it was said more than once, so
/// that what follows this answer is not to be believed.
fn settle_framing(headers: &mut HeaderMap, version: Version) -> Result<(Framing, bool), Error> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), length) {
        (None, None) => Ok((Framing::Close, true)),
        (None, Some((length, once))) => {
            if !once {
                headers.insert(CONTENT_LENGTH, length.into());
            }
            Ok((Framing::Length(length), once))
        }
        (Some(coding), length) => {
            let exact = trim(coding.as_bytes()).eq_ignore_ascii_case(b"chunked");
            if !exact || codings.next().is_some() || version != Version::HTTP_11 {
                return Err(Error::TransferEncoding);
            }
            // Chunks frame the body; a length beside them is taken off (RFC 9112, section 6.3).
            headers.remove(CONTENT_LENGTH);
            Ok((Framing::Chunked, length.is_none()))
        }
    }
}

/// The length, and whether it was said once. Equal ones are one (RFC 9112, section 6.3).
fn content_length(headers: &HeaderMap) -> Result<Option<(u64, bool)>, Error> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for item in value.as_bytes().split(|&byte| byte == b',') {
            let length = decimal(trim(item)).ok_or(Error::ContentLength)?;
            found = match found {
                None => Some((length, true)),
                Some((same, _)) if same == length => Some((length, false)),
                Some(_) => return Err(Error::ContentLength),
            };
        }
    }
    Ok(found)
}

/// Why an answer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a number, or several that differ.
    #[error("a Content-Length that is not one number")]
    ContentLength,
    /// No fields, or too many.
    #[error("a head that is none")]
    Fields(#[source] super::Error),
    /// Not a status line.
    #[error("no status line of HTTP/1")]
    StatusLine,
    /// Not exactly `chunked`: other codings would be lost on the way, and the device would be
    /// given coded bytes as plain ones.
    #[error("a transfer coding other than chunked")]
    TransferEncoding,
    /// Neither 1.0 nor 1.1.
    #[error("an unknown version of HTTP")]
    Version,
}

const PROTOCOL: &[u8] = b"HTTP/1.";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Scanner, *};

    const LIMITS: Limits = Limits {
        bytes: 1024,
        fields: 8,
        target: 1024,
    };

    fn parse_for(method: &Method, raw: &[u8]) -> Result<Head, Error> {
        Head::parse(&Bytes::copy_from_slice(raw), method, &LIMITS)
    }

    fn parse(raw: &str) -> Result<Head, Error> {
        parse_for(&Method::GET, raw.as_bytes())
    }

    fn fields_of(text: &str) -> Result<Head, Error> {
        parse(&format!("HTTP/1.1 200 OK\r\n{text}\r\n"))
    }

    #[test]
    fn an_answer_is_read() {
        let head = parse("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nX: a\r\nx:b\r\n\r\n");
        let head = head.unwrap();
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert_eq!(head.framing, Framing::Length(5));
        assert!(head.keep_alive);
        let values: Vec<_> = head.headers.get_all("x").iter().collect();
        assert_eq!(values, ["a", "b"]);
    }

    #[test]
    fn what_cannot_be_misread_passes() {
        for line in [
            &b"HTTP/1.1 200"[..],
            b"HTTP/1.1 200 ",
            b"HTTP/1.0 200 Alles gut\xfc\tund so",
            b"HTTP/1.1 999 x",
        ] {
            let raw = [
                line,
                b"\r\nEmpty:\r\nSpaces: \t a b \t \r\nHigh: \xff\r\n\r\n",
            ]
            .concat();
            let head = parse_for(&Method::GET, &raw).unwrap();
            assert_eq!(head.headers["empty"], "");
            assert_eq!(head.headers["spaces"], "a b");
        }
    }

    #[test]
    fn other_status_lines_are_refused() {
        for line in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 099 x",
            "HTTP/1.1 +20 x",
            "HTTP/1.1\t200 OK",
            "HTTP/1.1 200\tOK",
            "http/1.1 200 OK",
            "HTTP/1 200 OK",
            " HTTP/1.1 200 OK",
            "ICY 200 OK",
            "HTTP/1.1 200 O\u{0}K",
            "HTTP/1.1 200 O\rK",
            "SSH-2.0-OpenSSH",
            "HTTP/1.10 200 OK",
        ] {
            let error = parse(&format!("{line}\r\n\r\n")).unwrap_err();
            assert_eq!(error, Error::StatusLine, "{line:?}");
        }
        assert_eq!(
            parse("HTTP/1.2 200 OK\r\n\r\n").unwrap_err(),
            Error::Version
        );
        assert!(Head::can_begin(b"") && Head::can_begin(b"HTTP/1.") && Head::can_begin(b"HT"));
        assert!(!Head::can_begin(b"HTTP/2.0") && !Head::can_begin(b"220 mail"));
    }

    #[test]
    fn two_framings_are_never_two_readings() {
        // Equal lengths are one, and chunks outweigh a length: but nothing after them is believed.
        for (text, framing, name) in [
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Framing::Length(5),
                CONTENT_LENGTH,
            ),
            (
                "Content-Length: 5, 5\r\n",
                Framing::Length(5),
                CONTENT_LENGTH,
            ),
            (
                "Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n",
                Framing::Chunked,
                TRANSFER_ENCODING,
            ),
        ] {
            let head = fields_of(text).unwrap();
            assert_eq!((head.framing, head.keep_alive), (framing, false), "{text}");
            assert_eq!(head.headers.len(), 1, "{text}");
            assert!(head.headers.contains_key(name));
        }
        for text in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5,\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: five\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: five\r\n",
        ] {
            assert_eq!(fields_of(text).unwrap_err(), Error::ContentLength, "{text}");
        }
        for text in [
            "gzip, chunked",
            "chunked, chunked",
            "gzip",
            "chunked;x",
            "",
            "\u{e9}",
            "identity",
            "chunked\r\nTransfer-Encoding: chunked",
            "xchunked",
            "chunked, gzip",
        ] {
            let error = fields_of(&format!("Transfer-Encoding: {text}\r\n")).unwrap_err();
            assert_eq!(error, Error::TransferEncoding, "{text}");
        }
        let old = parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old.unwrap_err(), Error::TransferEncoding);
    }

    #[test]
    fn fields_are_as_strict_as_a_devices() {
        use super::super::Error as E;
        for (text, error) in [
            ("A : b\r\n", E::FieldName),
            ("A\r\n", E::FieldName),
            (": b\r\n", E::FieldName),
            ("A: b\r\n folded\r\n", E::Folded),
            ("A: b\u{0}\r\n", E::FieldValue),
            ("A: b\rc\r\n", E::FieldValue),
            ("A: b\nB: c\r\n", E::Incomplete),
            (&"A: b\r\n".repeat(9), E::TooManyFields),
        ] {
            assert_eq!(
                fields_of(text).unwrap_err(),
                Error::Fields(error),
                "{text:?}"
            );
        }
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for (method, line) in [
            (Method::HEAD, "HTTP/1.1 200 OK"),
            (Method::GET, "HTTP/1.1 304 Not Modified"),
            (Method::GET, "HTTP/1.1 103 Early Hints"),
        ] {
            for field in ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y"] {
                let head = parse_for(&method, format!("{line}\r\n{field}\r\n\r\n").as_bytes());
                let head = head.unwrap();
                assert_eq!(head.framing, Framing::Length(0), "{line} {field}");
                assert!(head.keep_alive, "{line} {field}");
            }
        }
        for (field, keep_alive) in [
            ("Content-Length: 0", true),
            ("X: y", true),
            ("Content-Length: 5", false),
            ("Transfer-Encoding: chunked", false),
        ] {
            let head = parse(&format!("HTTP/1.1 204 No Content\r\n{field}\r\n\r\n")).unwrap();
            assert_eq!(head.framing, Framing::Length(0), "{field}");
            assert_eq!(head.keep_alive, keep_alive, "{field}");
        }
    }

    #[test]
    fn a_connection_is_kept_as_the_version_and_the_node_say() {
        for (raw, keep_alive) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
                false,
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n",
                true,
            ),
            // The end of the connection is the end of the body.
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            assert_eq!(parse(raw).unwrap().keep_alive, keep_alive, "{raw}");
        }
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\n\r\n").unwrap().framing,
            Framing::Close
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(raw in prop::collection::vec(any::<u8>(), 0..300)) {
            let raw = [b"HTTP/1.1 200 OK\r\n", &raw[..], b"\r\n\r\n"].concat();
            let _can = Head::can_begin(&raw);
            if let Ok(Some(end)) = Scanner::default().advance(&raw, &LIMITS) {
                let _head = parse_for(&Method::GET, &raw[..end]);
            }
        }

        #[test]
        fn no_status_line_panics(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let _line = status_line(&raw);
        }
    }
}
