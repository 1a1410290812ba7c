//! Device tokens: opaque, known by their hash alone, for clients that can renew nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Session;
use crate::{
    auth::{Hash, Identity},
    config::Secret,
    crypto::{self, KeyedHash},
};

/// All device tokens in force.
#[derive(Debug)]
pub(super) struct Devices {
    hash: KeyedHash,
    tokens: Mutex<HashMap<Hash, Device>>,
}

#[derive(Debug)]
struct Device {
    facts: Arc<DeviceToken>,
    session: Option<Arc<Session>>,
}

/// What is known about a device token; not the token.
#[derive(Debug)]
pub struct DeviceToken {
    /// Its public id, to revoke it by (`D-` and base-32 characters).
    pub id: Arc<str>,
    /// For whom it acts.
    pub identity: Identity,
    /// What its owner calls it: a device or an app group.
    pub label: Arc<str>,
    /// When it was made.
    pub made: Instant,
    /// When it ends.
    pub until: Instant,
}

impl Devices {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            hash: KeyedHash::new(key),
            tokens: Mutex::default(),
        }
    }

    /// Makes a token; the oldest of that person's ends when there are `max` already.
    pub(super) fn issue(
        &self,
        identity: Identity,
        label: &str,
        life: Duration,
        max: usize,
        now: Instant,
    ) -> (Secret, Arc<DeviceToken>, Option<Arc<Session>>) {
        let random: [u8; 32] = crypto::random();
        let mut text = String::from(PREFIX);
        data_encoding::BASE64URL_NOPAD.encode_append(&random, &mut text);
        let facts = Arc::new(DeviceToken {
            id: super::public_id("D-"),
            identity,
            label: label.into(),
            made: now,
            until: now.checked_add(life).unwrap_or(now),
        });
        let hash = self.hash.of(&[text.as_bytes()]);
        let mut tokens = self.lock();
        let mine: Vec<(Hash, Instant)> = tokens
            .iter()
            .filter(|(_, device)| device.facts.is_of(&facts.identity))
            .map(|(hash, device)| (*hash, device.facts.made))
            .collect();
        let oldest = mine.iter().min_by_key(|(_, made)| *made);
        let evicted = oldest
            .filter(|_| mine.len() >= max)
            .and_then(|(hash, _)| tokens.remove(hash))
            .and_then(|device| device.session);
        let device = Device {
            facts: Arc::clone(&facts),
            session: None,
        };
        tokens.insert(hash, device);
        (Secret::new(text.into_bytes()), facts, evicted)
    }

    /// The live session behind a token, made by `open` when there is none; `None` for what is no
    /// token of ours, or is over.
    pub(super) fn session<E>(
        &self,
        token: &Secret,
        now: Instant,
        open: impl FnOnce(&Arc<DeviceToken>) -> Result<Arc<Session>, E>,
    ) -> Option<Result<Arc<Session>, E>> {
        let text = token.expose();
        if !text.starts_with(PREFIX.as_bytes()) || text.len() > MAX_TOKEN {
            return None;
        }
        let hash = self.hash.of(&[text]);
        let mut tokens = self.lock();
        let device = tokens.get_mut(&hash)?;
        if now >= device.facts.until {
            return None;
        }
        if let Some(session) = device.session.as_ref().filter(|s| s.is_live(now)) {
            return Some(Ok(Arc::clone(session)));
        }
        let session = open(&device.facts);
        device.session = session.as_ref().ok().map(Arc::clone);
        Some(session)
    }

    /// Revokes the tokens that `revoke` names; gives their sessions, to be ended.
    pub(super) fn revoke(
        &self,
        mut revoke: impl FnMut(&DeviceToken, Option<&Arc<Session>>) -> bool,
    ) -> Vec<Option<Arc<Session>>> {
        self.lock()
            .extract_if(|_, device| revoke(&device.facts, device.session.as_ref()))
            .map(|(_, device)| device.session)
            .collect()
    }

    /// The tokens that `wanted` names.
    pub(super) fn list(&self, wanted: impl Fn(&DeviceToken) -> bool) -> Vec<Arc<DeviceToken>> {
        self.lock()
            .values()
            .filter(|device| wanted(&device.facts))
            .map(|device| Arc::clone(&device.facts))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Device>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeviceToken {
    pub(super) fn is_of(&self, identity: &Identity) -> bool {
        self.identity.user == identity.user && self.identity.directory == identity.directory
    }
}

const PREFIX: &str = "rvt_";
const MAX_TOKEN: usize = 64;
