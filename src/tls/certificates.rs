//! Loads, reloads and chooses certificates by SNI.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, SignatureScheme,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

pub use self::error::Error;
pub(crate) use self::error::told;
use self::load::{Files, Loaded, read};
use crate::{
    clock,
    config::{self, ClientCertificate},
    crypto,
};

mod error;
mod load;

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
) -> impl Iterator<Item = Error> + use<> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};

    use super::{error::day, *};
    use crate::tls::{provider, testing::World};

    fn load(world: &World, name: &str) -> Result<Store, Error> {
        Store::load(&[world.certificate(name)], provider())
    }

    fn problem(world: &World, name: &str) -> String {
        let text = told(&load(world, name).unwrap_err());
        text.replace(&format!("{}/", world.path("").display()), "")
            .replace(&*world.path("").to_string_lossy(), "")
    }

    #[test]
    fn every_kind_of_key_is_taken_and_its_facts_are_told() {
        let world = World::new();
        for (algorithm, key) in [
            (&PKCS_ECDSA_P256_SHA256, KeyKind::Ec),
            (&PKCS_ED25519, KeyKind::Ed25519),
            (&PKCS_RSA_SHA256, KeyKind::Rsa),
        ] {
            world.issue_with(
                "gw",
                &["GW.test", "*.gw.test", "192.0.2.1"],
                algorithm,
                |params| {
                    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
                },
            );
            let fact = load(&world, "gw").unwrap().facts().remove(0);
            assert_eq!(fact.key, key);
            assert_eq!(&*fact.certificate, "gw");
            assert_eq!(fact.names, [Arc::from("gw.test"), Arc::from("*.gw.test")]);
            assert_eq!(day(fact.not_before), "Wed, 01 Jan 2020 00:00:00 GMT");
            assert_eq!(day(fact.not_after), "Tue, 01 Jan 2030 00:00:00 GMT");
        }
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        let world = World::new();
        world.issue("gw", &["*.apps.test"], &PKCS_ECDSA_P256_SHA256);
        let store = load(&world, "gw").unwrap();
        assert!(store.knows("one.apps.test"));
        assert!(!store.knows("apps.test"));
        assert!(!store.knows("two.one.apps.test"));
        assert!(!store.knows("apps"));
        assert!(!store.knows(""));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let world = World::new();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        let chain = fs::read(world.path("gw.pem")).unwrap();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        fs::write(world.path("gw.pem"), chain).unwrap();
        assert_eq!(
            problem(&world, "gw"),
            "certificate gw: gw.key does not belong to gw.pem"
        );
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_refused() {
        let world = World::new();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        world.issue("other", &["other.test"], &PKCS_ECDSA_P256_SHA256);
        let read = |name: &str| fs::read_to_string(world.path(name)).unwrap();
        let chain = format!("{}{}", read("gw.pem"), read("other.pem"));
        fs::write(world.path("gw.pem"), chain).unwrap();
        assert_eq!(
            problem(&world, "gw"),
            "certificate gw: gw.pem: certificate 2 (CN=test authority) was not issued by the one after it"
        );
    }

    #[test]
    fn files_that_hold_something_else_are_told_apart() {
        let world = World::new();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        let (chain, key) = (world.path("gw.pem"), world.path("gw.key"));
        let good_chain = fs::read(&chain).unwrap();

        for (file, content, expected) in [
            (&chain, "", "certificate gw: gw.pem holds no certificate"),
            (
                &chain,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate gw: gw.pem: certificate 1 is malformed: ",
            ),
            (
                &chain,
                "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
                "certificate gw: gw.pem is not PEM: ",
            ),
            (&key, "", "certificate gw: gw.key holds no private key"),
            (
                &key,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "certificate gw: gw.key holds no usable key: ",
            ),
            (
                &key,
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "certificate gw: gw.key is encrypted; a gateway that starts by itself needs it without a password",
            ),
        ] {
            fs::write(&chain, &good_chain).unwrap();
            fs::write(file, content).unwrap();
            let problem = problem(&world, "gw");
            assert!(problem.starts_with(expected), "{problem}");
        }

        fs::write(&key, vec![b' '; 2 << 20]).unwrap();
        assert_eq!(
            problem(&world, "gw"),
            "certificate gw: cannot read gw.key: it is larger than a mebibyte"
        );
        fs::remove_file(&chain).unwrap();
        assert!(problem(&world, "gw").starts_with("certificate gw: cannot read gw.pem: "));
    }

    #[test]
    fn dates_are_told_at_the_start_and_by_a_check() {
        let world = World::new();
        world.issue_with("gw", &[], &PKCS_ECDSA_P256_SHA256, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        });
        let store = load(&world, "gw").unwrap();
        let at = |year| SystemTime::from(rcgen::date_time_ymd(year, 6, 1));

        assert!(store.outdated(at(2025)).is_empty());
        assert!(matches!(
            store.outdated(at(2019))[..],
            [Error::NotYet { .. }]
        ));
        assert!(matches!(
            store.outdated(at(2030))[..],
            [Error::Expired { .. }]
        ));
        let nameless = check_one(&world.certificate("gw"), &provider());
        assert!(
            nameless
                .last()
                .is_some_and(|e| matches!(e, Error::Nameless { .. }))
        );
    }

    #[test]
    fn a_file_that_stays_wrong_is_told_once() {
        let world = World::new();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        let store = load(&world, "gw").unwrap();
        let now = clock::wall();
        assert!(store.reload(now).is_empty());

        fs::write(world.path("gw.key"), "").unwrap();
        assert!(matches!(store.reload(now)[..], [Outcome::Kept(_)]));
        assert!(store.reload(now).is_empty());
        fs::remove_file(world.path("gw.key")).unwrap();
        assert!(matches!(store.reload(now)[..], [Outcome::Kept(_)]));

        world.issue("gw", &["new.test"], &PKCS_ECDSA_P256_SHA256);
        assert!(matches!(store.reload(now)[..], [Outcome::Replaced(_)]));
        assert!(store.knows("new.test") && !store.knows("gw.test"));
        assert!(store.reload(now).is_empty());
    }
}
