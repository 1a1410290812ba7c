//! Stand-in: an intranet site with a page, an echo and a WebSocket.

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use super::{
    site::{self, Reply},
    websocket,
};
use crate::shutdown::Tasks;

/// Answers one request; a WebSocket goes on as a task of its own.
pub(super) async fn answer(request: Request<Incoming>, tasks: &Tasks) -> Reply {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/" if get => site::page(
            "Intranet of Example Corp",
            &format!(
                "<p>Only people inside can read this; you came through the gateway.\n{}",
                site::table(request.headers())
            ),
        ),
        "/hello" if get => site::text(StatusCode::OK, "hello from the intranet\n"),
        "/echo" if request.method() == Method::POST => {
            match site::collect(request.into_body()).await {
                Ok(body) => site::text(StatusCode::OK, body),
                Err(reply) => reply,
            }
        }
        "/ws" if get => websocket::accept(request, tasks),
        "/" | "/hello" | "/echo" | "/ws" => {
            let mut reply = site::text(StatusCode::METHOD_NOT_ALLOWED, "not this method\n");
            let allow = HeaderValue::from_static("GET, HEAD, POST");
            reply.headers_mut().insert(header::ALLOW, allow);
            reply
        }
        _ => site::text(StatusCode::NOT_FOUND, "no such page\n"),
    }
}
