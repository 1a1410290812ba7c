//! One line of the results: figures of everybody, their medians, the ratio and the goal.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    job::Outcome,
    plan::{Bound, Kind, Row, Unit},
};

/// One round of one contender.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// In the row's unit.
    pub(super) value: f64,
    /// Units, or GiB, in a second on the wall.
    pub(super) rate: f64,
    /// What the generator said.
    pub(super) outcome: Option<Outcome>,
}

impl Sample {
    /// A figure that no generator had a part in.
    pub(super) fn of(value: f64) -> Self {
        Self {
            value,
            rate: 0.0,
            outcome: None,
        }
    }
}

/// What somebody stands in a row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Does less than a gateway: a lower bound.
    Bound,
    /// Nobody between generator and origin: has times, but no figure.
    Direct,
    /// What no gateway can go below, or only with other means.
    Floor,
    Gateway,
    Peer,
}

/// All rounds of one contender.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) samples: Vec<Sample>,
    /// Rounds that had errors, or did not begin.
    pub(super) errors: u64,
    pub(super) problem: Option<String>,
}

impl Entry {
    /// Without a round yet.
    pub(super) fn new(name: String, role: Role) -> Self {
        Self {
            name,
            role,
            samples: Vec::new(),
            errors: 0,
            problem: None,
        }
    }

    fn values(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.value).collect()
    }

    fn median_of(&self, part: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.samples.iter().filter_map(part).collect();
        median(&values)
    }
}

/// A row of `latest.json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    /// The row's id.
    pub(super) work: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: String,
    /// The median of the gateway as it ships.
    pub(super) ravelin: Option<f64>,
    /// The medians of its peers.
    pub(super) peers: BTreeMap<String, f64>,
    /// The medians of what does less than a gateway.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bounds: BTreeMap<String, f64>,
    /// What lies under all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) floor: BTreeMap<String, f64>,
    pub(super) best_peer: Option<String>,
    /// The gateway's figure by the best peer's. Of a curve: the worst rise along it.
    pub(super) ratio: Option<f64>,
    /// Rounds with errors, which are in no median.
    pub(super) errors: u64,
    /// The first error of each who had one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) problems: BTreeMap<String, String>,
    /// Good rounds of the gateway.
    pub(super) rounds: usize,
    /// Least and greatest of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) spread: BTreeMap<String, [f64; 2]>,
    /// Units, or GiB, in a second on the wall, with each held to the measured cores.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) per_second: BTreeMap<String, f64>,
    /// Median and 99th percentile of a unit's time on the wall, in µs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) latency_us: BTreeMap<String, [f64; 2]>,
    /// What was negotiated with the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cipher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) goal: Option<Judged>,
    /// Of a curve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) points: Vec<Point>,
}

/// A goal, and whether it is met.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Judged {
    pub(super) at_least: f64,
    pub(super) aim: f64,
    /// Whether the two are in the row's unit, not ratios.
    pub(super) absolute: bool,
    /// `None` when there is no figure to hold against it.
    pub(super) met: Option<Met>,
}

/// How far a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Met {
    Aim,
    AtLeast,
    No,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Point {
    /// How many there were.
    pub(super) number: usize,
    /// What a unit then cost.
    pub(super) value: f64,
}

impl Line {
    /// The line that these rounds make.
    pub(super) fn new(row: &'static Row, entries: Vec<Entry>, points: Vec<Point>) -> Self {
        let medians = |role| {
            let those = entries.iter().filter(|entry| entry.role == role);
            let median = |entry: &Entry| Some((entry.name.clone(), median(&entry.values())?));
            those.filter_map(median).collect::<BTreeMap<_, _>>()
        };
        let peers = medians(Role::Peer);
        let gateway = entries.iter().find(|entry| entry.role == Role::Gateway);
        let ravelin = match points.last() {
            Some(point) => Some(point.value),
            None => gateway.and_then(|entry| median(&entry.values())),
        };
        let best = peers.iter().min_by(|a, b| a.1.total_cmp(b.1));
        let ratio = match row.kind {
            Kind::Growth(_) => rise(&points),
            Kind::Load(_) | Kind::Idle(_) | Kind::Start | Kind::Micro(_) | Kind::Check(..) => {
                best.and_then(|(_, best)| Some(ravelin? / best))
            }
        };
        let outcome = gateway.and_then(|entry| entry.samples.last()?.outcome.as_ref());
        // A body of megabytes has no time that anybody waits for.
        let timed = row.unit != Unit::SecondsPerGib;
        let latency_us = of_each(&entries, |entry| {
            let p50 = entry.median_of(|sample| sample.outcome.as_ref()?.p50_us)?;
            let p99 = entry.median_of(|sample| sample.outcome.as_ref()?.p99_us)?;
            timed.then_some([p50, p99])
        });
        let tail = |name: &String| latency_us.get(name).map(|[_, p99]| *p99);
        let least = peers.keys().filter_map(tail).min_by(f64::total_cmp);
        let late = tail(&"ravelin".to_owned()).zip(least);
        let late = late.is_some_and(|(own, least)| own > least);
        Self {
            work: row.id,
            title: row.title,
            unit: row.unit.text(),
            best_peer: best.map(|(name, _)| name.clone()),
            bounds: medians(Role::Bound),
            floor: medians(Role::Floor),
            errors: entries.iter().map(|entry| entry.errors).sum(),
            problems: of_each(&entries, |entry| entry.problem.clone()),
            rounds: gateway.map_or(0, |entry| entry.samples.len()),
            spread: of_each(&entries, |entry| {
                spread(&entry.values()).filter(|_| entry.role != Role::Direct)
            }),
            per_second: of_each(&entries, |entry| {
                entry.median_of(|sample| (sample.rate > 0.0).then_some(sample.rate))
            }),
            latency_us,
            cipher: outcome.and_then(|outcome| outcome.cipher.clone()),
            group: outcome.and_then(|outcome| outcome.group.clone()),
            goal: judge(row, ravelin, ratio, late),
            ravelin,
            peers,
            ratio,
            points,
        }
    }
}

