//! Decodes a chunked body as its bytes arrive; bytes only.
#![warn(clippy::arithmetic_side_effects)]

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::head::{self, Lines, Scanner, fields};

/// The state of one chunked body (RFC 9112, section 7.1).
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limits: head::Limits,
    /// Bytes that chunk extensions have cost so far.
    extensions: usize,
}

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// The body is over. Trailers are as the device sent them, and empty when it sent none.
    End(HeaderMap),
    /// More bytes are needed.
    More,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the data of a chunk, with this many bytes to come.
    Data(u64),
    /// Before the line end after the data of a chunk.
    DataEnd,
    /// After the end.
    Over,
    /// In the line with the size of the next chunk.
    Size,
    /// After the last chunk.
    Trailers(Scanner),
}

impl Decoder {
    /// At the start of a body. The limits are those of its trailers.
    pub fn new(limits: head::Limits) -> Self {
        Self {
            state: State::Size,
            // The first line of trailers is no request line.
            limits: head::Limits {
                target: limits.bytes,
                ..limits
            },
            extensions: 0,
        }
    }

    /// Takes the next piece from the front of `buffer`, and only what belongs to this body.
    ///
    /// # Errors
    ///
    /// When the framing is broken: nothing after it can be trusted.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, Error> {
        loop {
            match &mut self.state {
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Piece::More);
                    }
                    let length = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let data = buffer.split_to(length).freeze();
                    *left = left.saturating_sub(data.len() as u64);
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                State::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        let _line_end = buffer.split_to(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::More),
                    _ => return Err(Error::DataEnd),
                },
                State::Over => return Ok(Piece::End(HeaderMap::new())),
                State::Size => match self.size(buffer)? {
                    None => return Ok(Piece::More),
                    Some(0) => self.state = State::Trailers(Scanner::default()),
                    Some(size) => self.state = State::Data(size),
                },
                State::Trailers(scanner) => {
                    let found = scanner
                        .advance(buffer, &self.limits)
                        .map_err(Error::Trailers)?;
                    let Some(length) = found else {
                        return Ok(Piece::More);
                    };
                    let block = buffer.split_to(length).freeze();
                    self.state = State::Over;
                    return fields(&block, &mut Lines { rest: &block }, self.limits.fields)
                        .map(Piece::End)
                        .map_err(Error::Trailers);
                }
            }
        }
    }

    /// Reads `1*HEXDIG [;extension] CRLF`; an extension means nothing to us.
    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, Error> {
        let window = buffer.get(..LINE_LIMIT).unwrap_or(buffer);
        let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
            if buffer.len() >= LINE_LIMIT {
                return Err(Error::ExtensionTooLong);
            }
            // Fail on the first bytes already: a device that sends something else should not wait.
            let digits = window.iter().take_while(|byte| byte.is_ascii_hexdigit());
            let digits = digits.count();
            let good = match window.get(digits) {
                None => digits <= SIZE_DIGITS,
                Some(b'\r' | b';') => matches!(digits, 1..=SIZE_DIGITS),
                Some(_) => false,
            };
            return if good { Ok(None) } else { Err(Error::Size) };
        };
        let line = buffer.split_to(end.saturating_add(1));
        let line = line.strip_suffix(b"\r\n").ok_or(Error::BareLineFeed)?;
        let digits = line
            .iter()
            .position(|byte| !byte.is_ascii_hexdigit())
            .unwrap_or(line.len());
        let (size, extension) = line.split_at_checked(digits).ok_or(Error::Size)?;
        if !matches!(size.len(), 1..=SIZE_DIGITS) || !matches!(extension.first(), None | Some(b';'))
        {
            return Err(Error::Size);
        }
        if !extension
            .iter()
            .all(|&byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
        {
            return Err(Error::Extension);
        }
        self.extensions = self.extensions.saturating_add(extension.len());
        if extension.len() > EXTENSION_LIMIT || self.extensions > EXTENSIONS_LIMIT {
            return Err(Error::ExtensionTooLong);
        }
        size.iter()
            .try_fold(0_u64, |sum, &byte| {
                let digit = char::from(byte).to_digit(16)?;
                sum.checked_mul(16)?.checked_add(u64::from(digit))
            })
            .map(Some)
            .ok_or(Error::Size)
    }
}

