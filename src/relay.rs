//! Bytes both ways: large blocks, half-close, idle limit, counts.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Copies both ways until both sides are closed, nothing moved for `limits.idle`, the time is
/// over, or a token fires. Either side may close its half first.
///
/// Each way holds at most one block, and none while nothing moves: a short message is passed on
/// from the stack. A side that does not read stops the other side's reads. Writes are flushed
/// only when the reader has nothing more at once.
///
/// Both sides may be given as `&mut`. After every end but [`End::Closed`] the caller must not
/// close a side in good order (no FIN, no `close_notify`): its peer would take a part for the
/// whole. [`End::is_complete`] tells.
pub async fn relay<A, B>(
    device: A,
    backend: B,
    limits: Limits,
    stop: &[CancellationToken],
    counts: &Counts,
) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let start = Instant::now();
    let absolute = after(start, limits.absolute);
    let armed = absolute.min(after(start, limits.idle));
    let mut relay = Relay {
        device,
        backend,
        up: Way::default(),
        down: Way::default(),
        limits,
        stops: stop
            .iter()
            .cloned()
            .map(CancellationToken::cancelled_owned)
            .collect(),
        last: start,
        absolute,
        armed,
        timer: Box::pin(sleep_until(armed)),
    };
    poll_fn(|context| relay.poll(context, counts)).await
}

/// Limits of one relay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte either way.
    pub idle: Duration,
    /// Without a byte once one side has closed its half; never longer than `idle`.
    pub half_closed: Duration,
    /// From the start.
    pub absolute: Duration,
    /// Bytes of one block.
    pub block: usize,
}

/// Bytes moved, readable while the relay runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// From the device.
    pub up: AtomicU64,
    /// To the device.
    pub down: AtomicU64,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// It reached its absolute limit.
    Absolute,
    /// A side failed: reset, time-out.
    Broken(io::Error),
    /// Both sides closed.
    Closed,
    /// Nothing moved for the idle limit.
    Idle,
    /// A token fired: the session ended, or the gateway drains.
    Stopped,
}

impl End {
    /// Both sides said all they had to say.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// One word for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Absolute => "absolute",
            Self::Broken(_) => "broken",
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }
}

struct Relay<A, B> {
    device: A,
    backend: B,
    up: Way,
    down: Way,
    limits: Limits,
    /// Polled only when one of them fired, so that they cost nothing for each block.
    stops: FuturesUnordered<WaitForCancellationFutureOwned>,
    /// When a byte moved last.
    last: Instant,
    absolute: Instant,
    /// What the timer is set to. It is not set again for each block, only when it fired too
    /// early or must fire sooner.
    armed: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<A, B> Relay<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(&mut self, context: &mut Context<'_>, counts: &Counts) -> Poll<End> {
        if let Poll::Ready(Some(())) = self.stops.poll_next_unpin(context) {
            return Poll::Ready(End::Stopped);
        }
        let size = self.limits.block.max(PROBE);
        let turns = self
            .up
            .turn(
                context,
                &mut self.device,
                &mut self.backend,
                &counts.up,
                size,
            )
            .and_then(|()| {
                self.down.turn(
                    context,
                    &mut self.backend,
                    &mut self.device,
                    &counts.down,
                    size,
                )
            });
        if let Err(error) = turns {
            return Poll::Ready(End::Broken(error));
        }
        if self.up.ended && self.down.ended {
            let failed = self.up.failed.take().or_else(|| self.down.failed.take());
            return Poll::Ready(failed.map_or(End::Closed, End::Broken));
        }
        if self.up.moved || self.down.moved {
            self.up.moved = false;
            self.down.moved = false;
            self.last = Instant::now();
        }
        self.poll_time(context)
    }

    fn poll_time(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            let due = self.due();
            if due < self.armed {
                self.arm(due);
            }
            ready!(self.timer.as_mut().poll(context));

            let now = Instant::now();
            if now >= self.absolute {
                return Poll::Ready(End::Absolute);
            }
            if now >= self.idle_end() {
                return Poll::Ready(End::Idle);
            }
            if now >= after(self.last, RELEASE) {
                self.up.release();
                self.down.release();
            }
            self.arm(self.due());
        }
    }

    fn arm(&mut self, due: Instant) {
        self.armed = due;
        self.timer.as_mut().reset(due);
    }

    fn due(&self) -> Instant {
        let mut due = self.absolute.min(self.idle_end());
        if self.up.is_holding() || self.down.is_holding() {
            due = due.min(after(self.last, RELEASE));
        }
        due
    }

    fn idle_end(&self) -> Instant {
        let Limits {
            idle, half_closed, ..
        } = self.limits;
        let half = self.up.ended || self.down.ended;
        after(self.last, if half { half_closed.min(idle) } else { idle })
    }
}

/// One way: from a reader to a writer.
#[derive(Default)]
struct Way {
    block: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    /// The reader has no more.
    eof: bool,
    /// Something was written since the last flush.
    unflushed: bool,
    /// A byte was read or written since the last look at the clock.
    moved: bool,
    /// The writer's half is closed, or failed.
    ended: bool,
    failed: Option<io::Error>,
}