fn of_each<T>(entries: &[Entry], part: impl Fn(&Entry) -> Option<T>) -> BTreeMap<String, T> {
    let named = |entry: &Entry| Some((entry.name.clone(), part(entry)?));
    entries.iter().filter_map(named).collect()
}

fn judge(row: &Row, value: Option<f64>, ratio: Option<f64>, late: bool) -> Option<Judged> {
    let goal = row.goal?;
    let (at_least, aim, absolute) = match (goal.at_least, goal.aim) {
        (Bound::Ratio(at_least), Bound::Ratio(aim)) => (at_least, aim, false),
        (Bound::Value(at_least) | Bound::Ratio(at_least), Bound::Value(aim))
        | (Bound::Value(at_least), Bound::Ratio(aim)) => (at_least, aim, true),
    };
    let figure = if absolute { value } else { ratio };
    let met = figure.map(|figure| match () {
        () if goal.tail && late => Met::No,
        () if figure <= aim => Met::Aim,
        () if figure <= at_least => Met::AtLeast,
        () => Met::No,
    });
    Some(Judged {
        at_least,
        aim,
        absolute,
        met,
    })
}

/// The greatest factor by which a curve rises from one of its points to a later one.
fn rise(points: &[Point]) -> Option<f64> {
    let (first, rest) = points.split_first()?;
    let mut least = first.value;
    let mut rise: f64 = 1.0;
    for point in rest {
        rise = rise.max(point.value / least);
        least = least.min(point.value);
    }
    Some(rise)
}

/// The value in the middle; of an even number, the mean of the two there.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

fn spread(values: &[f64]) -> Option<[f64; 2]> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let greatest = values.iter().copied().max_by(f64::total_cmp)?;
    Some([least, greatest])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::plan::ROWS;

    pub(in crate::bench) fn row(id: &str) -> &'static Row {
        ROWS.iter().find(|row| row.id == id).unwrap()
    }

    pub(in crate::bench) fn entry(name: &str, role: Role, values: &[f64]) -> Entry {
        Entry {
            samples: values.iter().map(|value| Sample::of(*value)).collect(),
            ..Entry::new(name.to_owned(), role)
        }
    }

    #[test]
    fn the_ratio_is_to_the_best_peer_and_not_to_a_lower_bound() {
        let entries = vec![
            entry("ravelin", Role::Gateway, &[3.0, 1.0, 2.0]),
            entry("slow", Role::Peer, &[8.0]),
            entry("fast", Role::Peer, &[4.0, 4.0]),
            entry("half", Role::Bound, &[1.0]),
            entry("relay", Role::Floor, &[0.5]),
        ];

        let line = Line::new(row("tunnel-h1-down"), entries, Vec::new());

        assert_eq!((line.ravelin, line.ratio), (Some(2.0), Some(0.5)));
        assert_eq!(line.best_peer.as_deref(), Some("fast"));
        assert_eq!(line.goal.unwrap().met, Some(Met::Aim));
        assert_eq!(line.spread["ravelin"], [1.0, 3.0]);
        assert_eq!((line.bounds["half"], line.floor["relay"]), (1.0, 0.5));
    }

    #[test]
    fn rounds_with_errors_are_said_and_not_used() {
        let mut broken = entry("fast", Role::Peer, &[]);
        (broken.errors, broken.problem) = (5, Some("502".to_owned()));
        let entries = vec![
            entry("ravelin", Role::Gateway, &[2.0]),
            broken,
            entry("slow", Role::Peer, &[4.0]),
        ];

        let line = Line::new(row("h1"), entries, Vec::new());

        assert_eq!((line.errors, &*line.problems["fast"]), (5, "502"));
        assert_eq!(line.best_peer.as_deref(), Some("slow"));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio_and_no_verdict_on_one() {
        let entries = vec![entry("ravelin", Role::Gateway, &[2.0])];

        let line = Line::new(row("h1"), entries.clone(), Vec::new());
        let start = Line::new(row("start"), entries, Vec::new());

        assert_eq!((line.ratio, line.goal.unwrap().met), (None, None));
        assert_eq!(start.goal.unwrap().met, Some(Met::Aim), "a limit in MiB");
    }

    #[test]
    fn a_curve_is_judged_by_its_worst_rise() {
        let points = [4.0, 2.0, 3.0].map(|value| Point { number: 1, value });

        let line = Line::new(row("growth-routes"), Vec::new(), points.to_vec());

        assert_eq!(line.ratio, Some(1.5));
        assert_eq!(line.goal.unwrap().met, Some(Met::No));
    }
}
