//! Remembers decisions of one set of policies, within a bound.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
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

    /// What a decision about this is known by.
    pub(super) fn key(&self, subject: &Subject, source: Option<IpAddr>, resource: Resource) -> Key {
        let about = About {
            session: Arc::clone(&subject.session),
            source,
            resource,
        };
        Key {
            hash: self.hasher.hash_one(&about),
            about,
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
        // Of bits that the maps do not look at first.
        let index = usize::from(key.hash.to_le_bytes()[4]) % SHARDS;
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

/// What a decision is known by: hashed once, however many maps are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    hash: u64,
    about: About,
}

impl Key {
    pub(super) fn resource(&self) -> &Resource {
        &self.about.resource
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Everything that one decision depends on. A set of policies has a cache of its own, so the
/// policies themselves need not be here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct About {
    session: Arc<str>,
    /// Only when a policy reads it.
    source: Option<IpAddr>,
    resource: Resource,
}

/// Takes the hash that a key has already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Keys write one number; anything else would only be slow here.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Map = HashMap<Key, Verdict, BuildHasherDefault<Hashed>>;

/// Two halves: when the young one is full it becomes the old one, and what the old one held and
/// nobody asked for again is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: Map,
    old: Map,
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

    fn key_of(cache: &Cache, session: &str, source: Option<IpAddr>) -> Key {
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
        cache.key(&subject, source, Resource::Target(target, None))
    }

    fn denied() -> Verdict {
        Verdict::Denied(Denied::by_default())
    }

    #[test]
    fn a_decision_is_found_again_under_its_own_key_only() {
        let cache = Cache::new(64);
        let key = |session: &str, source| key_of(&cache, session, source);
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
            cache.put(key_of(&cache, &format!("S-{number}"), None), denied());
        }
        assert!(cache.len() <= 64);
        assert!(cache.len() >= 16);
    }

    #[test]
    fn what_is_asked_for_stays_and_what_is_not_goes() {
        let (cache, mut shard) = (Cache::new(64), Shard::default());
        let key = |session: &str, source| key_of(&cache, session, source);
        shard.put(key("kept", None), denied(), 4);
        for number in 0..100 {
            shard.put(key(&format!("S-{number}"), None), denied(), 4);
            assert!(shard.get(&key("kept", None), 4).is_some());
        }
        assert!(shard.get(&key("S-0", None), 4).is_none());
    }
}
