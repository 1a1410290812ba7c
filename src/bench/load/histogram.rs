//! Times of units, to within three in a hundred, in a few kilobytes.

use std::{cell::Cell, time::Duration};

/// Counts times in buckets: 32 for each power of two nanoseconds.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Vec<Cell<u64>>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![Cell::new(0); BUCKETS],
        }
    }
}

impl Histogram {
    /// Counts one time.
    pub(super) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(bucket(nanos)) {
            count.set(count.get() + 1);
        }
    }

    /// The time that this part of all took at most, in microseconds; `None` without any.
    pub(super) fn quantile_us(&self, part: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().map(Cell::get).sum();
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            seen += count.get();
            let reached = count.get() > 0 && seen as f64 >= part * total as f64;
            reached.then(|| upper(bucket) as f64 / 1000.0)
        })
    }
}

/// Small numbers have a bucket each; larger ones share it by their five bits after the first.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(FINE + 1);
    let fine = usize::try_from(nanos >> shift).unwrap_or(usize::MAX);
    (shift as usize) * PER_POWER + fine
}

/// The largest number in a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket / PER_POWER).saturating_sub(1);
    let first = (bucket - shift * PER_POWER) as u64;
    ((first + 1) << shift) - 1
}

const FINE: u32 = 5;
const PER_POWER: usize = 1 << FINE;
/// Up to 2^40 ns, eighteen minutes.
const BUCKETS: usize = PER_POWER * 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_a_bucket_that_is_narrow() {
        for nanos in (0..200).chain(
            (8..39).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1, 3 << (bits - 1)]),
        ) {
            let top = upper(bucket(nanos));
            assert!(top >= nanos, "{nanos} is above its bucket's {top}");
            assert!(
                top <= nanos + nanos / 32,
                "{nanos} shares a bucket with {top}"
            );
            assert_eq!(bucket(top), bucket(nanos));
            assert_eq!(bucket(top + 1), bucket(nanos) + 1);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_times_that_were_recorded() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile_us(0.5), None);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }

        let half = histogram.quantile_us(0.5).unwrap();
        let most = histogram.quantile_us(0.99).unwrap();

        assert!((500.0..516.0).contains(&half), "{half}");
        assert!((990.0..1021.0).contains(&most), "{most}");
    }
}
