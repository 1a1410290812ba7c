//! `ravelin bench`: measures the gateway. Its helpers, the load and the origin, are commands too.

use std::{
    error::Error,
    future::Future,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::run::Stop;
use crate::{
    bench::{
        self, Running, Wish,
        job::{Addresses, Job, Ready},
        load, origin, relay,
    },
    shutdown::Tasks,
};

/// Options of `ravelin bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    #[command(subcommand)]
    helper: Option<Helper>,
    /// Only these works, by their ids or the beginnings of them: h1, tunnel, bulk-aes128
    #[arg(long, value_name = "WORK", value_delimiter = ',')]
    work: Vec<String>,
    /// Measure the programs beside it that are described in this folder
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
    /// Write latest.json, latest.md and latest.svg into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// One short round of each: minutes, but no figures to quote
    #[arg(long)]
    quick: bool,
    /// Rounds of each work
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// Seconds of load in each round
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// How many cores the gateway may use; by default half of them
    #[arg(long, value_name = "NUMBER")]
    cores: Option<usize>,
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
    /// Relay plain TCP to an origin, until standard input closes
    #[command(hide = true)]
    Relay {
        /// Its addresses, as the origin prints them
        origin: String,
    },
}

pub(super) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    match &options.helper {
        Some(Helper::Origin) => serve(),
        Some(Helper::Load { job }) => work(&serde_json::from_str(job)?),
        Some(Helper::Relay { origin }) => relay(serde_json::from_str(origin)?),
        None => measure(options),
    }
}

fn measure(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let running = Running::default();
    let wish = Wish {
        works: options.work.clone(),
        peers: options.peers.clone(),
        quick: options.quick,
        rounds: options.rounds,
        seconds: options.seconds,
        cores: options.cores,
        running: running.clone(),
    };
    super::run::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut run = Tasks::new().spawn_blocking(move || bench::run(wish, progress));
        let report = tokio::select! {
            report = &mut run => report??,
            () = stop.asked() => {
                running.end();
                // It meets programs that are gone, cleans up and comes back.
                let _interrupted = run.await;
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        if let Some(folder) = &options.out {
            report.write(folder)?;
        }
        io::stdout().lock().write_all(report.table().as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Progress is not the result: it goes to standard error.
#[expect(clippy::print_stderr, reason = "a person watches")]
fn progress(line: &str) {
    eprintln!("{line}");
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

fn relay(origin: Addresses) -> Result<ExitCode, Box<dyn Error>> {
    bench::raise_descriptors()?;
    // As many workers as a gateway has on these cores.
    super::run::runtime()?.block_on(async {
        let tasks = Tasks::new();
        say(&relay::start(origin, &tasks).await?)?;
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

/// What a shell gives for a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;
