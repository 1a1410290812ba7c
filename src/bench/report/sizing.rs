//! What a core and a gigabyte carry, worked out from the figures of the gateway.

use super::{Report, figure};

/// A table to size a machine by; nothing when no row of it was measured.
pub(super) fn table(report: &Report) -> String {
    let lines = CARRIED.iter().filter_map(|carried| {
        let line = report
            .results
            .iter()
            .find(|line| line.work == carried.work)?;
        let value = line.ravelin.filter(|value| *value > 0.0)?;
        Some(format!(
            "| {} | {} | `{}` |\n",
            carried.what,
            figure(carried.per.of(value)),
            carried.work
        ))
    });
    let lines: String = lines.collect();
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\n## Sizing\n\nWhat the gateway's figures come to. Full is full: plan with half of it, and see \
         `docs/performance.md`.\n\n| one core of this machine, or its memory | carries or takes | from \
         |\n| --- | --- | --- |\n{lines}"
    )
}

/// A line of the table.
struct Carried {
    what: &'static str,
    work: &'static str,
    per: Per,
}

/// How a figure becomes what is carried.
#[derive(Clone, Copy)]
enum Per {
    /// From µs of a core to units a second.
    Second,
    /// From seconds of a core for a GiB to Gbit/s.
    Gigabit,
    /// From KiB for each to MiB for ten thousand.
    TenThousand,
    /// As it is.
    Same,
}

impl Per {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Second => 1e6 / value,
            Self::Gigabit => 8.0 * 1.073_741_824 / value,
            Self::TenThousand => value * 10_000.0 / 1024.0,
            Self::Same => value,
        }
    }
}

const fn carried(what: &'static str, work: &'static str, per: Per) -> Carried {
    Carried { what, work, per }
}

#[rustfmt::skip]
static CARRIED: &[Carried] = &[
    carried("requests a second, HTTP/1.1", "h1", Per::Second),
    carried("requests a second, HTTP/2", "h2", Per::Second),
    carried("full handshakes a second, P-256", "handshake-p256", Per::Second),
    carried("full handshakes a second, RSA-2048", "handshake-rsa", Per::Second),
    carried("resumed handshakes a second", "handshake-resumed", Per::Second),
    carried("connections of one request a second", "new", Per::Second),
    carried("Gbit/s from sites", "bulk-aes128", Per::Gigabit),
    carried("Gbit/s down a tunnel, HTTP/1.1", "tunnel-h1-down", Per::Gigabit),
    carried("Gbit/s up a tunnel, HTTP/1.1", "tunnel-h1-up", Per::Gigabit),
    carried("Gbit/s down a tunnel, HTTP/2", "tunnel-h2-down", Per::Gigabit),
    carried("Gbit/s up a tunnel, HTTP/2", "tunnel-h2-up", Per::Gigabit),
    carried("messages and answers a second, in 1,000 tunnels", "pingpong-1000", Per::Second),
    carried("MiB for 10,000 idle HTTP/1.1 connections", "idle-h1", Per::TenThousand),
    carried("MiB for 10,000 idle HTTP/2 connections", "idle-h2", Per::TenThousand),
    carried("MiB for 10,000 idle tunnels", "idle-tunnel", Per::TenThousand),
    carried("MiB before anybody comes", "start", Per::Same),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_what_a_core_and_memory_carry() {
        assert_eq!(figure(Per::Second.of(40.0)), "25,000");
        assert_eq!(figure(Per::Gigabit.of(0.5)), "17.2");
        assert_eq!(figure(Per::TenThousand.of(10.24)), "100");
    }

    #[test]
    fn every_line_is_of_a_row_that_is_measured() {
        for carried in CARRIED {
            let rows = crate::bench::plan::ROWS.iter();
            assert_eq!(
                rows.filter(|row| row.id == carried.work).count(),
                1,
                "{}",
                carried.work
            );
        }
    }
}
