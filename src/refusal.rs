//! The id of a refusal: what a person reads out, and an operator finds in the log.

use std::fmt;

use crate::crypto;

/// `R-` and ten random characters that cannot be misread (no I, L, O, U, 0 or 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 12]);

impl Id {
    /// A fresh one: 50 random bits.
    pub fn generate() -> Self {
        let mut id = *b"R-..........";
        let random: [u8; 10] = crypto::random();
        for (place, byte) in id.iter_mut().skip(2).zip(random) {
            *place = ALPHABET
                .get(usize::from(byte & 31))
                .copied()
                .unwrap_or(b'2');
        }
        Self(id)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKMNPQRSTVWXYZ23";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_characters_that_cannot_be_misread() {
        for _ in 0..100 {
            let id = Id::generate();
            let text = id.as_str();
            assert_eq!(text.len(), 12);
            assert!(text.starts_with("R-"));
            assert!(!text.split_at(2).1.contains(['I', 'L', 'O', 'U', '0', '1']));
        }
    }
}
