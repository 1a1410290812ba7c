//! Connections at once by source: an IPv4 address, or the /64 of an IPv6 address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// How many connections each source has. It has no more entries than there are connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Sources {
    /// Counts one more connection of this address, unless its source has `limit` already.
    pub(super) fn enter(&self, address: IpAddr, limit: usize) -> Option<Entered> {
        let source = source(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&source).copied().unwrap_or_default();
        if count >= limit {
            return None;
        }
        counts.insert(source, count.saturating_add(1));
        drop(counts);
        Some(Entered {
            sources: self.clone(),
            source,
        })
    }
}

/// One connection in the count, for as long as this lives.
#[derive(Debug)]
pub(super) struct Entered {
    sources: Sources,
    source: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self
            .sources
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.source);
                // After a flood the memory is given back.
                if counts.capacity() > counts.len().saturating_mul(4).max(SMALL) {
                    counts.shrink_to_fit();
                }
            }
        }
    }
}

/// Whoever has one address of an IPv6 /64 has them all.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

const SMALL: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_no_more_than_its_limit_and_gets_it_back() {
        let sources = Sources::default();
        let first = sources.enter(address("198.51.100.7"), 2).unwrap();
        let second = sources.enter(address("::ffff:198.51.100.7"), 2).unwrap();
        assert!(sources.enter(address("198.51.100.7"), 2).is_none());
        assert!(sources.enter(address("198.51.100.8"), 2).is_some());

        drop(first);
        let third = sources.enter(address("198.51.100.7"), 2);
        assert!(third.is_some());

        drop((second, third));
        assert!(sources.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_64_network_is_one_source() {
        let sources = Sources::default();
        let _first = sources.enter(address("2001:db8:1:2::1"), 1).unwrap();
        assert!(sources.enter(address("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(sources.enter(address("2001:db8:1:3::1"), 1).is_some());
    }
}
