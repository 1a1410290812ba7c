//! Runs the rows: each contender in turn, round after round, so that all meet the same weather.

use std::{io, path::Path, time::Duration};

use serde::Deserialize;

use super::{
    accounting,
    contender::{Contender, Field, Lines, Program, origin, spoken_to},
    floor,
    job::{Generator, Job, Outcome, Ready, Work},
    micro, peer,
    plan::{Kind, Row, Shape, Unit},
    process::Process,
    result::{Entry, Line, Role, Sample},
};

mod curve;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Rounds of a row.
    pub(super) rounds: usize,
    /// Load of one contender in one round, in seconds.
    pub(super) seconds: f64,
    /// At most so many connections.
    pub(super) most: usize,
    /// Whether everybody is loaded a little before the first round.
    pub(super) warm: bool,
}

/// Who wants to know how far it is.
pub(super) trait Progress {
    /// A contender of the row has been measured once.
    fn measured(&mut self, round: &str, name: &str, figure: &str);
}

/// Measures one row.
///
/// # Errors
///
/// When all was interrupted. What else goes wrong is in the line.
pub(super) fn row(
    row: &'static Row,
    field: &Field,
    programs: &[Program],
    effort: Effort,
    progress: &mut dyn Progress,
) -> io::Result<Line> {
    let mut run = Run {
        row,
        field,
        effort,
        progress,
        entries: Vec::new(),
    };
    let programs: Vec<&Program> = programs.iter().filter(|p| p.serves(row)).collect();
    let mut points = Vec::new();
    let done = match row.kind {
        Kind::Load(shape) => run.load(&shape, &programs),
        Kind::Idle(shape) => run.idle(&shape, &programs),
        Kind::Start => run.start(&programs),
        Kind::Micro(stage) => (1..=effort.rounds).try_for_each(|round| {
            run.note("ravelin", round, Ok(Sample::of(micro::stage(stage)?)));
            Ok(())
        }),
        Kind::Growth(growth) => run.growth(growth, &mut points),
        Kind::Check(shape, generator) => run.check(&shape, generator),
    };
    if field.running.is_over() {
        return Err(io::Error::other("interrupted"));
    }
    if let Err(error) = done {
        run.note("ravelin", 0, Err(error));
    }
    Ok(Line::new(row, run.entries, points))
}

struct Run<'a> {
    row: &'static Row,
    field: &'a Field,
    effort: Effort,
    progress: &'a mut dyn Progress,
    entries: Vec<Entry>,
}