impl Way {
    /// Moves a few blocks. A failed write ends this way only: what the failing side had sent
    /// before it broke may still be on its way to the other.
    ///
    /// # Errors
    ///
    /// When the reader failed: nobody is there any more.
    fn turn<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &AtomicU64,
        size: usize,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.ended {
            return Ok(());
        }
        for _ in 0..BLOCKS_A_TURN {
            let dry = self.fill(context, from, to, count, size)?;
            match self.drain(context, to, count, dry) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => {
                    self.ended = true;
                    self.block = None;
                    self.failed = Some(error);
                    return Ok(());
                }
                Poll::Ready(Ok(())) if self.ended => return Ok(()),
                Poll::Ready(Ok(())) if dry => return Ok(()),
                Poll::Ready(Ok(())) => {}
            }
        }
        // The other way and other tasks have their turn first.
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Reads until the block is full or the reader has nothing at once, which is `true`.
    fn fill<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &AtomicU64,
        size: usize,
    ) -> io::Result<bool>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.eof {
            return Ok(true);
        }
        if self.block.is_none() {
            // Waiting costs no block: what comes first is read to the stack.
            let mut space = [MaybeUninit::uninit(); PROBE];
            let mut probe = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *from).poll_read(context, &mut probe) {
                Poll::Pending => return Ok(true),
                Poll::Ready(read) => read?,
            }
            let first = probe.filled();
            if first.is_empty() {
                self.eof = true;
                return Ok(true);
            }
            self.moved = true;
            if first.len() < PROBE {
                let passed = self.pass(context, to, first, count);
                self.keep(first.get(passed..).unwrap_or_default(), 0);
                return Ok(false);
            }
            self.keep(first, size);
        }
        let Some(block) = &mut self.block else {
            return Ok(false);
        };
        while let Some(space) = block.get_mut(self.end..).filter(|space| !space.is_empty()) {
            let mut space = ReadBuf::new(space);
            match Pin::new(&mut *from).poll_read(context, &mut space) {
                Poll::Pending => return Ok(true),
                Poll::Ready(read) => read?,
            }
            let read = space.filled().len();
            if read == 0 {
                self.eof = true;
                return Ok(true);
            }
            self.moved = true;
            self.end = self.end.saturating_add(read);
        }
        Ok(false)
    }

    /// Writes a short message without a block. What is left, an error too, is `drain`'s.
    fn pass<W>(
        &mut self,
        context: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
        count: &AtomicU64,
    ) -> usize
    where
        W: AsyncWrite + Unpin,
    {
        let Poll::Ready(Ok(written)) = Pin::new(to).poll_write(context, bytes) else {
            return 0;
        };
        self.unflushed = true;
        count.fetch_add(written as u64, Ordering::Relaxed);
        written
    }

    /// Begins a block of at least `size` bytes with these.
    fn keep(&mut self, bytes: &[u8], size: usize) {
        if bytes.is_empty() {
            return;
        }
        let mut block = vec![0; size.max(bytes.len())].into_boxed_slice();
        if let Some(head) = block.get_mut(..bytes.len()) {
            head.copy_from_slice(bytes);
        }
        self.end = bytes.len();
        self.block = Some(block);
    }

    /// Writes what the block holds; flushes or closes when the reader is `dry`.
    fn drain<W>(
        &mut self,
        context: &mut Context<'_>,
        to: &mut W,
        count: &AtomicU64,
        dry: bool,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while let Some(bytes) = self.pending() {
            let written = ready!(Pin::new(&mut *to).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start = self.start.saturating_add(written);
            self.moved = true;
            self.unflushed = true;
            count.fetch_add(written as u64, Ordering::Relaxed);
        }
        self.start = 0;
        self.end = 0;
        let short = self.block.as_ref().is_some_and(|b| b.len() < PROBE);
        if short || self.eof {
            self.block = None;
        }
        if self.eof {
            ready!(Pin::new(&mut *to).poll_shutdown(context))?;
            self.ended = true;
        } else if dry && self.unflushed {
            ready!(Pin::new(&mut *to).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn pending(&self) -> Option<&[u8]> {
        let bytes = self.block.as_ref()?.get(self.start..self.end)?;
        (!bytes.is_empty()).then_some(bytes)
    }

    /// An empty block is kept, for the next bytes of a busy relay.
    fn is_holding(&self) -> bool {
        self.block.is_some() && self.pending().is_none()
    }

    fn release(&mut self) {
        if self.is_holding() {
            self.block = None;
        }
    }
}

fn after(start: Instant, time: Duration) -> Instant {
    start.checked_add(time).unwrap_or_else(|| start + FAR)
}

/// What is read to the stack first. Most messages of an interactive tunnel are shorter.
const PROBE: usize = 4096;

/// Blocks that one way may move before the other way has its turn.
const BLOCKS_A_TURN: usize = 4;

/// How long an empty block is kept for the next bytes.
const RELEASE: Duration = Duration::from_secs(1);

const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
