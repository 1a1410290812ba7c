//! From two PEM files to a certificate that can be shown (the door to `x509_parser`).

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    InconsistentKeys, SignatureAlgorithm,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

use super::{Error, Fact, KeyKind, normal};
use crate::{config, crypto};

/// The bytes of chain and key.
pub(super) struct Files {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    pub(super) fn read(config: &config::Certificate) -> Result<Self, Error> {
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

    pub(super) fn hash(&self) -> [u8; 32] {
        let hashes = [crypto::sha256(&self.chain), crypto::sha256(&self.key)];
        crypto::sha256(hashes.as_flattened())
    }
}

/// A certificate that can be shown.
pub(super) struct Loaded {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) names: Vec<Arc<str>>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) key: KeyKind,
    pub(super) hash: [u8; 32],
}

impl Loaded {
    pub(super) fn parse(
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

    pub(super) fn check_dates(
        &self,
        config: &config::Certificate,
        now: SystemTime,
    ) -> Result<(), Error> {
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

    pub(super) fn fact(&self, config: &config::Certificate) -> Fact {
        Fact {
            certificate: Arc::clone(&config.name),
            names: self.names.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
            key: self.key,
        }
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

/// A file that someone pointed us at may be anything: at most a mebibyte is read.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
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
