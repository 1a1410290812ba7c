//! Reads the head of an HTTP/1 request, strictly; bytes only.
//!
//! Where peers could read a head in two ways, it is refused (RFC 9112, section 2.2 and 11.2). Being
//! lenient here is what request smuggling lives from.
#![warn(clippy::arithmetic_side_effects)]

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING},
    uri::PathAndQuery,
};

pub mod response;

/// The head of one request, with everything that the connection must know about it.
#[derive(Debug)]
pub struct Head {
    /// The method; any token.
    pub method: Method,
    /// The target: a path, an absolute URI, `host:port` for `CONNECT`, or `*` for `OPTIONS`.
    pub target: Uri,
    /// 1.0 or 1.1.
    pub version: Version,
    /// The fields, in order within each name. `Host` is there once, or not at all in 1.0.
    pub headers: HeaderMap,
    /// How long the body is.
    pub framing: Framing,
    /// The device wants to send another request after this one.
    pub keep_alive: bool,
    /// The device waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// How the end of a request's body is found (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Chunks.
    Chunked,
    /// This many bytes; zero when there is no body.
    Length(u64),
}

/// Upper bounds on a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl Head {
    /// Reads a whole head, as [`Scanner`] found it: from the request line to the empty line.
    ///
    /// Field values share the memory of `head`.
    ///
    /// # Errors
    ///
    /// When the head is not exactly what RFC 9112 asks for, or a limit is exceeded.
    pub fn parse(head: &Bytes, limits: &Limits) -> Result<Self, Error> {
        let mut lines = Lines { rest: head };
        let line = lines.next().ok_or(Error::RequestLine)?;
        let (method, target, version) = request_line(line, limits)?;
        let headers = fields(head, &mut lines, limits.fields)?;
        check_host(&headers, version)?;
        let framing = framing(&headers, version)?;
        let connect = method == Method::CONNECT;
        if connect && framing != Framing::Length(0) {
            return Err(Error::ConnectBody);
        }
        Ok(Self {
            target: parse_target(head.slice_ref(target), &method)?,
            keep_alive: keep_alive(&headers, version),
            expects_continue: expects_continue(&headers, version)?,
            framing,
            method,
            version,
            headers,
        })
    }
}

/// Finds the end of a head while its bytes arrive; looks at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    seen: usize,
    line: usize,
    lines: usize,
}

impl Scanner {
    /// The length of the head at the start of `buffer`, or `None` when its end has not come.
    ///
    /// `buffer` is what the last call saw, and what has come since.
    ///
    /// # Errors
    ///
    /// As soon as the bytes cannot become a head any more.
    pub fn advance(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        while let Some(found) = buffer
            .get(self.seen..)
            .and_then(|new| new.iter().position(|&byte| byte == b'\n'))
        {
            let end = self.seen.saturating_add(found);
            let line = buffer.get(self.line..end).unwrap_or_default();
            // A bare LF ends a line for some parsers and not for others.
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(Error::BareLineFeed);
            };
            self.seen = end.saturating_add(1);
            self.line = self.seen;
            if self.seen > limits.bytes {
                return Err(self.too_large(line, limits));
            }
            if line.is_empty() {
                return Ok(Some(self.seen));
            }
            self.lines = self.lines.saturating_add(1);
        }
        self.seen = buffer.len();
        let line = buffer.get(self.line..).unwrap_or_default();
        if buffer.len() > limits.bytes
            || self.lines == 0 && line.len() > limits.target.saturating_add(LINE_REST)
        {
            return Err(self.too_large(line, limits));
        }
        Ok(None)
    }

    fn too_large(self, line: &[u8], limits: &Limits) -> Error {
        if self.lines == 0 && line.len() > limits.target {
            Error::TargetTooLong
        } else {
            Error::TooLarge
        }
    }
}

/// Reads fields up to an empty line; trailers of a chunked body are read with it, too.
pub(super) fn fields(
    head: &Bytes,
    lines: &mut Lines<'_>,
    limit: usize,
) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(TYPICAL_FIELDS.min(limit));
    for line in lines {
        if line.is_empty() {
            return Ok(headers);
        }
        if headers.len() >= limit {
            return Err(Error::TooManyFields);
        }
        let (name, value) = field(head, line)?;
        headers
            .try_append(name, value)
            .map_err(|_full| Error::TooManyFields)?;
    }
    Err(Error::Incomplete)
}

