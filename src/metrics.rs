//! Every counter and gauge, declared in one place.

pub mod access_log;

/// A task of ours panicked.
pub fn count_panic() {}
