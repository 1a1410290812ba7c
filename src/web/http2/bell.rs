//! Bell: what wakes a connection's task, and does not while that task is at work.
//!
//! The streams of a connection, its timer and h2 wake each other all the time, mostly from within
//! one poll. Then nobody has to go through the runtime: the task looks again before it rests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// A waker for everything that a connection's task polls.
#[derive(Debug)]
pub(super) struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Bell {
    /// For a task that has yet to be polled.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(RESTING),
            task: AtomicWaker::new(),
        })
    }

    /// From here on the task looks at everything; `task` is to be woken when it rests.
    pub(super) fn work(&self, task: &Waker) {
        self.task.register(task);
        self.state.store(WORKING, Ordering::SeqCst);
    }

    /// Whether the bell rang since [`Bell::work`] or the last call of this.
    pub(super) fn rang(&self) -> bool {
        self.state.swap(WORKING, Ordering::SeqCst) == RUNG
    }

    /// Lets the task rest unless the bell rang: then it has to look again, which is `false`.
    pub(super) fn rest(&self) -> bool {
        let rest =
            self.state
                .compare_exchange(WORKING, RESTING, Ordering::SeqCst, Ordering::SeqCst);
        rest.is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::SeqCst) == RESTING {
            self.task.wake();
        }
    }
}

const RESTING: u8 = 0;
const WORKING: u8 = 1;
const RUNG: u8 = 2;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_wakes_a_resting_task_once_and_a_working_one_never() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::SeqCst);
        let bell = Bell::new();
        let waker = Waker::from(Arc::clone(&bell));

        bell.work(&task);
        waker.wake_by_ref();
        assert!(!bell.rest());
        assert_eq!(woken(), 0);
        assert!(bell.rang());
        assert!(!bell.rang());
        assert!(bell.rest());
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(woken(), 1);
        bell.work(&task);
        assert!(bell.rest());
    }
}
