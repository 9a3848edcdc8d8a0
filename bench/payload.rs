//! The batches that a producer sends: encoded before the clock starts, distinct, and sent round robin.
//!
//! Preparing them up front keeps the generator's share of the processor small: it shares the cores with the broker, so
//! what it spends on encoding would be taken for the broker's cost.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringmq_wire::Timestamp;
use ringmq_wire::batch::{BatchBuilder, BuildError, Compression, RecordRef};

/// What one producer's full batches take up together, about: few enough to stay in a processor's cache, as the data of
/// a program that has just made it would.
const POOL_BYTES: usize = 2 * 1024 * 1024;
/// At least so many full batches are distinct, however large they are, and at most so many, however small.
const POOL_BATCHES: std::ops::RangeInclusive<usize> = 2..=1024;
/// What is read of a payload file.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where the values of records come from.
#[derive(Debug)]
pub(crate) enum Values {
    /// Random bytes, which no compression makes smaller.
    Random(fastrand::Rng),
    /// The bytes of a file, again from its start when it ends.
    File {
        /// What was read of it; not empty.
        bytes: Bytes,
        /// Where the next value starts.
        at: usize,
    },
}

impl Values {
    /// Random values that differ from those of any other seed.
    pub(crate) fn random(seed: u64) -> Self {
        Self::Random(fastrand::Rng::with_seed(seed))
    }

    /// Reads a payload file, up to 256 MiB of it.
    ///
    /// # Errors
    /// When it cannot be read, or is empty.
    pub(crate) fn read_file(path: &Path) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(bytes.into())
    }

    fn fill(&mut self, value: &mut [u8]) {
        match self {
            Self::Random(random) => random.fill(value),
            Self::File { bytes, at } => {
                let mut rest = value;
                while !rest.is_empty() {
                    let count = rest.len().min(bytes.len() - *at);
                    let (now, later) = rest.split_at_mut(count);
                    now.copy_from_slice(&bytes[*at..*at + count]);
                    *at = (*at + count) % bytes.len();
                    rest = later;
                }
            }
        }
    }
}

/// The sizes that were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// The value of each record.
    pub(crate) record_bytes: usize,
    /// What a batch may take up with its header; one record is in it in any case.
    pub(crate) batch_bytes: usize,
}

/// One producer's batches.
#[derive(Debug)]
pub(crate) struct Payload {
    /// All of one length and one number of records.
    pub(crate) full: Vec<Bytes>,
    pub(crate) records_per_batch: u64,
    /// The last batch, when the records do not fill it.
    pub(crate) rest: Option<Bytes>,
    /// How many full batches make up the records, without the rest.
    pub(crate) full_count: u64,
    pub(crate) rest_records: u64,
}

impl Payload {
    /// Batches for so many records in all.
    ///
    /// # Errors
    /// When a record is larger than the format allows.
    pub(crate) fn prepare(shape: Shape, records: u64, values: &mut Values) -> Result<Self, BuildError> {
        let now = now();
        let (first, records_per_batch) = build(shape, now, u64::MAX, values)?;
        let (full_count, rest_records) = (records / records_per_batch, records % records_per_batch);
        let rest = match rest_records {
            0 => None,
            count => Some(build(shape, now, count, values)?.0),
        };
        let wanted = (POOL_BYTES / first.len()).clamp(*POOL_BATCHES.start(), *POOL_BATCHES.end());
        let distinct = usize::try_from(full_count.max(1)).map_or(wanted, |count| count.min(wanted));
        let mut full = vec![first];
        while full.len() < distinct {
            full.push(build(shape, now, records_per_batch, values)?.0);
        }
        Ok(Self { full, records_per_batch, rest, full_count, rest_records })
    }
}

