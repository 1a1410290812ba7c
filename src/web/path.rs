//! Judges the path of a request once: what is judged is what is forwarded (rule R22).
//!
//! A path has one form here. Characters that may stand for themselves are decoded, all others are
//! encoded with upper-case digits, `.` and `..` are resolved and empty segments are dropped, so
//! that policy and backend cannot see two paths. What backends are known to read in different
//! ways even then is refused.
#![warn(clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use http::uri::{InvalidUri, PathAndQuery};

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Borrowed where the device wrote it in this form.
    path: Cow<'a, str>,
    /// Only where it differs.
    bare: Option<String>,
}

/// Judges the path of a request target, without its query.
///
/// `extra` are characters that this app needs although they are refused elsewhere: `;`, which
/// separates parameters of a segment that the policy does not see, and `%`, for backends that
/// decode a second time (`%252F` in the names of some build servers).
///
/// # Errors
///
/// When backends could read the path in another way than the policy.
pub fn judge<'a>(raw: &'a str, extra: &str) -> Result<Judged<'a>, Error> {
    if is_canonical(raw) {
        return Ok(Judged {
            path: Cow::Borrowed(raw),
            bare: None,
        });
    }
    settle(raw, extra)
}

/// The long way, for every path.
fn settle(raw: &str, extra: &str) -> Result<Judged<'static>, Error> {
    let decoded = canonical(raw, extra)?;
    let text = decoded.strip_prefix('/').ok_or(Error::Relative)?;

    let mut segments: Vec<&str> = Vec::new();
    let mut folder = true;
    for segment in text.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        folder = matches!(name, "" | "." | "..");
        if folder && name.len() != segment.len() {
            // Some resolve `..;x` as `..`, and some take it for a name.
            return Err(Error::Parameters);
        }
        match name {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(Error::AboveRoot)?;
            }
            _ => segments.push(segment),
        }
    }
    let bare = segments
        .iter()
        .any(|segment| segment.contains(';'))
        .then(|| {
            let names = segments
                .iter()
                .map(|segment| segment.split(';').next().unwrap_or_default());
            join(names, folder)
        });
    Ok(Judged {
        path: Cow::Owned(join(segments.iter().copied(), folder)),
        bare,
    })
}

impl Judged<'_> {
    /// What the backend is sent.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the policy judges: the same, without parameters of segments.
    pub fn bare(&self) -> &str {
        self.bare.as_deref().unwrap_or(&self.path)
    }

    /// The path in place of that of the target it was judged for: its query, which nobody judges
    /// and nobody touches, stays.
    ///
    /// # Errors
    ///
    /// When the query holds characters that no query has.
    pub fn in_place_of(&self, raw: &PathAndQuery) -> Result<PathAndQuery, InvalidUri> {
        let path = &*self.path;
        // `https://host?query` has no path of its own, and is none that could be sent as it is.
        let same = raw
            .as_str()
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('?'));
        match raw.query() {
            _ if same => Ok(raw.clone()),
            None => PathAndQuery::try_from(path),
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        }
    }
}

/// Nothing to decode, to encode, to resolve or to drop: most paths are written so.
fn is_canonical(raw: &str) -> bool {
    let mut before = 0;
    for byte in raw.bytes() {
        // `/` and `.` after a slash begin an empty segment, `.` or `..`, or a hidden file's name:
        // which of them it is, is found out the long way.
        let good = match (before, byte) {
            (0, b'/') => true,
            (0, _) | (b'/', b'/' | b'.') => false,
            (_, b'/') => true,
            (_, byte) => is_plain(byte),
        };
        if !good {
            return false;
        }
        before = byte;
    }
    before != 0
}

