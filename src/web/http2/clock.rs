//! Clock: when a connection has to be looked at although nothing happens on it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Limits;

/// How long a connection has been without a stream, and when its device was heard last.
#[derive(Debug)]
pub(super) struct Clock {
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to. It is not set again for each stream, only when it fired too early
    /// or must fire sooner.
    armed: Instant,
    /// Without a stream since then, and for at most so long.
    quiet: Instant,
    patience: Duration,
    idle: Duration,
    /// When a connection with streams is asked whether anybody is there.
    heartbeat: Instant,
    /// Bytes heard by the last heartbeat.
    heard: u64,
    asked: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It had no stream for too long.
    Idle,
    /// It has streams, and it is time for [`Clock::heartbeat`].
    Heartbeat,
}

/// Whether anybody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heartbeat {
    /// Ask with a PING.
    Ask,
    /// The device was asked and said nothing at all.
    Dead,
    /// There was something since the last time.
    Heard,
}

impl Clock {
    /// For a connection that begins now. Its first request is due as soon as in HTTP/1.1.
    pub(super) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        let armed = now + limits.head;
        Self {
            timer: Box::pin(sleep_until(armed)),
            armed,
            quiet: now,
            patience: limits.head,
            idle: limits.idle,
            heartbeat: now + limits.idle.max(PING_INTERVAL),
            heard: 0,
            asked: false,
        }
    }

    /// The last stream has ended.
    pub(super) fn quiet(&mut self, closing: bool) {
        self.quiet = Instant::now();
        self.patience = if closing { GOOD_BYE } else { self.idle };
    }

    /// Ready when something is due on a connection that has streams, or has none.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, busy: bool) -> Poll<Due> {
        loop {
            let due = if busy {
                self.heartbeat
            } else {
                self.quiet + self.patience
            };
            if due < self.armed {
                self.arm(due);
            }
            ready!(self.timer.as_mut().poll(context));
            if due <= Instant::now() {
                return Poll::Ready(if busy { Due::Heartbeat } else { Due::Idle });
            }
            self.arm(due);
        }
    }

    /// `received`: bytes that came from the device so far.
    pub(super) fn heartbeat(&mut self, received: u64) -> Heartbeat {
        let heard = received != self.heard;
        self.heard = received;
        let (next, beat) = match (heard, self.asked) {
            (false, true) => (PING_TIMEOUT, Heartbeat::Dead),
            (false, false) => (PING_TIMEOUT, Heartbeat::Ask),
            (true, _) => (self.idle.max(PING_INTERVAL), Heartbeat::Heard),
        };
        self.asked = beat == Heartbeat::Ask;
        self.heartbeat = Instant::now() + next;
        beat
    }

    fn arm(&mut self, due: Instant) {
        self.armed = due;
        self.timer.as_mut().reset(due);
    }
}

const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// From a GOAWAY to the end, when nothing is in hand.
pub(super) const GOOD_BYE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::web::testing::limits;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_its_last_stream_on() {
        let limits = Limits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            ..limits()
        };
        let mut clock = Clock::new(&limits);
        let start = Instant::now();

        tokio::time::sleep(Duration::from_secs(5)).await;
        clock.quiet(false);

        assert_eq!(poll_fn(|c| clock.poll(c, false)).await, Due::Idle);
        assert_eq!(start.elapsed().as_secs(), 65);
        clock.quiet(true);
        assert_eq!(poll_fn(|c| clock.poll(c, false)).await, Due::Idle);
        assert_eq!(start.elapsed().as_secs(), 68);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_says_nothing_is_asked_once_and_then_dead() {
        let limits = Limits {
            idle: Duration::from_secs(60),
            ..limits()
        };
        let mut clock = Clock::new(&limits);
        let start = Instant::now();
        let mut beats = Vec::new();

        for received in [7, 7, 8, 8, 8] {
            assert_eq!(poll_fn(|c| clock.poll(c, true)).await, Due::Heartbeat);
            beats.push((start.elapsed().as_secs(), clock.heartbeat(received)));
        }

        assert_eq!(
            beats,
            [
                (60, Heartbeat::Heard),
                (120, Heartbeat::Ask),
                (140, Heartbeat::Heard),
                (200, Heartbeat::Ask),
                (220, Heartbeat::Dead),
            ]
        );
    }
}
