//! Makes load, and counts what came of it: every unit that was begun is finished and counted.
//!
//! All of a job's connections are driven by one task on one thread, since the load shares its
//! cores with the origin.

use std::{cell::Cell, future::Future, io, time::Duration};

use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use tokio::{
    task::unconstrained,
    time::{Instant, sleep, timeout},
};

use self::{
    histogram::Histogram,
    wire::{Negotiated, because},
    worker::Worker,
};
use super::job::{Generator, Job, Outcome, PAUSE_MS, Work};
use crate::shutdown::Tasks;

mod external;
mod handshake;
mod histogram;
mod http1;
mod http2;
mod tunnel;
mod wire;
mod worker;

/// A job that is done. Its connections stay open as long as this is kept.
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    _open: Vec<Worker>,
}

/// Runs a job: opens its connections, tells `ready` how many, makes the load. An idle job holds
/// its connections until `stop`.
///
/// # Errors
///
/// When the job itself is wrong. What goes wrong with the gateway is counted in the outcome.
pub(crate) async fn run(
    job: &Job,
    tasks: &Tasks,
    ready: impl FnOnce(usize) -> io::Result<()>,
    stop: impl Future<Output = ()>,
) -> io::Result<Done> {
    if job.generator != Generator::Ravelin {
        ready(0)?;
        sleep(Duration::from_millis(PAUSE_MS)).await;
        return external::run(job, tasks).await.map(Done::of);
    }
    let mut workers = match open(job, tasks).await? {
        Ok(workers) => workers,
        Err(error) => return Ok(Done::of(Tally::failed(&error).outcome())),
    };
    ready(workers.iter().filter(|worker| worker.is_open()).count())?;
    if job.work == Work::Idle {
        stop.await;
    } else {
        sleep(Duration::from_millis(PAUSE_MS)).await;
    }
    let outcome = work(job, &mut workers).await;
    Ok(Done {
        outcome,
        _open: workers,
    })
}

impl Done {
    fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            _open: Vec::new(),
        }
    }
}

/// Opens all connections. The outer error is the job's, the inner one the gateway's.
async fn open(job: &Job, tasks: &Tasks) -> io::Result<io::Result<Vec<Worker>>> {
    let opener = worker::Opener::new(job, tasks)?;
    let all = stream::iter(0..job.connections)
        .map(|number| opener.open(number))
        .buffered(OPENING_AT_ONCE)
        .try_concat();
    match timeout(OPENING, unconstrained(all)).await {
        Ok(opened) => Ok(opened),
        Err(_late) => Ok(Err(io::Error::other(format!(
            "{} connections were not open within {} s",
            job.connections,
            OPENING.as_secs()
        )))),
    }
}

/// The load itself.
async fn work(job: &Job, workers: &mut [Worker]) -> Outcome {
    let start = Instant::now();
    let length = Duration::try_from_secs_f64(job.seconds).unwrap_or_default();
    let run = Run {
        end: start + length,
        left: Cell::new(job.units.unwrap_or(u64::MAX)),
        latency: Histogram::default(),
        finished: Cell::new(0),
    };
    let mut tallies = Vec::with_capacity(workers.len());
    tallies.resize_with(workers.len(), Tally::default);
    let all = join_all(
        workers
            .iter_mut()
            .zip(&mut tallies)
            .map(|(worker, tally)| worker.run(&run, tally)),
    );
    // Fairness between tasks is of no use where there is one.
    let late = timeout(length + GRACE, unconstrained(all)).await.is_err();
    let seconds = start.elapsed().as_secs_f64();
    let mut total = Tally::default();
    for tally in tallies {
        total.add(tally);
    }
    if late {
        let unfinished = workers.len() - run.finished.get();
        let error = format!("{unfinished} connections waited in vain for an answer");
        total.error(&io::Error::other(error));
    }
    Outcome {
        seconds,
        p50_us: run.latency.quantile_us(0.50),
        p99_us: run.latency.quantile_us(0.99),
        ..total.outcome()
    }
}

/// When to stop, and what all connections note together.
struct Run {
    end: Instant,
    left: Cell<u64>,
    latency: Histogram,
    finished: Cell<usize>,
}

impl Run {
    /// Nothing is begun any more.
    fn is_over(&self, now: Instant) -> bool {
        now >= self.end || self.left.get() == 0
    }

    /// One exchange after another on a connection, until the run is over. Each gives the bytes of
    /// its answer, which are the units of `bulk`; else each is one unit.
    async fn repeat(
        &self,
        bulk: bool,
        tally: &mut Tally,
        mut exchange: impl AsyncFnMut() -> io::Result<u64>,
    ) -> io::Result<()> {
        let mut now = Instant::now();
        while !self.is_over(now) {
            if !bulk {
                self.take(1);
            }
            let size = exchange().await?;
            let then = Instant::now();
            self.latency.record(then - now);
            now = then;
            tally.bytes += size;
            tally.units += if bulk {
                self.take(size);
                size
            } else {
                1
            };
        }
        Ok(())
    }

    /// Takes up to `size` of the units that are left.
    fn take(&self, size: u64) -> u64 {
        let size = size.min(self.left.get());
        self.left.set(self.left.get() - size);
        size
    }
}

/// What was counted on one connection, or on all.
#[derive(Debug, Default)]
struct Tally {
    units: u64,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
    resumed: u64,
    negotiated: Option<Negotiated>,
}

impl Tally {
    fn failed(error: &io::Error) -> Self {
        let mut tally = Self::default();
        tally.error(error);
        tally
    }

    fn error(&mut self, error: &io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, other: Self) {
        self.units += other.units;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.resumed += other.resumed;
        self.first_error = self.first_error.take().or(other.first_error);
        self.negotiated = self.negotiated.or(other.negotiated);
    }

    fn outcome(self) -> Outcome {
        Outcome {
            units: self.units,
            bytes: self.bytes,
            errors: self.errors,
            first_error: self.first_error,
            resumed: self.resumed,
            cipher: self.negotiated.map(Negotiated::cipher),
            group: self.negotiated.and_then(Negotiated::group),
            ..Outcome::default()
        }
    }
}

/// How much longer than its time a run may take.
const GRACE: Duration = Duration::from_secs(10);
const OPENING: Duration = Duration::from_secs(60);
const OPENING_AT_ONCE: usize = 64;
