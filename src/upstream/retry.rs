//! Which failures may be tried again, and where.

use http::Method;

/// What is known when a node failed a request before its answer's head was complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// The request was handed back: not a byte of it was sent.
    pub(super) unsent: bool,
    /// The connection had served other requests before.
    pub(super) reused: bool,
    /// A byte of an answer had come.
    pub(super) answered: bool,
    /// The request has no body, so that it can be sent twice.
    pub(super) bodyless: bool,
    /// Doing it twice is the same as once (RFC 9110, section 9.2.2).
    pub(super) idempotent: bool,
}

/// Where to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// On a new connection: the old one had ended while it was kept, the node may be well.
    Fresh,
    /// Nowhere.
    No,
    /// On another node.
    Other,
}

impl Failed {
    pub(super) fn again(self) -> Again {
        let harmless = !self.answered && self.bodyless && self.idempotent;
        match (self.unsent || harmless, self.reused) {
            (false, _) => Again::No,
            (true, true) => Again::Fresh,
            (true, false) => Again::Other,
        }
    }
}

/// Whether doing it twice is the same as once. Methods that nobody registered are not.
pub(super) fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Failed = Failed {
        unsent: false,
        reused: false,
        answered: false,
        bodyless: true,
        idempotent: true,
    };

    #[test]
    fn what_was_not_sent_may_go_anywhere() {
        let post = Failed {
            unsent: true,
            bodyless: false,
            idempotent: false,
            ..GET
        };
        assert_eq!(post.again(), Again::Other);
        assert_eq!(
            Failed {
                reused: true,
                ..post
            }
            .again(),
            Again::Fresh
        );
    }

    #[test]
    fn what_was_sent_is_repeated_only_when_harmless() {
        assert_eq!(GET.again(), Again::Other);
        assert_eq!(
            Failed {
                reused: true,
                ..GET
            }
            .again(),
            Again::Fresh
        );
        for failed in [
            Failed {
                answered: true,
                ..GET
            },
            Failed {
                bodyless: false,
                ..GET
            },
            Failed {
                idempotent: false,
                ..GET
            },
        ] {
            assert_eq!(failed.again(), Again::No);
            assert_eq!(
                Failed {
                    reused: true,
                    ..failed
                }
                .again(),
                Again::No
            );
        }
    }

    #[test]
    fn posts_and_unknown_methods_are_not_idempotent() {
        for method in ["POST", "PATCH", "CONNECT", "PROPFIND", "get"] {
            assert!(!is_idempotent(&method.parse().unwrap()), "{method}");
        }
    }
}
