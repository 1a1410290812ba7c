//! Programs that a measurement starts: held to some cores, and ended with it, whatever happens.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::clock;

/// Every program that runs, so that Ctrl-C can end them all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    groups: Vec<Pid>,
    over: bool,
}

impl Running {
    /// Ends every program, and lets none start from here on.
    pub(crate) fn end(&self) {
        let groups = {
            let mut state = self.lock();
            state.over = true;
            state.groups.clone()
        };
        signal(&groups, Signal::SIGTERM);
        std::thread::sleep(GRACE / 4);
        signal(&groups, Signal::SIGKILL);
    }

    /// Whether [`Running::end`] was called.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    fn add(&self, group: Pid) -> bool {
        let mut state = self.lock();
        state.groups.push(group);
        !state.over
    }

    fn forget(&self, group: Pid) {
        self.lock().groups.retain(|known| *known != group);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signal(groups: &[Pid], signal: Signal) {
    for group in groups {
        // It may have ended by itself.
        let _gone = killpg(*group, signal);
    }
}

/// A program and all its children, in a process group of their own; ended when dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    group: Pid,
    running: Running,
}

impl Process {
    /// Starts a command on these cores; standard input and output are what the command says.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or everything is being ended.
    pub(super) fn start(
        running: &Running,
        command: &mut Command,
        cores: &Cores,
    ) -> io::Result<Self> {
        // A child inherits the cores of the thread that starts it.
        let before = sched_getaffinity(Pid::from_raw(0))?;
        sched_setaffinity(Pid::from_raw(0), &cores.set()?)?;
        // In a group of its own: Ctrl-C in a terminal reaches us alone, and we end the others.
        let child = command.process_group(0).spawn();
        sched_setaffinity(Pid::from_raw(0), &before)?;
        let child = child?;
        let group = Pid::from_raw(child.id().cast_signed());
        let process = Self {
            child,
            group,
            running: running.clone(),
        };
        if running.add(group) {
            Ok(process)
        } else {
            Err(io::Error::other("interrupted"))
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready`, for as long as the program runs and [`STARTING`] lasts.
    ///
    /// # Errors
    ///
    /// When it has ended, or is not ready in time.
    pub(super) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> io::Result<()> {
        let deadline = clock::now() + STARTING;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once ({status})")));
            }
            if clock::now() > deadline {
                let text = format!("it is not ready after {} s", STARTING.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing its standard input is how our own helpers are asked to end.
        drop(self.child.stdin.take());
        signal(&[self.group], Signal::SIGTERM);
        let deadline = clock::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Its children too, if it left any.
        signal(&[self.group], Signal::SIGKILL);
        let _gone = self.child.wait();
        self.running.forget(self.group);
    }
}

/// A command that reads nothing.
pub(super) fn quiet(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Cores that programs are held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cores(Vec<usize>);

impl Cores {
    /// The cores for what is measured, and those for everything else: half and half of what we
    /// may use; with one core both share it.
    ///
    /// # Errors
    ///
    /// When the kernel does not say which we may use.
    pub(super) fn split(for_the_measured: Option<usize>) -> io::Result<(Self, Self)> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let all: Vec<usize> = (0..CpuSet::count())
            .filter(|core| set.is_set(*core).unwrap_or(false))
            .collect();
        let half = for_the_measured.unwrap_or(all.len() / 2);
        let half = half.clamp(1, all.len().saturating_sub(1).max(1));
        let measured = all.iter().copied().take(half).collect();
        let rest: Vec<usize> = all.iter().copied().skip(half).collect();
        Ok((
            Self(measured),
            Self(if rest.is_empty() { all } else { rest }),
        ))
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    fn set(&self) -> io::Result<CpuSet> {
        let mut set = CpuSet::new();
        for core in &self.0 {
            set.set(*core)?;
        }
        Ok(set)
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&names.join(","))
    }
}

/// How long a program may take to listen.
const STARTING: Duration = Duration::from_secs(20);
/// How long a program may take to end when it is asked.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(group: Pid) -> bool {
        killpg(group, None).is_ok()
    }

    #[test]
    fn a_program_and_its_children_end_when_it_is_dropped() {
        let running = Running::default();
        let (cores, _rest) = Cores::split(None).unwrap();
        let mut command = Command::new("sh");
        // The shell does not listen to SIGTERM; its child would outlive it.
        command.args(["-c", "trap '' TERM; sleep 1000 & wait; wait"]);
        let process = Process::start(&running, &mut command, &cores).unwrap();
        let group = process.group;
        assert!(alive(group));

        drop(process);

        // The child was killed; init, which inherited it, may take a moment to notice.
        let deadline = clock::now() + STARTING;
        while alive(group) && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!alive(group));
        assert!(running.lock().groups.is_empty());
    }

    #[test]
    fn nothing_starts_after_the_end() {
        let running = Running::default();
        let (cores, _rest) = Cores::split(None).unwrap();
        running.end();

        let started = Process::start(&running, Command::new("sleep").arg("1000"), &cores);

        assert_eq!(started.unwrap_err().to_string(), "interrupted");
    }

    #[test]
    fn a_program_that_ends_at_once_is_not_waited_for() {
        let running = Running::default();
        let (cores, _rest) = Cores::split(None).unwrap();
        let mut process = Process::start(&running, &mut Command::new("false"), &cores).unwrap();

        let waited = process.wait_until(|| false);

        assert!(waited.unwrap_err().to_string().contains("exit status: 1"));
    }

    #[test]
    fn the_measured_and_the_rest_share_no_core() {
        let (measured, rest) = Cores::split(None).unwrap();

        assert!(measured.count() == 1 && rest.count() >= 1 || measured.count() > 1);
        if measured != rest {
            assert!(measured.0.iter().all(|core| !rest.0.contains(core)));
        }
    }
}
