//! `ravelin bench`: measures the gateway. Its helpers, the load and the origin, are commands too.

use std::{
    error::Error,
    future::Future,
    io::{self, Read, Write},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    bench::{
        self,
        job::{Job, Ready},
        load, origin,
    },
    shutdown::Tasks,
};

/// Options of `ravelin bench`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    helper: Helper,
}

/// Processes of their own, so that their work is not counted as the gateway's.
#[derive(Debug, Subcommand)]
enum Helper {
    /// Serve what the load asks for, until standard input closes
    #[command(hide = true)]
    Origin,
    /// Run one job, given as JSON, and print what came of it
    #[command(hide = true)]
    Load {
        /// The job
        job: String,
    },
}

pub(super) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    match &options.helper {
        Helper::Origin => serve(),
        Helper::Load { job } => work(&serde_json::from_str(job)?),
    }
}

fn serve() -> Result<ExitCode, Box<dyn Error>> {
    bench::raise_descriptors()?;
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        say(&origin::serve(&tasks).await?)?;
        end_of_input(&tasks).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn work(job: &Job) -> Result<ExitCode, Box<dyn Error>> {
    bench::raise_descriptors()?;
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        let ready = |ready| say(&Ready { ready });
        let done = load::run(job, &tasks, ready, end_of_input(&tasks)).await?;
        // Its connections are still open.
        say(&done.outcome)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// One thread: helpers share the cores that the gateway is kept from.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// A line of JSON.
fn say(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Standard input closes when the process that started this one is done, or gone.
fn end_of_input(tasks: &Tasks) -> impl Future<Output = ()> + use<> {
    let tasks = tasks.clone();
    async move {
        let read = || io::stdin().lock().read_to_end(&mut Vec::new());
        // However it ends, it has ended.
        let _end = tasks.spawn_blocking(read).await;
    }
}
