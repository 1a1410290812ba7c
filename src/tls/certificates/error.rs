//! Everything that can be wrong with a certificate's files, in words for whoever mends it.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::pem;

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

pub(super) fn day(at: SystemTime) -> String {
    httpdate::fmt_http_date(at.max(UNIX_EPOCH))
}
