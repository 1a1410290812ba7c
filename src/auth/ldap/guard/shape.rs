//! Shape: whether a whole message is one that this client may get (RFC 4511, section 4).
//!
//! The library takes for granted what a server ought to send, and panics on anything else. That
//! would end a login and not the gateway; still it is refused before the library sees it.

use super::length;

/// Whether a whole message, whose lengths fit into each other, is an answer to a bind, a search
/// or an extended request, or a notice.
pub(super) fn is_answer(message: &[u8]) -> bool {
    let Some((SEQUENCE, content)) = Values(message).next() else {
        return false;
    };
    let mut values = Values(content);
    let id = values.next();
    let operation = values.next();
    let rest = values.next();
    matches!(id, Some((INTEGER, id)) if (1..=4).contains(&id.len()))
        && operation.is_some_and(|(tag, content)| is_operation(tag, content))
        && rest.is_none_or(|(tag, content)| match tag {
            CONTROLS => {
                Values(content).all(|(tag, control)| tag == SEQUENCE && is_control(control))
            }
            // Active Directory puts the name of a notice of disconnection here.
            NAME => true,
            _ => false,
        })
        && values.next().is_none()
}

fn is_operation(tag: u8, content: &[u8]) -> bool {
    match tag {
        BIND_RESPONSE | SEARCH_DONE | EXTENDED_RESPONSE => is_result(content),
        // Entries are read by our own code, which takes nothing for granted.
        SEARCH_ENTRY | INTERMEDIATE_RESPONSE => true,
        SEARCH_REFERENCE => Values(content).all(is_text),
        _ => false,
    }
}

/// An `LDAPResult`, and what a bind or an extended operation adds.
fn is_result(content: &[u8]) -> bool {
    let mut values = Values(content);
    let code = values.next();
    matches!(code, Some((ENUMERATED, code)) if (1..=4).contains(&code.len()))
        && values.next().is_some_and(is_text)
        && values.next().is_some_and(is_text)
        && values.all(|(tag, content)| match tag {
            REFERRAL => Values(content).all(is_text),
            NAME => std::str::from_utf8(content).is_ok(),
            CREDENTIALS | VALUE => true,
            _ => false,
        })
}

fn is_control(content: &[u8]) -> bool {
    let mut values = Values(content);
    if !values.next().is_some_and(is_text) {
        return false;
    }
    let mut next = values.next();
    if let Some((BOOLEAN, flag)) = next {
        if flag.len() != 1 {
            return false;
        }
        next = values.next();
    }
    next.is_none_or(|(tag, _value)| tag == OCTET_STRING) && values.next().is_none()
}

fn is_text((tag, content): (u8, &[u8])) -> bool {
    tag == OCTET_STRING && std::str::from_utf8(content).is_ok()
}

/// Values one after the other: the tag and the content of each.
struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (header, content) = length(rest).ok()??;
        let (value, rest) = rest.get(header..)?.split_at_checked(content)?;
        self.0 = rest;
        Some((tag, value))
    }
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_RESPONSE: u8 = 0x78;
const INTERMEDIATE_RESPONSE: u8 = 0x79;
const CONTROLS: u8 = 0xa0;
const REFERRAL: u8 = 0xa3;
const CREDENTIALS: u8 = 0x87;
const NAME: u8 = 0x8a;
const VALUE: u8 = 0x8b;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_send_passes() {
        for message in [
            // A bind that went well; with lengths as Active Directory writes them.
            b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00".as_slice(),
            b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x61\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00",
            // A wrong password, with a text and a control that nobody asked for.
            b"\x30\x16\x02\x01\x02\x61\x0a\x0a\x01\x31\x04\x00\x04\x03bad\xa0\x05\x30\x03\x04\x011",
            // An entry without attributes, a reference, the end.
            b"\x30\x0a\x02\x01\x03\x64\x05\x04\x01a\x30\x00",
            b"\x30\x09\x02\x01\x03\x73\x04\x04\x02ab",
            b"\x30\x0c\x02\x01\x03\x65\x07\x0a\x01\x04\x04\x00\x04\x00",
            // A notice of disconnection, as RFC 4511 and as Active Directory writes it.
            b"\x30\x0f\x02\x01\x00\x78\x0a\x0a\x01\x34\x04\x00\x04\x00\x8a\x011",
            b"\x30\x0f\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00\x8a\x011",
        ] {
            assert!(is_answer(message), "{message:02x?}");
        }
    }

    #[test]
    fn what_no_server_sends_does_not() {
        for message in [
            b"".as_slice(),
            b"\x30\x00",
            b"\x30\x03\x02\x01\x01",
            // No id, an empty one, one that is text.
            b"\x30\x09\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x0b\x02\x00\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x0c\x04\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            // Results without code, without texts, with a text that is none.
            b"\x30\x05\x02\x01\x01\x61\x00",
            b"\x30\x07\x02\x01\x01\x61\x02\x0a\x00",
            b"\x30\x08\x02\x01\x01\x61\x03\x0a\x01\x00",
            b"\x30\x0d\x02\x01\x01\x61\x08\x0a\x01\x00\x04\x00\x04\x01\xff",
            b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x05\x00",
            // A referral of numbers, a request, a reference of nothing readable.
            b"\x30\x11\x02\x01\x01\x61\x0c\x0a\x01\x0a\x04\x00\x04\x00\xa3\x03\x02\x01\x01",
            b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00",
            b"\x30\x08\x02\x01\x03\x73\x03\x02\x01\x01",
            // Controls without a type, with a flag of no octet; more after the controls.
            b"\x30\x10\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\xa0\x02\x30\x00",
            b"\x30\x15\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\xa0\x07\x30\x05\x04\x011\x01\x00",
            b"\x30\x10\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\xa0\x00\x05\x00",
        ] {
            assert!(!is_answer(message), "{message:02x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _any = is_answer(&bytes);
        }
    }
}
