//! Stand-in: the ticket broker, which swaps an address for a ticket and back (STA).

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use data_encoding::HEXUPPER;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::site::{self, Reply};
use crate::{clock, crypto};

/// Issues tickets that all lead to the stand-in desktop; each is good once, for 100 s.
#[derive(Debug)]
pub(super) struct Broker {
    desktop: SocketAddr,
    tickets: Mutex<VecDeque<(String, Instant)>>,
}

impl Broker {
    /// For one desktop.
    pub(super) fn new(desktop: SocketAddr) -> Self {
        Self {
            desktop,
            tickets: Mutex::default(),
        }
    }

    /// Answers one request at `/scripts/ctxsta.dll`; a GET is 406, as monitors expect.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Reply {
        if request.uri().path() != PATH {
            return site::text(StatusCode::NOT_FOUND, "no such page\n");
        }
        if request.method() != Method::POST {
            return site::text(StatusCode::NOT_ACCEPTABLE, "");
        }
        match site::collect(request.into_body()).await {
            Ok(body) => self.reply(&String::from_utf8_lossy(&body), clock::now()),
            Err(reply) => reply,
        }
    }

    /// The stand-in looks for its two requests by name; it does not parse XML.
    fn reply(&self, body: &str, now: Instant) -> Reply {
        if body.contains("<RequestTicket>") {
            let ticket = self.issue(now);
            return protocol(&format!(
                "<ResponseTicket><AuthorityID>{ID}</AuthorityID><Ticket>{ticket}</Ticket>\
                 <TicketVersion>40</TicketVersion></ResponseTicket>"
            ));
        }
        let ticket = body
            .split_once("<Ticket>")
            .and_then(|(_, rest)| rest.split_once("</Ticket>"))
            .filter(|_| body.contains("<RequestData>"));
        match ticket {
            Some((ticket, _)) if self.redeem(ticket.trim(), now) => {
                let address = self.desktop;
                protocol(&format!(
                    "<ResponseData><TicketData><Value name=\"ICAAddress\">{address}</Value>\
                     </TicketData></ResponseData>"
                ))
            }
            Some(_unknown) => site::text(StatusCode::FORBIDDEN, ""),
            None => site::text(StatusCode::BAD_REQUEST, ""),
        }
    }

    fn issue(&self, now: Instant) -> String {
        let ticket = HEXUPPER.encode(&crypto::random::<16>());
        let mut tickets = self.tickets();
        tickets.retain(|(_, end)| now < *end);
        if tickets.len() >= TICKETS {
            tickets.pop_front();
        }
        tickets.push_back((ticket.clone(), now + LIFETIME));
        ticket
    }

    fn redeem(&self, ticket: &str, now: Instant) -> bool {
        let mut tickets = self.tickets();
        let found = tickets.iter().position(|(known, end)| {
            crypto::equal(known.as_bytes(), ticket.as_bytes()) && now < *end
        });
        found.and_then(|place| tickets.remove(place)).is_some()
    }

    fn tickets(&self) -> std::sync::MutexGuard<'_, VecDeque<(String, Instant)>> {
        // A panic elsewhere leaves the list whole: every change to it is one call.
        self.tickets.lock().unwrap_or_else(|held| held.into_inner())
    }
}

fn protocol(content: &str) -> Reply {
    site::xml(format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <!DOCTYPE CtxSTAProtocol SYSTEM \"CtxSTA.dtd\">\n\
         <CtxSTAProtocol version=\"4.0\">{content}</CtxSTAProtocol>\n"
    ))
}

/// Where a ticket broker answers.
pub(super) const PATH: &str = "/scripts/ctxsta.dll";

const ID: &str = "STADEMO01";
const LIFETIME: Duration = Duration::from_secs(100);
const TICKETS: usize = 1000;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(reply: Reply) -> String {
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn redeem(ticket: &str) -> String {
        format!("<CtxSTAProtocol><RequestData><Ticket>{ticket}</Ticket></RequestData>")
    }

    #[tokio::test]
    async fn a_ticket_is_good_once() {
        let broker = Broker::new("127.0.0.1:1494".parse().unwrap());
        let now = clock::now();
        let issued = broker.reply("<CtxSTAProtocol><RequestTicket></RequestTicket>", now);
        let issued = text(issued).await;
        let ticket = issued.split("<Ticket>").nth(1).unwrap();
        let ticket = ticket.split('<').next().unwrap();
        assert!(issued.contains("<AuthorityID>STADEMO01</AuthorityID>"));
        assert_eq!(ticket.len(), 32);

        let first = broker.reply(&redeem(ticket), now);
        let second = broker.reply(&redeem(ticket), now);

        assert!(text(first).await.contains("127.0.0.1:1494"));
        assert_eq!(second.status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn a_ticket_ends_after_a_hundred_seconds() {
        let broker = Broker::new("127.0.0.1:1494".parse().unwrap());
        let now = clock::now();
        let ticket = broker.issue(now);

        let late = broker.reply(&redeem(&ticket), now + LIFETIME);

        assert_eq!(late.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn another_message_is_a_bad_request() {
        let broker = Broker::new("127.0.0.1:1494".parse().unwrap());

        let reply = broker.reply("<Ticket>A</Ticket>", clock::now());

        assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
    }
}
