//! Gathers the writes of HTTP/2 below h2, so that one poll costs one record and one write.
//!
//! h2 flushes after nearly every DATA frame, which would make a TLS record and a system call of
//! each. Here a flush by h2 does nothing; the real one comes after the poll, from the
//! [`Flusher`]. What fills whole records goes to rustls at once, without another copy, and waits
//! there until the flush or until rustls is full; the rest, less than a record, waits as plain
//! text.

use std::{
    io::{self, IoSlice},
    iter,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{block::Block, stream::Stream};

pub(super) fn pair(mut stream: Stream) -> (Gathering, Flusher) {
    stream.hold_back(true);
    stream.limit_buffer(RECORDS.saturating_mul(RECORD.saturating_add(OVERHEAD)));
    let shared = Arc::new(Mutex::new(Shared {
        stream,
        plain: Block::default(),
        unsent: false,
        received: 0,
        broken: None,
    }));
    (Gathering(Arc::clone(&shared)), Flusher(shared))
}

/// What h2 reads and writes. Its flush does nothing: see [`Flusher`].
#[derive(Debug)]
pub struct Gathering(Arc<Mutex<Shared>>);

/// Sends what [`Gathering`] holds. One task uses both, so their lock is never waited for.
#[derive(Debug)]
pub struct Flusher(Arc<Mutex<Shared>>);

impl Flusher {
    /// Sends all that was written so far.
    ///
    /// # Errors
    ///
    /// When the connection broke; the other half is told too.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_send(context)
    }

    /// Something was written since the last flush.
    pub fn has_unsent(&self) -> bool {
        lock(&self.0).unsent
    }

    /// Bytes of plain text that came from the device so far.
    pub fn received(&self) -> u64 {
        lock(&self.0).received
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        shared.check()?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut shared.stream).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        shared.received = shared.received.wrapping_add(count as u64);
        read
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_gather(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_gather(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.0).check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_send(context))?;
        shared.stream.hold_back(false);
        Pin::new(&mut shared.stream).poll_shutdown(context)
    }
}

#[derive(Debug)]
struct Shared {
    stream: Stream,
    plain: Block,
    /// Something was written since the last flush.
    unsent: bool,
    received: u64,
    broken: Option<io::ErrorKind>,
}

