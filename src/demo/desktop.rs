//! Stand-in: a desktop, which gives back every byte that it gets.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::site;
use crate::shutdown::Tasks;

/// Serves the echo until the tasks end.
///
/// # Errors
///
/// When no port can be bound.
pub(super) async fn serve(tasks: &Tasks) -> io::Result<SocketAddr> {
    let listener = site::bind().await?;
    let address = listener.local_addr()?;
    site::accept(tasks, listener, |stream, _peer| async {
        // The other end may break off whenever it likes.
        let _ended = echo(stream).await;
    });
    Ok(address)
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    loop {
        let length = timeout(IDLE, stream.read(&mut buffer)).await??;
        if length == 0 {
            return stream.shutdown().await;
        }
        let block = buffer.get(..length).unwrap_or_default();
        timeout(IDLE, stream.write_all(block)).await??;
    }
}

const BLOCK: usize = 64 * 1024;
const IDLE: Duration = Duration::from_secs(3600);
