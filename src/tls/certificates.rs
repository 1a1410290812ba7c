//! Loads, reloads and chooses certificates by SNI (the door to `x509_parser`).

use std::{
    collections::{BTreeSet, HashMap},
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{
    InconsistentKeys, RootCertStore, SignatureAlgorithm, SignatureScheme,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

use crate::{
    clock,
    config::{self, ClientCertificate},
    crypto,
};

/// The certificates of one listener. What is shown changes in one step; connections do not notice.
pub(super) struct Store {
    index: ArcSwap<Index>,
    entries: Mutex<Vec<Entry>>,
    provider: Arc<CryptoProvider>,
}

impl Store {
    /// Reads all of them.
    pub(super) fn load(
        certificates: &[Arc<config::Certificate>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let entries = certificates
            .iter()
            .map(|config| {
                let loaded = Loaded::parse(config, &Files::read(config)?, &provider)?;
                Ok(Entry {
                    config: Arc::clone(config),
                    loaded: Arc::new(loaded),
                    failed: None,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            index: ArcSwap::from_pointee(Index::of(&entries)),
            entries: Mutex::new(entries),
            provider,
        })
    }

    /// Looks at all files again. One that cannot be used leaves the certificate as it was, and is
    /// told once, until it changes.
    pub(super) fn reload(&self, now: SystemTime) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut changed = false;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.iter_mut() {
            match entry.read_again(&self.provider, now) {
                Ok(None) => entry.failed = None,
                Ok(Some(loaded)) => {
                    outcomes.push(Outcome::Replaced(loaded.fact(&entry.config)));
                    entry.loaded = Arc::new(loaded);
                    entry.failed = None;
                    changed = true;
                }
                Err(error) => {
                    let text = told(&error);
                    if entry.failed.as_ref() != Some(&text) {
                        outcomes.push(Outcome::Kept(error));
                    }
                    entry.failed = Some(text);
                }
            }
        }
        if changed {
            self.index.store(Arc::new(Index::of(&entries)));
        }
        outcomes
    }

    /// Whether a certificate fits this name (lower case).
    pub(super) fn knows(&self, name: &str) -> bool {
        !self.index.load().find(name).is_empty()
    }

    /// What is shown now.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|entry| entry.loaded.fact(&entry.config))
            .collect()
    }

    /// Certificates that are shown although their dates do not allow it.
    pub(super) fn outdated(&self, now: SystemTime) -> Vec<Error> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .filter_map(|entry| entry.loaded.check_dates(&entry.config, now).err())
            .collect()
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(normal);
        self.index
            .load()
            .choose(name.as_deref(), hello.signature_schemes())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.facts()).finish()
    }
}

/// What is public about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its name in the configuration.
    pub certificate: Arc<str>,
    /// Names that it is good for, lower case; one may begin with `*.`.
    pub names: Vec<Arc<str>>,
    /// Its first second.
    pub not_before: SystemTime,
    /// Its last second.
    pub not_after: SystemTime,
    /// Its key.
    pub key: KeyKind,
}

/// The kinds of key. Where a device accepts several, the first here is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// ECDSA over P-256, P-384 or P-521: a signature costs a tenth of RSA's.
    Ec,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa,
}

