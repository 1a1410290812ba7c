//! Handshake within a deadline; adds SNI, ALPN and device certificate to the peer.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{Acceptor as HelloAcceptor, NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tracing::{info, warn};

use self::{
    certificates::{Authorities, Outcome, Store},
    tickets::Tickets,
};
pub use self::{
    certificates::{Fact, KeyKind},
    gather::{Flusher, Gathering},
    socket::Socket,
    stream::Stream,
};
use crate::{
    clock,
    config::{self, ClientCertificate},
    crypto::{self, MasterKey},
    listener::peer::Handshake,
};

pub(crate) use self::certificates::told;

mod block;
pub mod certificates;
mod gather;
mod socket;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tickets;

/// TLS towards the devices of one listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: Arc<config::Listener>,
    settings: config::Tls,
    certificates: Arc<Store>,
    tickets: Option<Arc<Tickets>>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
    /// What was told last about authorities that cannot be used.
    failed: Mutex<Option<String>>,
}

impl Acceptor {
    /// Reads the listener's certificates and, if it asks for device certificates, whose signature
    /// they need. Reads files: not for a runtime's worker while devices are served.
    ///
    /// # Errors
    ///
    /// At the first file that cannot be used. Dates are no error here, since an old certificate
    /// is better than no gateway after a power cut: they are logged, and refused in a reload.
    pub fn load(
        listener: Arc<config::Listener>,
        settings: config::Tls,
        master: &MasterKey,
    ) -> Result<Self, Error> {
        Self::load_with(listener, settings, master, clock::since_epoch)
    }

    fn load_with(
        listener: Arc<config::Listener>,
        settings: config::Tls,
        master: &MasterKey,
        now: fn() -> Duration,
    ) -> Result<Self, Error> {
        let provider = provider();
        let certificates = Store::load(&listener.certificates, Arc::clone(&provider))?;
        for error in certificates.outdated(clock::wall()) {
            warn!(error = told(&error), listener = %listener.name, "certificate");
        }
        let tickets = may_resume(&listener, &settings).then(|| {
            // Listeners that ask for device certificates have no tickets at all; the word keeps
            // those of the others apart from them for ever.
            let scope = format!("{} none", listener.name);
            Arc::new(Tickets::new(
                master.clone(),
                &scope,
                settings.ticket_lifetime,
                now,
            ))
        });
        let certificates = Arc::new(certificates);
        let parts = Parts {
            listener: &listener,
            settings: &settings,
            certificates: &certificates,
            tickets: tickets.as_ref(),
            provider: &provider,
        };
        let current = ArcSwap::from_pointee(parts.assemble(load_authorities(&listener)?)?);
        Ok(Self {
            listener,
            settings,
            certificates,
            tickets,
            provider,
            current,
            failed: Mutex::default(),
        })
    }

