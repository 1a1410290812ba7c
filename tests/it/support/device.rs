//! A device of our own: raw bytes over TLS, for what no ready-made client does.

use std::{fs::File, io::BufReader, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::DEADLINE;

/// A TLS connection to the gateway.
pub(crate) type Connection = TlsStream<TcpStream>;

/// Makes connections that trust one authority.
#[derive(Clone)]
pub(crate) struct Device {
    gateway: SocketAddr,
    connector: TlsConnector,
}

impl Device {
    /// A device that offers these protocols by ALPN.
    pub(crate) fn new(gateway: SocketAddr, authority: &Path, alpn: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        let reader = BufReader::new(File::open(authority).unwrap());
        for certificate in CertificateDer::pem_reader_iter(reader) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self {
            gateway,
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    /// A connection for a name.
    pub(crate) async fn connect(&self, name: &'static str) -> Connection {
        let tcp = TcpStream::connect(self.gateway).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name).unwrap();
        self.connector.connect(name, tcp).await.unwrap()
    }

    /// A tunnel: the connection once the gateway has said 200.
    pub(crate) async fn tunnel(&self, target: &str, credential: &str) -> Connection {
        let mut connection = self.connect("gw.ravelin.test").await;
        let basic = data_encoding::BASE64.encode(credential.as_bytes());
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut connection).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        connection
    }
}

/// The head of an answer, with its empty line.
pub(crate) async fn read_head(connection: &mut Connection) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(DEADLINE, connection.read_u8())
            .await
            .expect("a head in time");
        match byte {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Everything until the gateway closes.
pub(crate) async fn read_all(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A gateway that closes without close_notify after an error is heard out all the same.
    let _end = tokio::time::timeout(DEADLINE, connection.read_to_end(&mut bytes))
        .await
        .expect("an end in time");
    bytes
}
