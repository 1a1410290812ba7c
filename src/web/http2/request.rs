//! A request's head: refuses what h2 lets pass, and brings it into the form that HTTP/1.1 has.

use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE},
    uri::Scheme,
};

use crate::{
    config::Limits,
    web::{Protocol, Refusal, head, headers},
};

/// Checks a head, joins its cookies, and tells the [`Protocol`] of an extended `CONNECT`.
pub(super) fn check<B>(request: &mut Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let bad = |reason| Refusal {
        status: StatusCode::BAD_REQUEST,
        reason,
    };
    // Every crumb of a cookie counts: each is an allocation that a device gets for a byte (R27).
    if request.headers().len() > limits.head_fields {
        return Err(Refusal {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            reason: "too many fields",
        });
    }
    let target = request.uri();
    let length = target.path().len() + target.query().map_or(0, str::len);
    if length > limits.target_bytes {
        return Err(Refusal {
            status: StatusCode::URI_TOO_LONG,
            reason: "request target too long",
        });
    }
    let printable = |text: &str| text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if !printable(target.path()) || !target.query().is_none_or(printable) {
        return Err(bad("invalid request target"));
    }
    if target
        .scheme()
        .is_some_and(|scheme| scheme != &Scheme::HTTPS && scheme != &Scheme::HTTP)
    {
        return Err(bad("unknown scheme"));
    }
    if !has_authority(request) {
        return Err(bad("not exactly one valid authority"));
    }
    let fields = request.headers();
    if fields.get_all(TE).iter().any(|te| te != "trailers") {
        return Err(bad("TE is not trailers"));
    }
    if !has_sound_length(request) {
        return Err(bad("Content-Length is not one number, or of a CONNECT"));
    }
    if fields
        .get_all(EXPECT)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal {
            status: StatusCode::EXPECTATION_FAILED,
            reason: "unknown expectation",
        });
    }
    headers::join_cookies(request.headers_mut());
    if let Some(protocol) = request.extensions_mut().remove::<h2::ext::Protocol>() {
        request
            .extensions_mut()
            .insert(Protocol(protocol.as_str().into()));
    }
    Ok(())
}

/// None, or one number; and nothing for a `CONNECT`, which has no body (RFC 9110, section 9.3.6).
///
/// It goes on as it is in HTTP/1.1, where a length that is no number ends in two framings.
fn has_sound_length<B>(request: &Request<B>) -> bool {
    let mut lengths = request.headers().get_all(CONTENT_LENGTH).iter();
    let connect = request.method() == Method::CONNECT;
    let number = |length: &HeaderValue| {
        head::decimal(length.as_bytes()).is_some_and(|length| length == 0 || !connect)
    };
    lengths.next().is_none_or(number) && lengths.next().is_none()
}

/// One that is valid, and that `Host` does not contradict.
fn has_authority<B>(request: &Request<B>) -> bool {
    match request.uri().authority() {
        Some(authority) if !request.headers().contains_key(HOST) => {
            head::authority(authority.as_str().as_bytes())
                .is_some_and(|(host, port)| !host.is_empty() && port != Some(0))
        }
        _ => headers::authority_of(request).is_ok(),
    }
}