    /// Reads a device's first message, which tells the name that it wants.
    ///
    /// # Errors
    ///
    /// When the device sends anything else, goes away, or asks for an unknown name where the
    /// listener is strict. It was sent an alert where TLS has one.
    pub async fn hello(&self, socket: Socket) -> Result<Hello<'_>, Refused> {
        let start = LazyConfigAcceptor::new(HelloAcceptor::default(), socket)
            .await
            .map_err(|source| Refused::Hello { source })?;
        let hello = start.client_hello();
        let sni: Option<Arc<str>> = hello
            .server_name()
            .map(|name| certificates::normal(name).into());
        let likes_chacha = likes_chacha(hello.cipher_suites(), &self.provider);
        let known_name = sni
            .as_ref()
            .is_some_and(|name| self.certificates.knows(name));
        if self.listener.strict_sni && !known_name {
            let StartHandshake { mut io, .. } = start;
            // The alert is a courtesy: the refusal holds whether or not it arrives.
            let _sent = io.write_all(UNRECOGNIZED_NAME).await;
            let _closed = io.shutdown().await;
            return Err(Refused::UnknownName { sni });
        }
        Ok(Hello {
            acceptor: self,
            start: Box::new(start),
            sni,
            known_name,
            likes_chacha,
        })
    }

    /// Looks at all files again and uses what changed; what cannot be used is logged, and what
    /// was there stays. Reads files: not for a runtime's worker.
    pub fn reload(&self) {
        for outcome in self.certificates.reload(clock::wall()) {
            match outcome {
                Outcome::Kept(error) => warn!(
                    listener = %self.listener.name,
                    error = told(&error),
                    "new certificate files cannot be used; the old certificate stays",
                ),
                Outcome::Replaced(fact) => info!(
                    listener = %self.listener.name,
                    certificate = %fact.certificate,
                    names = ?fact.names,
                    not_after = httpdate::fmt_http_date(fact.not_after),
                    "certificate replaced",
                ),
            }
        }
        let error = self.reload_authorities().err().map(|error| told(&error));
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error.as_ref().filter(|_| *failed != error) {
            warn!(
                listener = %self.listener.name,
                error,
                "the new authorities for device certificates cannot be used; the old ones stay",
            );
        }
        *failed = error;
    }

    /// The certificates that are shown.
    pub fn facts(&self) -> Vec<Fact> {
        self.certificates.facts()
    }

    fn reload_authorities(&self) -> Result<(), Error> {
        let Some(authorities) = load_authorities(&self.listener)? else {
            return Ok(());
        };
        if self.current.load().authorities != authorities.hash {
            let parts = Parts {
                listener: &self.listener,
                settings: &self.settings,
                certificates: &self.certificates,
                tickets: self.tickets.as_ref(),
                provider: &self.provider,
            };
            self.current
                .store(Arc::new(parts.assemble(Some(authorities))?));
            info!(listener = %self.listener.name, "authorities for device certificates replaced");
        }
        Ok(())
    }
}

/// What handshakes are done with until files change.
#[derive(Debug)]
struct Current {
    /// The hash of the client authorities' file.
    authorities: [u8; 32],
    /// Takes the cipher that is cheapest for both where hardware does AES.
    ours: Arc<ServerConfig>,
    /// The same, but takes the cipher that the device likes best.
    theirs: Arc<ServerConfig>,
}

/// A handshake whose first message was read.
#[derive(Debug)]
pub struct Hello<'a> {
    acceptor: &'a Acceptor,
    start: Box<StartHandshake<Socket>>,
    sni: Option<Arc<str>>,
    known_name: bool,
    likes_chacha: bool,
}

impl Hello<'_> {
    /// The name that the device asked for, lower case.
    pub fn sni(&self) -> Option<&Arc<str>> {
        self.sni.as_ref()
    }

    /// Does the rest of the handshake.
    ///
    /// # Errors
    ///
    /// When device and gateway agree on nothing, or the device goes away.
    pub async fn finish(self) -> Result<(Stream, Handshake), Refused> {
        let current = self.acceptor.current.load_full();
        let config = if self.likes_chacha {
            &current.theirs
        } else {
            &current.ours
        };
        let tls = self
            .start
            .into_stream(Arc::clone(config))
            .await
            .map_err(|source| Refused::Handshake { source })?;
        let connection = tls.get_ref().1;
        let handshake = Handshake {
            sni: self.sni,
            known_name: self.known_name,
            http2: connection.alpn_protocol() == Some(H2),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default(),
            group: connection
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str())
                .unwrap_or_default(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|leaf| crypto::sha256(leaf)),
        };
        Ok((Stream::new(tls), handshake))
    }
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or the authorities for device certificates cannot be used.
    #[error(transparent)]
    Certificate(#[from] certificates::Error),
    /// rustls takes no such configuration.
    #[error("listener {listener}: TLS cannot be set up")]
    Config {
        /// Which.
        listener: Arc<str>,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// Why a device has no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It and we agreed on nothing, or it went away.
    #[error("the TLS handshake failed")]
    Handshake {
        /// Where it failed.
        source: io::Error,
    },
    /// It did not begin with a `ClientHello`.
    #[error("no TLS handshake began")]
    Hello {
        /// What came instead.
        source: io::Error,
    },
    /// A strict listener has no certificate for the name.
    #[error("no certificate fits the name that the device asked for")]
    UnknownName {
        /// The name, if it asked for any.
        sni: Option<Arc<str>>,
    },
}

/// aws-lc-rs, with the key exchanges and ciphers that we take, in our order.
///
/// AES-128 comes before AES-256 (RFC 8446, section 9.1, has it as the one that everybody speaks):
/// its hash is SHA-256, which processors do in hardware. SHA-384 is a fifth of a handshake's cost.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{
        cipher_suite as suite,
        kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768},
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}

