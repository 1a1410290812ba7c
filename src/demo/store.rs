//! Stand-in: a store that looks like `StoreFront` from outside.

use http::{HeaderValue, Request, StatusCode, header};

use super::site::{self, Reply};

/// Answers one request.
pub(super) fn answer<B>(request: &Request<B>) -> Reply {
    match request.uri().path() {
        "/" | "/Citrix" | "/Citrix/" | "/Citrix/StoreWeb" => {
            let mut reply = site::text(StatusCode::FOUND, "");
            let home = HeaderValue::from_static("/Citrix/StoreWeb/");
            reply.headers_mut().insert(header::LOCATION, home);
            reply
        }
        "/Citrix/StoreWeb/" => home(request),
        "/Citrix/StoreWeb/Home/Configuration" => visit(site::xml(CONFIGURATION.to_owned())),
        _ => site::text(StatusCode::NOT_FOUND, "no such page\n"),
    }
}

fn home<B>(request: &Request<B>) -> Reply {
    let via = request.headers().get("x-citrix-via");
    let via = via.map_or_else(
        || "<p>No X-Citrix-Via: a real store would ask for a login here.".to_owned(),
        |name| {
            let name = site::escape(&String::from_utf8_lossy(name.as_bytes()));
            format!("<p>X-Citrix-Via names the gateway: <b>{name}</b>.")
        },
    );
    let headers = site::table(request.headers());
    visit(site::page(
        "Store of Example Corp",
        &format!("{via}\n<p>Desktops: <b>Windows 11</b> (needs a ticket).\n{headers}"),
    ))
}

/// The two cookies with which a store's visit begins, on the store's own path.
fn visit(mut reply: Reply) -> Reply {
    for name in ["ASP.NET_SessionId", "CsrfToken"] {
        let value = super::token();
        let cookie = format!("{name}={value}; path=/Citrix/StoreWeb/; secure; HttpOnly");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            reply.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    reply
}

const CONFIGURATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
     <clientSettings><session timeout=\"20\"/></clientSettings>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_sets_two_cookies_on_the_stores_own_path() {
        let request = Request::get("/Citrix/StoreWeb/").body(()).unwrap();

        let reply = answer(&request);

        let cookies: Vec<_> = reply.headers().get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies.len(), 2);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        assert!(text(cookies[0]).starts_with("ASP.NET_SessionId="));
        assert!(text(cookies[1]).contains("path=/Citrix/StoreWeb/"));
    }
}
