//! Signed tokens that browsers carry (the door to jsonwebtoken).
//!
//! A token only says which session record to look at, and for which host it was made; whether
//! somebody is logged in is the record's answer. One algorithm, one key, one type, one issuer.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{
    auth::{Hash, Memory},
    crypto::{self, MasterKey},
};

/// Makes and reads the tokens of browsers.
pub(super) struct Tokens {
    issuer: Box<str>,
    key_id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    /// Tokens that were verified, by their SHA-256.
    verified: [Memory<Arc<Verified>>; SHARDS],
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// Which session record.
    pub(super) session: [u8; 16],
    /// The host that it was made for.
    pub(super) host: Box<str>,
    /// When it was made, in seconds since the UNIX epoch.
    pub(super) issued: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
}

impl Tokens {
    pub(super) fn new(issuer: &str, master: &MasterKey) -> Self {
        let key = master.derive("browser token v1");
        let name = crypto::sha256(&master.derive("browser token v1 key id"));
        Self {
            issuer: issuer.into(),
            key_id: data_encoding::BASE64URL_NOPAD
                .encode(name.first_chunk::<6>().unwrap_or(&[0; 6])),
            signing: EncodingKey::from_secret(&key),
            verifying: DecodingKey::from_secret(&key),
            verified: std::array::from_fn(|_| Memory::new(MAX_VERIFIED / SHARDS)),
        }
    }

    /// A token for one session on one host, good for `life` from `wall`, the time since the UNIX
    /// epoch.
    pub(super) fn issue(
        &self,
        session: [u8; 16],
        host: &str,
        life: Duration,
        wall: Duration,
    ) -> String {
        let now = wall.as_secs();
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.key_id.clone());
        let claims = Claims {
            iss: self.issuer.to_string(),
            aud: host.to_owned(),
            sub: data_encoding::BASE64URL_NOPAD.encode(&session),
            iat: now,
            nbf: now,
            exp: now.saturating_add(life.as_secs()),
        };
        // Signing fails only when a value is no JSON, and these are texts and numbers; an empty
        // token would log nobody in.
        jsonwebtoken::encode(&header, &claims, &self.signing).unwrap_or_default()
    }

    /// What a token for `host` says, if it is one of ours and its time is not over.
    pub(super) fn verify(
        &self,
        token: &str,
        host: &str,
        now: Instant,
        wall: Duration,
    ) -> Option<Arc<Verified>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let hash: Hash = crypto::sha256(token.as_bytes());
        let shard = self.verified.get(usize::from(hash[0]) % SHARDS)?;
        if let Some(verified) = shard.find(&hash, now) {
            return (*verified.host == *host).then_some(verified);
        }
        let (verified, expires) = self.read(token, host)?;
        let left = Duration::from_secs(expires).checked_sub(wall)?;
        let verified = Arc::new(verified);
        let until = now.checked_add(left.min(MAX_REMEMBERED))?;
        shard.insert(hash, Arc::clone(&verified), until, now);
        Some(verified)
    }

    fn read(&self, token: &str, host: &str) -> Option<(Verified, u64)> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // The algorithm, the key and the type are ours to choose, not the token's. The library
        // knows `crit` and the key-finding fields, and ignores them; ours have none of them.
        let ours = header.alg == Algorithm::HS256
            && header.typ.as_deref() == Some(TYPE)
            && header.kid.as_deref() == Some(&*self.key_id);
        let plain = header.crit.is_none()
            && header.jku.is_none()
            && header.jwk.is_none()
            && header.x5u.is_none()
            && header.x5c.is_none()
            && header.extras.inner().is_empty();
        if !ours || !plain {
            return None;
        }
        let mut rules = Validation::new(Algorithm::HS256);
        // A claim that is absent or of another type passes unless it is named here.
        rules.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[host]);
        rules.validate_nbf = true;
        rules.leeway = LEEWAY;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &rules)
            .ok()?
            .claims;
        let session = data_encoding::BASE64URL_NOPAD
            .decode(claims.sub.as_bytes())
            .ok()?;
        Some((
            Verified {
                session: session.try_into().ok()?,
                host: claims.aud.into(),
                issued: claims.iat,
            },
            claims.exp.saturating_add(LEEWAY),
        ))
    }
}

impl Verified {
    /// How long ago the token was made.
    pub(super) fn age(&self, wall: Duration) -> Duration {
        wall.saturating_sub(Duration::from_secs(self.issued))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Told apart from every other kind of signed token that there will be.
const TYPE: &str = "ravelin-browser+jwt";
/// Seconds that two nodes' clocks may differ.
const LEEWAY: u64 = 2;
const MAX_TOKEN: usize = 1024;
const MAX_VERIFIED: usize = 65_536;
const MAX_REMEMBERED: Duration = Duration::from_secs(300);
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock;

    const HOST: &str = "gw.example.com";
    const SESSION: [u8; 16] = [7; 16];
    const LIFE: Duration = Duration::from_secs(1800);

    fn master() -> MasterKey {
        MasterKey::from_secret(b"the key of these tests")
    }

    fn tokens() -> Tokens {
        Tokens::new(HOST, &master())
    }

    fn good(tokens: &Tokens, token: &str) -> bool {
        tokens
            .verify(token, HOST, clock::now(), clock::since_epoch())
            .is_some()
    }

    fn parts(token: &str) -> (Value, Value) {
        let mut parts = token.split('.').map(|part| {
            serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
                .unwrap_or_default()
        });
        (parts.next().unwrap(), parts.next().unwrap())
    }

    /// A token with any header and claims, signed with the right key.
    fn signed(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let text = format!("{}.{}", part(header), part(claims));
        let key = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            &master().derive("browser token v1"),
        );
        let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    }

