//! Session tickets: sealed by keys that rotate and that nodes with one secret share.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::server::ProducesTickets;

use crate::crypto::{MasterKey, Sealer};

/// Makes and opens the tickets of one listener.
///
/// Time is cut into lifetimes. The key of each is derived from the master key, so two nodes with
/// the same secret open each other's tickets. A key seals for one lifetime and opens for two.
pub(super) struct Tickets {
    master: MasterKey,
    /// Tickets of one listener never open at another: a ticket would carry a device past the
    /// other's question for a certificate.
    scope: String,
    lifetime: Duration,
    keys: ArcSwap<Keys>,
    now: fn() -> Duration,
}

impl Tickets {
    /// For the listener that `scope` names. `now` is the time since the epoch: nodes must agree.
    pub(super) fn new(
        master: MasterKey,
        scope: &str,
        lifetime: Duration,
        now: fn() -> Duration,
    ) -> Self {
        let lifetime = lifetime.clamp(Duration::from_secs(1), LONGEST);
        // The length of a lifetime is part of the scope: with another one, the same number means
        // another time.
        let scope = format!("ticket {scope} {}", lifetime.as_secs());
        let keys = Keys::derive(&master, &scope, number(now(), lifetime));
        Self {
            master,
            scope,
            lifetime,
            keys: ArcSwap::from_pointee(keys),
            now,
        }
    }

    fn keys(&self) -> Arc<Keys> {
        let number = number((self.now)(), self.lifetime);
        let keys = self.keys.load_full();
        if keys.number == number {
            return keys;
        }
        let keys = Arc::new(Keys::derive(&self.master, &self.scope, number));
        self.keys.store(Arc::clone(&keys));
        keys
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// One lifetime is what every ticket lives at least.
    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let mut ticket = keys.number.to_be_bytes().to_vec();
        ticket.extend(keys.current.seal(PURPOSE, plain));
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let (number, sealed) = ticket.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        if number == keys.number {
            keys.current.open(PURPOSE, sealed)
        } else if number.checked_add(1) == Some(keys.number) {
            keys.previous.open(PURPOSE, sealed)
        } else {
            None
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The keys that are good during one lifetime.
struct Keys {
    number: u64,
    current: Sealer,
    previous: Sealer,
}

impl Keys {
    fn derive(master: &MasterKey, scope: &str, number: u64) -> Self {
        let key = |number: u64| Sealer::new(&master.derive(&format!("{scope} {number}")));
        Self {
            number,
            current: key(number),
            previous: key(number.wrapping_sub(1)),
        }
    }
}

fn number(now: Duration, lifetime: Duration) -> u64 {
    now.as_secs()
        .checked_div(lifetime.as_secs())
        .unwrap_or_default()
}

const PURPOSE: &str = "tls ticket";
/// A ticket may not live longer than a week (RFC 8446, section 4.6.1).
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tickets(
        master: &MasterKey,
        scope: &str,
        lifetime: Duration,
        now: fn() -> Duration,
    ) -> Tickets {
        Tickets::new(master.clone(), scope, lifetime, now)
    }

    #[test]
    fn a_ticket_opens_for_two_lifetimes_at_any_node_with_the_key() {
        let master = MasterKey::from_secret(b"shared by both");
        let made = tickets(&master, "public", HOUR, || HOUR * 10)
            .encrypt(b"state")
            .unwrap();

        let at = |now| tickets(&master, "public", HOUR, now).decrypt(&made);

        assert_eq!(at(|| HOUR * 10).as_deref(), Some(&b"state"[..]));
        assert_eq!(
            at(|| HOUR * 12 - Duration::from_secs(1)).as_deref(),
            Some(&b"state"[..])
        );
        assert_eq!(at(|| HOUR * 12), None);
        assert_eq!(at(|| HOUR * 9), None);
    }

    #[test]
    fn a_ticket_does_not_open_elsewhere() {
        let master = MasterKey::from_secret(b"shared by both");
        let now = || HOUR * 10;
        let made = tickets(&master, "public", HOUR, now)
            .encrypt(b"state")
            .unwrap();

        let other = MasterKey::from_secret(b"another");
        assert_eq!(tickets(&master, "devices", HOUR, now).decrypt(&made), None);
        assert_eq!(
            tickets(&master, "public", HOUR / 2, || HOUR * 5).decrypt(&made),
            None
        );
        assert_eq!(tickets(&other, "public", HOUR, now).decrypt(&made), None);
    }

    proptest! {
        #[test]
        fn no_ticket_panics(ticket in prop::collection::vec(any::<u8>(), 0..200)) {
            let master = MasterKey::from_secret(b"shared by both");
            let tickets = tickets(&master, "public", HOUR, || Duration::ZERO);
            prop_assert_eq!(tickets.decrypt(&ticket), None);
        }
    }
}
