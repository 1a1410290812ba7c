//! Remembers decisions of one set of policies, within a bound.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    question::{Resource, Subject},
    set::Verdict,
};

/// Decisions by everything they depend on.
#[derive(Debug)]
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Entries of one half of one shard.
    half: usize,
}

impl Cache {
    /// Room for about `entries`.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            half: (entries / SHARDS / 2).max(1),
        }
    }

    /// What was decided, if that is still remembered.
    pub(super) fn get(&self, key: &Key) -> Option<Verdict> {
        self.shard(key).get(key, self.half)
    }

    /// Remembers a decision.
    pub(super) fn put(&self, key: Key, verdict: Verdict) {
        self.shard(&key).put(key, verdict, self.half);
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder by the number of shards is below it"
    )]
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        let index = usize::from(hash.to_le_bytes()[7]) % SHARDS;
        // A shard is whole after every step: a panic elsewhere leaves nothing half done.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let lengths = self.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        });
        lengths.sum()
    }
}

/// Everything that one decision depends on. A set of policies has a cache of its own, so the
/// policies themselves need not be here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    session: Arc<str>,
    /// Only when a policy reads it.
    source: Option<IpAddr>,
    pub(super) resource: Resource,
}

impl Key {
    pub(super) fn new(subject: &Subject, source: Option<IpAddr>, resource: Resource) -> Self {
        Self {
            session: Arc::clone(&subject.session),
            source,
            resource,
        }
    }
}

/// Two halves: when the young one is full it becomes the old one, and what the old one held and
/// nobody asked for again is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Key, Verdict>,
    old: HashMap<Key, Verdict>,
}

impl Shard {
    fn get(&mut self, key: &Key, half: usize) -> Option<Verdict> {
        if let Some(verdict) = self.young.get(key) {
            return Some(verdict.clone());
        }
        let (key, verdict) = self.old.remove_entry(key)?;
        self.put(key, verdict.clone(), half);
        Some(verdict)
    }

    fn put(&mut self, key: Key, verdict: Verdict, half: usize) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, verdict);
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Identity, policy::Denied};

    fn key(session: &str, source: Option<IpAddr>) -> Key {
        let subject = Subject {
            session: session.into(),
            identity: Identity {
                user: "alice".into(),
                directory: "corp".into(),
                groups: Arc::from([]),
            },
            source: "192.0.2.1".parse().unwrap(),
        };
        let target = crate::permit::Target::parse("intranet.corp.test:443").unwrap();
        Key::new(&subject, source, Resource::Target(target, None))
    }

    fn denied() -> Verdict {
        Verdict::Denied(Denied::by_default())
    }

    #[test]
    fn a_decision_is_found_again_under_its_own_key_only() {
        let cache = Cache::new(64);
        cache.put(key("S-1", None), denied());

        assert!(cache.get(&key("S-1", None)).is_some());
        assert!(cache.get(&key("S-2", None)).is_none());
        assert!(
            cache
                .get(&key("S-1", Some("192.0.2.1".parse().unwrap())))
                .is_none()
        );
    }

    #[test]
    fn it_never_holds_more_than_it_has_room_for() {
        let cache = Cache::new(64);
        for number in 0..10_000 {
            cache.put(key(&format!("S-{number}"), None), denied());
        }
        assert!(cache.len() <= 64);
        assert!(cache.len() >= 16);
    }

    #[test]
    fn what_is_asked_for_stays_and_what_is_not_goes() {
        let mut shard = Shard::default();
        shard.put(key("kept", None), denied(), 4);
        for number in 0..100 {
            shard.put(key(&format!("S-{number}"), None), denied(), 4);
            assert!(shard.get(&key("kept", None), 4).is_some());
        }
        assert!(shard.get(&key("S-0", None), 4).is_none());
    }
}