/// Decodes what may stand for itself and encodes the rest.
fn canonical(raw: &str, extra: &str) -> Result<String, Error> {
    let parameters = extra.contains(';');
    let mut path = String::with_capacity(raw.len());
    let mut text = Utf8::default();
    let mut rest = raw.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let (byte, encoded) = if *byte == b'%' {
            let (decoded, after) = escape(rest).ok_or(Error::Escape)?;
            rest = after;
            (decoded, true)
        } else {
            (*byte, false)
        };
        text.take(byte).ok_or(Error::Encoding)?;
        match byte {
            0..=0x1f | 0x7f => return Err(Error::Control),
            b'\\' => return Err(Error::Separator),
            b'/' if encoded => return Err(Error::Separator),
            b';' if !parameters => return Err(Error::Semicolon),
            b'#' | b'?' | b' ' if !encoded => return Err(Error::Character),
            0x80.. if !encoded => return Err(Error::Character),
            // An encoded one is no separator of parameters, and stays so.
            b';' if encoded => push_escape(&mut path, byte),
            b'/' | b';' => path.push(char::from(byte)),
            _ if is_plain(byte) => path.push(char::from(byte)),
            _ => push_escape(&mut path, byte),
        }
    }
    if text.left != 0 {
        return Err(Error::Encoding);
    }
    // Looked for in the result: the digits after the escaped `%` may have been escaped as well.
    if !extra.contains('%')
        && path
            .split("%25")
            .skip(1)
            .any(|rest| nested(rest.as_bytes()))
    {
        return Err(Error::DoubleEscape);
    }
    Ok(path)
}

fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(2)?;
    let mut value = 0_u8;
    for &digit in digits {
        let digit = u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        value = value.checked_mul(16)?.checked_add(digit)?;
    }
    Some((value, rest))
}

/// After an encoded `%` comes what a second decoding would turn into another path.
fn nested(rest: &[u8]) -> bool {
    escape(rest).is_some_and(|(byte, _)| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, 0..=0x1f | 0x7f..)
            || b"%-./;\\_~".contains(&byte)
    })
}

/// Characters that stand for themselves in a segment (RFC 3986, section 3.3), without `;`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

fn push_escape(path: &mut String, byte: u8) {
    path.push('%');
    for digit in [byte >> 4, byte & 15] {
        let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
        path.push(digit.to_ascii_uppercase());
    }
}

fn join<'a>(segments: impl Iterator<Item = &'a str>, folder: bool) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.push_str(segment);
    }
    if folder || path.is_empty() {
        path.push('/');
    }
    path
}

/// Checks that decoded bytes are UTF-8: overlong forms of `/` and `.` are not.
#[derive(Default)]
struct Utf8 {
    sequence: [u8; 4],
    length: usize,
    left: usize,
}

impl Utf8 {
    /// `None` when the bytes so far cannot be UTF-8.
    fn take(&mut self, byte: u8) -> Option<()> {
        if self.left == 0 {
            self.length = 0;
            self.left = match byte {
                0x00..=0x7f => return Some(()),
                0xc2..=0xdf => 1,
                0xe0..=0xef => 2,
                0xf0..=0xf4 => 3,
                _ => return None,
            };
        } else {
            self.left = self.left.saturating_sub(1);
        }
        *self.sequence.get_mut(self.length)? = byte;
        self.length = self.length.saturating_add(1);
        if self.left == 0 {
            std::str::from_utf8(self.sequence.get(..self.length)?).ok()?;
        }
        Some(())
    }
}

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More `..` than segments.
    #[error("the path leaves its root")]
    AboveRoot,
    /// A character that must be encoded.
    #[error("a character of the path must be encoded")]
    Character,
    /// A control character, NUL among them.
    #[error("a control character in the path")]
    Control,
    /// `%25` and then an escape of its own.
    #[error("the path is encoded twice")]
    DoubleEscape,
    /// Encoded bytes are not UTF-8.
    #[error("the path is not UTF-8")]
    Encoding,
    /// `%` without two hexadecimal digits.
    #[error("an invalid escape in the path")]
    Escape,
    /// Parameters on an empty or dot segment.
    #[error("parameters on an empty segment of the path")]
    Parameters,
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    Relative,
    /// `;` where the app does not need it.
    #[error("a semicolon in the path")]
    Semicolon,
    /// An encoded slash, or a backslash.
    #[error("an encoded slash or a backslash in the path")]
    Separator,
}

#[cfg(test)]
mod tests;
