//! What tests need to speak TLS with the gateway: an authority, certificate files, devices.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm};
use rustls::{
    ClientConfig, RootCertStore,
    client::WantsClientCert,
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Acceptor, Socket, Stream};
use crate::{
    config::{self, ClientCertificate},
    crypto::{self, MasterKey},
    listener::peer::{Handshake, Peer},
};

/// A device's end of a connection.
pub(crate) type Device = tokio_rustls::client::TlsStream<TcpStream>;

/// Both ends of one TLS connection over loopback: the gateway's and the device's. The name is
/// `gw.test`.
pub(crate) async fn pair(http2: bool) -> (Stream, Device) {
    let world = World::new();
    world.issue("gw", &["gw.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw"]));
    let mut device = world.device();
    if http2 {
        device.alpn_protocols = vec![b"h2".to_vec()];
    }
    let (near, far) = tcp_pair().await;
    let (near, far) = tokio::join!(handshake(&acceptor, near), connect(&device, "gw.test", far));
    (near.unwrap().0, far.unwrap())
}

/// What the listener knows about a device of [`pair`].
pub(crate) fn peer(http2: bool) -> Arc<Peer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Arc::new(Peer {
        connection: 1,
        address,
        socket: address,
        local: address,
        listener: Arc::new(listener(Vec::new())),
        tls: Handshake {
            sni: Some("gw.test".into()),
            known_name: true,
            http2,
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            group: "X25519MLKEM768",
            resumed: false,
            certificate: None,
        },
    })
}

/// The gateway's side of a handshake.
pub(crate) async fn handshake(
    acceptor: &Acceptor,
    tcp: TcpStream,
) -> Result<(Stream, Handshake), super::Refused> {
    acceptor.hello(Socket::new(tcp)).await?.finish().await
}

/// The device's side of a handshake.
pub(crate) async fn connect(
    device: &ClientConfig,
    name: &str,
    tcp: TcpStream,
) -> std::io::Result<Device> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(device.clone()))
        .connect(name, tcp)
        .await
}

/// Two ends of a TCP connection.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (near.unwrap().0, far.unwrap())
}

/// An authority, and a directory with the files that it issued; removed in the end.
#[derive(Debug)]
pub(crate) struct World {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl World {
    pub(crate) fn new() -> Self {
        let number = u64::from_be_bytes(crypto::random());
        let directory = std::env::temp_dir().join(format!("ravelin-test-{number:x}"));
        fs::create_dir(&directory).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        Self {
            directory,
            authority,
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Writes `NAME.pem` (with the authority's certificate behind it) and `NAME.key`.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str], algorithm: &'static SignatureAlgorithm) {
        self.issue_with(name, hosts, algorithm, |_| ());
    }

    /// The same, with changes of the certificate.
    pub(crate) fn issue_with(
        &self,
        name: &str,
        hosts: &[&str],
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.into()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        let chain = format!("{}{}", leaf.pem(), self.authority.pem());
        fs::write(self.path(&format!("{name}.pem")), chain).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn certificate(&self, name: &str) -> Arc<config::Certificate> {
        Arc::new(config::Certificate {
            name: name.into(),
            chain: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        })
    }

    /// A listener with these certificates on a port of 127.0.0.1 that the kernel chooses.
    pub(crate) fn listener(&self, certificates: &[&str]) -> config::Listener {
        listener(
            certificates
                .iter()
                .map(|name| self.certificate(name))
                .collect(),
        )
    }

    pub(crate) fn acceptor(&self, listener: config::Listener) -> Acceptor {
        Acceptor::load(Arc::new(listener), tls(), &MasterKey::generate()).unwrap()
    }

    /// A device that trusts the authority.
    pub(crate) fn device(&self) -> ClientConfig {
        self.device_with(rustls::ALL_VERSIONS, None)
    }

    /// A device with one version of TLS, which offers the ciphers whose names have these parts, in
    /// this order.
    pub(crate) fn device_offering(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        parts: &[&str],
    ) -> ClientConfig {
        let provider = super::provider();
        let offered = parts.iter().flat_map(|part| {
            let suites = provider.cipher_suites.iter().copied();
            suites.filter(move |suite| format!("{:?}", suite.suite()).contains(part))
        });
        let offering = CryptoProvider {
            cipher_suites: offered.collect(),
            ..(*provider).clone()
        };
        self.device_from(offering.into(), &[version])
            .with_no_client_auth()
    }

    fn device_from(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }

    /// A device with some versions of TLS, and a certificate of its own.
    pub(crate) fn device_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        certificate: Option<&str>,
    ) -> ClientConfig {
        let builder = self.device_from(super::provider(), versions);
        let Some(name) = certificate else {
            return builder.with_no_client_auth();
        };
        let file = |extension: &str| self.path(&format!("{name}.{extension}"));
        let chain = rustls::pki_types::CertificateDer::pem_file_iter(file("pem")).unwrap();
        builder
            .with_client_auth_cert(
                chain.collect::<Result<_, _>>().unwrap(),
                PrivateKeyDer::from_pem_file(file("key")).unwrap(),
            )
            .unwrap()
    }

    /// Makes the listener ask for certificates that the authority signed.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.path("ca.pem")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let directory: &Path = &self.directory;
        fs::remove_dir_all(directory).unwrap();
    }
}

fn listener(certificates: Vec<Arc<config::Certificate>>) -> config::Listener {
    config::Listener {
        name: "public".into(),
        addresses: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        freebind: false,
        keepalive: Duration::from_secs(45),
        mss: None,
        proxy_protocol_from: Vec::new(),
        certificates,
        client_certificate: ClientCertificate::None,
        strict_sni: false,
        tunnels: true,
        max_connections: 100,
        max_connections_per_source: 100,
    }
}

/// TLS settings: 1.2 and 1.3, tickets that last an hour.
pub(crate) fn tls() -> config::Tls {
    config::Tls {
        tls12: true,
        ticket_lifetime: Duration::from_secs(3600),
        reload_interval: Duration::from_secs(3600),
    }
}