/// The lines of a head, without their line ends.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    /// What has not been read.
    pub(super) rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        // A bare LF ends the lines, and so the head is incomplete.
        line.strip_suffix(b"\r")
    }
}

/// `METHOD SP target SP HTTP/1.x`, with exactly these spaces (RFC 9112, section 3).
fn request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(Method, &'a [u8], Version), Error> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::RequestLine);
    };
    if method.len() > METHOD_LIMIT || !method.iter().copied().all(is_token) {
        return Err(Error::Method);
    }
    let method = Method::from_bytes(method).map_err(|_invalid| Error::Method)?;
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Error::Version);
        }
        _ => return Err(Error::RequestLine),
    };
    if target.len() > limits.target {
        return Err(Error::TargetTooLong);
    }
    Ok((method, target, version))
}

/// One of the four forms of RFC 9112, section 3.2.
fn parse_target(target: Bytes, method: &Method) -> Result<Uri, Error> {
    // A fragment is never sent; controls and raw non-ASCII are read differently by everybody.
    if !target
        .iter()
        .all(|&byte| matches!(byte, 0x21..=0x7e) && byte != b'#')
    {
        return Err(Error::Target);
    }
    if method == Method::CONNECT {
        let (host, port) = authority(&target).ok_or(Error::Target)?;
        if host.is_empty() || port.is_none_or(|port| port == 0) {
            return Err(Error::Target);
        }
        return Uri::from_maybe_shared(target).map_err(|_invalid| Error::Target);
    }
    match target.first() {
        Some(b'/') => PathAndQuery::from_maybe_shared(target)
            .map(Uri::from)
            .map_err(|_invalid| Error::Target),
        Some(b'*') if target.len() == 1 && method == Method::OPTIONS => {
            Ok(Uri::from(PathAndQuery::from_static("*")))
        }
        _ => {
            let rest = [&b"http://"[..], b"https://"]
                .into_iter()
                .find_map(|scheme| {
                    let (start, rest) = target.split_at_checked(scheme.len())?;
                    start.eq_ignore_ascii_case(scheme).then_some(rest)
                });
            let authority_part = rest
                .and_then(|rest| rest.split(|byte| matches!(byte, b'/' | b'?')).next())
                .ok_or(Error::Target)?;
            match authority(authority_part) {
                Some((host, port)) if !host.is_empty() && port != Some(0) => {
                    Uri::from_maybe_shared(target).map_err(|_invalid| Error::Target)
                }
                _ => Err(Error::Target),
            }
        }
    }
}

/// Splits `host[:port]`, `v4[:port]` or `[v6][:port]`; `None` when it is none of them.
///
/// User information, percent-encoding and an empty port are refused: nobody sends them rightly.
pub(super) fn authority(bytes: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let split = if bytes.first() == Some(&b'[') {
        let end = bytes.iter().position(|&byte| byte == b']')?;
        end.checked_add(1)?
    } else {
        bytes
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(bytes.len())
    };
    let (host, port) = bytes.split_at_checked(split)?;
    let good = match host {
        [b'[', v6 @ .., b']'] => {
            std::str::from_utf8(v6).is_ok_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())
        }
        name => name
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')),
    };
    if !good || host.len() > HOST_LIMIT {
        return None;
    }
    match port {
        [] => Some((host, None)),
        [b':', digits @ ..] if matches!(digits.len(), 1..=5) => {
            Some((host, Some(u16::try_from(decimal(digits)?).ok()?)))
        }
        _ => None,
    }
}

fn field(head: &Bytes, line: &[u8]) -> Result<(HeaderName, HeaderValue), Error> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Error::Folded);
    }
    let colon = line
        .iter()
        .position(|&byte| byte == b':')
        .ok_or(Error::FieldName)?;
    let (name, value) = line.split_at_checked(colon).ok_or(Error::FieldName)?;
    // It takes tokens alone (a test has every byte). A space before the colon is no token
    // character, so it is refused here as well.
    let name = HeaderName::from_bytes(name).map_err(|_invalid| Error::FieldName)?;
    let value = trim(value.get(1..).unwrap_or_default());
    // It takes no control characters besides the tab (a test has every byte).
    let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
        .map_err(|_invalid| Error::FieldValue)?;
    Ok((name, value))
}

fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Error> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(()),
        (Some(host), None) => match authority(host.as_bytes()) {
            Some((name, port)) if !name.is_empty() && port != Some(0) => Ok(()),
            _ => Err(Error::Host),
        },
        _ => Err(Error::Host),
    }
}