/// Why a chunked body was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// LF without CR.
    #[error("a chunk's line ends without a carriage return")]
    BareLineFeed,
    /// The data is not followed by a line end: its size was wrong.
    #[error("a chunk is longer than its size")]
    DataEnd,
    /// Control characters.
    #[error("invalid chunk extension")]
    Extension,
    /// One of more than 256 bytes, or 16 KiB of them in one body.
    #[error("chunk extensions are too long")]
    ExtensionTooLong,
    /// Not 1 to 16 hexadecimal digits.
    #[error("invalid chunk size")]
    Size,
    /// The trailers are no fields.
    #[error("invalid trailers")]
    Trailers(#[source] head::Error),
}

impl Error {
    /// The rule, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLineFeed => "bare line feed in a chunk's line",
            Self::DataEnd => "chunk longer than its size",
            Self::Extension => "invalid chunk extension",
            Self::ExtensionTooLong => "chunk extensions too long",
            Self::Size => "invalid chunk size",
            Self::Trailers(_) => "invalid trailers",
        }
    }
}

const SIZE_DIGITS: usize = 16;
const EXTENSION_LIMIT: usize = 256;
/// In one body: otherwise a device makes us read 256 bytes for each byte that it sends on.
const EXTENSIONS_LIMIT: usize = 16 * 1024;
const LINE_LIMIT: usize = SIZE_DIGITS + EXTENSION_LIMIT + 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: head::Limits = head::Limits {
        bytes: 512,
        fields: 4,
        target: 0,
    };

    /// Body, trailers and what is left.
    type Decoded = (Vec<u8>, HeaderMap, Vec<u8>);

    /// Decodes bytes that arrive in these parts; `None` when more are needed.
    fn decode(parts: &[&[u8]]) -> Result<Option<Decoded>, Error> {
        let mut decoder = Decoder::new(LIMITS);
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        let mut parts = parts.iter();
        loop {
            match decoder.decode(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End(trailers) => {
                    let rest = parts.copied().collect::<Vec<_>>().concat();
                    return Ok(Some((body, trailers, [buffer.to_vec(), rest].concat())));
                }
                Piece::More => match parts.next() {
                    Some(part) => buffer.extend_from_slice(part),
                    None => return Ok(None),
                },
            }
        }
    }

    fn error(raw: &str) -> Error {
        decode(&[raw.as_bytes()]).unwrap_err()
    }

    #[test]
    fn chunks_are_joined_and_the_next_request_is_left_alone() {
        let raw =
            b"4\r\nWiki\r\n6;a=b;c=\"d\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\nGET /";

        let (body, trailers, rest) = decode(&[raw]).unwrap().unwrap();

        assert_eq!(body, b"Wikipedia in \r\n\r\nchunks.");
        assert!(trailers.is_empty());
        assert_eq!(rest, b"GET /");
    }

    #[test]
    fn trailers_are_read() {
        let (body, trailers, rest) = decode(&[b"1\r\na\r\n0\r\nX-Sum: 7\r\nB: c\r\n\r\n"])
            .unwrap()
            .unwrap();

        assert_eq!((body.as_slice(), rest.as_slice()), (&b"a"[..], &b""[..]));
        assert_eq!(trailers["x-sum"], "7");
        assert_eq!(trailers.len(), 2);
    }

    #[test]
    fn every_split_gives_the_same_body() {
        let raw = b"5;x\r\nhello\r\n0A\r\n0123456789\r\n000\r\nA: b\r\n\r\nnext";
        let whole = decode(&[raw]).unwrap();
        assert!(whole.is_some());

        for split in 0..raw.len() {
            let (a, b) = raw.split_at(split);
            assert_eq!(decode(&[a, b]).unwrap(), whole, "split at {split}");
        }
        let single: Vec<&[u8]> = raw.chunks(1).collect();
        assert_eq!(decode(&single).unwrap(), whole);
    }

    #[test]
    fn every_truncation_waits_for_more() {
        let long = format!("0\r\nA: {}\r\n\r\n", "b".repeat(200));
        for end in 0..long.len() {
            assert_eq!(
                decode(&[&long.as_bytes()[..end]]).unwrap(),
                None,
                "cut at {end}"
            );
        }

        let raw = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for end in 0..raw.len() {
            assert_eq!(decode(&[&raw[..end]]).unwrap(), None, "cut at {end}");
        }
    }

    #[test]
    fn sizes_are_hexadecimal_digits_and_nothing_else() {
        for raw in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1 ;a\r\n",
            "0x1\r\n",
            "1\t\r\n",
            "1,\r\n",
            "\u{0}\r\n",
            ";a\r\n",
            "11111111111111111\r\n",
            "00000000000000001\r\n",
            "1\u{b}",
            "1 ",
            "x",
        ] {
            assert_eq!(error(raw), Error::Size, "{raw:?}");
        }
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        assert_eq!(decode(&[b"ffffffffffffffff\r\nabc"]).unwrap(), None);
    }

    #[test]
    fn a_bare_line_feed_is_refused() {
        assert_eq!(error("1\na"), Error::BareLineFeed);
        assert_eq!(error("1;a\na"), Error::BareLineFeed);
        assert_eq!(error("1\r\na\n"), Error::DataEnd);
        assert_eq!(error("0\r\n\n"), Error::Trailers(head::Error::BareLineFeed));
    }

    #[test]
    fn a_chunk_longer_than_its_size_is_refused() {
        assert_eq!(error("1\r\nab\r\n0\r\n\r\n"), Error::DataEnd);
        assert_eq!(error("1\r\na0\r\n\r\n"), Error::DataEnd);
        assert_eq!(error("1\r\na\rb"), Error::DataEnd);
    }

    #[test]
    fn extensions_are_bounded_each_and_in_all() {
        let chunk = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length));
        assert_eq!(decode(&[chunk(255).as_bytes()]).unwrap(), None);
        assert_eq!(error(&chunk(256)), Error::ExtensionTooLong);
        assert_eq!(error(&chunk(4096)), Error::ExtensionTooLong);
        assert_eq!(error(&chunk(200).repeat(100)), Error::ExtensionTooLong);
        assert_eq!(
            error(&format!("1;{}", "x".repeat(400))),
            Error::ExtensionTooLong
        );
        assert_eq!(error("1;a\rb\r\n"), Error::Extension);
        assert_eq!(error("1;\u{0}\r\n"), Error::Extension);
    }

    #[test]
    fn trailers_are_bounded_and_strict() {
        let trailers = |text: &str| error(&format!("0\r\n{text}"));
        let refused = |error| Error::Trailers(error);
        assert_eq!(
            trailers(&"A: b\r\n".repeat(100)),
            refused(head::Error::TooLarge)
        );
        assert_eq!(
            trailers("A: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\n\r\n"),
            refused(head::Error::TooManyFields)
        );
        assert_eq!(trailers("A : b\r\n\r\n"), refused(head::Error::FieldName));
        assert_eq!(trailers(" A: b\r\n\r\n"), refused(head::Error::Folded));
        assert_eq!(
            trailers("A: b\u{0}\r\n\r\n"),
            refused(head::Error::FieldValue)
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let _decoded = decode(&[&raw]);
        }

        #[test]
        fn what_was_encoded_comes_back(chunks in prop::collection::vec("[a-z]{1,40}", 0..8), split in 0..400_usize) {
            let mut raw = String::new();
            for chunk in &chunks {
                raw.push_str(&format!("{:X}\r\n{chunk}\r\n", chunk.len()));
            }
            raw.push_str("0\r\n\r\n");
            let (a, b) = raw.as_bytes().split_at(split.min(raw.len()));
            let (body, _, rest) = decode(&[a, b]).unwrap().unwrap();
            prop_assert_eq!(body, chunks.concat().into_bytes());
            prop_assert!(rest.is_empty());
        }
    }
}
