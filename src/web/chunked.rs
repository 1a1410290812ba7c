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
            limits,
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
