//! Bytes both ways: large blocks, half-close, idle limit, counts.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Copies both ways until both sides are closed, nothing moved for `limits.idle`, the time is
/// over, or a token fires. Either side may close its half first.
pub async fn relay<A, B>(
    _device: A,
    _backend: B,
    _limits: Limits,
    _stop: &[CancellationToken],
    _counts: &Counts,
) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    todo!()
}

/// Limits of one relay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte either way.
    pub idle: Duration,
    /// From the start.
    pub absolute: Duration,
    /// Bytes of one block.
    pub block: usize,
}

/// Bytes moved, readable while the relay runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// From the device.
    pub up: std::sync::atomic::AtomicU64,
    /// To the device.
    pub down: std::sync::atomic::AtomicU64,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// It reached its absolute limit.
    Absolute,
    /// A side failed: reset, time-out.
    Broken(std::io::Error),
    /// Both sides closed.
    Closed,
    /// Nothing moved for the idle limit.
    Idle,
    /// A token fired: the session ended, or the gateway drains.
    Stopped,
}
