//! Heads of requests: no panic, the same at every split, and nothing hidden in what passes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ravelin_fuzz::web::head::{Framing, Head, Limits, Scanner};

const LIMITS: Limits = Limits {
    bytes: 4096,
    fields: 32,
    target: 512,
};

fuzz_target!(|data: &[u8]| {
    let whole = Scanner::default().advance(data, &LIMITS);
    let mut scanner = Scanner::default();
    let mut stepwise = Ok(None);
    for end in 0..=data.len() {
        stepwise = scanner.advance(&data[..end], &LIMITS);
        if !matches!(stepwise, Ok(None)) {
            break;
        }
    }
    // Which limit is named may depend on what has come; whether it passes may not.
    assert_eq!(whole.ok(), stepwise.ok());

    let Ok(Some(length)) = whole else { return };
    let bytes = Bytes::copy_from_slice(&data[..length]);
    let Ok(head) = Head::parse(&bytes, &LIMITS) else {
        return;
    };
    assert!(head.headers.len() <= LIMITS.fields);
    let lengths = head.headers.get_all("content-length").iter().count();
    let codings = head.headers.get_all("transfer-encoding").iter().count();
    assert!(lengths + codings <= 1);
    assert_eq!(codings == 1, head.framing == Framing::Chunked);
    for value in head.headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)));
    }
});
