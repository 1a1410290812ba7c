//! Measures the gateway beside its peers: the load, the backend it goes to, and the figures.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub(crate) mod job;
pub(crate) mod load;
pub(crate) mod origin;

/// Lets this process open as many descriptors as the machine allows: a run holds thousands of
/// connections.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn raise_descriptors() -> io::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
