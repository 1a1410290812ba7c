//! Authorities and certificates that last as long as a test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm,
};

/// An authority, and the directory that holds what it made.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// Paths of a certificate chain and its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A fresh authority; its certificate is `NAME.pem` in the directory.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        fs::write(directory.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Self {
            issuer,
            directory: directory.to_owned(),
        }
    }

    /// A P-256 certificate for these names.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_with(file, names, &PKCS_ECDSA_P256_SHA256)
    }

    /// An RSA certificate for these names.
    pub(crate) fn issue_rsa(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_with(file, names, &PKCS_RSA_SHA256)
    }

    fn issue_with(&self, file: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let key = KeyPair::generate_for(kind).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            chain: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}.key")),
        };
        fs::write(&pair.chain, certificate.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
        pair
    }
}
