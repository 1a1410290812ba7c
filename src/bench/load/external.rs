//! Load from programs that are not ours, so that ours can be checked against them.

use std::io;

use crate::{
    bench::job::{Job, Outcome},
    shutdown::Tasks,
};

pub(super) async fn run(_job: &Job, _tasks: &Tasks) -> io::Result<Outcome> {
    Err(io::ErrorKind::Unsupported.into())
}
