//! The backend that the load goes to.

use std::io;

use super::job::Addresses;

/// The origin, while it runs.
#[derive(Debug)]
pub(crate) struct Origin {
    addresses: Addresses,
}

impl Origin {
    /// Listens, on ports of loopback that the kernel chooses.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound.
    pub(crate) async fn start() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }
}
