//! Which device stays on which node: learned from the cookie that the nodes set.
//!
//! A value is known by its hash alone, as some backends let the cookie be a session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{
    HeaderMap,
    header::{COOKIE, SET_COOKIE},
};

use crate::crypto;

/// Cookie values and their nodes.
#[derive(Debug)]
pub(super) struct Memory {
    cookie: Arc<str>,
    idle: Duration,
    values: Mutex<Values>,
}

/// Two generations: values in use move to the young one, and when that is full the old one goes.
#[derive(Debug, Default)]
struct Values {
    young: HashMap<[u8; 32], Stay>,
    old: HashMap<[u8; 32], Stay>,
}

#[derive(Clone, Copy, Debug)]
struct Stay {
    node: usize,
    seen: Instant,
}

impl Memory {
    pub(super) fn new(cookie: Arc<str>, idle: Duration) -> Self {
        Self {
            cookie,
            idle,
            values: Mutex::default(),
        }
    }

    /// The node of a request's cookie. Of several with the name the first counts: browsers send
    /// the one with the longest path first (RFC 6265, section 5.4).
    pub(super) fn node(&self, request: &HeaderMap, now: Instant) -> Option<usize> {
        let value = request
            .get_all(COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .find_map(|pair| self.value(pair))?;
        let key = crypto::sha256(value.as_bytes());
        let mut values = self.values();
        let stay = values.young.get(&key).or_else(|| values.old.get(&key))?;
        let node = stay.node;
        if now.saturating_duration_since(stay.seen) > self.idle {
            values.young.remove(&key);
            values.old.remove(&key);
            return None;
        }
        values.put(key, Stay { node, seen: now });
        Some(node)
    }

    /// Learns from a node's answer. The node that set a value last has it.
    pub(super) fn learn(&self, answer: &HeaderMap, node: usize, now: Instant) {
        for cookie in answer.get_all(SET_COOKIE) {
            let pair = cookie.to_str().ok().and_then(|text| text.split(';').next());
            if let Some(value) = pair.and_then(|pair| self.value(pair)) {
                let key = crypto::sha256(value.as_bytes());
                self.values().put(key, Stay { node, seen: now });
            }
        }
    }

    /// The value in `name=value`, when the name is ours and the value is not empty.
    fn value<'a>(&self, pair: &'a str) -> Option<&'a str> {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        (name.trim() == &*self.cookie && !value.is_empty()).then_some(value)
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Values {
    fn put(&mut self, key: [u8; 32], stay: Stay) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, stay);
    }
}

/// Values in one generation; two of them take about 15 MiB.
const GENERATION: usize = 100_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_was_learned_is_found_and_nothing_panics(
            text in "[ -~]{0,40}",
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (memory, now) = (memory(), crate::clock::now());
            let value = |text: &[u8]| http::HeaderValue::from_bytes(text).ok();
            let mut answer = HeaderMap::new();
            for text in [format!("ACNODEID={text}").as_bytes(), &bytes] {
                if let Some(value) = value(text) {
                    answer.append(SET_COOKIE, value);
                }
            }
            memory.learn(&answer, 7, now);
            let mut request = HeaderMap::new();
            for text in [&bytes[..], format!("ACNODEID={text}").as_bytes()] {
                if let Some(value) = value(text) {
                    request.append(COOKIE, value);
                }
            }
            let known = text.split(';').next().is_some_and(|value| !value.trim().is_empty());
            prop_assert_eq!(memory.node(&request, now), known.then_some(7));
        }
    }

    fn memory() -> Memory {
        Memory::new("ACNODEID".into(), Duration::from_secs(60))
    }

    fn headers(name: http::HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_value_leads_to_the_node_that_set_it() {
        let (memory, now) = (memory(), crate::clock::now());
        let answer = headers(SET_COOKIE, &["a=b", "ACNODEID=n1; Path=/; Secure"]);
        memory.learn(&answer, 1, now);
        for (cookies, node) in [
            (&["ACNODEID=n1"][..], Some(1)),
            (&["x=y; ACNODEID=n1;z=w"], Some(1)),
            (&["x=y", "ACNODEID=n1"], Some(1)),
            (&["ACNODEID=n1; ACNODEID=n2"], Some(1)),
            (&["ACNODEID=n2; ACNODEID=n1"], None),
            (&["acnodeid=n1"], None),
            (&["XACNODEID=n1"], None),
            (&["ACNODEID="], None),
            (&["ACNODEID"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(
                memory.node(&headers(COOKIE, cookies), now),
                node,
                "{cookies:?}"
            );
        }
    }

    #[test]
    fn the_node_that_set_a_value_last_has_it() {
        let (memory, now) = (memory(), crate::clock::now());
        memory.learn(&headers(SET_COOKIE, &["ACNODEID=v"]), 0, now);
        memory.learn(&headers(SET_COOKIE, &["ACNODEID=v"]), 1, now);
        assert_eq!(memory.node(&headers(COOKIE, &["ACNODEID=v"]), now), Some(1));
    }

    #[test]
    fn a_value_is_forgotten_when_idle_and_kept_while_used() {
        let (memory, start) = (memory(), crate::clock::now());
        memory.learn(&headers(SET_COOKIE, &["ACNODEID=v"]), 0, start);
        let cookie = headers(COOKIE, &["ACNODEID=v"]);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(memory.node(&cookie, at(50)), Some(0));
        assert_eq!(memory.node(&cookie, at(100)), Some(0));
        assert_eq!(memory.node(&cookie, at(161)), None);
        assert_eq!(memory.node(&cookie, at(100)), None);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_in_use() {
        let now = crate::clock::now();
        let mut values = Values::default();
        let key = |n: usize| crypto::sha256(&n.to_be_bytes());
        for n in 0..=GENERATION * 3 {
            values.put(key(n), Stay { node: n, seen: now });
            values.put(key(0), Stay { node: 0, seen: now });
        }
        assert!(values.young.len() <= GENERATION && values.old.len() <= GENERATION);
        assert!(values.young.contains_key(&key(0)) || values.old.contains_key(&key(0)));
    }
}
