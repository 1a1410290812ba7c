//! `Date`: written anew once a second.

use std::cell::RefCell;

use http::HeaderValue;

use crate::clock;

/// The time as a field value (RFC 9110, section 5.6.7).
pub(super) fn now() -> HeaderValue {
    let second = clock::since_epoch().as_secs();
    NOW.with_borrow_mut(|cached| match cached {
        Some((of, date)) if *of == second => date.clone(),
        _ => {
            let text = httpdate::fmt_http_date(clock::wall());
            let date = HeaderValue::try_from(text)
                .unwrap_or_else(|_never| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
            *cached = Some((second, date.clone()));
            date
        }
    })
}

thread_local! {
    static NOW: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_date_of_http() {
        let date = now();

        let read = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
        let away = clock::wall().duration_since(read).unwrap();
        assert!(away.as_secs() < 5, "{date:?}");
        assert_eq!(now().len(), 29);
    }
}
