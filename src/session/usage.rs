//! Usage: what one session has open, over all its connections.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::config;

/// Counters of one session, over all its connections. Cheap to clone: clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    tunnels: AtomicUsize,
    busy: AtomicUsize,
    /// Tunnels that may be opened now, and when that was true.
    bucket: Mutex<Option<(f64, Instant)>>,
}

impl Usage {
    /// Takes a place for one more tunnel, given back when the guard drops.
    ///
    /// # Errors
    ///
    /// The limit that is reached. A refusal for too many at once takes nothing from the rate.
    pub fn open_tunnel(&self, limits: &config::Tunnel, now: Instant) -> Result<OpenTunnel, Limit> {
        let place = take(&self.0.tunnels, limits.max_per_session)
            .then(|| OpenTunnel(Arc::clone(&self.0)))
            .ok_or(Limit::Tunnels(limits.max_per_session))?;
        if self.spend(limits.opens_per_second, now) {
            Ok(place)
        } else {
            Err(Limit::Opens(limits.opens_per_second))
        }
    }

    /// Marks the session as busy, so that it is not idle, until the guard drops: hold it for as
    /// long as a request, WebSocket or relay lasts.
    pub fn begin(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.0))
    }

    /// Whether anything runs.
    pub fn is_busy(&self) -> bool {
        self.tunnels() > 0 || self.0.busy.load(Ordering::Relaxed) > 0
    }

    /// Tunnels open now.
    pub fn tunnels(&self) -> usize {
        self.0.tunnels.load(Ordering::Relaxed)
    }

    /// A token bucket: `rate` a second sustained, twice that as a burst.
    fn spend(&self, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let burst = rate * 2.0;
        let mut bucket = self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = bucket.unwrap_or((burst, now));
        let gained = now.saturating_duration_since(since).as_secs_f64() * rate;
        let left = (left + gained).min(burst);
        let spend = left >= 1.0;
        *bucket = Some((if spend { left - 1.0 } else { left }, now.max(since)));
        spend
    }
}

fn take(counter: &AtomicUsize, limit: usize) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(1).filter(|sum| *sum <= limit)
        })
        .is_ok()
}

/// The place of one tunnel, for as long as it is open.
#[derive(Debug)]
pub struct OpenTunnel(Arc<Counters>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something that runs under a session.
#[derive(Debug)]
pub struct Busy(Arc<Counters>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A limit of a session that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Tunnels opened a second.
    #[error("the session opens more than {0} tunnels a second")]
    Opens(u32),
    /// Tunnels at once.
    #[error("the session has {0} tunnels open already")]
    Tunnels(usize),
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::clock;

    fn limits(max_per_session: usize, opens_per_second: u32) -> config::Tunnel {
        config::Tunnel {
            idle: Duration::from_secs(60),
            half_closed: Duration::from_secs(60),
            absolute: Duration::from_secs(60),
            idle_by_port: BTreeMap::new(),
            max_per_session,
            opens_per_second,
            block: 65536,
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_place_is_given_back_when_the_tunnel_ends() {
        let usage = Usage::default();
        let now = clock::now();
        let first = usage.open_tunnel(&limits(1, 100), now).unwrap();

        let second = usage.clone().open_tunnel(&limits(1, 100), now);
        assert_eq!(second.err(), Some(Limit::Tunnels(1)));
        drop(first);
        usage.open_tunnel(&limits(1, 100), now).unwrap();
        assert_eq!(usage.tunnels(), 0);
    }

    #[test]
    fn tunnels_may_be_opened_in_a_burst_and_then_at_the_rate() {
        let usage = Usage::default();
        let now = clock::now();
        let open = |now| usage.open_tunnel(&limits(100, 5), now).is_ok();

        assert_eq!((0..20).filter(|_| open(now)).count(), 10);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| open(later)).count(), 5);
        let much_later = now + Duration::from_secs(1000);
        assert_eq!((0..20).filter(|_| open(much_later)).count(), 10);
    }
}
