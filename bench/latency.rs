//! How long requests took: histograms that are merged from all workers, never averaged.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 90 of 100 are not longer.
    pub p90: f64,
    /// 99 of 100 are not longer.
    pub p99: f64,
    /// 999 of 1,000 are not longer.
    pub p999: f64,
    /// 9,999 of 10,000 are not longer.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

/// One point of the curve that a plot shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Of 100, so many are not longer.
    pub percent: f64,
    /// Microseconds.
    pub us: f64,
}

/// Durations in nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    all: Histogram<u64>,
    /// Of those since the last [`Latencies::take_longest`].
    longest: Duration,
}

impl Latencies {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Histogram::new(3).map(|all| Self { all, longest: Duration::ZERO })
    }

    /// Those of many workers together.
    pub(crate) fn of_all<'a>(workers: impl Iterator<Item = &'a Self>) -> Result<Self, hdrhistogram::CreationError> {
        let mut all = Self::new()?;
        workers.for_each(|worker| all.add(worker));
        Ok(all)
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        // It grows by itself, to 2^63 nanoseconds; what is longer counts as that.
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX >> 1);
        let _ = self.all.record(nanoseconds);
        self.longest = self.longest.max(duration);
    }

    /// The longest since the last time that this was asked.
    pub(crate) fn take_longest(&mut self) -> Duration {
        std::mem::take(&mut self.longest)
    }

    fn add(&mut self, other: &Self) {
        // They have the same precision and grow by themselves.
        let _ = self.all.add(&other.all);
    }

    pub(crate) fn summary(&self) -> Latency {
        let microseconds = |quantile| self.all.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50: microseconds(0.5),
            p90: microseconds(0.9),
            p99: microseconds(0.99),
            p999: microseconds(0.999),
            p9999: microseconds(0.9999),
            max: self.all.max() as f64 / 1e3,
        }
    }

    /// The curve from the shortest to the longest, finer towards the end: what it says of one in ten, one in a hundred and
    /// so on has the same number of points.
    pub(crate) fn curve(&self) -> Vec<Percentile> {
        const POINTS_PER_HALVING: u32 = 2;
        if self.all.is_empty() {
            return Vec::new();
        }
        let points = self.all.iter_quantiles(POINTS_PER_HALVING);
        points
            .map(|point| Percentile {
                percent: point.quantile_iterated_to() * 100.0,
                us: point.value_iterated_to() as f64 / 1e3,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many microseconds, one of each number.
    fn of(numbers: std::ops::RangeInclusive<u64>) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        numbers.for_each(|number| latencies.record(Duration::from_micros(number)));
        latencies
    }

    #[test]
    fn quantiles_are_those_of_all_workers_together() {
        // An average of the workers' medians would be 4,000, and one of their p99.99 7,500.
        let workers = [of(1..=1000), of(5001..=9000), of(1001..=5000), of(9001..=10_000)];
        let found = Latencies::of_all(workers.iter()).unwrap().summary();
        for (found, expected) in [
            (found.p50, 5000.0),
            (found.p90, 9000.0),
            (found.p99, 9900.0),
            (found.p999, 9990.0),
            (found.p9999, 9999.0),
            (found.max, 10_000.0),
        ] {
            assert!((found / expected - 1.0).abs() < 0.002, "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_curve_rises_to_the_longest() {
        let latencies = of(1..=10_000);
        let curve = latencies.curve();
        assert!(
            curve.is_sorted_by(|first, second| first.percent <= second.percent && first.us <= second.us),
            "{curve:?}"
        );
        let (first, last) = (curve.first().unwrap(), curve.last().unwrap());
        assert!(first.us < 10.0 && (last.percent, last.us) == (100.0, latencies.summary().max), "{first:?} {last:?}");
        assert!((10..100).contains(&curve.len()), "{}", curve.len());
        assert_eq!(Latencies::new().unwrap().curve(), []);
    }
}
