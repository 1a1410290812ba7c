//! The program: sets nothing up itself, prints an error with all its causes, gives the exit code.

use std::{error::Error, process::ExitCode};

fn main() -> ExitCode {
    match ravelin::cli::run() {
        Ok(code) => code,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

/// One line, from what failed to why.
#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
fn report(error: &dyn Error) {
    eprint!("ravelin: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
}
