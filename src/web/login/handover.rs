//! The hand-over of a login from the gateway's own host to an app's.
//!
//! A browser without a login at an app's host is given a random value there, and goes to our own
//! host with an *ask*: that value, the host and the path, sealed. Logged in, it comes back with a
//! *code* that works once, within 30 seconds, at that host, in that browser.

use crate::crypto::Sealer;

/// What a browser wants that has no login at an app's host yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// When it asked, in seconds since the UNIX epoch.
    pub(super) made: u64,
    /// The random value that the browser was given there.
    pub(super) browser: [u8; 16],
    /// The app's host.
    pub(super) host: String,
    /// Where it wants to go there.
    pub(super) path: String,
}

impl Ask {
    /// As it travels through the browser.
    pub(super) fn seal(&self, sealer: &Sealer) -> String {
        let made = self.made.to_be_bytes();
        // A host has no zero byte.
        let plain = [
            made.as_slice(),
            &self.browser,
            self.host.as_bytes(),
            b"\0",
            self.path.as_bytes(),
        ]
        .concat();
        data_encoding::BASE64URL_NOPAD.encode(&sealer.seal(PURPOSE, &plain))
    }

    /// Reads what [`Ask::seal`] made within the last hour.
    pub(super) fn open(sealer: &Sealer, text: &str, wall: u64) -> Option<Self> {
        if text.len() > MAX_SEALED {
            return None;
        }
        let sealed = data_encoding::BASE64URL_NOPAD
            .decode(text.as_bytes())
            .ok()?;
        let plain = sealer.open(PURPOSE, &sealed)?;
        let (made, rest) = plain.split_first_chunk()?;
        let (browser, rest) = rest.split_first_chunk()?;
        let (host, path) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
        let made = u64::from_be_bytes(*made);
        (wall.saturating_sub(made) < AGE && is_local(path)).then(|| Self {
            made,
            browser: *browser,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Whether a redirect to this path stays on the host that sends it: it begins with one slash,
/// and nothing in it is read as anything else by some browser.
pub(super) fn is_local(path: &str) -> bool {
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && path.len() <= MAX_PATH
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

const PURPOSE: &str = "ask v1";
/// Longer ones are forgotten: the whole has to fit into a request target.
pub(super) const MAX_PATH: usize = 2048;
const MAX_SEALED: usize = 4096;
const AGE: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str) -> Ask {
        Ask {
            made: 1000,
            browser: [3; 16],
            host: "app.example.com".into(),
            path: path.into(),
        }
    }

    #[test]
    fn an_ask_comes_back_as_it_was_within_an_hour() {
        let sealer = Sealer::new(&[1; 32]);
        let text = ask("/a?b=c").seal(&sealer);

        assert_eq!(Ask::open(&sealer, &text, 4599), Some(ask("/a?b=c")));
        assert_eq!(Ask::open(&sealer, &text, 4600), None);
    }

    #[test]
    fn an_ask_of_another_key_or_a_changed_one_is_nothing() {
        let sealer = Sealer::new(&[1; 32]);
        let text = ask("/").seal(&Sealer::new(&[2; 32]));
        assert_eq!(Ask::open(&sealer, &text, 1000), None);
        let mut text = ask("/").seal(&sealer);
        text.pop();
        assert_eq!(Ask::open(&sealer, &text, 1000), None);
        assert_eq!(Ask::open(&sealer, "", 1000), None);
        assert_eq!(Ask::open(&sealer, &"A".repeat(100_000), 1000), None);
    }

    #[test]
    fn the_longest_path_fits() {
        let sealer = Sealer::new(&[1; 32]);
        let path = format!("/{}", "x".repeat(MAX_PATH - 1));
        let text = ask(&path).seal(&sealer);
        assert_eq!(Ask::open(&sealer, &text, 1000), Some(ask(&path)));
    }

    #[test]
    fn a_redirect_stays_on_its_host() {
        for path in ["/", "/a", "/a/b?c=d&e=https://x", "/a//b", "/%2f%2fevil"] {
            assert!(is_local(path), "{path}");
        }
        for path in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "https:evil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "/a\r\nSet-Cookie: x=y",
            "/a\tb",
            "/\t/evil.example",
            "/ /evil.example",
            "/a\\..\\b",
            "/\u{0}",
            "/ü",
            " /a",
        ] {
            assert!(!is_local(path), "{path:?}");
        }
    }
}
