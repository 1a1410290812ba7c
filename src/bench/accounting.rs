//! What the kernel says that a program and its children have used: CPU time and memory.

use std::{fs, io, time::Duration};

use nix::{time::clock_getcpuclockid, unistd::Pid};

/// User and system time of a program and its children so far, in nanoseconds as the scheduler
/// counts them; threads that have ended are in it.
///
/// # Errors
///
/// When the program has ended.
pub(super) fn cpu(id: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for id in tree(id) {
        let now = clock_getcpuclockid(Pid::from_raw(id.cast_signed()))?.now()?;
        total += Duration::from(now);
    }
    Ok(total)
}

/// Proportional memory in KiB: what is shared counts for each by its part.
///
/// # Errors
///
/// When the program has ended, or is somebody else's.
pub(super) fn proportional(id: u32) -> io::Result<f64> {
    sum(id, "smaps_rollup", "Pss:")
}

/// Resident memory in KiB.
///
/// # Errors
///
/// When the program has ended.
pub(super) fn resident(id: u32) -> io::Result<f64> {
    sum(id, "status", "VmRSS:")
}

fn sum(id: u32, file: &str, field: &str) -> io::Result<f64> {
    let mut total = 0.0;
    for id in tree(id) {
        let text = fs::read_to_string(format!("/proc/{id}/{file}"))?;
        total += kib(&text, field).unwrap_or_default();
    }
    Ok(total)
}

/// The number of a line like `Pss:   123 kB`.
pub(super) fn kib(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// A program and all that it started, directly or not.
fn tree(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let tasks = fs::read_dir(format!("/proc/{id}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        all.extend(children.flat_map(tree));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::clock;

    #[test]
    fn the_time_of_a_child_is_counted_with_its_parents() {
        // The shell waits; its child spins.
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & wait"])
            .stdin(Stdio::null())
            .process_group_of_its_own()
            .spawn()
            .unwrap();
        let deadline = clock::now() + Duration::from_secs(20);

        let mut used = Duration::ZERO;
        while used < Duration::from_millis(50) && clock::now() < deadline {
            used = cpu(shell.id()).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }

        let group = Pid::from_raw(shell.id().cast_signed());
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
        let _ended = shell.wait();
        assert!(used >= Duration::from_millis(50), "{used:?}");
    }

    trait Group {
        fn process_group_of_its_own(&mut self) -> &mut Self;
    }

    impl Group for Command {
        fn process_group_of_its_own(&mut self) -> &mut Self {
            std::os::unix::process::CommandExt::process_group(self, 0)
        }
    }

    #[test]
    fn our_own_memory_is_some_megabytes() {
        let own = std::process::id();

        let (proportional, resident) = (proportional(own).unwrap(), resident(own).unwrap());

        assert!(proportional > 500.0 && resident >= proportional / 2.0);
    }

    #[test]
    fn a_program_that_has_ended_has_no_figures() {
        let mut child = Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();

        assert!(cpu(id).is_err() && proportional(id).is_err());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Rss:   10 kB\nPss_Dirty: 3 kB\nPss:       7 kB\n";

        assert_eq!(kib(text, "Pss:"), Some(7.0));
        assert_eq!(kib(text, "Swap:"), None);
    }
}
