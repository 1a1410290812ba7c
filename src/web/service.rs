//! One request through every stage: the page to read first.

use std::sync::Arc;

use http::{Method, Request, Response};

use super::{
    Answer, Body, Handler, Protocol, Refusal,
    error::{self, Error},
    headers,
    journal::Entry,
    login, page, path,
};
use crate::{
    gateway::{Shared, Snapshot},
    listener::peer::Peer,
    metrics::access_log::Record,
    permit::Target,
    upstream,
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

    /// Takes one request through every stage.
    async fn serve(
        &self,
        gateway: &Snapshot,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        match place(gateway, &self.peer, &request)? {
            Place::Gateway => self.page(gateway, request, record).await,
            Place::Plain(target) => self.plain(gateway, target, request, record).await,
            Place::Site(host) => self.app(gateway, &host, request, record).await,
            Place::Tunnel(target) => self.tunnel(gateway, target, request, record).await,
        }
    }

    /// `CONNECT`: who, may they, where is it, may they still, and then bytes.
    async fn tunnel(
        &self,
        gateway: &Snapshot,
        target: Target,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        record.target = Some(target.to_string());
        let session = gateway.login.identify_tunnel(&self.peer, request.headers(), record).await?;
        let candidate = gateway.policy.judge(&session, self.peer.address.ip(), &target)?;
        let addresses = gateway.dialer.resolve(candidate.target()).await?;
        let permit = gateway.policy.confirm(&candidate, &addresses)?;
        record.policies = permit.policies().to_vec();
        Ok(gateway.tunnels.open(&session, permit, record).await?)
    }

    /// `GET http://…`: what a browser sends to its proxy for a plain site; judged as a tunnel.
    async fn plain(
        &self,
        gateway: &Snapshot,
        target: Target,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        record.target = Some(target.to_string());
        let session = gateway.login.identify_tunnel(&self.peer, request.headers(), record).await?;
        let candidate = gateway.policy.judge(&session, self.peer.address.ip(), &target)?;
        let addresses = gateway.dialer.resolve(candidate.target()).await?;
        let permit = gateway.policy.confirm(&candidate, &addresses)?;
        record.policies = permit.policies().to_vec();
        Ok(gateway.upstream.plain(&session, permit, request, record).await?)
    }

    /// A site behind the gateway: which app, who, may they, which node.
    async fn app(
        &self,
        gateway: &Snapshot,
        host: &str,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        if let Some(answer) = gateway.login.app_host(&self.peer, &request, record).await {
            return Ok(answer?.into());
        }
        let app = gateway.routes.find(host, request.uri().path());
        todo!()
    }
}
