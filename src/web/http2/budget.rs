//! What the streams of one HTTP/2 connection may cost: progress, resets, idle time (rule R27).

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{task::futures::TaskLocalFuture, time::Instant};

use crate::{config::Limits, shutdown::Tasks};

/// All streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<Open>,
    idle: Duration,
    progress: Duration,
    /// Streams that the device gave up, less those that ended well.
    resets: AtomicUsize,
    max_resets: usize,
    /// Whoever drives the connection.
    driver: AtomicWaker,
}

#[derive(Debug)]
struct Open {
    next: u64,
    streams: HashMap<u64, (Arc<Progress>, Seen)>,
    /// Without a stream, since and for at most.
    idle: (Instant, Duration),
}

/// What the last look at a stream saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    steps: u64,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It had no stream for too long.
    Idle,
    /// Nothing before this time.
    LookAgain(Instant),
}

impl Streams {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            open: Mutex::new(Open {
                next: 0,
                streams: HashMap::new(),
                // The first request is due as soon as the first head in HTTP/1.1.
                idle: (Instant::now(), limits.head),
            }),
            idle: limits.idle,
            progress: limits.body_progress,
            resets: AtomicUsize::new(0),
            max_resets: limits.h2_resets,
            driver: AtomicWaker::new(),
        }
    }

    /// Counts a stream, or what outlives it, until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let progress = Arc::new(Progress {
            steps: AtomicU64::new(0),
            waits_for_device: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            task: AtomicWaker::new(),
            sender: OnceLock::new(),
            cut: AtomicBool::new(false),
            streams: Arc::clone(self),
        });
        let mut open = self.lock();
        let number = open.next;
        open.next = open.next.wrapping_add(1);
        let seen = Seen {
            at: Instant::now(),
            steps: 0,
        };
        open.streams.insert(number, (Arc::clone(&progress), seen));
        Entry { number, progress }
    }

    /// The stream whose task calls this; one that nobody watches when there is none.
    pub(super) fn current(self: &Arc<Self>) -> Arc<Progress> {
        CURRENT
            .try_with(Arc::clone)
            .unwrap_or_else(|_outside| Arc::clone(&self.enter().progress))
    }

    /// Ends streams whose device takes nothing, and says when to look again.
    pub(super) fn judge(&self, now: Instant) -> Verdict {
        let mut open = self.lock();
        if open.streams.is_empty() {
            let (since, limit) = open.idle;
            let end = since + limit;
            return if end <= now {
                Verdict::Idle
            } else {
                // Not only then: a stream may come, and stall.
                Verdict::LookAgain(end.min(now + self.progress))
            };
        }
        for (progress, seen) in open.streams.values_mut() {
            let steps = progress.steps.load(Ordering::Relaxed);
            let waits = progress.waits_for_device.load(Ordering::Relaxed);
            if !waits || steps != seen.steps {
                *seen = Seen { at: now, steps };
            } else if now.duration_since(seen.at) >= self.progress {
                progress.give_up();
            }
        }
        Verdict::LookAgain(now + self.progress.min(self.idle) / 2)
    }

    /// The device had more streams reset than a good one ever has. Wakes the caller when it has.
    pub(super) fn is_over_budget(&self, context: &Context<'_>) -> bool {
        self.driver.register(context.waker());
        self.resets.load(Ordering::Acquire) > self.max_resets
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing that holds the lock can leave the list half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_reset(&self) {
        if self.resets.fetch_add(1, Ordering::AcqRel) >= self.max_resets {
            self.driver.wake();
        }
    }

    fn count_good_end(&self) {
        // What is lost in a race of two is one credit.
        let resets = self.resets.load(Ordering::Relaxed);
        if let Some(less) = resets.checked_sub(1) {
            self.resets.store(less, Ordering::Relaxed);
        }
    }
}

/// Whether one stream gets on, and who waits for whom.
#[derive(Debug)]
pub(super) struct Progress {
    steps: AtomicU64,
    waits_for_device: AtomicBool,
    stalled: AtomicBool,
    task: AtomicWaker,
    /// The task that sends for this stream since it was taken over.
    sender: OnceLock<Arc<Self>>,
    cut: AtomicBool,
    streams: Arc<Streams>,
}

impl Progress {
    /// A piece of the answer went to hyper: now the device must make room for it.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.waits_for_device.store(true, Ordering::Relaxed);
    }

    /// The backend is asked for more, so the device has taken what there was.
    pub(super) fn taken(&self) {
        self.waits_for_device.store(false, Ordering::Relaxed);
    }

    /// Ends its task; dropping that resets the stream.
    fn give_up(&self) {
        self.stalled.store(true, Ordering::Release);
        self.task.wake();
    }

    /// `task` sends for this stream from now on.
    fn taken_over_by(&self, task: &Arc<Self>) {
        let first = self.sender.set(Arc::clone(task)).is_ok();
        if first && self.cut.load(Ordering::SeqCst) {
            task.give_up();
        }
    }

    /// Counts as a reset unless it is finished.
    pub(super) fn unfinished(self: &Arc<Self>) -> Unfinished {
        Unfinished(Some(Arc::clone(self)))
    }
}

/// Resets a stream that was taken over. Hyper alone can only end it in good order, and the device
/// would take a part for the whole.
#[derive(Debug)]
pub struct Cut(pub(super) Arc<Progress>);

impl Cut {
    /// To be called before the stream is dropped.
    pub(crate) fn cut(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        if let Some(sender) = self.0.sender.get() {
            sender.give_up();
        }
    }
}

/// Something that the device has asked for and may give up.
#[derive(Debug)]
pub(super) struct Unfinished(Option<Arc<Progress>>);

impl Unfinished {
    /// The gateway did its part.
    pub(super) fn finish(mut self) {
        self.0 = None;
    }

    /// The answer is complete: makes good for a reset.
    pub(super) fn complete(&mut self) {
        if let Some(progress) = self.0.take() {
            progress.streams.count_good_end();
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(progress) = self.0.take() {
            progress.streams.count_reset();
        }
    }
}

/// One stream among the open ones, for as long as this lives.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    progress: Arc<Progress>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let streams = &self.progress.streams;
        let mut open = streams.lock();
        open.streams.remove(&self.number);
        if open.streams.is_empty() {
            open.idle = (Instant::now(), streams.idle);
        }
    }
}

/// Runs hyper's tasks in the gateway's [`Tasks`], and ends those that stall.
#[derive(Clone, Debug)]
pub(super) struct Executor {
    tasks: Tasks,
    streams: Arc<Streams>,
}

impl Executor {
    pub(super) fn new(tasks: Tasks, streams: Arc<Streams>) -> Self {
        Self { tasks, streams }
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let entry = self.streams.enter();
        let progress = Arc::clone(&entry.progress);
        // A task that a stream's task starts is the one that sends for it after a takeover.
        let _outside = CURRENT.try_with(|stream| stream.taken_over_by(&progress));
        let future = Box::pin(CURRENT.scope(Arc::clone(&progress), future));
        // The tracker waits for the task, nobody needs its handle.
        drop(self.tasks.spawn(Watched {
            future,
            progress,
            _entry: entry,
        }));
    }
}

/// A task of hyper that ends when its stream stalls. Dropping it resets the stream.
struct Watched<F> {
    future: Pin<Box<TaskLocalFuture<Arc<Progress>, F>>>,
    progress: Arc<Progress>,
    _entry: Entry,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.progress.task.register(context.waker());
        if self.progress.stalled.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.future.as_mut().poll(context)
    }
}

tokio::task_local! {
    /// The stream that a task works for.
    static CURRENT: Arc<Progress>;
}
