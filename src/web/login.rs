//! The login page and its neighbours; tokens, logout, and who sent a request.
//!
//! Everything here is on the gateway's own host, but for the last step of a hand-over
//! (`/.ravelin/enter`), which is on the app's.

use std::{collections::HashSet, error::Error as _, fmt::Write, sync::Arc, time::Duration};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, LOCATION, PROXY_AUTHENTICATE, SET_COOKIE,
        WWW_AUTHENTICATE,
    },
    request::Parts,
};
use tokio::time::timeout;

pub use self::{error::Error, form::Error as FormError, identify::Identified, pages::Link};
use self::{
    error::{STALE, WRONG},
    form::Fields,
    handover::Ask,
    identify::note,
};
use crate::{
    auth::{Attempt, Authenticator},
    clock,
    config::{App, Authorization, Config, Secret},
    crypto::{self, MasterKey, Sealer},
    listener::peer::Peer,
    metrics::access_log::Record,
    session::{Class, Handover, Session, Sessions},
    web::{Body, body, page},
};

mod cookie;
mod error;
mod form;
mod handover;
mod identify;
mod origin;
mod pages;
mod token;

/// The login: pages, hand-over, and the credentials of every request.
#[derive(Debug)]
pub struct Login {
    host: Arc<str>,
    title: Arc<str>,
    /// Hosts of apps whose login is ours.
    app_hosts: HashSet<Arc<str>>,
    sessions: Arc<Sessions>,
    authenticator: Arc<Authenticator>,
    sealer: Sealer,
}

impl Login {
    /// For one configuration. `sessions` outlive it.
    pub fn new(
        config: &Config,
        sessions: Arc<Sessions>,
        authenticator: Arc<Authenticator>,
        master: &MasterKey,
    ) -> Self {
        let app_hosts = config
            .apps
            .iter()
            .filter(|app| app.authorization == Authorization::Gateway)
            .map(|app| Arc::clone(&app.host))
            .collect();
        Self {
            host: Arc::clone(&config.host),
            title: Arc::clone(&config.login.title),
            app_hosts,
            sessions,
            authenticator,
            sealer: Sealer::new(&master.derive("login forms and asks")),
        }
    }

    /// Answers a request to the gateway's own host. `apps` tells which apps a session may open.
    ///
    /// # Errors
    ///
    /// Those that have no page of their own; [`Login::refuse`] answers them.
    pub async fn own_host(
        &self,
        peer: &Peer,
        request: Request<Body>,
        apps: &(dyn Fn(&Session) -> Vec<Link> + Sync),
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let (parts, body) = request.into_parts();
        let get = parts.method == Method::GET || parts.method == Method::HEAD;
        let post = parts.method == Method::POST;
        match parts.uri.path() {
            "/" if get => Ok(self.home(&parts, apps, record)),
            "/login" if get => self.show_login(&parts, record),
            "/login" if post => Box::pin(self.log_in(peer, &parts, body, record)).await,
            "/logout" if post => self.log_out(&parts, body, record).await,
            "/token" if post => Box::pin(self.make_token(peer, &parts, body, record)).await,
            "/token/revoke" if post => self.revoke_token(&parts, body, record).await,
            "/.ravelin/authorize" if get => self.authorize(&parts, record),
            "/" | "/.ravelin/authorize" => Err(Error::Method("GET, HEAD")),
            "/login" => Err(Error::Method("GET, HEAD, POST")),
            "/logout" | "/token" | "/token/revoke" => Err(Error::Method("POST")),
            _ => Err(Error::NotFound),
        }
    }

    /// Answers what is the gateway's own at an app's host; `None` for what is the app's.
    pub fn app_host<B>(
        &self,
        host: &str,
        request: &Request<B>,
        record: &mut Record,
    ) -> Option<Result<Response<Body>, Error>> {
        let path = request.uri().path();
        if !path.starts_with("/.ravelin/") || !self.app_hosts.contains(host) {
            return None;
        }
        Some(match path {
            "/.ravelin/enter" if request.method() == Method::GET => {
                self.enter(host, request, record)
            }
            "/.ravelin/enter" => Err(Error::Method("GET")),
            _ => Err(Error::NotFound),
        })
    }

