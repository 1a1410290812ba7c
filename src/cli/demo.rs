//! `ravelin demo`: the gateway and everything around it, on loopback, nothing to configure.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::run::{runtime, set_up_log, until_stopped};
use crate::{Config, Gateway, demo::Demo};

/// Options of `ravelin demo`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Folder for certificates, passwords and logs: new, empty, or an earlier demo's
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The gateway's port on 127.0.0.1; 0 lets the kernel choose
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    port: u16,
}

pub(super) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    runtime()?.block_on(async {
        let demo = Demo::start(options.dir.as_deref(), options.port).await?;
        // From here on it is `ravelin run -c ravelin.toml`.
        let config = match Config::load(demo.config()) {
            Ok(config) => config,
            Err(problems) => return Ok(super::check::refuse(&problems)),
        };
        set_up_log(&config.log.level);
        let gateway = Gateway::start(config).await?;
        show(&demo.open(colour())?)?;
        let code = until_stopped(gateway).await;
        demo.end().await;
        code
    })
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Nobody reads the text; the gateway is there all the same, and demo.json tells of it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A terminal that has not been asked to stay plain (<https://no-color.org>).
fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