/// A device that names `ChaCha20` before any AES has no hardware for AES: there our order would
/// cost it more than it saves us.
fn likes_chacha(offered: &[CipherSuite], provider: &CryptoProvider) -> bool {
    let ours = |suite: &&CipherSuite| provider.cipher_suites.iter().any(|s| s.suite() == **suite);
    matches!(
        offered.iter().find(ours),
        Some(
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        )
    )
}

/// A resumed session keeps the device certificate of its first handshake and nobody verifies it
/// again, so a listener that asks for certificates resumes none.
fn may_resume(listener: &config::Listener, settings: &config::Tls) -> bool {
    matches!(listener.client_certificate, ClientCertificate::None)
        && !settings.ticket_lifetime.is_zero()
}

fn load_authorities(
    listener: &config::Listener,
) -> Result<Option<Authorities>, certificates::Error> {
    match &listener.client_certificate {
        ClientCertificate::None => Ok(None),
        ClientCertificate::Optional(path) | ClientCertificate::Required(path) => {
            Authorities::load(path).map(Some)
        }
    }
}

/// What a rustls configuration is made of.
struct Parts<'a> {
    listener: &'a config::Listener,
    settings: &'a config::Tls,
    certificates: &'a Arc<Store>,
    tickets: Option<&'a Arc<Tickets>>,
    provider: &'a Arc<CryptoProvider>,
}

impl Parts<'_> {
    fn assemble(&self, authorities: Option<Authorities>) -> Result<Current, Error> {
        let failed = |source| Error::Config {
            listener: Arc::clone(&self.listener.name),
            source,
        };
        // All suites of rustls are AEAD, and those of TLS 1.2 are ECDHE.
        let builder = ServerConfig::builder_with_provider(Arc::clone(self.provider))
            .with_protocol_versions(self.versions())
            .map_err(failed)?;
        let hash = authorities.as_ref().map(|a| a.hash).unwrap_or_default();
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => builder.with_client_cert_verifier(self.verifier(authorities)?),
        };
        let certificates = Arc::clone(self.certificates);
        let mut config = builder.with_cert_resolver(certificates);
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if let Some(tickets) = self.tickets {
            config.ticketer = Arc::clone(tickets) as _;
            // One is enough for a device that comes back, and a tenth cheaper than two.
            config.send_tls13_tickets = 1;
        }
        let theirs = Arc::new(config.clone());
        config.ignore_client_order = true;
        Ok(Current {
            authorities: hash,
            ours: Arc::new(config),
            theirs,
        })
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.settings.tls12 {
            rustls::ALL_VERSIONS
        } else {
            TLS13_ALONE
        }
    }

    fn verifier(
        &self,
        authorities: Authorities,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Error> {
        let mut builder = WebPkiClientVerifier::builder_with_provider(
            authorities.roots,
            Arc::clone(self.provider),
        );
        if matches!(
            self.listener.client_certificate,
            ClientCertificate::Optional(_)
        ) {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| Error::Config {
            listener: Arc::clone(&self.listener.name),
            source: rustls::Error::Other(rustls::OtherError(Arc::new(error))),
        })
    }
}

const H2: &[u8] = b"h2";
static TLS13_ALONE: &[&SupportedProtocolVersion] = &[&TLS13];
/// A fatal `unrecognized_name` in a record of its own (RFC 6066, section 3).
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];
