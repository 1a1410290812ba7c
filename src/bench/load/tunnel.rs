//! Tunnels to the origin's source, sink and echo.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    Run, Tally,
    wire::{Wire, because},
};
use crate::bench::job::Work;

/// An open tunnel, or a relay that is one.
pub(super) struct Tunnel {
    pub(super) wire: Wire,
    work: Work,
    buffer: Vec<u8>,
}

impl Tunnel {
    pub(super) fn new(wire: Wire, work: Work) -> Self {
        let bulk = matches!(work, Work::TunnelDownload | Work::TunnelUpload);
        let size = if bulk { BLOCK } else { MESSAGE };
        Self {
            wire,
            work,
            buffer: vec![b'x'; size],
        }
    }

    /// Bytes or messages, until the run is over.
    pub(super) async fn run(&mut self, run: &Run, tally: &mut Tally) -> io::Result<()> {
        tally.negotiated = self.wire.negotiated;
        let mut now = Instant::now();
        while !run.is_over(now) {
            let (units, bytes) = if self.work == Work::PingPong {
                run.take(1);
                (1, self.ping().await?)
            } else {
                let size = run.take(CHUNK);
                if self.work == Work::TunnelDownload {
                    self.download(size).await?;
                } else {
                    self.upload(size).await?;
                }
                (size, size)
            };
            let then = Instant::now();
            run.latency.record(then - now);
            now = then;
            tally.units += units;
            tally.bytes += bytes;
        }
        Ok(())
    }

    /// Asks the source for bytes, and reads them.
    async fn download(&mut self, size: u64) -> io::Result<()> {
        let io = &mut self.wire.io;
        io.write_u64(size).await?;
        io.flush().await?;
        let mut left = size;
        while left > 0 {
            let space = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(BLOCK));
            let space = self.buffer.get_mut(..space).unwrap_or_default();
            match io
                .read(space)
                .await
                .map_err(because("read from the tunnel"))?
            {
                0 => return Err(io::Error::other("the tunnel closed before its last byte")),
                count => left -= count as u64,
            }
        }
        Ok(())
    }

    /// Sends bytes to the sink, which confirms them.
    async fn upload(&mut self, size: u64) -> io::Result<()> {
        let io = &mut self.wire.io;
        let all = async {
            io.write_u64(size).await?;
            let mut left = size;
            while left > 0 {
                let part = self
                    .buffer
                    .len()
                    .min(usize::try_from(left).unwrap_or(BLOCK));
                io.write_all(self.buffer.get(..part).unwrap_or_default())
                    .await?;
                left -= part as u64;
            }
            io.flush().await
        };
        all.await.map_err(because("send to the tunnel"))?;
        let confirmed = io.read_u64().await.map_err(because("hear from the sink"))?;
        if confirmed != size {
            let error = format!("the sink confirmed {confirmed} of {size} bytes");
            return Err(io::Error::other(error));
        }
        Ok(())
    }

    /// A message to the echo and back: its bytes, both ways.
    async fn ping(&mut self) -> io::Result<u64> {
        let io = &mut self.wire.io;
        io.write_all(&self.buffer)
            .await
            .map_err(because("send to the tunnel"))?;
        io.flush().await?;
        io.read_exact(&mut self.buffer)
            .await
            .map_err(because("hear from the echo"))?;
        Ok(2 * self.buffer.len() as u64)
    }
}

const BLOCK: usize = 256 * 1024;
/// Bytes that are asked for, or confirmed, at a time: enough that the wait between two is nothing.
const CHUNK: u64 = 32 * 1024 * 1024;
const MESSAGE: usize = 64;
