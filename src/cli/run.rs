//! `ravelin run`: the gateway, until it is told to stop.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::{Config, Gateway};

/// Options of `ravelin run`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/ravelin/ravelin.toml"
    )]
    config: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let config = match Config::load(&options.config) {
        Ok(config) => config,
        Err(problems) => return Ok(super::check::refuse(&problems)),
    };
    set_up_log(&config.log.level);
    runtime()?.block_on(async {
        let gateway = Gateway::start(config).await?;
        info!(addresses = ?gateway.addresses(), "ready");
        until_stopped(gateway).await
    })
}

/// Runs a started gateway: SIGHUP reloads, SIGTERM and SIGINT drain, a second one ends at once.
pub(super) async fn until_stopped(gateway: Gateway) -> Result<ExitCode, Box<dyn Error>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stop = Stop::new()?;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            Some(()) = hangup.recv() => tokio::select! {
                // Whatever a reload waits for, it does not keep the gateway from ending.
                () = stop.asked() => break,
                result = gateway.reload_file() => match result {
                    Ok(()) => info!("the new configuration is in force"),
                    Err(problem) => error!(problem, "the old configuration stays in force"),
                },
            },
        }
    }
    info!("draining");
    tokio::select! {
        complete = gateway.drain() => {
            info!(complete, "ended");
            Ok(ExitCode::SUCCESS)
        }
        () = stop.asked() => {
            info!("ended without waiting for what was in hand");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A runtime with a worker for each core.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// The diagnostic log goes to standard error: standard output is the access log's.
pub(super) fn set_up_log(level: &str) {
    // A word is for our own modules: libraries print whole heads, with what is secret in them.
    let word = level.bytes().all(|byte| byte.is_ascii_alphabetic());
    let directives = if word {
        format!("warn,ravelin={level}")
    } else {
        level.to_owned()
    };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_invalid| EnvFilter::new("info"));
    // A second call in one process (tests) changes nothing.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}

/// The signals that ask a program to end.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Listens for them from here on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
