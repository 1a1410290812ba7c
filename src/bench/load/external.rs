//! Load from programs that are not ours, so that ours can be checked against them.

use std::{ffi::OsString, io, process::Command};

use super::{Tally, because};
use crate::{
    bench::job::{Generator, Job, Outcome, Protocol, Work},
    clock,
    shutdown::Tasks,
};

mod curl;
mod h2load;
mod iperf3;
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
        (Generator::Iperf3, Work::TunnelDownload | Work::TunnelUpload, _) => {
            (iperf3::arguments(job), iperf3::read)
        }
        (generator, work, _) => {
            let error = format!("{generator:?} cannot do {work:?} over this protocol");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
    };
    let name = program(job.generator);
    let limit = job.seconds + super::GRACE.as_secs_f64();
    let mut command = Command::new("timeout");
    // In our own process group, so that whoever ends us ends it too.
    command.args(["--foreground", &format!("{limit}"), name]);
    command.args(arguments);
    let start = clock::now();
    let ran = tasks.spawn_blocking(move || command.output()).await;
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
        // curl and iperf3 say in their output what their exit code says.
        (_, Some(outcome)) => outcome,
        (_, None) => failed(&format!(
            "{name} said: {} {}",
            printed.trim(),
            complaint.trim()
        )),
    };
    outcome.generator = job.generator;
    if outcome.seconds == 0.0 {
        outcome.seconds = seconds;
    }
    Ok(outcome)
}

fn program(generator: Generator) -> &'static str {
    match generator {
        Generator::Ravelin => "ravelin",
        Generator::Wrk => "wrk",
        Generator::H2load => "h2load",
        Generator::Curl => "curl",
        Generator::Iperf3 => "iperf3",
    }
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
