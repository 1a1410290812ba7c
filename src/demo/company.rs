//! Starts everything that a company has around its gateway, as stand-ins on loopback.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Error,
    authority::{Authority, Issued},
    broker::Broker,
    configuration::{INSIDE, OUTSIDE},
    desktop,
    dns::{self, Zone},
    node::Node,
    site::{self, Site},
};
use crate::shutdown::Tasks;

/// Where the stand-ins listen.
#[derive(Debug)]
pub(super) struct Company {
    pub(super) broker: SocketAddr,
    pub(super) desktop: SocketAddr,
    pub(super) dns: SocketAddr,
    pub(super) intranet: SocketAddr,
    pub(super) nodes: [SocketAddr; 2],
    pub(super) payroll: SocketAddr,
    pub(super) store: SocketAddr,
}

impl Company {
    /// Starts all of them, on ports that the kernel chooses; they end with the tasks.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound or a certificate not be made.
    pub(super) async fn start(tasks: &Tasks, authority: &Authority) -> Result<Self, Error> {
        let nodes = authority
            .issue(
                &[
                    &format!("xm.{OUTSIDE}"),
                    &format!("xm1.{INSIDE}"),
                    &format!("xm2.{INSIDE}"),
                ],
                &[],
            )
            .map_err(Error::Certificate)?;
        let servers = authority
            .issue(
                &[&format!("store.{INSIDE}"), &format!("sta.{INSIDE}")],
                &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
            )
            .map_err(Error::Certificate)?;
        let (nodes, servers) = (acceptor(&nodes)?, acceptor(&servers)?);
        Self::serve(tasks, nodes, servers)
            .await
            .map_err(Error::StandIn)
    }

    async fn serve(tasks: &Tasks, nodes: TlsAcceptor, servers: TlsAcceptor) -> io::Result<Self> {
        let site = async |site, tls| site::serve(tasks, site, tls).await;
        let desktop = desktop::serve(tasks).await?;
        Ok(Self {
            broker: site(Site::Broker(Broker::new(desktop)), Some(servers.clone())).await?,
            desktop,
            dns: dns::serve(tasks, Zone::new(INSIDE, &HOSTS)?).await?,
            intranet: site(Site::Intranet, None).await?,
            nodes: [
                site(Site::Node(Node::new("xm1")), Some(nodes.clone())).await?,
                site(Site::Node(Node::new("xm2")), Some(nodes)).await?,
            ],
            payroll: site(Site::Payroll, None).await?,
            store: site(Site::Store, Some(servers)).await?,
        })
    }

    /// What the gateway must be allowed to reach, by name; the DNS server is not among it, as
    /// nothing but the gateway itself asks it.
    pub(super) fn reachable(&self) -> [(&'static str, SocketAddr); 7] {
        let [one, two] = self.nodes;
        [
            ("intranet site", self.intranet),
            ("payroll site (denied by policy)", self.payroll),
            ("store", self.store),
            ("device management, node 1", one),
            ("device management, node 2", two),
            ("ticket broker", self.broker),
            ("desktop", self.desktop),
        ]
    }
}

fn acceptor(issued: &Issued) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(Error::Pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

const HOSTS: [&str; 7] = [
    "desktop", "intranet", "payroll", "sta", "store", "xm1", "xm2",
];
