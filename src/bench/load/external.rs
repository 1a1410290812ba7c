//! Load from programs that are not ours, so that ours can be checked against them.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::{Command, Output, Stdio},
};

use super::{Tally, because};
use crate::{
    bench::job::{Generator, Job, Outcome, Protocol, Work},
    clock,
    shutdown::Tasks,
};

mod curl;
mod h2load;
mod wrk;

/// Runs a job with its program, and reads what it printed.
///
/// # Errors
///
/// When the program is not installed or cannot do the work.
pub(super) async fn run(job: &Job, tasks: &Tasks) -> io::Result<Outcome> {
    use Protocol::{H1, H2};
    let http = job.target.protocol;
    let (arguments, read): (_, fn(&str) -> Option<Outcome>) = match (job.generator, job.work, http)
    {
        (Generator::Wrk, Work::Requests | Work::New, H1) => (wrk::arguments(job), wrk::read),
        (Generator::H2load, Work::Requests, H2) => (h2load::arguments(job), h2load::read),
        (Generator::Curl, Work::Download | Work::TunnelDownload, H1) => {
            (curl::arguments(job), curl::read)
        }
        (generator, work, _) => {
            let error = format!("{generator:?} cannot do {work:?} over this protocol");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
    };
    let name = job.generator.program();
    let limit = job.seconds + super::GRACE.as_secs_f64();
    let mut command = Command::new("timeout");
    // In our own process group, so that whoever ends us ends it too.
    command.args(["--foreground", &format!("{limit}"), name]);
    command.args(arguments);
    let wrk = job.generator == Generator::Wrk;
    let settings = wrk.then(|| wrk::openssl_settings(job)).flatten();
    if settings.is_some() {
        command.env("OPENSSL_CONF", "/dev/stdin");
    }
    let start = clock::now();
    let ran = tasks.spawn_blocking(move || told(&mut command, settings.as_deref()));
    let ran = ran.await;
    let seconds = (clock::now() - start).as_secs_f64();
    let output = ran.map_err(io::Error::other)?.map_err(because("timeout"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let mut outcome = match (output.status.code(), read(&printed)) {
        (Some(NOT_FOUND), _) => {
            let error = format!("{name} is not installed");
            return Err(io::Error::new(io::ErrorKind::NotFound, error));
        }
        (Some(LATE), _) => failed(&format!("{name} was not done within {limit} s")),
        // curl says in its output what its exit code says.
        (_, Some(outcome)) => outcome,
        (_, None) => failed(&format!(
            "{name} said: {} {}",
            printed.trim(),
            complaint.trim()
        )),
    };
    outcome.generator = job.generator;
    if wrk {
        wrk::note_offered(job, &mut outcome);
    }
    if outcome.seconds == 0.0 {
        outcome.seconds = seconds;
    }
    Ok(outcome)
}

/// Runs a command with this as its standard input.
fn told(command: &mut Command, input: Option<&str>) -> io::Result<Output> {
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}

fn failed(what: &str) -> Outcome {
    Tally::failed(&io::Error::other(what)).outcome()
}

/// Errors that a program counted, as it calls them.
fn note(outcome: &mut Outcome, count: u64, what: &str) {
    if count > 0 {
        outcome.errors += count;
        outcome
            .first_error
            .get_or_insert_with(|| format!("{count} {what}"));
    }
}

/// The number that stands before these words.
fn before(text: &str, words: &str) -> Option<u64> {
    let (before, _) = text.split_once(words)?;
    before
        .split([' ', '\n', ',', '('])
        .next_back()?
        .parse()
        .ok()
}

/// The word that stands after these.
fn after<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(words)?;
    after.split_whitespace().next()
}

/// Whole seconds, as these programs want them.
fn seconds(job: &Job) -> String {
    format!("{}", job.seconds.ceil().max(1.0))
}

/// `-H` for each header of a request.
fn headers(job: &Job) -> Vec<OsString> {
    let target = &job.target;
    let one = |(name, value): &(String, String)| ["-H".into(), format!("{name}: {value}").into()];
    target.headers.iter().flat_map(one).collect()
}

/// `https://NAME:PORT/PATH` of the target.
fn url(job: &Job, name: &str) -> String {
    let target = &job.target;
    let scheme = if target.tls.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{name}:{}{}", target.address.port(), target.path)
}

/// What `timeout` answers when the program is not there, and when it took too long.
const NOT_FOUND: i32 = 127;
const LATE: i32 = 124;
