//! What TLS alone costs a gateway: rustls in memory, without a socket.

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::{
    job::{Cipher, Group, Work},
    plan::Shape,
};
use crate::{clock, demo::authority::Authority};

/// The floor of a row, in its unit; nothing where TLS is not what costs.
///
/// # Errors
///
/// When TLS cannot be set up.
pub(super) fn alone(shape: &Shape) -> io::Result<Option<(String, f64)>> {
    let pair = || Pair::new(shape).map_err(io::Error::other);
    let value = match shape.work {
        Work::Handshakes | Work::Resumptions => pair()?.handshakes()?,
        Work::Download | Work::TunnelDownload => pair()?.seal()?,
        Work::TunnelUpload => pair()?.open()?,
        Work::Requests | Work::New | Work::PingPong | Work::Idle => return Ok(None),
    };
    Ok(Some(("TLS alone".to_owned(), value)))
}

/// A device and a gateway that have nothing between them but memory.
struct Pair {
    device: Arc<ClientConfig>,
    gateway: Arc<ServerConfig>,
    name: ServerName<'static>,
    resumes: bool,
}

impl Pair {
    fn new(shape: &Shape) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let authority = Authority::generate(clock::wall())?;
        let issued = if shape.rsa {
            authority.issue_rsa(&[NAME])?
        } else {
            authority.issue(&[NAME], &[])?
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
        let resumes = shape.work == Work::Resumptions;
        let mut device = ClientConfig::builder_with_provider(Arc::new(offered(shape)))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumes {
            device.resumption = rustls::client::Resumption::disabled();
        }
        let chain = vec![CertificateDer::from_pem_slice(issued.chain.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut gateway = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        gateway.ticketer = aws_lc_rs::Ticketer::new()?;
        gateway.send_tls13_tickets = 1;
        Ok(Self {
            device: Arc::new(device),
            gateway: Arc::new(gateway),
            name: ServerName::try_from(NAME)?,
            resumes,
        })
    }

    /// CPU of the gateway's half of a handshake, in µs.
    fn handshakes(&self) -> io::Result<f64> {
        if self.resumes {
            // For the first ticket.
            self.shake(&mut Stopwatch::default())?;
        }
        let mut watch = Stopwatch::default();
        let (mut number, end) = (0.0, clock::now() + LONG_ENOUGH);
        while clock::now() < end {
            self.shake(&mut watch)?;
            number += 1.0;
        }
        Ok(watch.total.as_secs_f64() * 1e6 / number)
    }

    fn shake(&self, watch: &mut Stopwatch) -> io::Result<(ClientConnection, ServerConnection)> {
        let device = ClientConnection::new(Arc::clone(&self.device), self.name.clone());
        let mut device = device.map_err(io::Error::other)?;
        let gateway = watch.time(|| ServerConnection::new(Arc::clone(&self.gateway)));
        let mut gateway = gateway.map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        // The last step carries the ticket, after which neither has anything to say.
        while device.is_handshaking() || gateway.is_handshaking() || gateway.wants_write() {
            bytes.clear();
            device.write_tls(&mut bytes)?;
            watch.time(|| feed_gateway(&mut gateway, &bytes))?;
            bytes.clear();
            watch.time(|| drain_gateway(&mut gateway, &mut bytes))?;
            feed_device(&mut device, &bytes)?;
        }
        Ok((device, gateway))
    }

    /// CPU of the gateway sealing a GiB, in s.
    fn seal(&self) -> io::Result<f64> {
        let (_device, mut gateway) = self.shake(&mut Stopwatch::default())?;
        let (plain, mut bytes) = (vec![b'x'; BLOCK], Vec::new());
        self.stream(|watch| {
            bytes.clear();
            watch.time(|| {
                gateway.writer().write_all(&plain)?;
                drain_gateway(&mut gateway, &mut bytes)
            })
        })
    }

    /// CPU of the gateway opening a GiB, in s.
    fn open(&self) -> io::Result<f64> {
        let (mut device, mut gateway) = self.shake(&mut Stopwatch::default())?;
        let (mut plain, mut bytes) = (vec![b'x'; BLOCK], Vec::new());
        self.stream(|watch| {
            bytes.clear();
            device.writer().write_all(&plain)?;
            while device.wants_write() {
                device.write_tls(&mut bytes)?;
            }
            let mut rest = &*bytes;
            watch.time(|| {
                while !rest.is_empty() {
                    gateway.read_tls(&mut rest)?;
                    gateway.process_new_packets().map_err(io::Error::other)?;
                    while matches!(gateway.reader().read(&mut plain), Ok(1..)) {}
                }
                Ok(())
            })
        })
    }

    fn stream(&self, mut block: impl FnMut(&mut Stopwatch) -> io::Result<()>) -> io::Result<f64> {
        let mut watch = Stopwatch::default();
        let (mut blocks, end) = (0.0, clock::now() + LONG_ENOUGH);
        while clock::now() < end {
            block(&mut watch)?;
            blocks += 1.0;
        }
        Ok(watch.total.as_secs_f64() * BLOCKS_OF_A_GIB / blocks)
    }
}

fn offered(shape: &Shape) -> CryptoProvider {
    let mut offered = aws_lc_rs::default_provider();
    let cipher = match shape.cipher {
        Some(Cipher::Aes256) => aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        Some(Cipher::Chacha20) => aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        Some(Cipher::Aes128) | None => aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    };
    let group = match shape.group {
        Some(Group::X25519mlkem768) => aws_lc_rs::kx_group::X25519MLKEM768,
        Some(Group::P256) => aws_lc_rs::kx_group::SECP256R1,
        Some(Group::X25519) | None => aws_lc_rs::kx_group::X25519,
    };
    offered.cipher_suites = vec![cipher];
    offered.kx_groups = vec![group];
    offered
}

fn feed_gateway(gateway: &mut ServerConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        gateway.read_tls(&mut bytes)?;
        gateway.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

fn drain_gateway(gateway: &mut ServerConnection, bytes: &mut Vec<u8>) -> io::Result<()> {
    while gateway.wants_write() {
        gateway.write_tls(bytes)?;
    }
    Ok(())
}

fn feed_device(device: &mut ClientConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        device.read_tls(&mut bytes)?;
        device.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Time of the gateway's half alone. On the wall: there is nothing in it to wait for.
#[derive(Default)]
struct Stopwatch {
    total: Duration,
}

impl Stopwatch {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = clock::now();
        let done = work();
        self.total += start.elapsed();
        done
    }
}

const NAME: &str = "gw.ravelin.test";
const LONG_ENOUGH: Duration = Duration::from_millis(300);
const BLOCK: usize = 64 << 10;
const BLOCKS_OF_A_GIB: f64 = 16384.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::{Kind, ROWS};

    #[test]
    fn every_row_of_handshakes_and_bulk_has_a_floor() {
        for row in ROWS {
            let Kind::Load(shape) = row.kind else {
                continue;
            };
            let floor = alone(&shape).unwrap();
            let bulk = row.id.starts_with("bulk") || row.id.starts_with("tunnel");
            assert_eq!(floor.is_some(), bulk || row.id.starts_with("handshake"));
            assert!(floor.is_none_or(|(_, value)| value > 0.0), "{}", row.id);
        }
    }

    #[test]
    fn a_pair_that_resumes_shows_no_certificate_twice() {
        let shape = Shape {
            work: Work::Resumptions,
            ..super::super::plan::REQUESTS
        };
        let pair = Pair::new(&shape).unwrap();
        pair.shake(&mut Stopwatch::default()).unwrap();

        let (device, _gateway) = pair.shake(&mut Stopwatch::default()).unwrap();

        let kind = device.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Resumed));
    }
}
