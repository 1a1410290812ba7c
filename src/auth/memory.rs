//! Memory: a bounded map from keyed hashes to values that expire.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// What is kept in place of a credential: a hash under a key of this process.
pub(crate) type Hash = [u8; 32];

/// Values known by a hash until a time each, at most `capacity` of them.
///
/// All values of one memory live equally long, so the oldest are also the first to expire.
pub(crate) struct Memory<V> {
    capacity: usize,
    inner: Mutex<Inner<V>>,
}

struct Inner<V> {
    values: HashMap<Hash, (V, Instant)>,
    /// In the order of insertion. An entry whose time differs from the map's is a stale one.
    order: VecDeque<(Hash, Instant)>,
}

impl<V> Memory<V> {
    /// Nothing yet.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inner: Mutex::new(Inner {
                values: HashMap::new(),
                order: VecDeque::new(),
            }),
        }
    }

    /// Keeps a value until `until`; the oldest go when there is no room.
    pub(crate) fn insert(&self, hash: Hash, value: V, until: Instant, now: Instant) {
        let mut inner = self.lock();
        inner.values.insert(hash, (value, until));
        inner.order.push_back((hash, until));
        inner.trim(self.capacity, now);
    }

    /// Takes a value: the next one who asks finds nothing.
    pub(crate) fn take(&self, hash: &Hash, now: Instant) -> Option<V> {
        let (value, until) = self.lock().values.remove(hash)?;
        (now < until).then_some(value)
    }

    /// Forgets every value that `keep` does not want.
    pub(crate) fn retain(&self, now: Instant, mut keep: impl FnMut(&V) -> bool) {
        let mut inner = self.lock();
        inner
            .values
            .retain(|_hash, (value, until)| now < *until && keep(value));
        inner.trim(self.capacity, now);
    }

    /// How many there are, expired ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().values.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Clone> Memory<V> {
    /// The value, if its time is not over.
    pub(crate) fn find(&self, hash: &Hash, now: Instant) -> Option<V> {
        let inner = self.lock();
        let (value, until) = inner.values.get(hash)?;
        (now < *until).then(|| value.clone())
    }
}

impl<V> Inner<V> {
    /// Drops from the front what is expired, replaced, taken, or too much. Each insertion adds
    /// one place to `order`, so what a call has to drop is paid for by earlier insertions.
    fn trim(&mut self, capacity: usize, now: Instant) {
        while let Some((hash, until)) = self.order.front() {
            let current = self.values.get(hash).is_some_and(|(_, kept)| kept == until);
            if current && now < *until && self.values.len() <= capacity {
                // Values that were taken leave holes in the middle; they must not add up.
                if self.order.len() > capacity.saturating_mul(2) {
                    let values = &self.values;
                    self.order.retain(|(hash, until)| {
                        values.get(hash).is_some_and(|(_, kept)| kept == until)
                    });
                }
                return;
            }
            if current {
                self.values.remove(hash);
            }
            self.order.pop_front();
        }
    }
}

impl<V> fmt::Debug for Memory<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_value_is_found_until_its_time_is_over() {
        let memory = Memory::new(2);
        let now = clock::now();
        memory.insert([1; 32], "a", now + MINUTE, now);

        assert_eq!(memory.find(&[1; 32], now), Some("a"));
        assert_eq!(memory.find(&[1; 32], now + MINUTE), None);
    }

    #[test]
    fn a_value_can_be_taken_once() {
        let memory = Memory::new(2);
        let now = clock::now();
        memory.insert([1; 32], "a", now + MINUTE, now);

        assert_eq!(memory.take(&[1; 32], now), Some("a"));
        assert_eq!(memory.take(&[1; 32], now), None);
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let memory = Memory::new(2);
        let now = clock::now();
        for key in 1..=3 {
            memory.insert([key; 32], key, now + MINUTE, now);
        }

        assert_eq!(memory.find(&[1; 32], now), None);
        assert_eq!(memory.find(&[2; 32], now), Some(2));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn a_flood_of_values_stays_within_the_capacity() {
        let memory = Memory::new(10);
        let now = clock::now();
        memory.insert([255; 32], 0, now + MINUTE, now);
        for number in 0..10_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            memory.insert(key, number, now + MINUTE, now);
            memory.take(&key, now);
        }

        assert!(memory.len() <= 10);
        assert!(memory.lock().order.len() <= 21);
    }

    #[test]
    fn what_is_expired_leaves_at_the_next_insertion() {
        let memory = Memory::new(10);
        let now = clock::now();
        memory.insert([1; 32], 1, now + MINUTE, now);
        memory.insert([2; 32], 2, now + MINUTE * 3, now + MINUTE * 2);

        assert_eq!(memory.len(), 1);
    }
}
