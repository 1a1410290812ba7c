//! The machine that a figure was measured on: without it no figure means anything.

use std::fs;

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{accounting::kib, process::Cores};
use crate::clock;

/// What stands on top of every page of results.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// When the run began (RFC 3339, UTC).
    pub(super) date: String,
    /// The model of its processor.
    pub(super) cpu: String,
    /// Cores that we may use.
    pub(super) cores: usize,
    /// Cores that what is measured was held to.
    pub(super) measured_on: String,
    /// Cores of generator and origin.
    pub(super) driven_from: String,
    /// Memory in MiB.
    pub(super) memory_mib: f64,
    /// The kernel's version.
    pub(super) kernel: String,
    /// Load average of the last minute when the run began: above the run's own, others were busy.
    pub(super) load: f64,
}

impl Machine {
    /// What the kernel says of this one.
    pub(super) fn here(measured: &Cores, rest: &Cores) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let load = read("/proc/loadavg");
        Self {
            date: OffsetDateTime::from(clock::wall())
                .replace_nanosecond(0)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH)
                .format(&Rfc3339)
                .unwrap_or_default(),
            cpu: model(&read("/proc/cpuinfo")),
            cores,
            measured_on: measured.to_string(),
            driven_from: rest.to_string(),
            memory_mib: kib(&read("/proc/meminfo"), "MemTotal:").unwrap_or_default() / 1024.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        }
    }
}

/// x86 says a model's name, ARM a number for its part.
fn model(cpuinfo: &str) -> String {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    value("model name")
        .or_else(|| value("CPU part").map(|part| format!("ARM part {part}")))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_named_on_both_kinds_of_processor() {
        assert_eq!(model("processor\t: 0\nmodel name\t: EPYC 7\n"), "EPYC 7");
        assert_eq!(model("CPU part\t: 0xd0c\n"), "ARM part 0xd0c");
        assert_eq!(model(""), std::env::consts::ARCH);
    }
}
