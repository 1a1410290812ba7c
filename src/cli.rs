//! The commands; one file each in `cli/`.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

mod ask;
mod bench;
mod check;
mod demo;
mod hash_password;
mod run;

/// Parses the command line and carries it out.
///
/// # Errors
///
/// What a command could not do.
pub fn run() -> Result<ExitCode, Box<dyn Error>> {
    match Cli::parse().command {
        Command::Bench(options) => bench::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::HashPassword => hash_password::run(),
        Command::Kill(options) => ask::kill(&options),
        Command::Pools(control) => ask::pools(&control),
        Command::Reload(control) => ask::reload(&control),
        Command::Run(options) => run::run(&options),
        Command::Sessions(control) => ask::sessions(&control),
        Command::Status(control) => ask::status(&control),
    }
}

/// The open, memory-safe gateway for a DMZ.
///
/// Devices connect to it with TLS, log in against the company's own directory, and reach inside
/// through a micro-VPN that speaks open standards, or open sites that it balances.
#[derive(Debug, Parser)]
#[command(name = "ravelin", version, max_term_width = 80, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM; SIGHUP reads the configuration again
    Run(run::Options),
    /// Name every problem of a configuration at once, or show what it means
    Check(check::Options),
    /// Run the gateway and everything around it on loopback; nothing to configure
    Demo(demo::Options),
    /// Measure what the gateway costs on this machine, alone or beside others
    Bench(bench::Options),
    /// Turn a password from standard input into a line for a user file
    HashPassword,
    /// List the sessions in force
    Sessions(Control),
    /// End sessions and everything that runs under them
    Kill(ask::KillOptions),
    /// List pools, their nodes and their health
    Pools(Control),
    /// Show version, uptime and what is open
    Status(Control),
    /// Read the configuration again; what runs keeps running
    Reload(Control),
}

/// Which running gateway to ask.
#[derive(Debug, Args)]
struct Control {
    /// Its control socket
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/ravelin/control.sock"
    )]
    control: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  ravelin demo                          try everything on this machine
  ravelin check -c /etc/ravelin/ravelin.toml
  ravelin run -c /etc/ravelin/ravelin.toml
  ravelin kill --user alice             end alice's sessions and tunnels
  echo -n secret | ravelin hash-password

Exit codes: 0 done, 1 failed, 2 the configuration or command line is wrong.";
