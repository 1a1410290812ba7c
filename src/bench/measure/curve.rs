//! Curves: what a unit of work costs the gateway when there is ever more of something.

use std::io;

use super::{Run, WARM_UP, job};
use crate::bench::{
    contender::{Program, origin},
    job::Work,
    micro,
    plan::{Growth, REQUESTS, Shape},
    result::{self, Point},
};

impl Run<'_> {
    /// Measures the same work for ever more of something.
    pub(super) fn growth(&mut self, growth: Growth, points: &mut Vec<Point>) -> io::Result<()> {
        let steps: &[usize] = match growth {
            Growth::Connections => &[1, 10, 100, 1000, 9000],
            Growth::Routes => &[1, 100, 10_000],
            Growth::Sessions => &[1, 1000, 100_000],
        };
        let last = match growth {
            Growth::Connections => self.effort.most,
            // They cost no descriptors.
            Growth::Routes | Growth::Sessions => self.effort.most.saturating_mul(FURTHER),
        };
        for number in steps.iter().filter(|number| **number <= last) {
            let samples = match growth {
                Growth::Sessions => vec![micro::session(*number)?],
                Growth::Connections | Growth::Routes => self.grown(growth, *number)?,
            };
            let value = result::median(&samples).unwrap_or_default();
            let figure = format!("{value:.2} {}", self.row.unit.text());
            let at = format!("at {number}");
            self.progress.measured(&at, "ravelin", &figure);
            points.push(Point {
                number: *number,
                value,
            });
        }
        Ok(())
    }

    fn grown(&self, growth: Growth, number: usize) -> io::Result<Vec<f64>> {
        let (apps, connections) = match growth {
            Growth::Routes => (number, 64),
            Growth::Connections | Growth::Sessions => (1, number),
        };
        let (_origin, addresses) = origin(self.field)?;
        let contender = Program::Gateway.start(self.field, addresses, apps)?;
        let cookie = contender.cookie().unwrap_or_default();
        let mut shape = Shape {
            connections: connections.min(BUSY),
            ..REQUESTS
        };
        let job = job(&contender, self.row.id, &shape, cookie, self.effort.seconds)?;
        // The other connections are idle meanwhile, as most are most of the time.
        shape.work = Work::Idle;
        shape.connections = connections.saturating_sub(BUSY);
        let _idle = match shape.connections {
            0 => None,
            _some => Some(self.held(&contender, &shape, cookie)?),
        };
        if self.effort.warm {
            let mut warm = job.clone();
            warm.seconds = warm.seconds.min(WARM_UP);
            let _warm = self.drive(&contender, &warm);
        }
        (0..self.effort.rounds)
            .map(|_round| {
                let sample = self.drive(&contender, &job)?;
                contender.forget_log();
                Ok(sample.value)
            })
            .collect()
    }
}

/// Connections of a curve that are busy at once.
const BUSY: usize = 1000;
/// How much further than its connections a run's curves of routes and sessions go.
const FURTHER: usize = 12;
