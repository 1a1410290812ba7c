//! One request through every stage: the page to read first.

use std::{net::IpAddr, sync::Arc};

use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION, SET_COOKIE},
    uri::PathAndQuery,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Body, Handler, Protocol, Refusal,
    error::Error,
    headers,
    journal::Entry,
    page,
    place::{self, LastSite, Place, Site},
};
use crate::{
    clock,
    config::{App, Authorization},
    gateway::{Open, Shared, Snapshot},
    listener::peer::Peer,
    metrics::access_log::{Record, Relayed},
    permit::{Permit, Target},
    session::Session,
    upstream::{self, Answered, Exchange, Upgrade},
};

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    last: LastSite,
}

impl Service {
    /// For a connection.
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self {
            shared,
            peer,
            last: LastSite::default(),
        }
    }

    /// `CONNECT`: who, may they, where is it, may they still, then bytes.
    async fn tunnel(
        &self,
        gateway: &Snapshot,
        target: &Target,
        headers: &HeaderMap,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let (session, permit) = self.permit(gateway, target, headers, record).await?;
        let held = session
            .usage()
            .open_tunnel(&gateway.config.tunnel, clock::now())?;
        let relayed = Arc::new(Relayed::default());
        let stop = session.ended().child_token();
        let opened = gateway
            .tunnels
            .open(&permit, stop.clone(), held, Arc::clone(&relayed))
            .await?;
        record.backend = Some(opened.address);
        record.relayed = Some(Arc::clone(&relayed));
        let place = self.shared.watch(
            gateway,
            Open {
                session: Some(session),
                source: self.source(),
                permit,
                address: opened.address,
                stop,
                relayed,
            },
        );
        Ok(opened.answer.holding(place))
    }

    /// `GET http://…`: what a browser asks its proxy for a plain site. Judged as a tunnel is.
    async fn plain(
        &self,
        gateway: &Snapshot,
        target: &Target,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let (mut parts, body) = request.into_parts();
        let (session, permit) = self.permit(gateway, target, &parts.headers, record).await?;
        // Each has a connection of its own, so each costs what a tunnel costs.
        let limits = &gateway.config.tunnel;
        record.held = Some(session.usage().open_tunnel(limits, clock::now())?);
        if !parts.headers.contains_key(PROXY_AUTHORIZATION) {
            // It was the gateway's, then.
            parts.headers.remove(AUTHORIZATION);
        }
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_identity(&mut parts.headers, &[]);
        headers::strip_cookies(&mut parts.headers);
        let request = Request::from_parts(parts, body);
        let stop = Some(session.ended());
        let fetched = gateway.upstream.plain(&permit, request, limits.idle, stop);
        let fetched = session.ended().run_until_cancelled(fetched).await;
        let fetched = fetched.ok_or(upstream::Error::Stopped)??;
        record.backend = Some(fetched.address);
        Ok(fetched.answer)
    }

    /// Who may go where: judged by name before anything is resolved, then by address.
    async fn permit(
        &self,
        gateway: &Snapshot,
        target: &Target,
        headers: &HeaderMap,
        record: &mut Record,
    ) -> Result<(Arc<Session>, Permit), Error> {
        record.target = Some(target.to_string().into());
        let session = gateway
            .login
            .identify_tunnel(&self.peer, headers, record)
            .await?;
        if !gateway.tunnels.is_port_open(target.port) {
            return Err(Error::Port(target.port));
        }
        let candidate = gateway.policy.judge(&session, self.source(), target)?;
        let addresses = gateway.dialer.resolve(candidate.target()).await?;
        let permit = gateway.policy.confirm(&candidate, &addresses)?;
        record.policies = Arc::clone(permit.policies());
        Ok((session, permit))
    }

    /// A site behind the gateway: which app, who, may they, which node.
    async fn site(
        &self,
        gateway: &Snapshot,
        site: &Site,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        // Only the head is looked at until it is clear who asks: a body is not `Sync`.
        let head = Request::from_parts(parts, ());
        let host = &*site.host;
        if let Some(answer) = gateway.login.app_host(host, &head, record) {
            return Ok(answer?.into());
        }
        let routed = place::app(&gateway.routes, host, head.uri());
        // Nobody learns which paths of a host lead to an app before logging in there.
        let asks = match &routed {
            Ok((app, _)) => Some(*app).filter(|app| app.authorization == Authorization::Gateway),
            Err(_) => gateway.routes.guarded(host),
        };
        let mut session = None;
        let mut set_cookie = None;
        if let Some(app) = asks {
            let login = &gateway.login;
            match login
                .identify_app(&self.peer, head.headers(), host, record)
                .await
            {
                Ok(found) => (session, set_cookie) = (Some(found.session), found.set_cookie),
                Err(why) => return Ok(login.ask_app(app, &head, &why, record).into()),
            }
        }
        let (app, target) = routed?;
        record.app = Some(Arc::clone(&app.name));
        let permit = gateway
            .policy
            .open(session.as_deref(), self.source(), app)?;
        record.policies = Arc::clone(permit.policies());
        record.busy = session.as_ref().map(|session| session.usage().begin());

        let allowed = Allowed {
            app,
            target,
            permit,
            session,
        };
        let request = head.map(|()| body);
        let mut answer = self
            .forward(gateway, site, allowed, request, record)
            .await?;
        if let Some(cookie) = set_cookie {
            answer.response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(answer)
    }

    /// The way to a node and back; where bytes go on to flow, they are watched.
    async fn forward(
        &self,
        gateway: &Snapshot,
        site: &Site,
        allowed: Allowed<'_>,
        mut request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let Allowed {
            app,
            target,
            permit,
            session,
        } = allowed;
        let protocol = request.extensions().get::<Protocol>();
        let protocol = protocol.map(|protocol| Arc::clone(&protocol.0));
        let upgrade = Upgrade::asked(&request, protocol.as_deref());
        let authority = site.clean(&mut request, app);
        let relayed = upgrade.map(|_websocket| Arc::<Relayed>::default());
        let ended = session.as_ref().map(|session| session.ended());
        // Of its own: a reload may end a WebSocket that its session outlives.
        let cut = upgrade.map(|_websocket| {
            ended.map_or_else(CancellationToken::new, CancellationToken::child_token)
        });
        let pool = gateway.pool(app);
        let forwarded = gateway.upstream.forward(Exchange {
            permit: &permit,
            pool: &pool,
            app,
            session: session.as_ref().map(|session| Arc::clone(session.id())),
            connection: self.peer.connection,
            authority,
            target,
            upgrade,
            request,
            stop: cut.as_ref().or(ended),
            relayed: relayed.clone(),
        });
        let Answered { mut answer, served } = forwarded.await?;
        record.backend = Some(served.address);
        record.target = Some(Arc::clone(served.node.name()));
        if let (Some(stop), Some(relayed), true) = (cut, relayed, answer.then.is_some()) {
            record.relayed = Some(Arc::clone(&relayed));
            let place = self.shared.watch(
                gateway,
                Open {
                    session,
                    source: self.source(),
                    address: served.address,
                    permit,
                    stop,
                    relayed,
                },
            );
            answer = answer.holding(place);
        }
        site.clean_answer(&mut answer.response, app, &gateway.config);
        Ok(answer)
    }

    /// The gateway's own pages: login, logout, tokens.
    async fn own(
        &self,
        gateway: &Snapshot,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let port = headers::authority_of(&request)?.port;
        let links = |session: &Session| gateway.links(session, self.source(), port);
        let response = gateway.login.own_host(&self.peer, request, &links, record);
        Ok(response.await?.into())
    }

    fn source(&self) -> IpAddr {
        self.peer.address.ip()
    }
}

