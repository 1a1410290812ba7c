//! Measures the gateway beside its peers: the load, the backend it goes to, and the figures.
//!
//! `docs/performance.md` says what is measured and how to repeat it. [`plan`] is the table of
//! works; each is done by every contender in turn ([`measure`]), which are programs of their own
//! ([`contender`], [`peer`]), held to some cores, under a load from the other cores ([`job`]).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{
    contender::{Field, Program},
    machine::Machine,
    measure::{Effort, Progress},
    peer::Peer,
    plan::Row,
    process::Cores,
    site::Site,
};
pub(crate) use self::{process::Running, report::Report};

mod accounting;
mod contender;
mod floor;
pub(crate) mod job;
pub(crate) mod load;
mod login;
mod machine;
mod measure;
mod micro;
pub(crate) mod origin;
mod peer;
mod plan;
mod process;
pub(crate) mod relay;
mod report;
mod result;
mod site;

/// What to measure, against whom, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Ids of works, or beginnings of them; all when empty.
    pub(crate) works: Vec<String>,
    /// The folder of the peers' descriptions.
    pub(crate) peers: Option<PathBuf>,
    /// A look of minutes instead of an hour.
    pub(crate) quick: bool,
    pub(crate) rounds: Option<usize>,
    pub(crate) seconds: Option<f64>,
    /// How many cores to hold what is measured to.
    pub(crate) cores: Option<usize>,
    /// Ends everything that runs, from outside.
    pub(crate) running: Running,
}

/// Measures, and says each figure as it comes.
///
/// # Errors
///
/// When the machine, the gateway or the description of a peer does not let us.
pub(crate) fn run(wish: Wish, said: impl FnMut(&str)) -> Result<Report, Error> {
    let rows = plan::select(&wish.works).map_err(Error::Work)?;
    let effort = effort(&wish);
    raise_descriptors().map_err(Error::Machine)?;
    let (measured, rest) = Cores::split(wish.cores).map_err(Error::Machine)?;
    let machine = Machine::here(&measured, &rest);
    let mut versions = BTreeMap::from([("ravelin".to_owned(), OWN_VERSION.to_owned())]);
    let mut missing = Vec::new();
    let mut programs = vec![Program::Gateway];
    for peer in peers(wish.peers.as_deref())? {
        match peer {
            (_about, Some(peer)) => {
                versions.insert(peer.about.name.clone(), peer.version.clone());
                programs.push(Program::Peer(Box::new(peer.clone()), false));
                programs.push(Program::Peer(Box::new(peer), true));
            }
            (about, None) => missing.push(about.name),
        }
    }
    programs.push(Program::Relay);
    let field = Field {
        site: Site::new()?,
        running: wish.running,
        measured,
        rest,
        own: std::env::current_exe().map_err(Error::Machine)?,
    };
    let mut progress = Lines {
        said,
        rows: rows.len(),
        done: 0,
    };
    let mut results = Vec::new();
    for row in rows {
        progress.done += 1;
        let line = measure::row(row, &field, &programs, effort, &mut progress);
        results.push(line.map_err(|source| Error::Row {
            work: row.id,
            source,
        })?);
    }
    Ok(Report {
        machine,
        versions,
        missing,
        rounds: effort.rounds,
        seconds: effort.seconds,
        results,
    })
}

fn effort(wish: &Wish) -> Effort {
    let (rounds, seconds, most) = if wish.quick { QUICK } else { WHOLE };
    Effort {
        rounds: wish.rounds.unwrap_or(rounds),
        seconds: wish.seconds.unwrap_or(seconds),
        most,
        warm: !wish.quick,
    }
}

/// What the folder describes, in the order of the names of its files.
fn peers(folder: Option<&Path>) -> Result<Vec<(peer::About, Option<Peer>)>, Error> {
    let Some(folder) = folder else {
        return Ok(Vec::new());
    };
    let entries = fs::read_dir(folder).map_err(|source| Error::Peers {
        folder: folder.to_owned(),
        source,
    })?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    paths.sort();
    let load = |path: &PathBuf| Ok(Peer::load(path)?);
    paths.iter().map(load).collect()
}

/// Lines of progress.
struct Lines<F> {
    said: F,
    rows: usize,
    done: usize,
}

impl<F: FnMut(&str)> Progress for Lines<F> {
    fn measured(&mut self, row: &Row, round: &str, name: &str, figure: &str) {
        let at = format!("[{}/{}]", self.done, self.rows);
        (self.said)(&format!(
            "{at:7} {:18} {round:10} {name:18} {figure}",
            row.id
        ));
    }
}

/// Lets this process open as many descriptors as the machine allows: a run holds thousands of
/// connections.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn raise_descriptors() -> io::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel does not let us prepare.
    #[error("preparing this machine")]
    Machine(#[source] io::Error),
    /// A peer's description is wrong.
    #[error(transparent)]
    Peer(#[from] peer::Error),
    /// The folder of peers cannot be read.
    #[error("{folder} cannot be read")]
    Peers {
        /// Which.
        folder: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// A row cannot be measured at all.
    #[error("measuring {work}")]
    Row {
        /// Which.
        work: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to measure at.
    #[error(transparent)]
    Site(#[from] site::Error),
    /// A work has another name.
    #[error("{0}")]
    Work(String),
}

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Rounds, seconds of each, and the most connections.
const WHOLE: (usize, f64, usize) = (5, 2.5, 9000);
const QUICK: (usize, f64, usize) = (1, 0.6, 1000);