/// One batch of at most `records_max` records, and how many there are.
fn build(shape: Shape, now: Timestamp, records_max: u64, values: &mut Values) -> Result<(Bytes, u64), BuildError> {
    let mut builder = BatchBuilder::with_capacity(Compression::None, shape.batch_bytes.max(shape.record_bytes));
    let mut value = vec![0; shape.record_bytes];
    let mut records = 0;
    while records < records_max {
        let size = RecordRef { timestamp: now, key: None, value: Some(&value), headers: &[] };
        if records > 0 && builder.len_bytes_with(&size) > shape.batch_bytes {
            break;
        }
        values.fill(&mut value);
        builder.append(&RecordRef { timestamp: now, key: None, value: Some(&value), headers: &[] })?;
        records += 1;
    }
    Ok((builder.finish()?, records))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ringmq_wire::batch::{BatchLimits, Scratch, split_batches, validate_batch};

    use super::*;

    fn values_in(batch: &Bytes) -> Vec<Vec<u8>> {
        let mut scratch = Scratch::default();
        let mut found = Vec::new();
        for view in split_batches(batch) {
            let records = view.unwrap().records(&mut scratch).unwrap();
            found.extend(records.map(|record| record.unwrap().value.unwrap().to_vec()));
        }
        found
    }

    #[test]
    fn batches_are_as_large_as_asked_and_hold_exactly_the_records() {
        let shape = Shape { record_bytes: 1000, batch_bytes: 50_000 };
        let payload = Payload::prepare(shape, 1234, &mut Values::random(1)).unwrap();
        assert_eq!(payload.full_count * payload.records_per_batch + payload.rest_records, 1234);
        let record_overhead_max = 12;
        for batch in &payload.full {
            let header = validate_batch(batch, &BatchLimits::default()).unwrap();
            assert_eq!(u64::from(header.record_count), payload.records_per_batch);
            assert_eq!(batch.len(), payload.full[0].len());
            assert!(batch.len() <= 50_000 && batch.len() + 1000 + record_overhead_max > 50_000, "{}", batch.len());
        }
        let rest = validate_batch(payload.rest.as_ref().unwrap(), &BatchLimits::default()).unwrap();
        assert_eq!(u64::from(rest.record_count), payload.rest_records);
    }

    #[test]
    fn a_batch_holds_a_record_however_small_it_should_be() {
        let shape = Shape { record_bytes: 5000, batch_bytes: 100 };
        let payload = Payload::prepare(shape, 3, &mut Values::random(1)).unwrap();
        assert_eq!((payload.records_per_batch, payload.full_count, payload.rest_records), (1, 3, 0));
        assert_eq!(values_in(&payload.full[0])[0].len(), 5000);
    }

    #[test]
    fn random_values_differ_from_each_other_and_between_producers() {
        let shape = Shape { record_bytes: 100, batch_bytes: 10_000 };
        let mut seen = HashSet::new();
        let mut count = 0;
        for seed in 0..3 {
            let payload = Payload::prepare(shape, 100_000, &mut Values::random(seed)).unwrap();
            assert!(payload.full.len() >= 100);
            for value in payload.full.iter().take(10).flat_map(values_in) {
                count += 1;
                seen.insert(value);
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn random_values_cannot_be_compressed() {
        let shape = Shape { record_bytes: 1000, batch_bytes: 100_000 };
        let payload = Payload::prepare(shape, 1000, &mut Values::random(7)).unwrap();
        let mut compressed = BatchBuilder::new(Compression::Lz4);
        for value in values_in(&payload.full[0]) {
            let timestamp = Timestamp::new(0);
            compressed.append(&RecordRef { timestamp, key: None, value: Some(&value), headers: &[] }).unwrap();
        }
        let compressed = compressed.finish().unwrap();
        assert!(compressed.len() * 100 > payload.full[0].len() * 98, "{} bytes", compressed.len());
    }

    #[test]
    fn a_file_is_used_from_end_to_end_and_again() {
        let shape = Shape { record_bytes: 4, batch_bytes: 1 };
        let mut values = Values::File { bytes: Bytes::from_static(b"abcdefghij"), at: 0 };
        let payload = Payload::prepare(shape, 5, &mut values).unwrap();
        let found: Vec<u8> = payload.full.iter().flat_map(values_in).flatten().collect();
        assert_eq!(found, b"abcdefghijabcdefghij");
    }

    #[test]
    fn an_empty_or_missing_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("payload");
        assert!(Values::read_file(&path).is_err());
        std::fs::write(&path, b"").unwrap();
        assert!(Values::read_file(&path).is_err());
        std::fs::write(&path, b"x").unwrap();
        assert_eq!(Values::read_file(&path).unwrap(), &b"x"[..]);
    }
}
