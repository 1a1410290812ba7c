//! Tasks: every spawned task, so that a drain waits for it, and its deadline ends it.

use std::{
    any::Any,
    future::{Future, poll_fn},
    ops::Deref,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

/// The tasks of one gateway, and the two signals that end them.
///
/// A drain first asks ([`Tasks::draining`]): accept nothing new, finish what is in hand. At its
/// deadline every task spawned here is dropped.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// What a drain does not wait for.
    watchers: TaskTracker,
    draining: CancellationToken,
    ending: CancellationToken,
    /// The same two signals, for those who ask at every step: a token takes a lock, and all
    /// connections share it.
    given: Arc<Given>,
    panics: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Given {
    draining: AtomicBool,
    ending: AtomicBool,
}

impl Tasks {
    /// No tasks, no signal given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future to its end, or to the deadline of a drain. A panic in it is logged and
    /// counted, and ends nothing else.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(self.guarded(future))
    }

    /// Runs what operators watch a drain with: a drain does not wait for it, and ends it after
    /// everything else.
    pub fn spawn_watcher<F>(&self, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.watchers.spawn(self.guarded(future))
    }

    fn guarded<F>(&self, future: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ending, given) = (self.ending.clone(), Arc::clone(&self.given));
        // In a box: an async block would keep room for it twice, and moving it copies all of it.
        let mut work = Box::pin(caught(Arc::clone(&self.panics), future));
        async move {
            let mut ended = pin!(ending.cancelled());
            let mut ending = Heard::new(&given.ending, ended.as_mut());
            poll_fn(|context| {
                if work.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                ending.poll(context)
            })
            .await;
        }
    }

    /// Runs a part of a task, such as one request of many. A panic in it is logged and counted as a
    /// task's, ends only this part, and gives `None`.
    pub fn caught<F: Future>(&self, future: F) -> impl Future<Output = Option<F::Output>> {
        caught(&*self.panics, future)
    }

    /// Runs work that blocks (password hashing, files) away from the runtime's workers.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// Tasks that run now.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Tasks that panicked since the start: bugs of ours.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Gives the first of the two signals.
    pub(crate) fn begin_drain(&self) {
        // In this order: whoever is woken by the token finds the other set.
        self.given.draining.store(true, Ordering::Release);
        self.draining.cancel();
    }

    /// A drain has begun.
    pub fn is_draining(&self) -> bool {
        self.given.draining.load(Ordering::Acquire)
    }

    /// Listens for the beginning of a drain; `fired` is that of [`Tasks::draining`].
    pub(crate) fn hear_draining<'a, F>(&'a self, fired: Pin<&'a mut F>) -> Heard<'a, F>
    where
        F: Future<Output = ()>,
    {
        Heard::new(&self.given.draining, fired)
    }

    /// Fires when a drain begins: accept nothing new.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// The deadline of a drain is over: stop now.
    pub fn is_ending(&self) -> bool {
        self.given.ending.load(Ordering::Acquire)
    }

    /// Begins a drain, waits for all tasks at most `limit`, then ends the rest.
    ///
    /// `true` when every task had ended by itself.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.begin_drain();
        self.tracker.close();
        let complete = timeout(limit, self.tracker.wait()).await.is_ok();
        self.given.ending.store(true, Ordering::Release);
        self.ending.cancel();
        self.watchers.close();
        // Cancelled tasks need a moment to run their destructors.
        let all = async {
            self.tracker.wait().await;
            self.watchers.wait().await;
        };
        let _late = timeout(DROP_LIMIT, all).await;
        complete
    }

    /// Sleeps, or returns `false` at once when a drain begins.
    pub async fn pause(&self, time: Duration) -> bool {
        self.draining
            .run_until_cancelled(sleep(time))
            .await
            .is_some()
    }
}

/// A signal that one task waits for beside its work, polled at each of its steps.
///
/// Polling a token takes locks that all its listeners share; here that is done once for each waker,
/// which in a task is once.
#[derive(Debug)]
pub(crate) struct Heard<'a, F> {
    given: &'a AtomicBool,
    fired: Pin<&'a mut F>,
    /// Will be woken when it fires.
    waker: Option<Waker>,
}

impl<'a, F: Future<Output = ()>> Heard<'a, F> {
    /// `given` is set before `fired` is ready.
    fn new(given: &'a AtomicBool, fired: Pin<&'a mut F>) -> Self {
        Self {
            given,
            fired,
            waker: None,
        }
    }

    /// Ready once the signal was given; else the task is woken when it is.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.given.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let known = self.waker.as_ref();
        if known.is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.waker = Some(context.waker().clone());
        self.fired.as_mut().poll(context)
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        // The handle is not needed: the tracker waits for the task.
        drop(self.spawn(future));
    }
}

fn caught<F: Future>(
    panics: impl Deref<Target = AtomicU64>,
    future: F,
) -> impl Future<Output = Option<F::Output>> {
    AssertUnwindSafe(future).catch_unwind().map(move |caught| {
        caught
            .inspect_err(|panic| {
                panics.fetch_add(1, Ordering::Relaxed);
                error!(message = panic_message(&**panic), "a task panicked");
            })
            .ok()
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

const DROP_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_own_task_and_is_counted() {
        let tasks = Tasks::new();
        let (go, wait) = tokio::sync::oneshot::channel();
        let other = tasks.spawn(async move { wait.await.unwrap() });
        let bug = tasks.spawn(async { panic!("a bug of ours") });

        bug.await.unwrap();
        assert_eq!(tasks.panics(), 1);
        assert!(!other.is_finished());
        go.send(()).unwrap();
        other.await.unwrap();
        assert_eq!(tasks.panics(), 1);
        assert!(tasks.drain(DROP_LIMIT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_cuts_what_is_not_done_by_its_deadline() {
        let tasks = Tasks::new();
        let late = tasks.spawn(pending());

        assert!(!tasks.drain(Duration::from_secs(5)).await);

        late.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_are_there_to_the_end_of_a_drain_and_do_not_hold_it() {
        let tasks = Tasks::new();
        let watcher = tasks.spawn_watcher(pending());
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        drop(tasks.spawn(async move { wait.await.unwrap() }));
        let drain = tasks.drain(Duration::from_secs(3600));
        let story = async {
            tasks.draining().cancelled().await;
            assert!(!watcher.is_finished());
            go.send(()).unwrap();
        };

        let (complete, ()) = tokio::join!(drain, story);

        assert!(complete);
        watcher.await.unwrap();
    }
}
