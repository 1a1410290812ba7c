//! TLS servers with certificates made for one test.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::go;
use crate::{
    config::{Authorities, BackendTls},
    crypto,
};

/// Signs certificates; its own is in a file that goes with it.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    pub(super) fn new() -> Self {
        let (params, key) = Self::params();
        Self::keep(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn intermediate(&self) -> Self {
        let (params, key) = Self::params();
        Self::keep(CertifiedIssuer::signed_by(params, key, &*self.issuer).unwrap())
    }

    /// A certificate for a TLS server with these names or addresses.
    pub(super) fn leaf(&self, names: &[&str]) -> Leaf {
        self.sign(names, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    pub(super) fn expired(&self, name: &str) -> Leaf {
        self.sign(&[name], |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        })
    }

    pub(super) fn for_clients(&self, name: &str) -> Leaf {
        self.sign(&[name], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// Trust in this authority alone.
    pub(super) fn trust(&self) -> BackendTls {
        BackendTls {
            authorities: Authorities::File(self.file.clone()),
            name: None,
            pins: Vec::new(),
            http2: false,
            post_quantum: false,
        }
    }

    pub(super) fn pin(&self) -> [u8; 32] {
        crypto::sha256(&self.issuer.key().subject_public_key_info())
    }

    fn params() -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params, KeyPair::generate().unwrap())
    }

    fn keep(issuer: CertifiedIssuer<'static, KeyPair>) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ravelin-dial-{}-{number}.pem", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'static, KeyPair> = &self.issuer;
        let certificate = params.signed_by(&key, issuer).unwrap();
        Leaf {
            chain: vec![certificate.der().clone()],
            pin: crypto::sha256(&key.subject_public_key_info()),
            key: key.serialize_der(),
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.file));
    }
}

/// A server's certificate, and those it sends with it.
#[derive(Clone)]
pub(super) struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    pub(super) pin: [u8; 32],
}

impl Leaf {
    /// Sends an authority's certificate too.
    pub(super) fn beside(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.issuer.der().clone());
        self
    }
}

/// A TLS server that says hello to everybody, in order.
pub(super) async fn start(leaf: Leaf, alpn: &[&[u8]]) -> SocketAddr {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(leaf.chain, PrivateKeyDer::Pkcs8(leaf.key.into()))
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(go(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                drop(stream.write_all(b"hello").await);
                drop(stream.shutdown().await);
            }
        }
    }));
    address
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);
