//! Makes load, and counts what came of it.

use std::{future::Future, io};

use super::job::{Job, Outcome};
use crate::shutdown::Tasks;

/// Runs a job: opens its connections, tells `ready` how many, makes the load. An idle job holds
/// its connections until `stop`.
///
/// # Errors
///
/// When the job itself is wrong. What goes wrong with the gateway is counted in the outcome.
pub(crate) async fn run(
    _job: &Job,
    _tasks: &Tasks,
    _ready: impl FnOnce(usize) -> io::Result<()>,
    _stop: impl Future<Output = ()>,
) -> io::Result<Outcome> {
    Err(io::ErrorKind::Unsupported.into())
}
