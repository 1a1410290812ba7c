//! Page: the look of every page that the gateway itself sends, refusals too.
//!
//! HTML that works in a text browser and on a phone; no script, nothing loaded from anywhere.

use std::{fmt::Write, sync::LazyLock};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
        STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};

use crate::{crypto, refusal, web::Body};

/// A page under construction: a title, a heading, and HTML made of escaped parts.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    main: String,
    /// A host besides our own that a form's answer may lead to.
    leads_to: Option<String>,
}

impl Page {
    /// A page of the gateway that is called `title`.
    pub(crate) fn new(title: &str, heading: &str) -> Self {
        let (title, heading) = (escape(title), escape(heading));
        let mut main = format!("<h1>{heading}</h1>\n");
        if title != heading {
            main.insert_str(0, &format!("<p class=\"site\">{title}</p>\n"));
        }
        Self {
            title: format!("{heading} · {title}"),
            main,
            leads_to: None,
        }
    }

    /// Adds a paragraph of plain text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        // Writing to a `String` cannot fail.
        let _infallible = writeln!(self.main, "<p>{}</p>", escape(text));
        self
    }

    /// Adds a paragraph that tells what went wrong, read out at once by screen readers.
    pub(crate) fn alert(mut self, text: &str) -> Self {
        let text = escape(text);
        let _infallible = writeln!(self.main, "<p class=\"alert\" role=\"alert\">{text}</p>");
        self
    }

    /// Adds HTML. Whatever came from outside must have gone through [`escape`].
    pub(crate) fn html(mut self, html: &str) -> Self {
        self.main.push_str(html);
        self
    }

    /// Lets the answers to the page's forms lead to this host: browsers hold redirects after a
    /// form to the page's `form-action`.
    pub(crate) fn leads_to(mut self, host: &str) -> Self {
        self.leads_to = Some(host.to_owned());
        self
    }

    /// The answer.
    pub(crate) fn answer(self, status: StatusCode) -> Response<Body> {
        let Self {
            title,
            main,
            leads_to,
        } = self;
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
             <body>\n<main>\n{main}</main>\n</body>\n</html>\n"
        );
        let mut response = Response::new(Body::full(html));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        protect(headers);
        let leads_to = leads_to.map_or_else(String::new, |host| format!(" https://{host}:*"));
        let policy = format!(
            "default-src 'none'; style-src '{}'; form-action 'self'{leads_to}; \
             base-uri 'none'; frame-ancestors 'none'",
            *STYLE_HASH
        );
        if let Ok(policy) = HeaderValue::try_from(policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

/// A page that refuses: a status, one sentence for the person, and the id to ask about.
pub fn refusal(status: StatusCode, sentence: &str, id: refusal::Id) -> Response<Body> {
    let heading = match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            "Not available now"
        }
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "No access",
        StatusCode::NOT_FOUND => "Not found",
        _ => "Not possible",
    };
    Page::new(heading, heading)
        .alert(sentence)
        .html(&refusal_id(id))
        .answer(status)
}

/// A page for what could not become a request: what it says depends on the status alone.
pub fn plain(status: StatusCode, id: refusal::Id) -> Response<Body> {
    let sentence = match status {
        StatusCode::REQUEST_TIMEOUT => "The request took too long.",
        StatusCode::URI_TOO_LONG => "The address is too long.",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The request's head is too large.",
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
            "The gateway does not do that."
        }
        _ => "The request cannot be understood.",
    };
    refusal(status, sentence, id)
}

/// The line that tells a person which id to name.
pub(crate) fn refusal_id(id: refusal::Id) -> String {
    format!("<p class=\"id\">If you ask for help, give this id: <code>{id}</code></p>\n")
}

/// What every answer of the gateway's own carries: it is kept by nobody, framed by nobody, and
/// tells other sites nothing.
pub(crate) fn protect(headers: &mut HeaderMap) {
    for (name, value) in PROTECTION {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Text as HTML shows it, in elements and in quoted attributes. Control and bidirectional
/// characters, which could make a text look like another, become U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            control if control.is_control() => out.push('\u{fffd}'),
            plain => out.push(plain),
        }
    }
    out
}

static STYLE_HASH: LazyLock<String> = LazyLock::new(|| {
    let hash = crypto::sha256(STYLE.as_bytes());
    format!("sha256-{}", data_encoding::BASE64.encode(&hash))
});

const PROTECTION: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    // Not `no-referrer`: with it browsers send `Origin: null` with our own forms, and the check
    // of where a form came from would have nothing to look at. Other sites still learn nothing.
    (REFERRER_POLICY, "same-origin"),
    (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

const STYLE: &str = include_str!("page/style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_cannot_leave_its_place() {
        assert_eq!(
            escape("<a href=\"x\" id='y'>&\u{202e}\u{7}"),
            "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_page_is_protected() {
        let answer = refusal(
            StatusCode::FORBIDDEN,
            "You may not open this.",
            refusal::Id::generate(),
        );
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
        assert!(policy.contains("frame-ancestors 'none'"));
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()[X_FRAME_OPTIONS], "DENY");
    }

    #[test]
    fn the_style_holds_nothing_that_would_end_it() {
        assert!(!STYLE.contains('<'));
        assert!(!STYLE.contains("url("));
    }
}
