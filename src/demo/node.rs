//! Stand-in: one of two nodes that look like `XenMobile` from outside.

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

use super::site::{self, Reply};

/// A node that says which one it is, and marks its devices with `ACNODEID`.
#[derive(Debug)]
pub(super) struct Node {
    name: &'static str,
    mark: String,
}

impl Node {
    /// Its mark is random: nobody may guess a node from it.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            mark: super::token(),
        }
    }

    /// Answers one request.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Reply {
        let path = request.uri().path();
        // Tomcat takes what follows `;` as a parameter of the segment.
        let path = path.split(';').next().unwrap_or_default();
        let mut reply = match path {
            "/zdm/cxf/public/getserverinfo" => return site::xml(SERVER_INFO.to_owned()),
            "/" | "/zdm" | "/zdm/" => {
                let headers = site::table(request.headers());
                site::page(
                    &format!("Device management, node {}", self.name),
                    &format!("<p>This is node <b>{}</b>.\n{headers}", self.name),
                )
            }
            "/zdm/node" => site::text(StatusCode::OK, format!("{}\n", self.name)),
            _ => site::text(StatusCode::NOT_FOUND, "no such page\n"),
        };
        if !knows(request.headers(), &self.mark) {
            let cookie = format!("ACNODEID={}; Path=/; Secure; HttpOnly", self.mark);
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                reply.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        reply
    }
}

fn knows(headers: &HeaderMap, mark: &str) -> bool {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix("ACNODEID="))
        .any(|value| value == mark)
}

const SERVER_INFO: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
     <result><serverInfo><enrollmentConfig>\n\
     <enrollmentEnabled>true</enrollmentEnabled>\n\
     <enrollmentUsername>true</enrollmentUsername>\n\
     <enrollmentPassword>true</enrollmentPassword>\n\
     <enrollmentPIN>false</enrollmentPIN>\n\
     </enrollmentConfig></serverInfo></result>\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(reply: &Reply) -> Option<String> {
        let cookie = reply.headers().get(header::SET_COOKIE)?.to_str().unwrap();
        Some(cookie.split(';').next().unwrap().to_owned())
    }

    #[test]
    fn a_node_marks_a_device_once() {
        let node = Node::new("xm1");
        let first = Request::get("/zdm/node").body(()).unwrap();
        let cookie = mark(&node.answer(&first)).unwrap();
        assert!(cookie.starts_with("ACNODEID="));

        let again = Request::get("/zdm/node").header(header::COOKIE, format!("a=b; {cookie}"));
        let reply = node.answer(&again.body(()).unwrap());

        assert_eq!(mark(&reply), None);
    }

    #[test]
    fn the_other_nodes_mark_is_replaced() {
        let (one, two) = (Node::new("xm1"), Node::new("xm2"));
        let first = Request::get("/").body(()).unwrap();
        let cookie = mark(&one.answer(&first)).unwrap();

        let moved = Request::get("/").header(header::COOKIE, &cookie);
        let moved = mark(&two.answer(&moved.body(()).unwrap())).unwrap();

        assert_ne!(moved, cookie);
    }

    #[test]
    fn server_info_is_told_to_anybody_and_marks_nobody() {
        let probe = Request::get("/zdm/cxf/public/getserverinfo")
            .body(())
            .unwrap();

        let reply = Node::new("xm1").answer(&probe);

        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(mark(&reply), None);
    }
}