    #[test]
    fn a_token_names_its_session_again_and_again() {
        let tokens = tokens();
        let token = tokens.issue(SESSION, HOST, LIFE, clock::since_epoch());
        for _ in 0..3 {
            let verified = tokens
                .verify(&token, HOST, clock::now(), clock::since_epoch())
                .unwrap();
            assert_eq!(verified.session, SESSION);
        }
    }

    #[test]
    fn a_token_of_one_host_is_nothing_on_another_even_once_remembered() {
        let tokens = tokens();
        let token = tokens.issue(SESSION, HOST, LIFE, clock::since_epoch());
        assert!(good(&tokens, &token));
        let other = tokens.verify(
            &token,
            "app.example.com",
            clock::now(),
            clock::since_epoch(),
        );
        assert_eq!(other, None);
    }

    #[test]
    fn an_expired_token_is_refused_also_when_it_was_remembered() {
        let tokens = tokens();
        let wall = clock::since_epoch();
        let old = tokens.issue(SESSION, HOST, LIFE, wall - Duration::from_secs(1803));
        assert!(!good(&tokens, &old));

        let token = tokens.issue(SESSION, HOST, LIFE, wall - Duration::from_secs(1790));
        assert!(good(&tokens, &token));
        let later = Duration::from_secs(13);
        assert_eq!(
            tokens.verify(&token, HOST, clock::now() + later, wall + later),
            None
        );
    }

    #[test]
    fn forged_tokens_are_refused() {
        let tokens = tokens();
        let token = tokens.issue(SESSION, HOST, LIFE, clock::since_epoch());
        let (header, claims) = parts(&token);
        assert!(
            good(&tokens, &signed(&header, &claims)),
            "the test's signature"
        );

        let with = |value: &Value, key: &str, new: Value| {
            let mut value = value.clone();
            value[key] = new;
            value
        };
        let without = |value: &Value, key: &str| {
            let mut value = value.clone();
            value.as_object_mut().unwrap().remove(key);
            value
        };
        let headers = [
            with(&header, "alg", json!("none")),
            with(&header, "alg", json!("HS384")),
            with(&header, "alg", json!("RS256")),
            without(&header, "alg"),
            with(&header, "typ", json!("JWT")),
            without(&header, "typ"),
            with(&header, "kid", json!("other")),
            without(&header, "kid"),
            with(&header, "crit", json!(["exp"])),
            with(&header, "jku", json!("https://evil.example")),
            with(&header, "x5u", json!("https://evil.example")),
            with(&header, "b64", json!(false)),
        ];
        for header in headers {
            assert!(!good(&tokens, &signed(&header, &claims)), "{header}");
        }
        let later = clock::since_epoch().as_secs() + 60;
        let mut wrong = vec![
            with(&claims, "aud", json!(7)),
            with(&claims, "aud", json!(["gw.example.com", "evil"])),
            with(&claims, "iss", json!("evil")),
            with(&claims, "iss", json!([HOST])),
            with(&claims, "exp", json!("tomorrow")),
            with(&claims, "exp", json!(1)),
            with(&claims, "nbf", json!(later)),
            with(&claims, "sub", json!("AAAA")),
            with(&claims, "admin", json!(true)),
        ];
        wrong.extend(["iss", "aud", "sub", "exp", "nbf", "iat"].map(|key| without(&claims, key)));
        for claims in wrong {
            assert!(!good(&tokens, &signed(&header, &claims)), "{claims}");
        }
    }

    #[test]
    fn a_changed_or_unsigned_token_is_refused() {
        let tokens = tokens();
        let token = tokens.issue(SESSION, HOST, LIFE, clock::since_epoch());
        let (body, signature) = token.rsplit_once('.').unwrap();
        for bad in [
            body.to_owned(),
            format!("{body}."),
            format!("{body}.{}", signature.to_lowercase()),
            format!("{token}A"),
            format!("{token}."),
            format!(" {token}"),
            String::new(),
            "..".to_owned(),
            "a".repeat(1 << 20),
        ] {
            assert!(!good(&tokens, &bad), "{bad:.80}");
        }
        let other = Tokens::new(HOST, &MasterKey::generate());
        assert!(!good(
            &tokens,
            &other.issue(SESSION, HOST, LIFE, clock::since_epoch())
        ));
    }
}
