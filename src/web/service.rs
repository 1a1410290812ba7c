//! One request through every stage: the page to read first.

use std::{net::IpAddr, sync::Arc};

use http::{Method, Request, Response, uri::Scheme};

use super::{
    Answer, Body, Handler, Protocol, Refusal,
    error::Error,
    headers::{self, Authority},
    journal::Entry,
    login, path,
};
use crate::{
    config::{App, Authorization},
    gateway::{Shared, Snapshot},
    listener::peer::Peer,
    metrics::access_log::{Record, Relayed},
    permit::{Host, Permit, Target},
    session::Session,
    upstream::{Exchange, Upgrade},
};

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
}

impl Service {
    /// For a connection.
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self { shared, peer }
    }

    /// Takes one request through every stage: which part of the gateway it is for, then that
    /// part's lines, which are the stages in order. `?` is every way out.
    async fn serve(
        &self,
        gateway: &Snapshot,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        match place(gateway, &self.peer, &request)? {
            Place::Gateway => self.gateway(gateway, request, record).await,
            Place::Plain(target) => self.plain(gateway, target, request, record).await,
            Place::Site(authority) => self.site(gateway, &authority, request, record).await,
            Place::Tunnel(target) => self.tunnel(gateway, &target, &request, record).await,
        }
    }

    /// `CONNECT`: who, may they, where is it, may they still, then bytes.
    async fn tunnel(
        &self,
        gateway: &Snapshot,
        target: &Target,
        request: &Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let (session, permit) = self.permit(gateway, target, request, record).await?;
        let limits = &gateway.config.tunnel;
        let held = session.usage().open_tunnel(limits, crate::clock::now())?;
        let relayed = Arc::new(Relayed::default());
        record.relayed = Some(Arc::clone(&relayed));
        let ended = session.ended().clone();
        let opened = gateway.tunnels.open(&permit, ended, held, relayed).await?;
        record.backend = Some(opened.address);
        Ok(opened.answer)
    }

    /// `GET http://…`: what a browser asks its proxy for a plain site. Judged as a tunnel is.
    async fn plain(
        &self,
        gateway: &Snapshot,
        target: Target,
        mut request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let (session, permit) = self.permit(gateway, &target, &request, record).await?;
        headers::strip_hop_by_hop(request.headers_mut());
        let ended = session.ended().clone();
        let answer = gateway.upstream.plain(&permit, request, ended).await?;
        Ok(answer)
    }

    /// Who may go where: by name before anything is resolved, then by address.
    async fn permit(
        &self,
        gateway: &Snapshot,
        target: &Target,
        request: &Request<Body>,
        record: &mut Record,
    ) -> Result<(Arc<Session>, Permit), Error> {
        record.target = Some(target.to_string());
        let login = &gateway.login;
        let session = login.identify_tunnel(&self.peer, request.headers(), record).await?;
        if !gateway.tunnels.is_port_open(target.port) {
            return Err(Error::Port(target.port));
        }
        let candidate = gateway.policy.judge(&session, self.source(), target)?;
        let addresses = gateway.dialer.resolve(candidate.target()).await?;
        let permit = gateway.policy.confirm(&candidate, &addresses)?;
        record.policies = permit.policies().to_vec();
        Ok((session, permit))
    }

    /// A site behind the gateway: which app, who, may they, which node.
    async fn site(
        &self,
        gateway: &Snapshot,
        authority: &Authority,
        mut request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let login = &gateway.login;
        if let Some(answer) = login.app_host(&self.peer, &request, record).await {
            return Ok(answer?.into());
        }
        let (app, path) = route(gateway, authority, request.uri().path())?;
        record.app = Some(Arc::clone(&app.name));
        let session = match app.authorization {
            Authorization::Backend => None,
            Authorization::Gateway => {
                let host = authority.host.to_string();
                Some(login.identify_app(&self.peer, request.headers(), &host, record).await?)
            }
        };
        let permit = gateway.policy.open(session.as_deref(), self.source(), app)?;
        record.policies = permit.policies().to_vec();

        let target = path.with_query(request.uri().query())?;
        let protocol = request.extensions().get::<Protocol>().map(|p| Arc::clone(&p.0));
        let upgrade = Upgrade::asked(&request, protocol.as_deref());
        clean(&mut request, app, &self.peer, authority);
        let relayed = upgrade.map(|_| Arc::new(Relayed::default()));
        record.relayed.clone_from(&relayed);
        let answer = gateway
            .upstream
            .forward(Exchange {
                permit: &permit,
                pool: gateway.pool(app),
                app,
                session: session.as_ref().map(|session| Arc::clone(session.id())),
                connection: self.peer.connection,
                authority: &authority.to_string(),
                target,
                upgrade,
                request,
                stop: session.iter().map(|session| session.ended().clone()).collect(),
                counts: relayed.map(|relayed| Arc::clone(&relayed.counts)).unwrap_or_default(),
            })
            .await?;
        Ok(gateway.outside(answer, app, authority, record))
    }

    /// The gateway's own pages.
    async fn gateway(
        &self,
        gateway: &Snapshot,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let links = |session: &Session| gateway.links(session, self.source(), &self.peer);
        let login = &gateway.login;
        let response = login.own_host(&self.peer, request, &links, record).await?;
        Ok(response.into())
    }

    fn source(&self) -> IpAddr {
        self.peer.address.ip()
    }
}