/// An app that may be opened: at which target, by whom, and the proof.
struct Allowed<'a> {
    app: &'a Arc<App>,
    target: PathAndQuery,
    permit: Permit,
    session: Option<Arc<Session>>,
}

impl Handler for Service {
    /// Takes one request through every stage: first what it is for, then that part's stages in
    /// their order. Whatever happens, it ends in one answer and one line of the log.
    async fn call(&self, request: Request<Body>) -> Answer {
        let mut entry = Entry::begin(&self.shared, &self.peer, &request);
        let gateway = self.shared.snapshot();
        let record = &mut entry.record;
        let placed = place::place(
            &gateway.config,
            &gateway.routes,
            &self.peer,
            &self.last,
            &request,
        );
        // A tunnel that cannot be placed is refused as a tunnel, too.
        let connect = *request.method() == Method::CONNECT
            && request.extensions().get::<Protocol>().is_none();
        let proxied = connect || matches!(placed, Ok(Place::Plain(_)));
        let served = match placed {
            // In boxes: the way of most requests has no room for these.
            Ok(Place::Own) => Box::pin(self.own(&gateway, request, record)).await,
            Ok(Place::Plain(target)) => {
                Box::pin(self.plain(&gateway, &target, request, record)).await
            }
            Ok(Place::Site(site)) => self.site(&gateway, &site, request, record).await,
            Ok(Place::Tunnel(target)) => {
                let (head, _no_body) = request.into_parts();
                Box::pin(self.tunnel(&gateway, &target, &head.headers, record)).await
            }
            Err(error) => Err(error),
        };
        let answer = served.unwrap_or_else(|error| {
            let (host, login) = (&gateway.config.host, &gateway.login);
            if proxied {
                error.proxied(host, login, record).into()
            } else {
                error.page(login, record).into()
            }
        });
        entry.close_with(answer)
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        let mut record = Record::default();
        let id = record.refuse("web", refusal.reason);
        Entry::unread(&self.shared, &self.peer, refusal.status, record);
        let sentence = match refusal.status {
            StatusCode::REQUEST_TIMEOUT => "The request took too long.",
            StatusCode::URI_TOO_LONG => "The address is too long.",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The request's head is too large.",
            StatusCode::INTERNAL_SERVER_ERROR => "The gateway failed. It has noted this.",
            _ => "The request cannot be understood.",
        };
        page::refusal(refusal.status, sentence, id)
    }
}