impl Shared {
    fn poll_gather(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let total = slices
            .iter()
            .fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        self.unsent = true;
        loop {
            let waiting = self.plain.len();
            let rest = waiting.saturating_add(total) % RECORD;
            let whole = waiting.saturating_add(total).saturating_sub(rest);
            if whole == 0 {
                self.append(slices, 0);
                return Poll::Ready(Ok(total));
            }
            let Poll::Ready(written) = self.poll_records(context, slices, whole) else {
                // rustls is full.
                ready!(self.poll_out(context))?;
                continue;
            };
            let written = written?;
            self.plain.consume(written);
            let taken = written.saturating_sub(waiting);
            if written == whole {
                self.append(slices, taken);
                return Poll::Ready(Ok(total));
            }
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// Lets everything behind the first `skip` bytes wait: less than a record.
    fn append(&mut self, slices: &[IoSlice<'_>], mut skip: usize) {
        for slice in slices {
            if let Some(bytes) = slice.get(skip..) {
                self.plain.append(bytes);
            }
            skip = skip.saturating_sub(slice.len());
        }
    }

    /// Gives rustls the first `limit` bytes of what waits and what comes.
    fn poll_records(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        mut limit: usize,
    ) -> Poll<io::Result<usize>> {
        let mut list = [IoSlice::new(&[]); SLICES];
        let all = iter::once(self.plain.bytes()).chain(slices.iter().map(|s| &**s));
        let parts = all.filter_map(|bytes| {
            let part = bytes.get(..limit).unwrap_or(bytes);
            limit = limit.saturating_sub(part.len());
            Some(part).filter(|part| !part.is_empty())
        });
        let mut count = 0_usize;
        for (place, part) in list.iter_mut().zip(parts) {
            *place = IoSlice::new(part);
            count = count.saturating_add(1);
        }
        let list = list.get(..count).unwrap_or_default();
        Pin::new(&mut self.stream).poll_write_vectored(context, list)
    }

    /// Sends what waits: as plain text, and as records in rustls.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        while !self.plain.is_empty() {
            if let Poll::Ready(written) = self.poll_records(context, &[], RECORD) {
                let count = self.note(written)?;
                self.plain.consume(count);
            } else {
                let out = ready!(self.poll_out(context));
                self.note(out)?;
            }
        }
        let out = ready!(self.poll_out(context));
        self.unsent = false;
        Poll::Ready(self.note(out))
    }

    /// Sends the records in rustls.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.hold_back(false);
        let out = Pin::new(&mut self.stream).poll_flush(context);
        self.stream.hold_back(true);
        out
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.broken = Some(error.kind());
            self.plain.consume(self.plain.len());
        }
        result
    }

    fn check(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

/// A panic of h2 while it wrote leaves nothing half done here that could harm anyone else.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plain text of one record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;
/// What a record of TLS 1.3 needs besides. With the limit made of these two, a fifth record finds
/// no room at all, rather than room for a few bytes.
const OVERHEAD: usize = 22;
/// Records that wait in rustls at most; they leave with one system call.
const RECORDS: usize = 4;
/// Slices of one write; h2 brings few.
const SLICES: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::tls::testing::{self, Device};

    /// Writes, and flushes as h2 does, which sends nothing.
    async fn write(half: &mut Gathering, bytes: &[u8]) {
        half.write_all(bytes).await.unwrap();
        half.flush().await.unwrap();
    }

    async fn flush(flusher: &Flusher) {
        std::future::poll_fn(|context| flusher.poll_flush(context))
            .await
            .unwrap();
    }

    /// The lengths of the TLS records that arrive, up to the first that is longer than `limit`.
    async fn records(device: Device, limit: usize) -> Vec<usize> {
        let mut tcp = device.into_inner().0;
        let mut lengths = Vec::new();
        while lengths.last().is_none_or(|&length| length <= limit) {
            let mut head = [0; 5];
            tcp.read_exact(&mut head).await.unwrap();
            let length = u16::from_be_bytes([head[3], head[4]]);
            tcp.read_exact(&mut vec![0; length.into()]).await.unwrap();
            lengths.push(length.into());
        }
        lengths
    }

    #[tokio::test]
    async fn small_writes_leave_as_one_record_with_the_flush() {
        let (near, far) = testing::pair(true).await;
        let (mut half, flusher) = near.gathering();

        for byte in 0..100 {
            write(&mut half, &[byte; 100]).await;
        }
        flush(&flusher).await;

        // The ticket comes first. A record has one byte of type and 16 of tag besides its text.
        let lengths = records(far, 1000).await;
        assert_eq!(lengths.len(), 2);
        assert_eq!(lengths[1], 10_000 + 17);
    }

    #[tokio::test]
    async fn large_writes_become_whole_records_and_keep_their_order() {
        let (near, mut far) = testing::pair(true).await;
        let (mut half, flusher) = near.gathering();
        let bytes: Vec<u8> = (0..300_000_u32)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
            .collect();

        let reading = async {
            let mut read = vec![0; bytes.len()];
            far.read_exact(&mut read).await.unwrap();
            read
        };
        let writing = async {
            for part in bytes.chunks(16_384 + 9) {
                write(&mut half, &part[..9]).await;
                write(&mut half, &part[9..]).await;
            }
            flush(&flusher).await;
        };
        let (read, ()) = tokio::join!(reading, writing);

        assert!(read == bytes);
    }

    #[tokio::test]
    async fn a_device_that_does_not_read_holds_the_writer_back() {
        let (near, mut far) = testing::pair(true).await;
        let (mut half, flusher) = near.gathering();
        let block = vec![7; 64 * 1024];
        let mut written = 0;

        // The kernel's buffers are finite, and so are ours.
        while let Poll::Ready(count) = futures_util::poll!(std::future::poll_fn(|c| Pin::new(
            &mut half
        )
        .poll_write(c, &block)))
        {
            written += count.unwrap();
            assert!(written < 64 << 20);
        }
        let reading = async {
            let mut read = vec![0; written];
            far.read_exact(&mut read).await.unwrap();
        };
        tokio::join!(reading, flush(&flusher));
    }

    #[tokio::test]
    async fn a_shutdown_sends_what_waits_and_close_notify() {
        let (near, mut far) = testing::pair(true).await;
        let (mut half, _flusher) = near.gathering();

        write(&mut half, b"bye").await;
        half.shutdown().await.unwrap();

        let mut read = Vec::new();
        // Without close_notify this would be an error.
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"bye");
    }

    #[tokio::test]
    async fn a_broken_connection_is_told_to_both_halves() {
        let (near, far) = testing::pair(true).await;
        let (mut half, flusher) = near.gathering();
        socket2::SockRef::from(far.get_ref().0)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(far);

        let block = vec![7; 64 * 1024];
        let error = loop {
            if let Err(error) = half.write_all(&block).await {
                break error;
            }
            if let Err(error) = std::future::poll_fn(|c| flusher.poll_flush(c)).await {
                half.write_all(b"x").await.unwrap_err();
                break error;
            }
        };
        assert!(matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ));
    }
}