    /// Asks for a login at an app's host in the way that the device can use: a browser opening
    /// a page is led to the login page, everything else gets 401. Other errors are refused.
    pub fn ask_app<B>(
        &self,
        app: &App,
        request: &Request<B>,
        why: &Error,
        record: &mut Record,
    ) -> Response<Body> {
        let page = matches!(why, Error::Required) && is_navigation(request);
        if !page {
            let mut response = self.refuse(why, record);
            let script = request.headers().contains_key("sec-fetch-mode");
            if script && response.headers().contains_key(WWW_AUTHENTICATE) {
                // `Basic` would make the browser open a dialogue behind the page's back.
                challenge(&mut response, "Bearer", &self.host);
            }
            return response;
        }
        let known = cookie::find_bits(request.headers(), cookie::ENTER);
        // Two tabs may be under way at once: both go by the same value.
        let browser = known.unwrap_or_else(crypto::random);
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let path = if handover::is_local(path) {
            path
        } else {
            &app.path
        };
        let ask = Ask {
            made: clock::since_epoch().as_secs(),
            browser,
            host: app.host.to_string(),
            path: path.to_owned(),
        };
        let host = origin::with_port(&self.host, request.uri(), request.headers());
        let ask = ask.seal(&self.sealer);
        let mut response = redirect(
            StatusCode::FOUND,
            &format!("https://{host}/.ravelin/authorize?ask={ask}"),
        );
        let value = data_encoding::BASE64URL_NOPAD.encode(&browser);
        let life = Some(ENTER_LIFE);
        cookie::add(response.headers_mut(), cookie::ENTER, &value, life);
        response
    }

    /// Answers an error of a tunnel: 407 for credentials, else its status.
    pub fn ask_tunnel(&self, why: &Error, record: &mut Record) -> Response<Body> {
        let mut response = self.refuse(why, record);
        if let Some(challenge) = response.headers_mut().remove(WWW_AUTHENTICATE) {
            *response.status_mut() = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
            response.headers_mut().insert(PROXY_AUTHENTICATE, challenge);
        }
        response
    }

