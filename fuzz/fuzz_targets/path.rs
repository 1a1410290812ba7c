//! Paths: no panic, judging twice changes nothing, and nothing climbs out.
#![no_main]

use http::uri::PathAndQuery;
use libfuzzer_sys::fuzz_target;
use ravelin_fuzz::web::path::judge;

fuzz_target!(|data: &[u8]| {
    let Ok(raw) = std::str::from_utf8(data) else {
        return;
    };
    for extra in ["", ";", "%", ";%"] {
        let Ok(judged) = judge(raw, extra) else {
            continue;
        };
        let again = judge(judged.path(), extra).expect("what was judged is good");
        assert_eq!(again.path(), judged.path());
        assert_eq!(again.bare(), judged.bare());
        assert!(judged.path().starts_with('/') && judged.path().is_ascii());
        assert!(!judged.bare().contains("//") && !judged.bare().contains(';'));
        assert!(
            !judged
                .bare()
                .split('/')
                .any(|part| part == ".." || part == ".")
        );
        let raw = PathAndQuery::from_static("/?query");
        judged.in_place_of(&raw).expect("a path is a target");
    }
});
