//! TLS outwards: whose signatures are trusted, which name and which keys the other end must have.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
    },
    pki_types::{CertificateDer, DnsName, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::{Authorities, BackendTls},
    crypto,
    permit::Host,
    shutdown::Tasks,
};

/// Client configurations, made at first use. Each has a session store of its own, so that what
/// one verifier has accepted is never resumed under another.
#[derive(Debug)]
pub(super) struct Clients {
    made: Mutex<HashMap<Key, Arc<ClientConfig>>>,
    tasks: Tasks,
}

impl Clients {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            made: Mutex::default(),
            tasks,
        }
    }

    /// A TLS handshake over a fresh connection, within `limit`.
    ///
    /// # Errors
    ///
    /// When the authorities cannot be read, or the other end is not who it must be.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        tls: &BackendTls,
        host: &Host,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let name = server_name(tls, host)?;
        let config = self.client(tls).await?;
        timeout(limit, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_elapsed| Error::Timeout(limit))?
            .map_err(sort)
    }

    async fn client(&self, tls: &BackendTls) -> Result<Arc<ClientConfig>, Error> {
        let key = Key::of(tls);
        if let Some(config) = self.lock().get(&key) {
            return Ok(Arc::clone(config));
        }
        // Reading the system's authorities takes many files.
        let plan = key.clone();
        let made = self.tasks.spawn_blocking(move || plan.client());
        let config = Arc::new(made.await.map_err(|_ended| Error::Ending)??);
        // Whoever came first stays: its session store is in use.
        Ok(Arc::clone(self.lock().entry(key).or_insert(config)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<ClientConfig>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that makes one client configuration differ from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// A PEM file; `None`: the system's.
    authorities: Option<PathBuf>,
    pins: Vec<[u8; 32]>,
    http2: bool,
    post_quantum: bool,
}

impl Key {
    fn of(tls: &BackendTls) -> Self {
        Self {
            authorities: match &tls.authorities {
                Authorities::File(path) => Some(path.clone()),
                Authorities::System => None,
            },
            pins: tls.pins.clone(),
            http2: tls.http2,
            post_quantum: tls.post_quantum,
        }
    }

    fn client(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(self.provider());
        let verifier = Verifier::new(&self.authorities()?, &self.pins, &provider)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        if self.http2 {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Ok(config)
    }

    /// One key share, of X25519: a `ClientHello` of two packets chokes old Java and some firewalls.
    fn provider(&self) -> CryptoProvider {
        let mut groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        if self.post_quantum {
            groups.insert(0, kx_group::X25519MLKEM768);
        }
        CryptoProvider {
            kx_groups: groups,
            ..aws_lc_rs::default_provider()
        }
    }

    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let Some(path) = &self.authorities else {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(Error::NoSystemAuthorities);
            }
            return Ok(found.certs);
        };
        let unreadable = |source| Error::Authorities {
            path: path.clone(),
            source,
        };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(unreadable)?;
        if certificates.is_empty() {
            return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
        }
        Ok(certificates)
    }
}

/// Chain and name as webpki checks them, then the pins.
#[derive(Debug)]
struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    pins: Vec<[u8; 32]>,
    /// The authorities that are pinned themselves, if any: a chain up to them needs no other pin.
    pinned: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        authorities: &[CertificateDer<'static>],
        pins: &[[u8; 32]],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let chain = verifier(authorities.iter().cloned(), provider)?;
        let mut pinned = authorities
            .iter()
            .filter(|authority| is_pinned(authority, pins))
            .cloned()
            .peekable();
        let pinned = if pinned.peek().is_some() {
            Some(verifier(pinned, provider)?)
        } else {
            None
        };
        Ok(Self {
            chain,
            pins: pins.to_vec(),
            pinned,
            provider: Arc::clone(provider),
        })
    }

    /// Whether a pin covers the key of the leaf, or of a certificate that the chain really goes
    /// through. A pinned certificate that was only put beside the others proves nothing, so the
    /// chain is verified again with the pinned one as its only authority.
    fn is_covered(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let leads_to = |verifier: &WebPkiServerVerifier| {
            verifier
                .verify_server_cert(leaf, intermediates, name, &[], now)
                .is_ok()
        };
        self.pins.is_empty()
            || is_pinned(leaf, &self.pins)
            || self.pinned.as_deref().is_some_and(leads_to)
            || intermediates
                .iter()
                .take(MAX_INTERMEDIATES)
                .filter(|certificate| is_pinned(certificate, &self.pins))
                .any(|certificate| {
                    let only = [certificate.clone().into_owned()];
                    verifier(only, &self.provider).is_ok_and(|verifier| leads_to(&verifier))
                })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        if !self.is_covered(leaf, intermediates, name, now) {
            return Err(CertificateError::Other(OtherError(Arc::new(NotPinned))).into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.chain.root_hint_subjects()
    }
}

/// No key of the chain is one of the configured ones.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no key of the certificate chain is pinned")]
struct NotPinned;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of authorities cannot be used.
    #[error("authorities in {path}", path = path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The other end's certificate is not good.
    #[error("its certificate {why}")]
    Certificate {
        /// In words, to follow "its certificate".
        why: &'static str,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The gateway ends.
    #[error("the gateway ends")]
    Ending,
    /// The handshake failed for another reason.
    #[error("TLS handshake")]
    Handshake(#[source] io::Error),
    /// The name that the certificate must have cannot be one.
    #[error("{0:?} cannot be the name of a certificate")]
    Name(String),
    /// None of the authorities is usable, or there is none.
    #[error("no usable authority")]
    NoAuthorities(#[source] rustls::client::VerifierBuilderError),
    /// The operating system trusts nobody.
    #[error("the operating system has no authorities")]
    NoSystemAuthorities,
    /// The crypto provider does not fit.
    #[error("TLS set-up")]
    Provider(#[source] rustls::Error),
    /// The handshake took too long.
    #[error("no end of the TLS handshake within {0:?}")]
    Timeout(Duration),
}

fn verifier(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    // Operating systems carry certificates that webpki cannot read; the others still count.
    let _counts = roots.add_parsable_certificates(authorities);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(Error::NoAuthorities)
}

fn is_pinned(certificate: &CertificateDer<'_>, pins: &[[u8; 32]]) -> bool {
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| pins.contains(&crypto::sha256(&parsed.subject_public_key_info())))
}

fn server_name(tls: &BackendTls, host: &Host) -> Result<ServerName<'static>, Error> {
    let text = match (&tls.name, host) {
        (Some(name), _) | (None, Host::Name(name)) => name,
        (None, Host::Address(address)) => return Ok(ServerName::IpAddress((*address).into())),
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    DnsName::try_from(text.to_string())
        .map(ServerName::DnsName)
        .map_err(|_invalid| Error::Name(text.to_string()))
}

/// tokio-rustls hands rustls' errors on inside I/O errors.
fn sort(error: io::Error) -> Error {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(problem)) = tls {
        return Error::Certificate {
            why: words(problem),
            source: rustls::Error::InvalidCertificate(problem.clone()),
        };
    }
    Error::Handshake(error)
}

fn words(problem: &CertificateError) -> &'static str {
    use CertificateError as E;
    if matches!(problem, E::Expired | E::ExpiredContext { .. }) {
        "has expired"
    } else if matches!(problem, E::NotValidYet | E::NotValidYetContext { .. }) {
        "is not valid yet"
    } else if matches!(
        problem,
        E::NotValidForName | E::NotValidForNameContext { .. }
    ) {
        "is for another name"
    } else if matches!(problem, E::UnknownIssuer) {
        "is not signed by a configured authority"
    } else if matches!(problem, E::InvalidPurpose | E::InvalidPurposeContext { .. }) {
        "is not for a TLS server"
    } else if matches!(problem, E::Revoked) {
        "is revoked"
    } else if matches!(problem, E::BadSignature) {
        "has a wrong signature"
    } else if matches!(problem, E::Other(OtherError(other)) if other.is::<NotPinned>()) {
        "has no pinned key in its chain"
    } else {
        "is not usable"
    }
}

/// Sessions kept for resumption, for each configuration.
const SESSIONS: usize = 256;

/// Certificates of a chain that are looked at for a pin.
const MAX_INTERMEDIATES: usize = 8;