/// One framing, or none at all (rule R19).
fn framing(headers: &HeaderMap, version: Version) -> Result<Framing, Error> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::Length(0)),
        (None, Some(length)) => {
            // Even equal lengths: a peer may read the list as one value.
            if lengths.next().is_some() {
                return Err(Error::ContentLength);
            }
            decimal(length.as_bytes())
                .map(Framing::Length)
                .ok_or(Error::ContentLength)
        }
        (Some(coding), None) => {
            let exact = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if exact && codings.next().is_none() && version == Version::HTTP_11 {
                Ok(Framing::Chunked)
            } else {
                Err(Error::TransferEncoding)
            }
        }
        (Some(_), Some(_)) => Err(Error::TwoFramings),
    }
}

fn keep_alive(headers: &HeaderMap, version: Version) -> bool {
    let asks = |option: &[u8]| {
        headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .any(|item| trim(item).eq_ignore_ascii_case(option))
    };
    !asks(b"close") && (version == Version::HTTP_11 || asks(b"keep-alive"))
}

fn expects_continue(headers: &HeaderMap, version: Version) -> Result<bool, Error> {
    let mut expectations = headers.get_all(EXPECT).iter();
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(false),
        // A 1.0 device cannot mean it (RFC 9110, section 10.1.1).
        _ if version == Version::HTTP_10 => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Error::Expectation),
    }
}

/// Digits and nothing else, without overflow.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Without spaces and tabs at its ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// LF without CR.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// `CONNECT` with a body.
    #[error("CONNECT with a body")]
    ConnectBody,
    /// Not one plain number.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// An expectation other than `100-continue`.
    #[error("unknown expectation")]
    Expectation,
    /// Not a token, or no colon.
    #[error("invalid field name")]
    FieldName,
    /// Control characters.
    #[error("invalid field value")]
    FieldValue,
    /// A continued line.
    #[error("a field is folded")]
    Folded,
    /// None, several, or none that is valid.
    #[error("not exactly one valid Host")]
    Host,
    /// The empty line is missing.
    #[error("the head has no end")]
    Incomplete,
    /// Not a token, or too long.
    #[error("invalid method")]
    Method,
    /// Not three parts with single spaces.
    #[error("invalid request line")]
    RequestLine,
    /// Not a form that fits the method, or characters that have no place in it.
    #[error("invalid request target")]
    Target,
    /// More bytes than the limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// More bytes than the limit.
    #[error("the head is too large")]
    TooLarge,
    /// More fields than the limit.
    #[error("too many fields")]
    TooManyFields,
    /// Not exactly `chunked`, or in HTTP/1.0.
    #[error("Transfer-Encoding is not exactly chunked")]
    TransferEncoding,
    /// Both Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoFramings,
    /// Neither 1.0 nor 1.1.
    #[error("unsupported HTTP version")]
    Version,
}

impl Error {
    /// The status that tells the device.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BareLineFeed
            | Self::ConnectBody
            | Self::ContentLength
            | Self::FieldName
            | Self::FieldValue
            | Self::Folded
            | Self::Host
            | Self::Incomplete
            | Self::Method
            | Self::RequestLine
            | Self::Target
            | Self::TransferEncoding
            | Self::TwoFramings => StatusCode::BAD_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The rule, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLineFeed => "bare line feed in the head",
            Self::ConnectBody => "CONNECT with a body",
            Self::ContentLength => "Content-Length is not one number",
            Self::Expectation => "unknown expectation",
            Self::FieldName => "invalid field name",
            Self::FieldValue => "invalid field value",
            Self::Folded => "folded field",
            Self::Host => "not exactly one valid Host",
            Self::Incomplete => "head without an end",
            Self::Method => "invalid method",
            Self::RequestLine => "invalid request line",
            Self::Target => "invalid request target",
            Self::TargetTooLong => "request target too long",
            Self::TooLarge => "head too large",
            Self::TooManyFields => "too many fields",
            Self::TransferEncoding => "Transfer-Encoding is not exactly chunked",
            Self::TwoFramings => "both Content-Length and Transfer-Encoding",
            Self::Version => "unsupported HTTP version",
        }
    }
}

/// Bytes of a request line besides its target: method, version and spaces.
const LINE_REST: usize = 64;
const METHOD_LIMIT: usize = 32;
const HOST_LIMIT: usize = 255;
/// Most heads fit; more only costs another allocation.
const TYPICAL_FIELDS: usize = 16;

#[cfg(test)]
mod tests;
