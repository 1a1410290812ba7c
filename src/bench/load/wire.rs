//! Connections to the gateway: TCP, and TLS with exactly what a job asks to offer.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, NamedGroup, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::super::job::{Cipher, Group, Job, Protocol, Tls, Work};

/// Whatever bytes pass over.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub(super) struct Wire {
    pub(super) io: Box<dyn Io>,
    /// What TLS settled.
    pub(super) negotiated: Option<Negotiated>,
    pub(super) resumed: bool,
}

/// What a handshake settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiated {
    cipher: CipherSuite,
    group: Option<NamedGroup>,
}

impl Negotiated {
    pub(super) fn cipher(self) -> String {
        format!("{:?}", self.cipher)
    }

    pub(super) fn group(self) -> Option<String> {
        self.group.map(|group| format!("{group:?}"))
    }
}

/// Opens connections as a job's target asks.
pub(super) struct Dialer {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    http2: bool,
    sources: usize,
    next: Cell<usize>,
    /// Bytes that are read at a time below TLS.
    block: usize,
}

impl Dialer {
    /// `number` says which source address is the first.
    ///
    /// # Errors
    ///
    /// When the job names a file that cannot be used, or what rustls does not have.
    pub(super) fn new(job: &Job, number: usize) -> io::Result<Self> {
        let target = &job.target;
        let http2 = target.protocol == Protocol::H2;
        let tls = target.tls.as_ref().map(|tls| {
            let mut client = client(tls)?;
            client.alpn_protocols = vec![if http2 {
                b"h2".into()
            } else {
                b"http/1.1".into()
            }];
            if job.work != Work::Resumptions {
                client.resumption = Resumption::disabled();
            }
            let name = ServerName::try_from(tls.sni.clone()).map_err(io::Error::other)?;
            io::Result::Ok((TlsConnector::from(Arc::new(client)), name))
        });
        Ok(Self {
            address: target.address,
            tls: tls.transpose()?,
            http2,
            sources: job.sources.clamp(1, SOURCES),
            next: Cell::new(number),
            block: match job.work {
                Work::Download | Work::TunnelDownload | Work::TunnelUpload => LARGE_BLOCK,
                Work::Idle => IDLE_BLOCK,
                Work::Requests
                | Work::Handshakes
                | Work::Resumptions
                | Work::New
                | Work::PingPong => SMALL_BLOCK,
            },
        })
    }

    /// A new connection.
    ///
    /// # Errors
    ///
    /// When the gateway does not answer as it should.
    pub(super) async fn dial(&self) -> io::Result<Wire> {
        let tcp = self.connect().await.map_err(because("connect"))?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Wire {
                io: Box::new(tcp),
                negotiated: None,
                resumed: false,
            });
        };
        // rustls alone reads a record at a time.
        let tcp = BufReader::with_capacity(self.block, tcp);
        let stream = connector.connect(name.clone(), tcp).await;
        let stream = stream.map_err(because("TLS handshake"))?;
        let (_, tls) = stream.get_ref();
        if self.http2 && tls.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("HTTP/2 was not chosen"));
        }
        let negotiated = tls.negotiated_cipher_suite().map(|suite| Negotiated {
            cipher: suite.suite(),
            group: tls
                .negotiated_key_exchange_group()
                .map(|group| group.name()),
        });
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Wire {
            io: Box::new(stream),
            negotiated,
            resumed,
        })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let (Some(source), true) = (self.source(), self.sources > 1) {
            // The port is chosen when both ends are known, so that each source has all of them.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The next address to come from.
    fn source(&self) -> Option<IpAddr> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let last = u8::try_from(number % self.sources + 1).ok()?;
        Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
    }
}

/// Says what was tried.
pub(super) fn because(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn client(tls: &Tls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let file = CertificateDer::pem_file_iter(&tls.trust).map_err(io::Error::other)?;
    for certificate in file {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    // One cipher is one of TLS 1.3, and that version then.
    let versions = [&TLS13, &TLS12];
    let versions = versions.get(..if tls.cipher.is_some() { 1 } else { 2 });
    Ok(ClientConfig::builder_with_provider(Arc::new(provider(tls)))
        .with_protocol_versions(versions.unwrap_or_default())
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn provider(tls: &Tls) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(cipher) = tls.cipher {
        let cipher = match cipher {
            Cipher::Aes128 => aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            Cipher::Aes256 => aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            Cipher::Chacha20 => aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        provider.cipher_suites = vec![cipher];
    }
    if let Some(group) = tls.group {
        provider.kx_groups = vec![match group {
            Group::X25519 => aws_lc_rs::kx_group::X25519,
            Group::X25519mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            Group::P256 => aws_lc_rs::kx_group::SECP256R1,
        }];
    }
    provider
}

const LARGE_BLOCK: usize = 64 * 1024;
const SMALL_BLOCK: usize = 16 * 1024;
/// Thousands of these are held at once.
const IDLE_BLOCK: usize = 4 * 1024;
/// 127.0.0.1 to 127.0.0.250.
const SOURCES: usize = 250;
