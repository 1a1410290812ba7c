//! Chunked bodies: no panic, and the same at every split.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ravelin_fuzz::web::{
    chunked::{Decoder, Piece},
    head::Limits,
};

const LIMITS: Limits = Limits {
    bytes: 1024,
    fields: 8,
    target: 0,
};

fuzz_target!(|data: &[u8]| {
    let whole = decode(data, data.len().max(1));
    let stepwise = decode(data, 1);
    assert_eq!(whole, stepwise);
});

/// The body and what is left after it; `None` when it is broken or incomplete.
fn decode(data: &[u8], step: usize) -> Option<(Vec<u8>, usize)> {
    let mut decoder = Decoder::new(LIMITS);
    let mut buffer = BytesMut::new();
    let mut parts = data.chunks(step);
    let mut used = 0;
    let mut body = Vec::new();
    loop {
        match decoder.decode(&mut buffer).ok()? {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::End(_) => return Some((body, used - buffer.len())),
            Piece::More => {
                let part = parts.next()?;
                used += part.len();
                buffer.extend_from_slice(part);
            }
        }
    }
}
