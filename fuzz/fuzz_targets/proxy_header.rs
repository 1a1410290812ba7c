//! PROXY headers: no panic, and what is complete stays so when more bytes follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ravelin_fuzz::listener::proxy_header::{Decoded, decode};

fuzz_target!(|data: &[u8]| {
    let found = decode(data);
    if let Ok(Decoded::Header { length, .. }) = found {
        assert!(length <= data.len());
        assert_eq!(decode(&data[..length]), found);
        for end in 0..length {
            assert!(!matches!(decode(&data[..end]), Ok(Decoded::Header { .. })));
        }
    }
});
