//! Who sent a request: from our cookie, a device token, or name and password.

use std::{sync::Arc, time::Instant};

use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, HeaderName, PROXY_AUTHORIZATION},
};
use zeroize::Zeroizing;

use super::{Error, Login, cookie};
use crate::{
    auth::Attempt,
    clock,
    config::Secret,
    listener::peer::Peer,
    metrics::access_log::Record,
    session::{BasicKey, Session},
};

/// A session that a request showed, and what its answer must carry.
#[derive(Debug)]
pub struct Identified {
    /// The session.
    pub session: Arc<Session>,
    /// `Set-Cookie` for the answer: the successor of a token that is growing old.
    pub set_cookie: Option<HeaderValue>,
}

impl Login {
    /// Who opens a tunnel: `Proxy-Authorization`, else `Authorization`; Basic or Bearer.
    ///
    /// # Errors
    ///
    /// [`Error::Required`] without a credential, else why it is not good.
    pub async fn identify_tunnel(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        record: &mut Record,
    ) -> Result<Arc<Session>, Error> {
        let name = if headers.contains_key(PROXY_AUTHORIZATION) {
            PROXY_AUTHORIZATION
        } else {
            AUTHORIZATION
        };
        let value = single(headers, &name)?.ok_or(Error::Required)?;
        let session = self.by_credential(peer, value, true).await?;
        note(record, &session);
        Ok(session)
    }

    /// Who opens an app at `host`: that host's own cookie, else `Authorization`.
    ///
    /// # Errors
    ///
    /// [`Error::Required`] without a credential or with a cookie that is over, else why it is
    /// not good.
    pub async fn identify_app(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        host: &str,
        record: &mut Record,
    ) -> Result<Identified, Error> {
        if let Some(identified) = self.by_cookie(headers, cookie::APP, host) {
            note(record, &identified.session);
            return Ok(identified);
        }
        let value = single(headers, &AUTHORIZATION)?.ok_or(Error::Required)?;
        let session = self.by_credential(peer, value, true).await?;
        note(record, &session);
        Ok(Identified {
            session,
            set_cookie: None,
        })
    }

    /// The session that a cookie shows.
    pub(super) fn by_cookie(
        &self,
        headers: &HeaderMap,
        name: &str,
        host: &str,
    ) -> Option<Identified> {
        let token = cookie::find(headers, name)?;
        let found = self.sessions.find_browser(token, host, clock::now())?;
        Some(Identified {
            session: found.session,
            set_cookie: found
                .renewed
                .and_then(|token| cookie::set(name, &token, None)),
        })
    }

    /// The session that `Authorization` or `Proxy-Authorization` shows.
    pub(super) async fn by_credential(
        &self,
        peer: &Peer,
        value: &HeaderValue,
        devices: bool,
    ) -> Result<Arc<Session>, Error> {
        let value = value
            .to_str()
            .map_err(|_not_ascii| Error::Header("the credential is not ASCII"))?;
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = basic(rest)?;
            let (user, password) = pair.parts()?;
            let listener = &peer.listener.name;
            let key = self.sessions.basic_key(user, password, listener);
            let now = clock::now();
            match self.sessions.find_basic(&key, now) {
                Some(session) => Ok(session),
                None => {
                    let source = peer.address.ip();
                    let password = Secret::new(password.to_vec());
                    let attempt = Attempt {
                        user,
                        password: &password,
                        source,
                    };
                    Box::pin(self.by_password(attempt, key, now)).await
                }
            }
        } else if scheme.eq_ignore_ascii_case("bearer") && devices {
            let token = Secret::new(rest.as_bytes().to_vec());
            let source = peer.address.ip();
            match self.sessions.find_device(&token, source, clock::now()) {
                Some(found) => Ok(found?),
                None => Err(Error::Token),
            }
        } else {
            Err(Error::Scheme)
        }
    }

    /// The session of a name and a password. The password is checked once in a while, however
    /// many requests show it at once.
    async fn by_password(
        &self,
        attempt: Attempt<'_>,
        key: BasicKey,
        asked: Instant,
    ) -> Result<Arc<Session>, Error> {
        let source = attempt.source;
        let sessions = Arc::clone(&self.sessions);
        let identity = self
            .authenticator
            .check_then(attempt, asked, move |identity| {
                // When there is no room, the caller finds that out again, and tells it.
                let _found = sessions.open_basic(&key, identity.clone(), source, clock::now());
            })
            .await?;
        let now = clock::now();
        match self.sessions.find_basic(&key, now) {
            Some(session) => Ok(session),
            None => Ok(self.sessions.open_basic(&key, identity, source, now)?),
        }
    }
}

/// Writes into the record who it is.
pub(super) fn note(record: &mut Record, session: &Session) {
    record.user = Some(Arc::clone(&session.identity().user));
    record.session = Some(Arc::clone(session.id()));
}

/// A header that may come once.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Error> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Error::Header("two credentials"));
    }
    Ok(value)
}

/// A Basic credential, decoded (RFC 7617, in UTF-8).
struct Pair(Zeroizing<Vec<u8>>);

impl Pair {
    /// Name and password.
    fn parts(&self) -> Result<(&str, &[u8]), Error> {
        let colon = self.0.iter().position(|byte| *byte == b':');
        let (user, password) = colon
            .and_then(|colon| self.0.split_at_checked(colon))
            .ok_or(Error::Header("the Basic credential has no colon"))?;
        let user = std::str::from_utf8(user)
            .map_err(|_not_utf8| Error::Header("the Basic credential is not UTF-8"))?;
        Ok((user, password.get(1..).unwrap_or_default()))
    }
}

fn basic(credential: &str) -> Result<Pair, Error> {
    if credential.len() > MAX_BASIC {
        return Err(Error::Header("the Basic credential is too long"));
    }
    data_encoding::BASE64
        .decode(credential.as_bytes())
        .map(|pair| Pair(Zeroizing::new(pair)))
        .map_err(|_bad| Error::Header("the Basic credential is not base64"))
}

const MAX_BASIC: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(pair: &[u8]) -> String {
        data_encoding::BASE64.encode(pair)
    }

    #[test]
    fn a_password_may_hold_colons() {
        let pair = basic(&encoded("alice:a:b:ü".as_bytes())).unwrap();
        assert_eq!(pair.parts().unwrap(), ("alice", "a:b:ü".as_bytes()));
    }

    #[test]
    fn what_is_no_basic_credential_is_refused() {
        for bad in [
            String::new(),
            "%%%".into(),
            "YWxpY2U".into(),
            encoded(b"alice"),
            encoded(b"\xff:x"),
            "A".repeat(100_000),
        ] {
            let read = basic(&bad).and_then(|pair| pair.parts().map(drop));
            assert!(matches!(read, Err(Error::Header(_))), "{bad:.40}");
        }
    }

    #[test]
    fn two_credentials_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert!(single(&headers, &AUTHORIZATION).unwrap().is_some());
        headers.append(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        single(&headers, &AUTHORIZATION).unwrap_err();
    }
}
