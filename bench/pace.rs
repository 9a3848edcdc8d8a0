//! How much a run does, and when: as fast as answers come (a closed loop), or at a constant rate (an open one).
//!
//! In a closed loop a broker that stalls is asked less, and the requests that would have met the stall are never sent:
//! the figures look better than what a user sees, who does not wait with the next request until the last one is answered.
//! Gil Tene named that *coordinated omission* (["How NOT to Measure
//! Latency"](https://www.infoq.com/presentations/latency-response-time/)). So in an open loop each batch has a time at
//! which it is due, whatever became of the ones before it, and its latency counts from there.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::volume::Volume;

/// How many records or bytes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Bytes of record batches.
    Bytes(u64),
    /// Records.
    Records(u64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = number_and_unit(text.strip_suffix("/s").unwrap_or(text));
        let bytes_each = match unit {
            "" => None,
            "kB" => Some(1_000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            _ => return Err(format!("`{text}` is no rate; give records a second, or bytes, such as 20000 or 50MB")),
        };
        let number = number.parse().ok().filter(|number| *number > 0);
        let rate = number.and_then(|number: u64| match bytes_each {
            None => Some(Self::Records(number)),
            Some(each) => number.checked_mul(each).map(Self::Bytes),
        });
        rate.ok_or_else(|| format!("`{text}` is no rate; give a whole number above 0, such as 20000 or 50MB"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bytes(bytes) => write!(f, "{} MB/s", bytes as f64 / 1e6),
            Self::Records(records) => write!(f, "{records} records/s"),
        }
    }
}

/// How much is done: so many records, or for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Records in all.
    Records(u64),
    /// From the start on.
    Time(Duration),
}

impl Extent {
    /// Whether there is nothing to do.
    pub(crate) fn is_nothing(self) -> bool {
        matches!(self, Self::Records(0) | Self::Time(Duration::ZERO))
    }
}

impl FromStr for Extent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(records) => Ok(Self::Records(records)),
            Err(_) => duration(text).map(Self::Time),
        }
    }
}

/// A time as it is written on the command line: `500ms`, `30s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let ms_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("`{text}` is no time; give a number with ms, s or m, such as 30s")),
    };
    let ms = number.parse().ok().and_then(|number: u64| number.checked_mul(ms_each));
    ms.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no time; give a whole number, such as 30s"))
}

fn number_and_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()))
}

/// When each batch of one producer is due, at a constant rate of all producers together.
///
/// The producers take turns, so that their batches are spread evenly. Each time is computed from the batch's number and
/// not from the time before it: errors do not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// What a batch has of what the rate counts.
    each: u64,
    per_second: u64,
    producer: u64,
    producers: u64,
}

impl Schedule {
    /// That of producer `index` of `producers`.
    pub(crate) fn new(rate: Rate, batch: Volume, index: usize, producers: usize) -> Self {
        let (each, per_second) = match rate {
            Rate::Bytes(bytes) => (batch.bytes, bytes),
            Rate::Records(records) => (batch.records, records),
        };
        Self { each, per_second, producer: index as u64, producers: producers as u64 }
    }

    /// When the producer's batch of this number is due, from the start on.
    pub(crate) fn due(&self, batch: u64) -> Duration {
        let before = u128::from(batch) * u128::from(self.producers) + u128::from(self.producer);
        let nanoseconds = before * u128::from(self.each) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_read_with_their_units() {
        for (text, rate) in [
            ("20000", Rate::Records(20_000)),
            ("20000/s", Rate::Records(20_000)),
            ("5kB", Rate::Bytes(5_000)),
            ("50MB", Rate::Bytes(50_000_000)),
            ("1GB/s", Rate::Bytes(1_000_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        for text in ["", "0", "0MB", "MB", "5mb", "5 MB", "-5", "1.5MB", "99999999999999999999", "99999999999999999GB"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("100".parse(), Ok(Extent::Records(100)));
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Extent::Time(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "s", "5h", "-1s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(text.parse::<Extent>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_batches_of_all_producers_together_are_due_evenly() {
        // 5,000 batches a second: one every 200 µs.
        let batch = Volume { records: 10, bytes: 10_000 };
        for rate in [Rate::Bytes(50_000_000), Rate::Records(50_000)] {
            let mut due: Vec<Duration> = Vec::new();
            for producer in 0..3 {
                let schedule = Schedule::new(rate, batch, producer, 3);
                due.extend((0..100).map(|batch| schedule.due(batch)));
            }
            due.sort();
            let expected: Vec<Duration> = (0..300).map(|number| Duration::from_micros(200 * number)).collect();
            assert_eq!(due, expected);
        }
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let schedule = Schedule::new(Rate::Records(7), Volume { records: 1, bytes: 1 }, 0, 1);
        assert_eq!(schedule.due(7 * 3_600_000), Duration::from_secs(3_600_000));
        assert_eq!(schedule.due(1), Duration::from_nanos(142_857_142));
        assert_eq!(schedule.due(u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
