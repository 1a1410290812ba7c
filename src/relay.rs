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

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Copies both ways until both sides are closed, nothing moved for `limits.idle`, the time is
/// over, or `stop` fires. Either side may close its half first.
///
/// Each way holds at most one block, and none while nothing moves: a short message is passed on
/// from the stack. A side that does not read stops the other side's reads. Writes are flushed
/// only when the reader has nothing more at once.
///
/// Both sides may be given as `&mut`. After every end but [`End::Closed`] the caller must not
/// close a side in good order (no FIN, no `close_notify`): its peer would take a part for the
/// whole. [`End::is_complete`] tells.
pub fn relay<A, B>(
    device: A,
    backend: B,
    limits: Limits,
    stop: Option<&CancellationToken>,
    counts: &Counts,
) -> impl Future<Output = End>
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
        stop: stop.map(|token| Box::pin(token.clone().cancelled_owned())),
        last: start,
        absolute,
        armed,
        timer: Box::pin(sleep_until(armed)),
    };
    // No async function: that would keep room for both sides twice.
    poll_fn(move |context| relay.poll(context, counts))
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
    /// Bytes of the largest block, which a way has once its blocks are full time after time.
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
    /// The token fired: the session ended, or a reload denies what was permitted.
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
    /// Looking at it takes its lock, so no token may be every relay's.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
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
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(End::Stopped);
        }
        // Before the ways: they may use up what the runtime lets one task do at a time.
        if let Poll::Ready(end) = self.poll_time(context) {
            return Poll::Ready(end);
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
        if self.due() < self.armed {
            return self.poll_time(context);
        }
        Poll::Pending
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
        let mut left = BYTES_A_TURN;
        while left > 0 {
            let dry = self.fill(context, from, to, count, size)?;
            left = left.saturating_sub(self.end.max(PROBE));
            match self.drain(context, to, count, dry, size) {
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
            self.keep(first, size.min(FIRST_BLOCK));
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
        size: usize,
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
        let length = self.block.as_ref().map_or(0, |block| block.len());
        if length < PROBE || self.eof {
            self.block = None;
        } else if self.end == length && length < size {
            let length = length.saturating_mul(2).min(size);
            self.block = Some(vec![0; length].into_boxed_slice());
        }
        self.start = 0;
        self.end = 0;
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

/// A way's first block.
const FIRST_BLOCK: usize = 64 * 1024;

/// What one way may move before the other way and other tasks have their turn. A short message
/// counts as [`PROBE`].
const BYTES_A_TURN: usize = 256 * 1024;

/// How long an empty block is kept for the next bytes.
const RELEASE: Duration = Duration::from_secs(1);

const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn each_side_may_close_its_half_first() {
        for device_first in [true, false] {
            let mut world = World::start(LONG).await;
            let (first, second) = if device_first {
                (&mut world.device, &mut world.backend)
            } else {
                (&mut world.backend, &mut world.device)
            };

            first.write_all(b"last words").await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(read_all(second).await, b"last words");
            second.write_all(b"still here").await.unwrap();
            second.write_all(b", and done").await.unwrap();
            second.shutdown().await.unwrap();
            assert_eq!(read_all(first).await, b"still here, and done");

            let (up, down) = if device_first { (10, 20) } else { (20, 10) };
            let counts = Arc::clone(&world.counts);
            assert!(world.end().await.is_complete());
            assert_eq!(counts.up.load(Ordering::Relaxed), up);
            assert_eq!(counts.down.load(Ordering::Relaxed), down);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn large_flows_arrive_intact_both_ways_at_once() {
        const LENGTH: usize = 64 << 20;
        let world = World::start(LONG).await;
        let counts = Arc::clone(&world.counts);
        let (device_read, device_write) = world.device.into_split();
        let (backend_read, backend_write) = world.backend.into_split();

        let flows = tokio::join!(
            go(send_pattern(device_write, 1, LENGTH)),
            go(send_pattern(backend_write, 7, LENGTH)),
            go(check_pattern(backend_read, 1)),
            go(check_pattern(device_read, 7)),
        );

        flows.0.unwrap();
        flows.1.unwrap();
        assert_eq!(flows.2.unwrap(), LENGTH);
        assert_eq!(flows.3.unwrap(), LENGTH);
        assert!(world.relay.await.unwrap().is_complete());
        assert_eq!(counts.up.load(Ordering::Relaxed), LENGTH as u64);
        assert_eq!(counts.down.load(Ordering::Relaxed), LENGTH as u64);
    }

    #[tokio::test]
    async fn messages_of_every_size_come_back() {
        let world = World::start(LONG).await;
        let (mut device, mut backend) = (world.device, world.backend);
        let echo = go(async move {
            let (mut read, mut write) = backend.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });

        for length in [
            1,
            100,
            PROBE - 1,
            PROBE,
            PROBE + 1,
            65_535,
            65_536,
            65_537,
            300_000,
        ] {
            let sent: Vec<u8> = (0..length).map(|i| pattern(i, 3)).collect();
            let mut back = vec![0; length];
            let (mut read, mut write) = device.split();
            let (wrote, came) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
            wrote.unwrap();
            came.unwrap();
            assert!(sent == back, "{length} bytes");
        }
        device.shutdown().await.unwrap();
        echo.await.unwrap();

        assert!(world.relay.await.unwrap().is_complete());
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_stops_the_other() {
        let (mut device, near) = duplex(1 << 10);
        let (far, backend) = duplex(1 << 10);
        let counts = Arc::new(Counts::default());
        let relaying = spawn_relay(near, far, LONG, Arc::clone(&counts));

        // What is taken in: both pipes and one block, however much is offered.
        let block = vec![1; LONG.block];
        let mut taken = 0;
        while let Ok(wrote) = timeout(PATIENCE, device.write(&block)).await {
            taken += wrote.unwrap();
        }

        assert!(
            taken <= LONG.block + 2 * 1024,
            "{taken} bytes were taken in"
        );
        assert_eq!(counts.up.load(Ordering::Relaxed), 1 << 10);
        drop((device, backend));
        assert!(matches!(relaying.await.unwrap(), End::Broken(_)));
    }

    #[tokio::test]
    async fn a_reset_ends_the_relay_and_is_told() {
        let mut world = World::start(LONG).await;
        world.device.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        world.backend.read_exact(&mut hello).await.unwrap();

        world.backend.set_zero_linger().unwrap();
        drop(world.backend);

        let end = world.relay.await.unwrap();
        assert!(
            matches!(&end, End::Broken(error)
            if error.kind() == io::ErrorKind::ConnectionReset),
            "{end:?}"
        );
    }

    #[tokio::test]
    async fn an_answer_is_delivered_though_the_backend_refuses_more() {
        let mut world = World::start(LONG).await;
        // Answers without reading, closes with unread bytes, and so resets.
        world.device.write_all(&[0; 1000]).await.unwrap();
        world.backend.readable().await.unwrap();
        world.backend.write_all(b"no, thank you").await.unwrap();
        drop(world.backend);

        let mut answer = Vec::new();
        drop(world.device.write_all(&[0; 100_000]).await);
        // Its end is an error or an end of file; the answer was before it.
        drop(world.device.read_to_end(&mut answer).await);

        assert_eq!(answer, b"no, thank you");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_bytes_put_the_end_off() {
        let (mut device, near) = duplex(1 << 10);
        let (far, mut backend) = duplex(1 << 10);
        let limits = Limits {
            idle: Duration::from_secs(10),
            ..LONG
        };
        let began = Instant::now();
        let relaying = spawn_relay(near, far, limits, Arc::default());

        tokio::time::sleep(Duration::from_secs(7)).await;
        device.write_all(b"x").await.unwrap();
        backend.read_u8().await.unwrap();

        assert!(matches!(relaying.await.unwrap(), End::Idle));
        assert_eq!(began.elapsed().as_secs(), 17);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_relay_has_its_own_limit() {
        let (mut device, near) = duplex(1 << 10);
        let (far, _backend) = duplex(1 << 10);
        let limits = Limits {
            half_closed: Duration::from_secs(3),
            ..LONG
        };
        let began = Instant::now();
        let relaying = spawn_relay(near, far, limits, Arc::default());

        device.shutdown().await.unwrap();

        assert!(matches!(relaying.await.unwrap(), End::Idle));
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_relay_ends_at_its_absolute_limit() {
        let (mut device, near) = duplex(1 << 10);
        let (far, mut backend) = duplex(1 << 10);
        let limits = Limits {
            idle: Duration::from_secs(10),
            absolute: Duration::from_secs(60),
            ..LONG
        };
        let began = Instant::now();
        let relaying = spawn_relay(near, far, limits, Arc::default());

        let chatter = go(async move {
            let mut tick = [0; 4];
            while device.write_all(b"tick").await.is_ok()
                && backend.read_exact(&mut tick).await.is_ok()
            {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });

        assert!(matches!(relaying.await.unwrap(), End::Absolute));
        assert_eq!(began.elapsed().as_secs(), 60);
        chatter.await.unwrap();
    }

    #[tokio::test]
    async fn its_token_stops_it() {
        let (_device, near) = duplex(1 << 10);
        let (far, _backend) = duplex(1 << 10);
        let stop = CancellationToken::new();
        let mine = stop.clone();
        let relaying =
            go(async move { relay(near, far, LONG, Some(&mine), &Counts::default()).await });

        stop.cancel();

        assert!(matches!(relaying.await.unwrap(), End::Stopped));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_while_nothing_moves() {
        let (mut device, near) = duplex(1 << 20);
        let (far, mut backend) = duplex(1 << 20);
        let start = Instant::now();
        let mut relay = Relay {
            device: near,
            backend: far,
            up: Way::default(),
            down: Way::default(),
            limits: LONG,
            stop: None,
            last: start,
            absolute: after(start, LONG.absolute),
            armed: after(start, LONG.idle),
            timer: Box::pin(sleep_until(after(start, LONG.idle))),
        };
        let counts = Counts::default();

        device.write_all(&vec![1; 200_000]).await.unwrap();
        let waiting = timeout(
            Duration::from_millis(10),
            poll_fn(|c| relay.poll(c, &counts)),
        );
        waiting.await.unwrap_err();
        assert!(relay.up.block.is_some(), "a busy relay keeps its block");
        backend.read_exact(&mut vec![0; 200_000]).await.unwrap();
        let waiting = timeout(RELEASE * 2, poll_fn(|c| relay.poll(c, &counts)));
        waiting.await.unwrap_err();
        assert!(relay.up.block.is_none(), "an idle one holds none");

        device.write_all(b"short").await.unwrap();
        let waiting = timeout(
            Duration::from_millis(10),
            poll_fn(|c| relay.poll(c, &counts)),
        );
        waiting.await.unwrap_err();
        assert!(relay.up.block.is_none(), "a short message needs none");
        assert_eq!(counts.up.load(Ordering::Relaxed), 200_005);
    }

    #[tokio::test]
    async fn a_long_flow_gets_larger_blocks() {
        let counts = Counts::default();
        for (length, block) in [(10_000, FIRST_BLOCK), (1 << 20, 256 << 10)] {
            let (mut device, near) = duplex(1 << 20);
            let (far, _backend) = duplex(1 << 21);
            let start = Instant::now();
            let mut relay = Relay {
                device: near,
                backend: far,
                up: Way::default(),
                down: Way::default(),
                limits: Limits {
                    block: 256 << 10,
                    ..LONG
                },
                stop: None,
                last: start,
                absolute: after(start, LONG.absolute),
                armed: after(start, LONG.idle),
                timer: Box::pin(sleep_until(after(start, LONG.idle))),
            };

            device.write_all(&vec![1; length]).await.unwrap();
            let relaying = poll_fn(|context| relay.poll(context, &counts));
            timeout(PATIENCE, relaying).await.unwrap_err();

            assert_eq!(relay.up.block.as_ref().unwrap().len(), block);
        }
    }

    /// Device and backend on real sockets, the relay between them.
    struct World {
        device: TcpStream,
        backend: TcpStream,
        counts: Arc<Counts>,
        relay: JoinHandle<End>,
    }

    impl World {
        async fn start(limits: Limits) -> Self {
            let (device, near) = connection().await;
            let (far, backend) = connection().await;
            let counts = Arc::new(Counts::default());
            let relay = spawn_relay(near, far, limits, Arc::clone(&counts));
            Self {
                device,
                backend,
                counts,
                relay,
            }
        }

        async fn end(self) -> End {
            self.relay.await.unwrap()
        }
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (connected, accepted) = tokio::join!(connect, listener.accept());
        (connected.unwrap(), accepted.unwrap().0)
    }

    fn spawn_relay<A, B>(
        device: A,
        backend: B,
        limits: Limits,
        counts: Arc<Counts>,
    ) -> JoinHandle<End>
    where
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        go(async move { relay(device, backend, limits, None, &counts).await })
    }

    #[expect(clippy::disallowed_methods, reason = "a test waits for its own tasks")]
    fn go<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(future)
    }

    async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    async fn send_pattern(mut to: impl AsyncWrite + Unpin, seed: u8, length: usize) {
        let mut sent = 0;
        while sent < length {
            let part = 70_001.min(length - sent);
            let bytes: Vec<u8> = (sent..sent + part).map(|i| pattern(i, seed)).collect();
            to.write_all(&bytes).await.unwrap();
            sent += part;
        }
        to.shutdown().await.unwrap();
    }

    async fn check_pattern(mut from: impl AsyncRead + Unpin, seed: u8) -> usize {
        let mut seen = 0;
        let mut bytes = vec![0; 100_000];
        loop {
            let read = from.read(&mut bytes).await.unwrap();
            if read == 0 {
                return seen;
            }
            for byte in &bytes[..read] {
                assert_eq!(*byte, pattern(seen, seed));
                seen += 1;
            }
        }
    }

    fn pattern(place: usize, seed: u8) -> u8 {
        (place ^ (place >> 8) ^ (place >> 16)).to_le_bytes()[0].wrapping_add(seed)
    }

    const LONG: Limits = Limits {
        idle: Duration::from_secs(600),
        half_closed: Duration::from_secs(600),
        absolute: Duration::from_secs(3600),
        block: 64 << 10,
    };

    const PATIENCE: Duration = Duration::from_millis(200);
}