/// What a reload did with one certificate.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The files cannot be used; the old certificate stays.
    Kept(Error),
    /// The new certificate is shown from now on.
    Replaced(Fact),
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authorities for device certificates make no verifier.
    #[error("client_ca: {} holds no usable authority", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What rustls says, when it was asked.
        source: Option<rustls::Error>,
    },
    /// The file of authorities cannot be read.
    #[error("client_ca: cannot read {}", path.display())]
    AuthoritiesRead {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file with the chain holds none.
    #[error("certificate {certificate}: {} holds no certificate", path.display())]
    Empty {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
    },
    /// The key is protected by a password.
    #[error("certificate {certificate}: {} is encrypted; a gateway that starts by itself needs it without a password", path.display())]
    EncryptedKey {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
    },
    /// Its time is over.
    #[error("certificate {certificate}: {} expired {}", path.display(), day(*at))]
    Expired {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// When.
        at: SystemTime,
    },
    /// The key cannot be used.
    #[error("certificate {certificate}: {} holds no usable key", path.display())]
    Key {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The file with the key holds none.
    #[error("certificate {certificate}: {} holds no private key", path.display())]
    KeyMissing {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are not a pair.
    #[error("certificate {certificate}: {} does not belong to {}", key.display(), chain.display())]
    Mismatch {
        /// Which.
        certificate: Arc<str>,
        /// The key's file.
        key: PathBuf,
        /// The chain's file.
        chain: PathBuf,
    },
    /// It is good for no name.
    #[error("certificate {certificate}: {} names no host (subjectAltName)", path.display())]
    Nameless {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
    },
    /// Its time has not come.
    #[error("certificate {certificate}: {} is not valid before {}", path.display(), day(*at))]
    NotYet {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// When it is.
        at: SystemTime,
    },
    /// The certificates of a chain do not follow each other.
    #[error("certificate {certificate}: {}: certificate {number} ({subject}) was not issued by the one after it", path.display())]
    Order {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// The place in the file, from 1.
        number: usize,
        /// Whose it is.
        subject: String,
    },
    /// The PEM armour is broken.
    #[error("certificate {certificate}: {} is not PEM", path.display())]
    Pem {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// Where it is broken.
        source: pem::Error,
    },
    /// A file cannot be read.
    #[error("certificate {certificate}: cannot read {}", path.display())]
    Read {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate is not one.
    #[error("certificate {certificate}: {}: certificate {number} is malformed", path.display())]
    X509 {
        /// Which.
        certificate: Arc<str>,
        /// The file.
        path: PathBuf,
        /// The place in the file, from 1.
        number: usize,
        /// What is wrong with it.
        source: x509_parser::nom::Err<x509_parser::error::X509Error>,
    },
}

/// Every problem of every certificate and client authority that a configuration names, each with
/// its file.
pub fn check(config: &config::Config) -> Vec<(PathBuf, String)> {
    let provider = super::provider();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for listener in &config.listeners {
        for certificate in &listener.certificates {
            if seen.insert(Arc::clone(&certificate.name)) {
                let found = check_one(certificate, &provider);
                problems.extend(found.map(|error| (certificate.chain.clone(), told(&error))));
            }
        }
        if let ClientCertificate::Optional(path) | ClientCertificate::Required(path) =
            &listener.client_certificate
            && let Err(error) = Authorities::load(path)
        {
            problems.push((path.clone(), told(&error)));
        }
    }
    problems
}

fn check_one(
    certificate: &config::Certificate,
    provider: &CryptoProvider,
) -> impl Iterator<Item = Error> {
    let loaded =
        Files::read(certificate).and_then(|files| Loaded::parse(certificate, &files, provider));
    let (loaded, error) = match loaded {
        Ok(loaded) => (Some(loaded), None),
        Err(error) => (None, Some(error)),
    };
    let dates = loaded
        .as_ref()
        .and_then(|loaded| loaded.check_dates(certificate, clock::wall()).err());
    let nameless = loaded
        .filter(|loaded| loaded.names.is_empty())
        .map(|_| Error::Nameless {
            certificate: Arc::clone(&certificate.name),
            path: certificate.chain.clone(),
        });
    error.into_iter().chain(dates).chain(nameless)
}

/// Who signs device certificates.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: Arc<RootCertStore>,
    /// Of the file's bytes.
    pub(super) hash: [u8; 32],
}

impl Authorities {
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let bytes = read(path).map_err(|source| Error::AuthoritiesRead {
            path: path.to_owned(),
            source,
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let added = certificate
                .map_err(|_broken| rustls::Error::General("it is not PEM".to_owned()))
                .and_then(|certificate| roots.add(certificate));
            added.map_err(|source| Error::Authorities {
                path: path.to_owned(),
                source: Some(source),
            })?;
        }
        if roots.is_empty() {
            return Err(Error::Authorities {
                path: path.to_owned(),
                source: None,
            });
        }
        Ok(Self {
            roots: Arc::new(roots),
            hash: crypto::sha256(&bytes),
        })
    }
}

/// An error and its causes on one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A host name as the index knows it.
pub(super) fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// One certificate of the configuration, and what its files held when they were last good.
struct Entry {
    config: Arc<config::Certificate>,
    loaded: Arc<Loaded>,
    /// What was told last about files that cannot be used.
    failed: Option<String>,
}

impl Entry {
    /// The certificate in the files, when it is another one than before. Contents are compared,
    /// not times: a file may be replaced twice within one tick of the file system's clock.
    fn read_again(
        &self,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Option<Loaded>, Error> {
        let files = Files::read(&self.config)?;
        if files.hash() == self.loaded.hash {
            return Ok(None);
        }
        let loaded = Loaded::parse(&self.config, &files, provider)?;
        loaded.check_dates(&self.config, now)?;
        Ok(Some(loaded))
    }
}

/// The bytes of chain and key.
struct Files {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(config: &config::Certificate) -> Result<Self, Error> {
        let read = |path: &Path| {
            read(path).map_err(|source| Error::Read {
                certificate: Arc::clone(&config.name),
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            chain: read(&config.chain)?,
            key: Zeroizing::new(read(&config.key)?),
        })
    }

    fn hash(&self) -> [u8; 32] {
        let hashes = [crypto::sha256(&self.chain), crypto::sha256(&self.key)];
        crypto::sha256(hashes.as_flattened())
    }
}

/// A certificate that can be shown.
struct Loaded {
    certified: Arc<CertifiedKey>,
    names: Vec<Arc<str>>,
    not_before: SystemTime,
    not_after: SystemTime,
    key: KeyKind,
    hash: [u8; 32],
}

impl Loaded {
    fn parse(
        config: &config::Certificate,
        files: &Files,
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        let chain = parse_chain(config, &files.chain)?;
        let parsed = chain
            .iter()
            .zip(1..)
            .map(|(der, number)| match X509Certificate::from_der(der) {
                Ok((_rest, certificate)) => Ok(certificate),
                Err(source) => Err(Error::X509 {
                    certificate: Arc::clone(&config.name),
                    path: config.chain.clone(),
                    number,
                    source,
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        check_order(config, &parsed)?;
        let leaf = parsed.first().ok_or_else(|| Error::Empty {
            certificate: Arc::clone(&config.name),
            path: config.chain.clone(),
        })?;
        let (names, validity) = (names(leaf), leaf.validity());
        let not_before = time(validity.not_before.timestamp());
        let not_after = time(validity.not_after.timestamp());
        drop(parsed);

        let key = parse_key(config, &files.key)?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|source| explain_key(config, source))?;
        Ok(Self {
            key: kind(&certified),
            certified: Arc::new(certified),
            names,
            not_before,
            not_after,
            hash: files.hash(),
        })
    }

    fn check_dates(&self, config: &config::Certificate, now: SystemTime) -> Result<(), Error> {
        let (certificate, path) = (Arc::clone(&config.name), config.chain.clone());
        if now < self.not_before {
            let at = self.not_before;
            return Err(Error::NotYet {
                certificate,
                path,
                at,
            });
        }
        if now > self.not_after {
            let at = self.not_after;
            return Err(Error::Expired {
                certificate,
                path,
                at,
            });
        }
        Ok(())
    }

    fn fact(&self, config: &config::Certificate) -> Fact {
        Fact {
            certificate: Arc::clone(&config.name),
            names: self.names.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
            key: self.key,
        }
    }
}

/// Certificates by name, those with the cheaper key first.
struct Index {
    all: Vec<Arc<Loaded>>,
    by_name: HashMap<Arc<str>, Vec<Arc<Loaded>>>,
}

impl Index {
    fn of(entries: &[Entry]) -> Self {
        let all: Vec<_> = entries.iter().map(|e| Arc::clone(&e.loaded)).collect();
        let mut by_name: HashMap<Arc<str>, Vec<Arc<Loaded>>> = HashMap::new();
        for loaded in &all {
            for name in &loaded.names {
                let fitting = by_name.entry(Arc::clone(name)).or_default();
                fitting.push(Arc::clone(loaded));
                // Stable: of two with the same kind of key the first of the listener is shown.
                fitting.sort_by_key(|loaded| loaded.key);
            }
        }
        Self { all, by_name }
    }

    /// Exact names first; `*` stands for exactly one label (RFC 6125, section 6.4.3).
    fn find(&self, name: &str) -> &[Arc<Loaded>] {
        self.by_name
            .get(name)
            .or_else(|| {
                let (_label, parent) = name.split_once('.')?;
                self.by_name.get(&*format!("*.{parent}"))
            })
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The best one that the device can verify; the listener's first for an unknown name. When
    /// it can verify none, rustls answers with the alert for that.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fitting = name.map(|name| self.find(name)).unwrap_or_default();
        let candidates = if fitting.is_empty() {
            &self.all
        } else {
            fitting
        };
        candidates
            .iter()
            .find(|loaded| loaded.certified.key.choose_scheme(schemes).is_some())
            .or_else(|| candidates.first())
            .map(|loaded| Arc::clone(&loaded.certified))
    }
}

fn parse_chain(
    config: &config::Certificate,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::Pem {
            certificate: Arc::clone(&config.name),
            path: config.chain.clone(),
            source,
        })
}

fn parse_key(config: &config::Certificate, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let (certificate, path) = (Arc::clone(&config.name), config.key.clone());
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let encrypted = bytes.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
            Err(if encrypted {
                Error::EncryptedKey { certificate, path }
            } else {
                Error::KeyMissing { certificate, path }
            })
        }
        Err(source) => Err(Error::Pem {
            certificate,
            path,
            source,
        }),
    }
}

fn explain_key(config: &config::Certificate, source: rustls::Error) -> Error {
    let certificate = Arc::clone(&config.name);
    if matches!(
        source,
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)
    ) {
        return Error::Mismatch {
            certificate,
            key: config.key.clone(),
            chain: config.chain.clone(),
        };
    }
    Error::Key {
        certificate,
        path: config.key.clone(),
        source,
    }
}

fn check_order(config: &config::Certificate, chain: &[X509Certificate<'_>]) -> Result<(), Error> {
    for ((certificate, issuer), number) in chain.iter().zip(chain.iter().skip(1)).zip(1..) {
        if certificate.issuer().as_raw() != issuer.subject().as_raw() {
            return Err(Error::Order {
                certificate: Arc::clone(&config.name),
                path: config.chain.clone(),
                number,
                subject: certificate.subject().to_string(),
            });
        }
    }
    Ok(())
}

fn names(leaf: &X509Certificate<'_>) -> Vec<Arc<str>> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| {
            if let GeneralName::DNSName(name) = name {
                Some(normal(name).into())
            } else {
                None
            }
        })
        .collect()
}

fn kind(certified: &CertifiedKey) -> KeyKind {
    let algorithm = certified.key.algorithm();
    if algorithm == SignatureAlgorithm::ECDSA {
        KeyKind::Ec
    } else if algorithm == SignatureAlgorithm::ED25519 {
        KeyKind::Ed25519
    } else {
        KeyKind::Rsa
    }
}

fn time(timestamp: i64) -> SystemTime {
    let seconds = Duration::from_secs(timestamp.unsigned_abs());
    let time = if timestamp < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn day(at: SystemTime) -> String {
    httpdate::fmt_http_date(at.max(UNIX_EPOCH))
}

/// A file that someone pointed us at may be anything: at most a mebibyte is read.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(LARGEST.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than a mebibyte",
        ));
    }
    Ok(bytes)
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";
const LARGEST: u64 = 1024 * 1024;
