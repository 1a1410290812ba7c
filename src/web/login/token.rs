//! Device tokens: made and revoked by a person's page, or by a program with Basic.

use std::sync::Arc;

use http::{
    HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
    request::Parts,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Error, Login,
    form::Fields,
    identify::{self, note},
    origin, pages, read_form, redirect,
};
use crate::{
    clock,
    config::Secret,
    listener::peer::Peer,
    metrics::access_log::Record,
    session::{DeviceToken, Session},
    web::{Body, page},
};

impl Login {
    pub(super) async fn make_token(
        &self,
        peer: &Peer,
        parts: &Parts,
        body: Body,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        self.own(parts)?;
        if let Some(value) = identify::single(&parts.headers, &AUTHORIZATION)? {
            // A device token cannot make another: it would outlive its own end.
            let session = self.by_credential(peer, value, false).await?;
            note(record, &session);
            let fields = if parts.headers.contains_key(CONTENT_TYPE) {
                read_form(parts, body, &["label"]).await?
            } else {
                Fields::default()
            };
            let label = label(&fields);
            return self.token_as_json(&session, &label);
        }
        let identified = self.browser(parts, record).ok_or(Error::Required)?;
        let fields = read_form(parts, body, &["csrf", "label"]).await?;
        self.own_form(&identified.session, &fields)?;
        let (token, _facts) = self.issue(&identified.session, &label(&fields))?;
        let host = origin::with_port(&self.host, &parts.uri, &parts.headers);
        let token = token.expose_text().unwrap_or_default();
        Ok(pages::token(&self.title, token, &host).answer(StatusCode::OK))
    }

    /// A device token for whoever has this session, unless it ended while the form came.
    fn issue(&self, session: &Session, label: &str) -> Result<(Secret, Arc<DeviceToken>), Error> {
        let identity = session.identity();
        let (token, facts) = self
            .sessions
            .issue_device(identity.clone(), label, clock::now());
        // Afterwards: a kill ends sessions first, and then revokes the tokens that are there.
        if !session.is_live(clock::now()) {
            self.sessions.revoke_device(identity, &facts.id);
            return Err(Error::Required);
        }
        Ok((token, facts))
    }

    fn token_as_json(&self, session: &Session, label: &str) -> Result<Response<Body>, Error> {
        let (token, facts) = self.issue(session, label)?;
        let expires = clock::wall() + facts.until.saturating_duration_since(clock::now());
        let expires = OffsetDateTime::from(expires)
            .replace_nanosecond(0)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok());
        let json = serde_json::json!({
            "token": token.expose_text(),
            "id": &*facts.id,
            "expires": expires,
        });
        let mut response = Response::new(Body::full(json.to_string()));
        let headers = response.headers_mut();
        page::protect(headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    pub(super) async fn revoke_token(
        &self,
        parts: &Parts,
        body: Body,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        self.own(parts)?;
        let identified = self.browser(parts, record).ok_or(Error::Required)?;
        let fields = read_form(parts, body, &["csrf", "id"]).await?;
        self.own_form(&identified.session, &fields)?;
        let identity = identified.session.identity();
        // Revoked before, or by its end: it is gone either way.
        self.sessions.revoke_device(identity, fields.need("id")?);
        Ok(redirect(StatusCode::SEE_OTHER, "/"))
    }
}

/// What a person calls a device; cut, and shown to that person only.
fn label(fields: &Fields) -> String {
    let label = fields.get("label").unwrap_or_default();
    label.chars().filter(|c| !c.is_control()).take(64).collect()
}
