//! Heads of answers: no panic, one framing, and nothing hidden in what passes.
#![no_main]

use bytes::Bytes;
use http::{Method, header};
use libfuzzer_sys::fuzz_target;
use ravelin_fuzz::web::head::{
    Limits, Scanner,
    response::{Framing, Head},
};

const LIMITS: Limits = Limits {
    bytes: 4096,
    fields: 32,
    target: 4096,
};

fuzz_target!(|data: &[u8]| {
    let Ok(Some(length)) = Scanner::default().advance(data, &LIMITS) else {
        return;
    };
    let bytes = Bytes::copy_from_slice(&data[..length]);
    for method in [Method::GET, Method::HEAD] {
        let Ok(head) = Head::parse(&bytes, &method, &LIMITS) else {
            continue;
        };
        // What is refused at its first bytes cannot pass as a whole.
        assert!((0..=length).all(|end| Head::can_begin(&data[..end])));
        assert!(head.headers.len() <= LIMITS.fields);
        let lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().count();
        let codings = head.headers.get_all(header::TRANSFER_ENCODING).iter().count();
        assert!(lengths + codings <= 1);
        match head.framing {
            Framing::Chunked => assert_eq!(codings, 1),
            Framing::Close => assert!(lengths + codings == 0 && !head.keep_alive),
            Framing::Length(0) => {}
            Framing::Length(length) => {
                let told = head.headers[header::CONTENT_LENGTH].to_str().unwrap();
                assert_eq!(told.parse(), Ok(length));
            }
        }
        if method == Method::HEAD {
            assert_eq!(head.framing, Framing::Length(0));
        }
        for value in head.headers.values() {
            assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)));
        }
    }
});
