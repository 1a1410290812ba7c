//! A corpus of paths, and what each of them must become.

use proptest::prelude::*;

use super::{Error, PathAndQuery, judge, settle};

fn path(raw: &str) -> Result<String, Error> {
    judge(raw, "").map(|judged| judged.path().to_owned())
}

#[test]
fn paths_have_one_form() {
    let table = [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/b", "/a/b"),
        ("/A/b", "/A/b"),
        ("//", "/"),
        ("//a", "/a"),
        ("/a//b", "/a/b"),
        ("/a///b//", "/a/b/"),
        ("/.", "/"),
        ("/./", "/"),
        ("/./a", "/a"),
        ("/a/.", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/../", "/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/../..", "/"),
        ("/a/b/../../c", "/c"),
        ("/a/..//b", "/b"),
        ("/a//../b", "/b"),
        ("/...", "/..."),
        ("/a/...", "/a/..."),
        ("/..a", "/..a"),
        ("/a..", "/a.."),
        ("/.a", "/.a"),
        ("/a.", "/a."),
        ("/a/%2e", "/a/"),
        ("/a/%2E/b", "/a/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e./b", "/b"),
        ("/%61", "/a"),
        ("/%41", "/A"),
        ("/%7E", "/~"),
        ("/%7euser", "/~user"),
        ("/%2D%5F%2E", "/-_."),
        ("/%30", "/0"),
        ("/a%20b", "/a%20b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/%C3%A9", "/%C3%A9"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/%f0%9f%98%80", "/%F0%9F%98%80"),
        ("/%21", "/!"),
        ("/%24%26%27%28%29", "/$&'()"),
        ("/%2a%2b%2c%3d", "/*+,="),
        ("/%3a%40", "/:@"),
        ("/a:b", "/a:b"),
        ("/a@b", "/a@b"),
        ("/a=b&c", "/a=b&c"),
        ("/a+b", "/a+b"),
        ("/a,b", "/a,b"),
        ("/(a)", "/(a)"),
        ("/a|b", "/a%7Cb"),
        ("/%7c", "/%7C"),
        ("/[a]", "/%5Ba%5D"),
        ("/{a}", "/%7Ba%7D"),
        ("/a^b", "/a%5Eb"),
        ("/a\"b", "/a%22b"),
        ("/<a>", "/%3Ca%3E"),
        ("/`a`", "/%60a%60"),
        ("/%23", "/%23"),
        ("/%3f", "/%3F"),
        ("/%25", "/%25"),
        ("/100%25", "/100%25"),
        ("/%25zz", "/%25zz"),
        ("/%2520", "/%2520"),
        ("/%25%25", "/%25%25"),
        ("/Citrix/StoreWeb/", "/Citrix/StoreWeb/"),
        (
            "/zdm/cxf/public/getserverinfo",
            "/zdm/cxf/public/getserverinfo",
        ),
        (
            "/Microsoft-Server-ActiveSync",
            "/Microsoft-Server-ActiveSync",
        ),
        ("/a/b/c/d/e/f/../../../../../..", "/"),
    ];

    for (raw, expected) in table {
        assert_eq!(path(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_backends_read_differently_is_refused() {
    let table = [
        ("", Error::Relative),
        ("a", Error::Relative),
        ("*", Error::Relative),
        ("http://a/", Error::Relative),
        ("%2f", Error::Separator),
        ("/..", Error::AboveRoot),
        ("/../", Error::AboveRoot),
        ("/../a", Error::AboveRoot),
        ("/a/../..", Error::AboveRoot),
        ("/a/../../b", Error::AboveRoot),
        ("/./..", Error::AboveRoot),
        ("//..", Error::AboveRoot),
        ("/%2e%2e", Error::AboveRoot),
        ("/%2e%2e/etc/passwd", Error::AboveRoot),
        ("/.%2E/", Error::AboveRoot),
        ("/a/%2e%2e/%2e%2e/b", Error::AboveRoot),
        ("/a%2fb", Error::Separator),
        ("/a%2Fb", Error::Separator),
        ("/%2f", Error::Separator),
        ("/..%2f..%2fetc", Error::Separator),
        ("/a%5cb", Error::Separator),
        ("/a%5Cb", Error::Separator),
        ("/a\\b", Error::Separator),
        ("/..\\..\\windows", Error::Separator),
        ("/..%5c..%5c", Error::Separator),
        ("/\\evil.example", Error::Separator),
        ("/%00", Error::Control),
        ("/a%00.jpg", Error::Control),
        ("/a%0d%0aSet-Cookie:x", Error::Control),
        ("/a%0a", Error::Control),
        ("/a%09", Error::Control),
        ("/a%1b[31m", Error::Control),
        ("/a%7f", Error::Control),
        ("/a\u{0}", Error::Control),
        ("/a\r\n", Error::Control),
        ("/a\tb", Error::Control),
        ("/a;b", Error::Semicolon),
        ("/a;", Error::Semicolon),
        ("/;a", Error::Semicolon),
        ("/a;jsessionid=1", Error::Semicolon),
        ("/..;/admin", Error::Semicolon),
        ("/a/..;/b", Error::Semicolon),
        ("/a%3bb", Error::Semicolon),
        ("/a%3B", Error::Semicolon),
        ("/%", Error::Escape),
        ("/a%", Error::Escape),
        ("/a%2", Error::Escape),
        ("/a%zz", Error::Escape),
        ("/a%2g", Error::Escape),
        ("/a%%20", Error::Escape),
        ("/a%u002e", Error::Escape),
        ("/a%+2", Error::Escape),
        ("/a% 20", Error::Escape),
        ("/%252e%252e/", Error::DoubleEscape),
        ("/%252E", Error::DoubleEscape),
        ("/a%252fb", Error::DoubleEscape),
        ("/a%255cb", Error::DoubleEscape),
        ("/a%2500", Error::DoubleEscape),
        ("/a%250a", Error::DoubleEscape),
        ("/a%253b", Error::DoubleEscape),
        ("/%2561dmin", Error::DoubleEscape),
        ("/%25252e", Error::DoubleEscape),
        ("/%25%32%65", Error::DoubleEscape),
        ("/%c0%ae%c0%ae/", Error::Encoding),
        ("/%c0%af", Error::Encoding),
        ("/%e0%80%af", Error::Encoding),
        ("/%e0%80%ae", Error::Encoding),
        ("/%f0%80%80%af", Error::Encoding),
        ("/%f8%80%80%80%af", Error::Encoding),
        ("/%fc%80", Error::Encoding),
        ("/%ff", Error::Encoding),
        ("/%80", Error::Encoding),
        ("/%e9", Error::Encoding),
        ("/%c3", Error::Encoding),
        ("/%c3/", Error::Encoding),
        ("/%c3a", Error::Encoding),
        ("/%ed%a0%80", Error::Encoding),
        ("/%f4%90%80%80", Error::Encoding),
        ("/a b", Error::Character),
        ("/a#b", Error::Character),
        ("/#", Error::Character),
        ("/a?b", Error::Character),
        ("/\u{e9}", Error::Character),
        ("/\u{2024}\u{2024}/", Error::Character),
        ("/\u{ff0e}\u{ff0e}/", Error::Character),
        ("/\u{2215}", Error::Character),
    ];

    for (raw, expected) in table {
        assert_eq!(path(raw), Err(expected), "{raw}");
    }
}

#[test]
fn an_app_may_need_parameters_of_segments() {
    let judged = judge("/a;jsessionid=1/b;v=2;w", ";").unwrap();
    assert_eq!(judged.path(), "/a;jsessionid=1/b;v=2;w");
    assert_eq!(judged.bare(), "/a/b");

    let judged = judge("/a;x/../b", ";").unwrap();
    assert_eq!((judged.path(), judged.bare()), ("/b", "/b"));

    let judged = judge("/a%3Bb", ";").unwrap();
    assert_eq!((judged.path(), judged.bare()), ("/a%3Bb", "/a%3Bb"));

    for raw in [
        "/..;/a",
        "/a/..;x/b",
        "/.;/a",
        "/;/a",
        "/a/;x=1",
        "/%2e%2e;/a",
    ] {
        assert_eq!(judge(raw, ";"), Err(Error::Parameters), "{raw}");
    }
}

#[test]
fn an_app_may_need_double_escapes() {
    assert_eq!(judge("/job/a%252Fb", "%").unwrap().path(), "/job/a%252Fb");
    assert_eq!(judge("/job/a%2Fb", "%"), Err(Error::Separator));
}

#[test]
fn the_query_is_left_alone() {
    for (raw, target) in [
        ("/a/../b?x=/../;%2f%zz&y", "/b?x=/../;%2f%zz&y"),
        ("/a/../b", "/b"),
        ("/a/../b?", "/b?"),
        ("/a/b?x=/../;%2f%zz&y", "/a/b?x=/../;%2f%zz&y"),
        ("/a/b?", "/a/b?"),
        ("/a/b", "/a/b"),
        ("?x", "/?x"),
    ] {
        let raw = PathAndQuery::from_static(raw);
        let judged = judge(raw.path(), "").unwrap();
        assert_eq!(judged.in_place_of(&raw).unwrap().as_str(), target);
    }
}

proptest! {
    #[test]
    fn no_input_panics(raw in ".*", extra in "[;%]?") {
        let _judged = judge(&raw, &extra);
    }

    #[test]
    fn the_short_way_leads_where_the_long_one_does(raw in "(/|\\.|;|%|[a-z:@~ ]|\u{e9}){0,12}") {
        let raw = format!("/{raw}");
        prop_assert_eq!(judge(&raw, ""), settle(&raw, ""));
    }

    #[test]
    fn judging_again_changes_nothing(
        raw in "(/|/\\.|/\\.\\.|%2e|%2f|%25|%c3%a9|;|[a-zA-Z0-9~!|^]|%[0-9a-f]{2}){0,20}",
        extra in "[;%]{0,2}",
    ) {
        if let Ok(judged) = judge(&format!("/{raw}"), &extra) {
            let again = judge(judged.path(), &extra).unwrap();
            prop_assert_eq!(again.path(), judged.path());
            prop_assert_eq!(again.bare(), judged.bare());
            let target = judged.in_place_of(&PathAndQuery::from_static("/x")).unwrap();
            prop_assert_eq!(target.as_str(), judged.path());
            prop_assert!(!judged.bare().contains(';'));
            prop_assert!(!judged.bare().split('/').any(|segment| segment == ".."));
        }
    }
}
