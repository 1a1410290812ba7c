//! Which part of the gateway a request is for, and what passes between a site and a device.

use std::sync::{Arc, Mutex, PoisonError};

use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{AUTHORIZATION, TE},
    uri::{PathAndQuery, Scheme},
};

use super::{
    Body, Protocol,
    error::Error,
    headers::{self, Authority, Forwarded},
    path,
};
use crate::{
    Config,
    config::{App, Authorization},
    listener::peer::Peer,
    permit::{Host, Target},
    route::Routes,
};

/// What a request is for.
#[derive(Debug)]
pub(super) enum Place {
    /// The gateway's own pages.
    Own,
    /// A plain site, asked for in absolute form.
    Plain(Target),
    /// A site behind the gateway.
    Site(Arc<Site>),
    /// A tunnel.
    Tunnel(Target),
}

/// The name under which a device reached us.
#[derive(Debug)]
pub(super) struct Site {
    /// As the device wrote it.
    written: Box<[u8]>,
    /// Canonical.
    authority: Authority,
    /// The name alone.
    pub(super) host: Arc<str>,
    forwarded: Forwarded,
}

/// The site that a connection asked for last: most ask for one again and again.
#[derive(Debug, Default)]
pub(super) struct LastSite(Mutex<Option<Arc<Site>>>);

impl LastSite {
    /// The site of a request, as `peer` reached it.
    fn of(&self, peer: &Peer, request: &Request<Body>) -> Result<Arc<Site>, Error> {
        let written = headers::written_authority(request);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(last), Some(written)) = (&*last, written)
            && *last.written == *written
        {
            return Ok(Arc::clone(last));
        }
        let authority = headers::authority_of(request)?;
        let Host::Name(host) = &authority.host else {
            return Err(misdirected(peer, &authority));
        };
        let site = Arc::new(Site {
            written: written.unwrap_or_default().into(),
            host: Arc::clone(host),
            forwarded: Forwarded::new(peer, &authority),
            authority,
        });
        if written.is_some() {
            *last = Some(Arc::clone(&site));
        }
        Ok(site)
    }
}

/// Finds out what a request is for. Names decide: that of the handshake and that of the request.
///
/// # Errors
///
/// When the names are not ours, or do not belong together.
pub(super) fn place(
    config: &Config,
    routes: &Routes,
    peer: &Peer,
    last: &LastSite,
    request: &Request<Body>,
) -> Result<Place, Error> {
    let extended = request.extensions().get::<Protocol>();
    if *request.method() == Method::CONNECT && extended.is_none() {
        for_proxy(config, peer)?;
        let authority = request.uri().authority().map_or("", |a| a.as_str());
        return Ok(Place::Tunnel(Target::parse(authority)?));
    }
    if extended.is_some_and(|protocol| !protocol.0.eq_ignore_ascii_case("websocket")) {
        return Err(Error::Protocol);
    }
    if request.uri().scheme() == Some(&Scheme::HTTP) {
        let authority = headers::authority_of(request)?;
        for_proxy(config, peer)?;
        return Ok(Place::Plain(Target {
            port: authority.port.unwrap_or(HTTP),
            host: authority.host,
        }));
    }
    let site = last.of(peer, request)?;
    if !peer.tls.known_name {
        Err(misdirected(peer, &site.authority))
    } else if *site.host == *config.host {
        Ok(Place::Own)
    } else if routes.has_host(&site.host) {
        Ok(Place::Site(site))
    } else {
        Err(misdirected(peer, &site.authority))
    }
}

/// The app for a host and a request's target, and the target with its path in the form that is
/// judged and forwarded (R22).
///
/// # Errors
///
/// When the path cannot be judged, or no app has it.
pub(super) fn app<'a>(
    routes: &'a Routes,
    host: &str,
    uri: &Uri,
) -> Result<(&'a Arc<App>, PathAndQuery), Error> {
    let raw = uri.path_and_query().ok_or(path::Error::Relative)?;
    // Which characters a path may hold is up to the app, which the path chooses: the app that the
    // unjudged path leads to has to be the one that the judged path leads to.
    let guess = routes.find(host, raw.path()).ok_or(Error::NoApp)?;
    let judged = path::judge(raw.path(), &guess.path_characters)?;
    let app = routes.find(host, judged.bare()).ok_or(Error::NoApp)?;
    if Arc::ptr_eq(app, guess) {
        return Ok((app, judged.in_place_of(raw)?));
    }
    let judged = path::judge(raw.path(), &app.path_characters)?;
    match routes.find(host, judged.bare()) {
        Some(again) if Arc::ptr_eq(app, again) => Ok((app, judged.in_place_of(raw)?)),
        Some(_) | None => Err(Error::NoApp),
    }
}

impl Site {
    /// Takes from a request what is ours or untrue, and adds what is true.
    /// Gives the authority as it was told to the node.
    pub(super) fn clean(&self, request: &mut Request<Body>, app: &App) -> HeaderValue {
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = body.limited(app.max_body);
        let headers = request.headers_mut();
        // `Connection` must not name what is added below; whether a node is told that trailers are
        // welcome is decided towards the node.
        let te = headers.remove(TE);
        headers::strip_hop_by_hop(headers);
        if let Some(te) = te {
            headers.insert(TE, te);
        }
        if app.authorization == Authorization::Gateway {
            headers.remove(AUTHORIZATION);
        }
        headers::strip_cookies(headers);
        self.forwarded.set(headers);
        self.forwarded.host().clone()
    }

    /// Takes from an answer what is ours alone, and maps the inside's names to the outside's.
    pub(super) fn clean_answer(&self, response: &mut Response<Body>, app: &App, config: &Config) {
        let headers = response.headers_mut();
        for name in headers::strip_set_cookies(headers) {
            tracing::warn!(app = %app.name, cookie = name, "a node set a cookie of ours; dropped");
        }
        if let Some(inside) = &app.upstream_host {
            headers::map_cookie_domains(headers, inside, &app.host);
        }
        headers::map_locations(headers, |authority| self.outside(config, authority));
    }

    /// The origin by which devices reach an inside name: only configured names have one.
    fn outside(&self, config: &Config, inside: &Authority) -> Option<String> {
        let Host::Name(name) = &inside.host else {
            return None;
        };
        let app = config
            .apps
            .iter()
            .find(|app| app.upstream_host.as_ref() == Some(name))?;
        let port = self.authority.port;
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("https://{}{port}", app.host))
    }
}

/// Tunnels and plain sites are for connections to the gateway's own name.
fn for_proxy(config: &Config, peer: &Peer) -> Result<(), Error> {
    let own = peer.tls.sni.as_deref() == Some(&*config.host) && peer.tls.known_name;
    if own && peer.listener.tunnels {
        Ok(())
    } else {
        Err(Error::TunnelsOff)
    }
}

fn misdirected(peer: &Peer, authority: &Authority) -> Error {
    Error::Misdirected {
        authority: authority.to_string(),
        sni: peer.tls.sni.as_deref().unwrap_or("no name").to_owned(),
    }
}

const HTTP: u16 = 80;