impl Run<'_> {
    fn load(&mut self, shape: &Shape, programs: &[&Program]) -> io::Result<()> {
        let (_origin, addresses) = origin(self.field)?;
        let mut running = Vec::new();
        let mut cookie = String::new();
        for program in programs {
            let started = program.start(self.field, addresses, 1);
            if matches!(program, Program::Gateway) {
                // Without it there is nothing to compare.
                let gateway = started?;
                gateway.cookie().unwrap_or_default().clone_into(&mut cookie);
                running.push((*program, gateway));
                continue;
            }
            match started {
                Ok(contender) => running.push((*program, contender)),
                Err(error) => self.note_of(program, 0, Err(error)),
            }
        }
        let seconds = self.effort.seconds;
        for (_program, contender) in running.iter().filter(|_| self.effort.warm) {
            let job = job(contender, self.row.id, shape, &cookie, seconds.min(WARM_UP))?;
            let _warm = self.drive(contender, &job);
        }
        let generator = installed(shape.other_generator());
        for round in 1..=self.effort.rounds {
            for (program, contender) in &running {
                let mut job = job(contender, self.row.id, shape, &cookie, seconds)?;
                job.generator = generator;
                let sample = self.drive(contender, &job);
                contender.forget_log();
                self.note_of(program, round, sample);
            }
        }
        if shape.work == Work::PingPong {
            self.direct(shape, &running)?;
        }
        drop(running);
        if let Some((name, value)) = floor::alone(shape)? {
            self.entry(name, Role::Floor)
                .samples
                .push(Sample::of(value));
        }
        Ok(())
    }

    /// The same load without anybody between it and the origin: only its times count.
    fn direct(&mut self, shape: &Shape, running: &[(&Program, Contender)]) -> io::Result<()> {
        let Some((_program, contender)) = running.first() else {
            return Ok(());
        };
        for round in 1..=self.effort.rounds {
            let mut job = job(contender, self.row.id, shape, "", self.effort.seconds)?;
            job.target.address = contender.origin.echo;
            job.target.tls = None;
            job.target.connect = None;
            let sample = self.drive(contender, &job);
            self.note_as(
                "direct".to_owned(),
                Role::Direct,
                &round.to_string(),
                sample,
            );
        }
        Ok(())
    }

    /// One job against one contender, and the CPU that it took for each unit.
    fn drive(&self, contender: &Contender, job: &Job) -> io::Result<Sample> {
        let (mut process, mut lines) = self.generator(job)?;
        ready(lines.next()?)?;
        let before = accounting::cpu(contender.process.id())?;
        let outcome: Outcome = lines.next()?;
        let after = accounting::cpu(contender.process.id())?;
        drop(process.child.stdin.take());
        good(&outcome)?;
        let used = after.saturating_sub(before);
        let cores = float(self.field.measured.count() as u64);
        Ok(Sample {
            value: each(self.row.unit, used, outcome.units),
            rate: rate(self.row.unit, &outcome),
            busy: Some(used.as_secs_f64() / outcome.seconds.max(1e-9) / cores),
            outcome: Some(outcome),
        })
    }

    fn generator(&self, job: &Job) -> io::Result<(Process, Lines)> {
        let text = serde_json::to_string(job)?;
        let mut process = spoken_to(self.field, &self.field.rest, &["load", &text])?;
        let lines = Lines::of(&mut process)?;
        Ok((process, lines))
    }

    fn idle(&mut self, shape: &Shape, programs: &[&Program]) -> io::Result<()> {
        let mut cookie = String::new();
        for program in programs {
            let (_origin, addresses) = origin(self.field)?;
            let started = program.start(self.field, addresses, 1);
            let sample = started.and_then(|contender| {
                if let Some(own) = contender.cookie() {
                    own.clone_into(&mut cookie);
                }
                let (mut shape, all) = (*shape, shape.connections);
                shape.connections = FIRST;
                // What the first ones need, nobody after them does.
                drop(self.held(&contender, &shape, &cookie)?);
                shape.connections = self.effort.most.min(all);
                self.hold(&contender, &shape, &cookie)
            });
            self.note_of(program, 1, sample);
        }
        Ok(())
    }

    /// Memory for each of some connections that do nothing.
    fn hold(&self, contender: &Contender, shape: &Shape, cookie: &str) -> io::Result<Sample> {
        let count = shape.connections;
        let mut job = job(contender, self.row.id, shape, cookie, 60.0)?;
        // Beyond 28,000 connections a single pair of addresses has no ports left.
        job.sources = 4;
        let id = contender.process.id();
        let before = accounting::proportional(id)?;
        let (mut process, mut lines) = self.generator(&job)?;
        let ready = ready(lines.next()?)?;
        std::thread::sleep(SETTLE);
        let after = accounting::proportional(id)?;
        drop(process.child.stdin.take());
        let outcome: Outcome = lines.next()?;
        good(&outcome)?;
        if ready != count || outcome.units != ready as u64 {
            let text = format!("{ready} of {count} opened, {} stayed", outcome.units);
            return Err(io::Error::other(text));
        }
        Ok(Sample {
            value: (after - before) / float(ready as u64),
            rate: 0.0,
            busy: None,
            outcome: Some(outcome),
        })
    }

    fn start(&mut self, programs: &[&Program]) -> io::Result<()> {
        let (_origin, addresses) = origin(self.field)?;
        for round in 1..=self.effort.rounds {
            for program in programs {
                let started = program.start(self.field, addresses, 1);
                let sample = started.map(|contender| Sample::of(contender.at_start / 1024.0));
                self.note_of(program, round, sample);
            }
        }
        Ok(())
    }

    /// The gateway under our load and under another program's, in turn.
    fn check(&mut self, shape: &Shape, generator: Generator) -> io::Result<()> {
        let (_origin, addresses) = origin(self.field)?;
        let contender = Program::Gateway.start(self.field, addresses, 1)?;
        let cookie = contender.cookie().unwrap_or_default().to_owned();
        let seconds = self.effort.seconds;
        let warm = job(
            &contender,
            self.row.id,
            shape,
            &cookie,
            seconds.min(WARM_UP),
        )?;
        let _warm = self.drive(&contender, &warm);
        for round in 1..=self.effort.rounds {
            for by in [Generator::Ravelin, generator] {
                let mut job = job(&contender, self.row.id, shape, &cookie, seconds)?;
                job.generator = by;
                if let (Generator::Curl, Some(connect)) = (by, &mut job.target.connect) {
                    // It wants HTTP at the end of a tunnel.
                    connect.authority = addresses.http.to_string();
                    job.target.path = super::contender::large();
                }
                let sample = self.drive(&contender, &job);
                contender.forget_log();
                let (name, role) = match by {
                    Generator::Ravelin => ("ravelin".to_owned(), Role::Gateway),
                    Generator::Wrk | Generator::H2load | Generator::Curl => {
                        (format!("by {}", by.program()), Role::Peer)
                    }
                };
                self.note_as(name, role, &round.to_string(), sample);
            }
        }
        Ok(())
    }

    /// Connections that do nothing, until the process is dropped.
    fn held(&self, contender: &Contender, shape: &Shape, cookie: &str) -> io::Result<Process> {
        let job = job(contender, self.row.id, shape, cookie, LONG)?;
        let (process, mut lines) = self.generator(&job)?;
        ready(lines.next()?)?;
        Ok(process)
    }

    fn note_of(&mut self, program: &Program, round: usize, sample: io::Result<Sample>) {
        let role = match program {
            Program::Gateway => Role::Gateway,
            Program::Peer(peer, _) if peer.about.bound.is_some() => Role::Bound,
            Program::Peer(..) => Role::Peer,
            Program::Relay => Role::Floor,
        };
        self.note_as(program.name(), role, &round.to_string(), sample);
    }

    fn note(&mut self, name: &str, round: usize, sample: io::Result<Sample>) {
        self.note_as(name.to_owned(), Role::Gateway, &round.to_string(), sample);
    }

    fn note_as(&mut self, name: String, role: Role, round: &str, sample: io::Result<Sample>) {
        let figure = match &sample {
            Ok(_times) if role == Role::Direct => "measured".to_owned(),
            Ok(sample) => format!("{:.2} {}", sample.value, self.row.unit.text()),
            Err(error) => format!("no figure: {error}"),
        };
        let round = format!("round {round}/{}", self.effort.rounds);
        self.progress.measured(&round, &name, &figure);
        let entry = self.entry(name, role);
        match sample {
            Ok(sample) => entry.samples.push(sample),
            Err(error) => {
                entry.errors += 1;
                entry.problem.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn entry(&mut self, name: String, role: Role) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.name == name);
        let at = at.unwrap_or_else(|| {
            self.entries.push(Entry::new(name, role));
            self.entries.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
        &mut self.entries[at]
    }
}

fn job(
    contender: &Contender,
    id: &str,
    shape: &Shape,
    cookie: &str,
    seconds: f64,
) -> io::Result<Job> {
    Ok(Job {
        work: shape.work,
        target: contender.target(id, shape, cookie)?,
        generator: Generator::Ravelin,
        seconds,
        units: None,
        connections: shape.connections,
        streams: shape.streams,
        // Each connection that closes blocks its port for a minute.
        sources: match shape.work {
            Work::Handshakes | Work::Resumptions | Work::New => 16,
            Work::Requests
            | Work::Download
            | Work::TunnelDownload
            | Work::TunnelUpload
            | Work::PingPong
            | Work::Idle => 1,
        },
    })
}

/// What a generator says first: it has an outcome at once when its connections do not open.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Ready(Ready),
    Outcome(Box<Outcome>),
}

/// How many connections are open.
fn ready(said: Said) -> io::Result<usize> {
    match said {
        Said::Ready(Ready { ready }) => Ok(ready),
        Said::Outcome(outcome) => {
            good(&outcome)?;
            Err(io::Error::other("the load was over before it began"))
        }
    }
}

/// A run with errors is no run.
fn good(outcome: &Outcome) -> io::Result<()> {
    if outcome.errors == 0 && outcome.units > 0 {
        return Ok(());
    }
    let first = outcome.first_error.as_deref().unwrap_or("nothing was done");
    Err(io::Error::other(format!(
        "{} errors: {first}",
        outcome.errors
    )))
}

/// CPU time in a row's unit.
fn each(unit: Unit, used: Duration, units: u64) -> f64 {
    match unit {
        Unit::Micros(_) => used.as_secs_f64() * 1e6 / float(units),
        Unit::SecondsPerGib | Unit::Kib | Unit::Mib => used.as_secs_f64() * GIB / float(units),
    }
}

/// Units in a second on the wall; GiB where bytes are counted.
fn rate(unit: Unit, outcome: &Outcome) -> f64 {
    let rate = float(outcome.units) / outcome.seconds.max(1e-9);
    if unit == Unit::SecondsPerGib {
        rate / GIB
    } else {
        rate
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

/// The generator that is not ours, where it is installed; else ours.
fn installed(other: Option<Generator>) -> Generator {
    let there = |other: &Generator| peer::find(Path::new(other.program())).is_some();
    other.filter(there).unwrap_or_default()
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// For connections that are held through a row, in seconds.
const LONG: f64 = 600.0;
/// Longest warm-up, in seconds: connections to the origin, remembered decisions. Nobody's first
/// moment is measured.
const WARM_UP: f64 = 0.3;
/// For allocators to give back what setting connections up took.
const SETTLE: Duration = Duration::from_millis(1500);
/// Connections that come before those that are counted.
const FIRST: usize = 16;
