//! The page of results that the repository keeps.

use std::fmt::Write;

use super::{Report, figure, met};
use crate::bench::result::{Judged, Line};

/// All of it.
pub(super) fn page(report: &Report) -> String {
    let mut page = head(report);
    page += "\n| work | unit | ravelin | best peer | ratio | at least | aim | met | others | \
             floor | errors |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for line in report.results.iter().filter(|line| line.points.is_empty()) {
        page += &compared(line);
    }
    page += "\nThroughput and time on the wall, each held to the same cores, in the same run; a \
             plus is what somebody adds to a direct connection:\n\n\
             | work | a second | p50 and p99, µs | negotiated with the gateway |\n\
             | --- | --- | --- | --- |\n";
    for line in &report.results {
        page += &on_the_wall(line);
    }
    let curves = || report.results.iter().filter(|line| !line.points.is_empty());
    if curves().next().is_some() {
        page += "\nGrowth, the gateway alone; flat means that no figure is above 1.3 times an \
                 earlier one:\n";
    }
    for line in curves() {
        page += &curve(line);
    }
    page
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    let mut head = format!(
        "# Results\n\nWritten by `ravelin bench`; `docs/performance.md` says how to repeat it.\n\n\
         {}, {} cores, {:.0} MiB, kernel {}; {}; load average at the start {}. What is measured \
         was held to cores {}, generator and origin to {}. Medians of {} rounds of {} s, [least \
         to greatest]. CPU is user and system time of the program and its children.\n\n",
        machine.cpu,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.date,
        machine.load,
        machine.measured_on,
        machine.driven_from,
        report.rounds,
        report.seconds,
    );
    for (name, version) in &report.versions {
        let _fits = writeln!(head, "- {}: {}", cell(name), cell(version));
    }
    for name in &report.missing {
        let _fits = writeln!(head, "- {}: not installed, not measured", cell(name));
    }
    head
}

fn compared(line: &Line) -> String {
    let best = line.best_peer.as_deref();
    let others = line
        .peers
        .iter()
        .filter(|(name, _)| Some(name.as_str()) != best);
    let others = others
        .chain(&line.bounds)
        .map(|(name, value)| named(line, name, *value));
    let others: Vec<String> = others.collect();
    let floor = line
        .floor
        .iter()
        .map(|(name, value)| named(line, name, *value));
    let floor: Vec<String> = floor.collect();
    let best = best.and_then(|name| Some(named(line, name, *line.peers.get(name)?)));
    let goal = line.goal.as_ref();
    let limit = |of: fn(&Judged) -> f64| goal.map(|goal| figure(of(goal))).unwrap_or_default();
    let mut errors = line.errors.to_string();
    for (name, problem) in &line.problems {
        let _fits = write!(errors, ": {name}: {problem}");
    }
    let cells = [
        format!("`{}` {}", line.work, line.title),
        line.unit.clone(),
        line.ravelin
            .map(|value| named(line, "ravelin", value))
            .unwrap_or_default(),
        best.unwrap_or_default(),
        line.ratio
            .map(|ratio| format!("**{ratio:.2}**"))
            .unwrap_or_default(),
        limit(|goal| goal.at_least),
        limit(|goal| goal.aim),
        met(goal).to_owned(),
        others.join("; "),
        floor.join("; "),
        errors,
    ];
    row(&cells)
}

fn on_the_wall(line: &Line) -> String {
    if line.per_second.is_empty() {
        return String::new();
    }
    let rates = line.per_second.iter();
    let rates: Vec<String> = rates
        .map(|(name, rate)| format!("{name} {}", figure(*rate)))
        .collect();
    let times = line.latency_us.iter();
    let [none, late] = line.latency_us.get("direct").copied().unwrap_or_default();
    let times = times.map(|(name, [p50, p99])| {
        let added = (p50 - none).max(0.0);
        match name.as_str() {
            "direct" => format!("direct {}, {}", figure(none), figure(late)),
            _through if none > 0.0 => {
                let tail = (p99 - late).max(0.0);
                format!("{name} +{}, +{}", figure(added), figure(tail))
            }
            _only => format!("{name} {}, {}", figure(*p50), figure(*p99)),
        }
    });
    let times: Vec<String> = times.collect();
    let negotiated = [&line.cipher, &line.group].map(|part| part.clone().unwrap_or_default());
    row(&[
        format!("`{}`", line.work),
        rates.join("; "),
        times.join("; "),
        negotiated.join(" "),
    ])
}

fn curve(line: &Line) -> String {
    let numbers: Vec<String> = line
        .points
        .iter()
        .map(|point| super::grouped(count(point.number)))
        .collect();
    let values: Vec<String> = line
        .points
        .iter()
        .map(|point| figure(point.value))
        .collect();
    let rise = line
        .ratio
        .map(|ratio| format!("**{ratio:.2}**"))
        .unwrap_or_default();
    let rule = " --- |".repeat(numbers.len() + 3);
    format!(
        "\n| {} | {} | rise | met |\n|{rule}\n| `{}` {} | {} | {rise} | {} |\n",
        cell(line.title),
        numbers.join(" | "),
        line.work,
        line.unit,
        values.join(" | "),
        met(line.goal.as_ref()),
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

fn named(line: &Line, name: &str, value: f64) -> String {
    let own = name == "ravelin";
    let mut text = if own {
        figure(value)
    } else {
        format!("{name} {}", figure(value))
    };
    if let Some([least, greatest]) = line.spread.get(name)
        && least < greatest
    {
        let _fits = write!(text, " [{} to {}]", figure(*least), figure(*greatest));
    }
    text
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
