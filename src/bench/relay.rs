//! A relay of plain TCP and nothing else: the floor under every gateway's figures.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
};

use super::job::Addresses;
use crate::shutdown::Tasks;

/// Listens on four ports of loopback, and relays each to the origin's.
///
/// # Errors
///
/// When it cannot listen.
pub(crate) async fn start(to: Addresses, tasks: &Tasks) -> io::Result<Addresses> {
    Ok(Addresses {
        http: listen(to.http, tasks).await?,
        sink: listen(to.sink, tasks).await?,
        source: listen(to.source, tasks).await?,
        echo: listen(to.echo, tasks).await?,
    })
}

async fn listen(to: SocketAddr, tasks: &Tasks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let each = tasks.clone();
    drop(tasks.spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            drop(each.spawn(async move {
                // However it ends, it has ended.
                let _ended = relay(stream, to).await;
            }));
        }
    }));
    Ok(address)
}

async fn relay(mut device: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut backend = TcpStream::connect(to).await?;
    device.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut device, &mut backend, BLOCK, BLOCK).await?;
    Ok(())
}

/// As large as the gateway's.
const BLOCK: usize = 64 << 10;
