//! The demo's certificate authority: trusted for test names and loopback alone, for 30 days.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SanType,
};

use crate::crypto;

/// An authority whose key is never written: what it has not signed in this run, it never will.
#[derive(Debug)]
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    valid: Validity,
}

impl Authority {
    /// A fresh one, for `now` and the 30 days after it.
    ///
    /// # Errors
    ///
    /// What the certificate library refuses.
    pub(crate) fn generate(now: SystemTime) -> Result<Self, rcgen::Error> {
        let valid = Validity {
            from: now - SKEW,
            to: now + LIFETIME,
        };
        let key = KeyPair::generate()?;
        let mut params = valid.params(NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let subtree = |name: &&str| GeneralSubtree::DnsName((*name).to_owned());
        let mut permitted: Vec<_> = DOMAINS.iter().map(subtree).collect();
        permitted.extend(LOOPBACK.map(|(address, prefix)| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix))
        }));
        // Whoever trusts this authority after all trusts it for nothing that matters.
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: Vec::new(),
        });
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            issuer: Issuer::new(params, key),
            valid,
        })
    }

    /// Its certificate as PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.certificate
    }

    /// A certificate for these names and addresses; the first is its subject. The key is P-256.
    ///
    /// # Errors
    ///
    /// What the certificate library refuses.
    pub(crate) fn issue(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Issued, rcgen::Error> {
        self.issue_for(&KeyPair::generate()?, names, addresses)
    }

    /// The same with an RSA-2048 key, for these names.
    ///
    /// # Errors
    ///
    /// What the certificate library refuses.
    pub(crate) fn issue_rsa(&self, names: &[&str]) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        self.issue_for(&key, names, &[])
    }

    fn issue_for(
        &self,
        key: &KeyPair,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Issued, rcgen::Error> {
        let mut params = self.valid.params(names.first().copied().unwrap_or(NAME));
        for name in names {
            let name = SanType::DnsName((*name).try_into()?);
            params.subject_alt_names.push(name);
        }
        let address = |address: &IpAddr| SanType::IpAddress(*address);
        params
            .subject_alt_names
            .extend(addresses.iter().map(address));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(Issued {
            chain: params.signed_by(key, &self.issuer)?.pem(),
            pin: BASE64.encode(&crypto::sha256(&key.subject_public_key_info())),
            key: key.serialize_pem(),
        })
    }
}

/// A certificate with its key.
pub(crate) struct Issued {
    /// The certificate as PEM.
    pub(crate) chain: String,
    /// Base64 of the SHA-256 of its subject public key info, as browsers want it.
    pub(crate) pin: String,
    /// The key as PEM.
    pub(crate) key: String,
}

#[derive(Debug)]
struct Validity {
    from: SystemTime,
    to: SystemTime,
}

impl Validity {
    fn params(&self, name: &str) -> CertificateParams {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = self.from.into();
        params.not_after = self.to.into();
        params
    }
}

/// The authority's name; a configuration that is not a demo's refuses it.
pub(crate) const NAME: &str = "ravelin demo CA";

const DOMAINS: [&str; 2] = ["ravelin.test", "corp.test"];
const LOOPBACK: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks of two machines differ a little.
const SKEW: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;
    use crate::{clock, demo::folder::Folder};

    fn verify(folder: &Path, authority: &Authority, leaf: &Issued) -> String {
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.join("leaf.pem"), &leaf.chain).unwrap();
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-CAfile", "ca.pem", "leaf.pem"])
            .current_dir(folder)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    }

    #[test]
    #[ignore = "needs openssl"]
    fn openssl_trusts_the_authority_for_test_names_and_loopback_alone() {
        let folder = Folder::prepare(None).unwrap();
        let authority = Authority::generate(clock::wall()).unwrap();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

        let good = authority.issue(&["gw.ravelin.test"], &[loopback]).unwrap();
        let corp = authority.issue(&["xm1.corp.test"], &[]).unwrap();
        let bank = authority.issue(&["bank.example"], &[]).unwrap();
        let far = authority.issue(&["gw.ravelin.test"], &[elsewhere]).unwrap();

        for leaf in [good, corp] {
            let answer = verify(folder.path(), &authority, &leaf);
            assert!(answer.contains("leaf.pem: OK"), "{answer}");
        }
        for leaf in [bank, far] {
            let answer = verify(folder.path(), &authority, &leaf);
            assert!(answer.contains("permitted subtree violation"), "{answer}");
        }
    }

    #[test]
    fn the_authority_ends_after_thirty_days() {
        let now = clock::wall();
        let authority = Authority::generate(now).unwrap();

        let (_rest, pem) = x509_parser::pem::parse_x509_pem(authority.pem().as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();

        let life = certificate.validity().not_after.timestamp()
            - certificate.validity().not_before.timestamp();
        assert_eq!(life, 30 * 24 * 3600 + 3600);
        let constraints = certificate.name_constraints().unwrap().unwrap();
        assert!(constraints.critical);
        assert_eq!(
            constraints.value.permitted_subtrees.as_ref().unwrap().len(),
            4
        );
    }
}
