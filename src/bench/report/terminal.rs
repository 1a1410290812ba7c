//! The table that a run ends with.

use std::fmt::Write;

use super::{Report, figure, met};
use crate::bench::result::Line;

/// At most 80 columns wide.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.machine;
    let _fits = writeln!(
        text,
        "\n{}, {} cores (measured on {}, driven from {}), kernel {}, load {}\n\
         {} rounds of {} s; medians of the gateway's own CPU, or memory\n\n{}",
        cut(&machine.cpu, 36),
        machine.cores,
        machine.measured_on,
        machine.driven_from,
        cut(&machine.kernel, 12),
        machine.load,
        report.rounds,
        report.seconds,
        row([
            "work", "unit", "ravelin", "best", "peer", "ratio", "goal", "met", "err"
        ]),
    );
    // The line of the machine may be as long as the machine's names.
    text = text.lines().map(|line| cut(line, 80) + "\n").collect();
    for line in &report.results {
        text += &row(cells(line).each_ref().map(String::as_str));
        text.push('\n');
        let points = line.points.iter();
        for point in points {
            let _fits = writeln!(text, "  {:>16} {:>14}", point.number, figure(point.value));
        }
        for (name, problem) in &line.problems {
            text += &cut(&format!("  ! {name}: {problem}"), 80);
            text.push('\n');
        }
    }
    for name in &report.missing {
        let _fits = writeln!(text, "not installed: {name} (`make bench` installs it)");
    }
    text
}

fn cells(line: &Line) -> [String; 9] {
    let best = line
        .best_peer
        .as_ref()
        .and_then(|name| line.peers.get(name));
    let goal = line.goal.as_ref();
    [
        line.work.to_owned(),
        line.unit
            .split(['/', ' '])
            .next()
            .map_or_else(String::new, |unit| match unit {
                "s" => "s/GiB".to_owned(),
                unit => unit.to_owned(),
            }),
        line.ravelin.map(figure).unwrap_or_default(),
        best.copied().map(figure).unwrap_or_default(),
        line.best_peer.clone().unwrap_or_default(),
        line.ratio
            .map(|ratio| format!("{ratio:.2}"))
            .unwrap_or_default(),
        goal.map(|goal| figure(goal.at_least)).unwrap_or_default(),
        met(goal).to_owned(),
        line.errors.to_string(),
    ]
}

fn row([work, unit, ravelin, best, peer, ratio, goal, met, errors]: [&str; 9]) -> String {
    let (work, peer) = (cut(work, 18), cut(peer, 14));
    format!(
        "{work:18} {unit:5} {ravelin:>8} {best:>8} {peer:14} {ratio:>5} {goal:>5} {met:4} {errors:>3}"
    )
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}