    /// Answers an error with a page, and notes it in the record.
    pub fn refuse(&self, why: &Error, record: &mut Record) -> Response<Body> {
        let id = record.refuse("login", reason(why));
        let mut response = page::refusal(why.status(), why.sentence(), id);
        match why {
            Error::Rejected(_) | Error::Required | Error::Scheme | Error::Token => {
                challenge(&mut response, "Basic", &self.host);
            }
            Error::Method(allowed) => {
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Error::Body(_)
            | Error::ContentType
            | Error::Forged
            | Error::Form(_)
            | Error::Header(_)
            | Error::Limited(_)
            | Error::Link
            | Error::NotFound
            | Error::Slow
            | Error::TooLarge
            | Error::Unavailable(_) => {}
        }
        response
    }

    fn home(
        &self,
        parts: &Parts,
        apps: &(dyn Fn(&Session) -> Vec<Link> + Sync),
        record: &mut Record,
    ) -> Response<Body> {
        let Some(identified) = self.browser(parts, record) else {
            return redirect(StatusCode::SEE_OTHER, "/login");
        };
        let session = &identified.session;
        let links = apps(session);
        let devices = self.sessions.devices_of(session.identity());
        let csrf = self.form_token(session);
        let now = clock::now();
        let page = pages::home(&self.title, session, &csrf, &links, &devices, now);
        let mut response = page.answer(StatusCode::OK);
        if let Some(cookie) = identified.set_cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }

    fn show_login(&self, parts: &Parts, record: &mut Record) -> Result<Response<Body>, Error> {
        let query = parts.uri.query().unwrap_or_default();
        let fields = Fields::parse(query.as_bytes(), &["ask"])?;
        let ask = fields.get("ask");
        if self.browser(parts, record).is_some() {
            return Ok(redirect(StatusCode::SEE_OTHER, &onward(ask)));
        }
        Ok(self.login_page(parts, ask, None, StatusCode::OK))
    }

    /// The login page; `alert` is a sentence and the line with the refusal's id.
    fn login_page(
        &self,
        parts: &Parts,
        ask: Option<&str>,
        alert: Option<(&str, String)>,
        status: StatusCode,
    ) -> Response<Body> {
        let wall = clock::since_epoch().as_secs();
        let opened = ask.and_then(|text| Some((text, Ask::open(&self.sealer, text, wall)?.host)));
        let known = cookie::find_bits(&parts.headers, cookie::LOGIN);
        let browser: [u8; 16] = known.unwrap_or_else(crypto::random);
        let csrf = origin::form_token(&self.sealer, &browser, wall);
        let (alert, more) = alert.unzip();
        let page = pages::login(
            &self.title,
            &csrf,
            opened.as_ref().map(|(text, host)| (*text, host.as_str())),
            alert,
            &more.unwrap_or_default(),
        );
        let mut response = page.answer(status);
        if known.is_none() {
            let value = data_encoding::BASE64URL_NOPAD.encode(&browser);
            cookie::add(response.headers_mut(), cookie::LOGIN, &value, None);
        }
        response
    }

    async fn log_in(
        &self,
        peer: &Peer,
        parts: &Parts,
        body: Body,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let asked = clock::now();
        self.own(parts)?;
        let mut fields = read_form(parts, body, &["csrf", "user", "password", "ask"]).await?;
        let password = Secret::new(fields.take("password")?.into_bytes());
        let ask = fields.get("ask");
        let (user, csrf) = (fields.need("user")?, fields.need("csrf")?);
        let wall = clock::since_epoch().as_secs();
        let bound = cookie::find_bits(&parts.headers, cookie::LOGIN)
            .is_some_and(|browser| origin::is_form_token(&self.sealer, csrf, &browser, wall));
        if !bound {
            let id = record.refuse("login", "the form is too old, or not for this browser");
            let alert = (STALE, page::refusal_id(id));
            return Ok(self.login_page(parts, ask, Some(alert), StatusCode::FORBIDDEN));
        }
        let source = peer.address.ip();
        let attempt = Attempt {
            user,
            password: &password,
            source,
        };
        let identity = match self
            .authenticator
            .check(attempt, asked)
            .await
            .map_err(Error::from)
        {
            Ok(identity) => identity,
            Err(why @ Error::Rejected(_)) => {
                let id = record.refuse("login", reason(&why));
                let alert = Some((WRONG, page::refusal_id(id)));
                // 401 must name a scheme (RFC 9110, section 15.5.2). This one no browser knows,
                // so it shows the page, while whoever watches sees a failed login.
                let mut response = self.login_page(parts, ask, alert, StatusCode::UNAUTHORIZED);
                challenge(&mut response, "Form", &self.host);
                return Ok(response);
            }
            Err(why) => return Err(why),
        };
        // A login never goes on under a session that the browser had before.
        if let Some(before) = self.by_cookie(&parts.headers, cookie::SESSION, &self.host) {
            self.sessions.end(before.session.id());
        }
        let session = self
            .sessions
            .open(identity, Class::Browser, source, clock::now())?;
        note(record, &session);
        let token = self.sessions.browser_token(&session, &self.host);
        let mut response = redirect(StatusCode::SEE_OTHER, &onward(ask));
        cookie::add(response.headers_mut(), cookie::SESSION, &token, None);
        cookie::forget(response.headers_mut(), cookie::LOGIN);
        Ok(response)
    }

    async fn log_out(
        &self,
        parts: &Parts,
        body: Body,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        self.own(parts)?;
        if let Some(identified) = self.browser(parts, record) {
            let fields = read_form(parts, body, &["csrf"]).await?;
            self.own_form(&identified.session, &fields)?;
            self.sessions.end(identified.session.id());
        }
        let mut response = redirect(StatusCode::SEE_OTHER, "/login");
        cookie::forget(response.headers_mut(), cookie::SESSION);
        Ok(response)
    }

    fn authorize(&self, parts: &Parts, record: &mut Record) -> Result<Response<Body>, Error> {
        let query = parts.uri.query().unwrap_or_default();
        let fields = Fields::parse(query.as_bytes(), &["ask"])?;
        let text = fields.need("ask")?;
        let wall = clock::since_epoch().as_secs();
        let ask = Ask::open(&self.sealer, text, wall).ok_or(Error::Link)?;
        // Only a host that is an app's by now gets a login.
        let app_host = self
            .app_hosts
            .get(ask.host.as_str())
            .map(Arc::clone)
            .ok_or(Error::Link)?;
        let Some(identified) = self.browser(parts, record) else {
            return Ok(redirect(
                StatusCode::SEE_OTHER,
                &format!("/login?ask={text}"),
            ));
        };
        let host = origin::with_port(&app_host, &parts.uri, &parts.headers);
        let handover = Handover {
            session: identified.session,
            host: app_host,
            browser: ask.browser,
            path: ask.path.into(),
        };
        let code = self.sessions.hand_over(handover, clock::now());
        let url = format!("https://{host}/.ravelin/enter?code={code}");
        let mut response = redirect(StatusCode::FOUND, &url);
        if let Some(cookie) = identified.set_cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    fn enter<B>(
        &self,
        host: &str,
        request: &Request<B>,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let query = request.uri().query().unwrap_or_default();
        let fields = Fields::parse(query.as_bytes(), &["code"])?;
        let browser = cookie::find_bits(request.headers(), cookie::ENTER);
        // The code is used up whatever it turns out to be for.
        let handover = self
            .sessions
            .take_over(fields.need("code")?, clock::now())
            .filter(|handover| *handover.host == *host)
            .filter(|handover| browser.is_some_and(|b| crypto::equal(&b, &handover.browser)))
            .ok_or(Error::Link)?;
        note(record, &handover.session);
        let token = self.sessions.browser_token(&handover.session, host);
        let mut response = redirect(StatusCode::FOUND, &handover.path);
        cookie::add(response.headers_mut(), cookie::APP, &token, None);
        Ok(response)
    }

    /// The session of the gateway's own cookie.
    fn browser(&self, parts: &Parts, record: &mut Record) -> Option<Identified> {
        let identified = self.by_cookie(&parts.headers, cookie::SESSION, &self.host)?;
        note(record, &identified.session);
        Some(identified)
    }

    fn own(&self, parts: &Parts) -> Result<(), Error> {
        origin::is_own(&parts.headers, &self.host)
            .then_some(())
            .ok_or(Error::Forged)
    }

    fn form_token(&self, session: &Session) -> String {
        let wall = clock::since_epoch().as_secs();
        origin::form_token(&self.sealer, session.id().as_bytes(), wall)
    }

    fn own_form(&self, session: &Session, fields: &Fields) -> Result<(), Error> {
        let wall = clock::since_epoch().as_secs();
        let csrf = fields.need("csrf")?;
        origin::is_form_token(&self.sealer, csrf, session.id().as_bytes(), wall)
            .then_some(())
            .ok_or(Error::Forged)
    }
}

/// A browser that opens a page, and can show the login.
fn is_navigation<B>(request: &Request<B>) -> bool {
    let text = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let get = *request.method() == Method::GET || *request.method() == Method::HEAD;
    let html = text(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/html"));
    let navigates = text("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
    get && html && navigates && !request.headers().contains_key(AUTHORIZATION)
}

/// Where a login goes on to.
fn onward(ask: Option<&str>) -> String {
    match ask {
        // Sealed text has no character that would need an escape; anything else is not ours.
        Some(ask)
            if ask
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') =>
        {
            format!("/.ravelin/authorize?ask={ask}")
        }
        Some(_) | None => "/".to_owned(),
    }
}

fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    page::protect(response.headers_mut());
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn challenge(response: &mut Response<Body>, scheme: &str, realm: &str) {
    let more = if scheme == "Basic" {
        format!(", charset=\"UTF-8\", Bearer realm=\"{realm}\"")
    } else {
        String::new()
    };
    // A host has no quotes.
    if let Ok(value) = HeaderValue::try_from(format!("{scheme} realm=\"{realm}\"{more}")) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
}

async fn read_form(parts: &Parts, body: Body, keys: &[&'static str]) -> Result<Fields, Error> {
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
    let form = kind.and_then(Result::ok).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    if !form {
        return Err(Error::ContentType);
    }
    let bytes = timeout(FORM_TIME, body.collect(MAX_FORM))
        .await
        .map_err(|_elapsed| Error::Slow)?
        .map_err(|error| match error {
            body::Error::TooLarge(_) => Error::TooLarge,
            body::Error::Slow(_) => Error::Slow,
            body::Error::Backend(_) | body::Error::Device(_) | body::Error::Framing(_) => {
                Error::Body(error)
            }
        })?;
    Ok(Fields::parse(&bytes, keys)?)
}

/// An error with its causes, for the log.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a `String` cannot fail.
        let _infallible = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

const MAX_FORM: u64 = 16 << 10;
const FORM_TIME: Duration = Duration::from_secs(30);
const ENTER_LIFE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
