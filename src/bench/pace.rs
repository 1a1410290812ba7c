//! How long a run still takes: what its rows should take, corrected by what they have taken so far.

use std::time::Duration;

use super::{
    contender::Program,
    measure::Effort,
    plan::{Growth, Kind, Row},
};

/// A run's rows, and how far it is.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Seconds that each row should take.
    rows: Vec<f64>,
    done: usize,
}

impl Pace {
    /// Before the first row.
    pub(super) fn new(rows: &[&'static Row], programs: &[Program], effort: Effort) -> Self {
        let expected = |row: &&Row| {
            let contenders = programs.iter().filter(|program| program.serves(row));
            expected(row, contenders.count(), effort)
        };
        Self {
            rows: rows.iter().map(expected).collect(),
            done: 0,
        }
    }

    /// A row is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
    }

    /// What is left after so much time.
    pub(super) fn left(&self, elapsed: Duration) -> Duration {
        let sum = |rows: &[f64]| rows.iter().sum::<f64>();
        let (before, after) = self.rows.split_at(self.done.min(self.rows.len()));
        // The first row alone says little.
        let pace = (elapsed.as_secs_f64() + DOUBT) / (sum(before) + DOUBT);
        Duration::try_from_secs_f64(sum(after) * pace).unwrap_or_default()
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}/{}]", self.done + 1, self.rows.len())
    }
}

/// As people say it.
pub(super) fn words(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..90 => format!("about {seconds} s left"),
        seconds => format!("about {} min left", (seconds + 30) / 60),
    }
}

/// Seconds of a row, with so many contenders.
fn expected(row: &Row, contenders: usize, effort: Effort) -> f64 {
    let (contenders, rounds) = (number(contenders), number(effort.rounds));
    let round = rounds * (effort.seconds + BETWEEN);
    let start = START + if effort.warm { 2.0 * BETWEEN } else { 0.0 };
    match row.kind {
        Kind::Load(_) => contenders * (start + round),
        Kind::Idle(shape) => {
            let held = number(shape.connections.min(effort.most));
            contenders * (START + SETTLE + held / OPENED_A_SECOND)
        }
        Kind::Start => contenders * rounds * START,
        Kind::Micro(_) => rounds * BETWEEN,
        Kind::Growth(Growth::Sessions) => rounds * BETWEEN,
        Kind::Growth(_) => 4.0 * (start + round) + number(effort.most) / OPENED_A_SECOND,
        Kind::Check(..) => START + 2.0 * round,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

/// Seconds to start and end a program.
const START: f64 = 0.8;
/// Seconds around each load: a generator starts, waits and ends.
const BETWEEN: f64 = 0.45;
/// Seconds that memory needs to settle, and programs to close connections.
const SETTLE: f64 = 2.5;
const OPENED_A_SECOND: f64 = 1500.0;
/// Seconds by which we are sure of the above before anything is measured.
const DOUBT: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_pace_of_what_is_done() {
        let mut pace = Pace {
            rows: vec![60.0, 60.0, 60.0],
            done: 0,
        };
        assert_eq!(pace.left(Duration::ZERO).as_secs(), 180);

        pace.step();
        // Twice as long as it should have.
        let left = pace.left(Duration::from_secs(150)).as_secs();

        assert_eq!((left, pace.to_string()), (240, "[2/3]".to_owned()));
        pace.step();
        pace.step();
        assert_eq!(pace.left(Duration::from_secs(300)), Duration::ZERO);
    }

    #[test]
    fn time_is_said_in_words() {
        let say = |seconds| words(Duration::from_secs(seconds));

        assert_eq!(say(40), "about 40 s left");
        assert_eq!(say(31 * 60 - 10), "about 31 min left");
    }
}
