//! Form: `application/x-www-form-urlencoded`, read strictly into named fields.
//!
//! A key without a value, a key twice, an unknown key and broken escapes are refusals of their
//! own, not values (R4). Nothing here echoes what it read.

/// The fields of a form or query, for the keys that were asked for.
#[derive(Debug, Default)]
pub(super) struct Fields {
    values: Vec<(&'static str, String)>,
}

impl Fields {
    /// Reads a form that may have these keys and no other.
    pub(super) fn parse(form: &[u8], keys: &[&'static str]) -> Result<Self, Error> {
        let mut fields = Self::default();
        if form.is_empty() {
            return Ok(fields);
        }
        for pair in form.split(|byte| *byte == b'&') {
            let place = pair.iter().position(|byte| *byte == b'=');
            let (key, value) = place
                .and_then(|place| pair.split_at_checked(place))
                .ok_or(Error::NoValue)?;
            let key = decode(key)?;
            let known = keys
                .iter()
                .find(|known| **known == key)
                .ok_or(Error::Unknown)?;
            if fields.get(known).is_some() {
                return Err(Error::Twice);
            }
            let value = decode(value.get(1..).unwrap_or_default())?;
            fields.values.push((known, value));
        }
        Ok(fields)
    }

    /// The value of a key, if the form has it.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a key that the form must have.
    pub(super) fn need(&self, key: &'static str) -> Result<&str, Error> {
        self.get(key).ok_or(Error::Absent(key))
    }

    /// Takes a value out, so that no copy stays here.
    pub(super) fn take(&mut self, key: &'static str) -> Result<String, Error> {
        let place = self
            .values
            .iter()
            .position(|(known, _)| *known == key)
            .ok_or(Error::Absent(key))?;
        Ok(self.values.swap_remove(place).1)
    }
}

fn decode(text: &[u8]) -> Result<String, Error> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = char::from(*bytes.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let (high, low) = (digit(), digit());
                high.zip(low)
                    .map(|(high, low)| (high << 4) | low)
                    .ok_or(Error::Escape)?
            }
            plain => *plain,
        });
    }
    String::from_utf8(out).map_err(|_not_utf8| Error::Escape)
}

/// Why a form is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A key that the form must have is missing.
    #[error("the form has no {0}")]
    Absent(&'static str),
    /// `%` without two hexadecimal digits, or text that is not UTF-8.
    #[error("the form has a broken escape")]
    Escape,
    /// A key without `=`.
    #[error("the form has a key without a value")]
    NoValue,
    /// A key twice.
    #[error("the form has a key twice")]
    Twice,
    /// A key that this form does not have.
    #[error("the form has a key that nobody asked for")]
    Unknown,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: &[&str] = &["user", "password"];

    fn error(form: &[u8]) -> Error {
        Fields::parse(form, KEYS).unwrap_err()
    }

    #[test]
    fn a_form_is_read() {
        let fields = Fields::parse(b"user=al%69ce+b&password=%C3%BC%26%3D", KEYS).unwrap();
        assert_eq!(fields.need("user"), Ok("alice b"));
        assert_eq!(fields.need("password"), Ok("ü&="));
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let fields = Fields::parse(b"user=", KEYS).unwrap();
        assert_eq!(fields.need("user"), Ok(""));
        assert_eq!(fields.need("password"), Err(Error::Absent("password")));
    }

    #[test]
    fn a_key_without_a_value_is_refused() {
        assert_eq!(error(b"user"), Error::NoValue);
        assert_eq!(error(b"user=a&password"), Error::NoValue);
        assert_eq!(error(b"user=a&"), Error::NoValue);
        assert_eq!(error(b"&"), Error::NoValue);
    }

    #[test]
    fn a_key_twice_is_refused() {
        assert_eq!(error(b"user=a&user=b"), Error::Twice);
        assert_eq!(error(b"user=a&%75ser=b"), Error::Twice);
    }

    #[test]
    fn an_unknown_key_or_another_case_is_refused() {
        assert_eq!(error(b"admin=1"), Error::Unknown);
        assert_eq!(error(b"User=a"), Error::Unknown);
        assert_eq!(error(b"=a"), Error::Unknown);
    }

    #[test]
    fn broken_escapes_are_refused() {
        for form in [
            b"user=%".as_slice(),
            b"user=%4",
            b"user=%zz",
            b"user=%ff",
            b"user=\xff",
        ] {
            assert_eq!(error(form), Error::Escape);
        }
    }

    proptest! {
        #[test]
        fn no_form_panics(form in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = Fields::parse(&form, KEYS);
        }
    }
}
