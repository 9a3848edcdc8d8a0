//! Gathers records into one batch for each partition, and hands a batch out when it is full.

use bytes::Bytes;
use ringmq_client::Partitioner;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, BuildError, Compression, RecordRef};
use ringmq_wire::{PartitionIndex, Timestamp};
use thiserror::Error;

/// The size that a batch is filled to, where the topic allows it: large enough to keep the disk busy.
const BATCH_BYTES: usize = 1 << 20;

/// Memory of all open batches together; with many partitions each gets less.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// However many partitions there are, batches are not cut smaller than this.
const BATCH_BYTES_MIN: usize = 16 << 10;

/// What does not shrink grows a little: one part of so many of the topic's bound is left free for that.
const COMPRESSED_GROWTH_SHARE: usize = 8;

/// Which partition a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The one that its key says, or each in turn where it has none.
    Any,
    /// This one.
    Only(PartitionIndex),
}

/// A batch to be sent.
#[derive(Debug)]
pub(super) struct ReadyBatch {
    /// Where it goes.
    pub partition: PartitionIndex,
    /// The batch as it is sent and stored.
    pub bytes: Bytes,
    /// How many records are in it.
    pub records: u32,
    /// Bytes of input that it stands for, newlines included.
    pub input_bytes: u64,
    /// The lines that its first and its last record come from.
    pub lines: (u64, u64),
}

/// A record that no batch of the topic can hold, or none at all.
#[derive(Debug, Error)]
pub(super) enum RecordError {
    /// It is too long even alone.
    #[error(
        "line {line} makes a batch of {bytes} bytes, but batches of this topic hold at most {bytes_max} \
         (batch_bytes_max)"
    )]
    TooLarge {
        /// Its line.
        line: u64,
        /// What a batch with it alone takes.
        bytes: usize,
        /// What the topic allows.
        bytes_max: usize,
    },
    /// The topic has no such partition.
    #[error("line {line}: there is no partition {partition}")]
    NoPartition {
        /// Its line.
        line: u64,
        /// What was asked for.
        partition: PartitionIndex,
    },
    /// The batch cannot be built.
    #[error("line {line}: {source}")]
    Build {
        /// The line at which that was found.
        line: u64,
        /// Why.
        source: BuildError,
    },
}

/// A record and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceRecord<'a> {
    /// Its line, from 1.
    pub line: u64,
    /// Bytes of input that it took, newline included.
    pub input_bytes: usize,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// The open batches. Memory stays below [`OPEN_BYTES_MAX`], or [`BATCH_BYTES_MIN`] a partition.
#[derive(Debug)]
pub(super) struct Batcher {
    partitioner: Partitioner,
    target: Target,
    open: Vec<Option<OpenBatch>>,
    /// Always without records: tells how large a batch with one record alone is.
    empty: BatchBuilder,
    /// A batch is not filled beyond this.
    fill_bytes: usize,
    /// The topic's bound: a single record may go up to it.
    batch_bytes_max: usize,
    compression: Compression,
}

impl Batcher {
    /// A batcher for a topic with this many partitions and this bound on a batch.
    pub(super) fn new(target: Target, partitions: u32, batch_bytes_max: usize, compression: Compression) -> Self {
        let partitions = usize::try_from(partitions).unwrap_or(usize::MAX).max(1);
        let share = (OPEN_BYTES_MAX / partitions).clamp(BATCH_BYTES_MIN, BATCH_BYTES);
        let growth = match compression {
            Compression::None => 0,
            _ => batch_bytes_max / COMPRESSED_GROWTH_SHARE,
        };
        Self {
            partitioner: Partitioner::new(),
            target,
            open: (0..partitions).map(|_| None).collect(),
            empty: BatchBuilder::new(compression),
            fill_bytes: share.min(batch_bytes_max - growth),
            batch_bytes_max,
            compression,
        }
    }

    /// The longest line that can make a record.
    pub(super) fn line_bytes_max(&self) -> usize {
        self.batch_bytes_max.saturating_sub(BATCH_HEADER_BYTES)
    }

    /// Adds a record; hands out the batch of its partition when that has no room for it.
    ///
    /// # Errors
    /// [`RecordError`]; the record is then in no batch.
    pub(super) fn push(
        &mut self,
        record: SourceRecord<'_>,
        timestamp: Timestamp,
    ) -> Result<Option<ReadyBatch>, RecordError> {
        let line = record.line;
        let content = RecordRef { timestamp, key: record.key, value: record.value, headers: record.headers };
        let bytes = self.empty.len_bytes_with(&content);
        if bytes > self.batch_bytes_max {
            return Err(RecordError::TooLarge { line, bytes, bytes_max: self.batch_bytes_max });
        }
        let partition = self.partition_of(record.key);
        let Some(slot) = self.open.get_mut(partition.as_usize()) else {
            return Err(RecordError::NoPartition { line, partition });
        };
        let full = slot.take_if(|open| open.builder.len_bytes_with(&content) > self.fill_bytes);
        let ready = full.map(|open| open.finish(partition)).transpose()?;
        let empty = || OpenBatch::new(self.compression, self.fill_bytes, line);
        slot.get_or_insert_with(empty).append(&record, &content)?;
        Ok(ready)
    }

    /// Hands out every batch that has a record.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Result<ReadyBatch, RecordError>> {
        (0..).zip(&mut self.open).filter_map(|(index, slot)| {
            let open = slot.take()?;
            Some(open.finish(PartitionIndex::new(index)))
        })
    }

    /// Whether no record waits in an open batch.
    pub(super) fn is_empty(&self) -> bool {
        self.open.iter().all(Option::is_none)
    }

    fn partition_of(&self, key: Option<&[u8]>) -> PartitionIndex {
        match self.target {
            Target::Only(partition) => partition,
            Target::Any => {
                let partitions = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
                self.partitioner.choose(key, partitions).unwrap_or(PartitionIndex::new(0))
            }
        }
    }
}

/// The records of one partition that are not yet sent; at least one.
#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    input_bytes: u64,
    lines: (u64, u64),
}

impl OpenBatch {
    fn new(compression: Compression, fill_bytes: usize, line: u64) -> Self {
        let builder = BatchBuilder::with_capacity(compression, fill_bytes);
        Self { builder, input_bytes: 0, lines: (line, line) }
    }

    fn append(&mut self, record: &SourceRecord<'_>, content: &RecordRef<'_>) -> Result<(), RecordError> {
        let line = record.line;
        self.builder.append(content).map_err(|source| RecordError::Build { line, source })?;
        self.input_bytes += record.input_bytes as u64;
        self.lines.1 = line;
        Ok(())
    }

    fn finish(self, partition: PartitionIndex) -> Result<ReadyBatch, RecordError> {
        let Self { builder, input_bytes, lines } = self;
        let records = builder.record_count();
        let bytes = builder.finish().map_err(|source| RecordError::Build { line: lines.1, source })?;
        Ok(ReadyBatch { partition, bytes, records, input_bytes, lines })
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::batch::{BatchView, Scratch};

    use super::*;

    const NOW: Timestamp = Timestamp::new(1_763_820_000_000);

    fn record<'a>(line: u64, key: Option<&'static [u8]>, value: &'a [u8]) -> SourceRecord<'a> {
        SourceRecord { line, input_bytes: value.len() + 1, key, value: Some(value), headers: &[] }
    }

    fn values(batch: &ReadyBatch) -> Vec<Vec<u8>> {
        let view = BatchView::parse(&batch.bytes).expect("a batch");
        let mut scratch = Scratch::default();
        let records = view.records(&mut scratch).expect("records");
        records.map(|record| record.expect("well-formed").value.expect("a value").to_vec()).collect()
    }

    #[test]
    fn records_without_a_key_reach_every_partition() {
        let mut batcher = Batcher::new(Target::Any, 4, 1 << 20, Compression::None);
        for line in 1..=100 {
            assert!(batcher.push(record(line, None, b"value"), NOW).expect("fits").is_none());
        }
        let batches: Vec<_> = batcher.drain().collect::<Result<_, _>>().expect("batches");
        assert_eq!(batches.iter().map(|batch| batch.records).collect::<Vec<_>>(), [25; 4]);
        assert_eq!(batches.iter().map(|batch| batch.input_bytes).sum::<u64>(), 600);
        assert!(batcher.is_empty());
    }

    #[test]
    fn a_key_keeps_its_partition_and_its_order() {
        let mut batcher = Batcher::new(Target::Any, 4, 1 << 20, Compression::None);
        for line in 1..=10 {
            let value = line.to_string();
            batcher.push(record(line, Some(b"key"), value.as_bytes()), NOW).expect("fits");
        }
        let batches: Vec<_> = batcher.drain().collect::<Result<_, _>>().expect("batches");
        let [batch] = &batches[..] else { panic!("one partition: {batches:?}") };
        let expected: Vec<_> = (1..=10).map(|line| line.to_string().into_bytes()).collect();
        assert_eq!(values(batch), expected);
        assert_eq!(batch.lines, (1, 10));
    }

    #[test]
    fn batches_are_filled_to_their_bound_and_no_record_is_lost() {
        let bytes_max = 1000;
        let mut batcher = Batcher::new(Target::Only(PartitionIndex::new(2)), 3, bytes_max, Compression::None);
        let mut batches = Vec::new();
        for line in 1..=100 {
            batches.extend(batcher.push(record(line, None, &[7; 90]), NOW).expect("fits"));
        }
        batches.extend(batcher.drain().map(|batch| batch.expect("a batch")));
        assert_eq!(batches.iter().map(|batch| batch.records).sum::<u32>(), 100);
        assert!(batches.iter().all(|batch| batch.partition == PartitionIndex::new(2)));
        assert!(batches.iter().all(|batch| batch.bytes.len() <= bytes_max));
        assert!(batches.len() < 13, "{} batches", batches.len());
    }

    #[test]
    fn compressed_batches_stay_within_the_bound_whatever_is_in_them() {
        let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        codecs.into_iter().for_each(stays_within_the_bound);
    }

    fn stays_within_the_bound(compression: Compression) {
        let bytes_max = 4096;
        let mut batcher = Batcher::new(Target::Only(PartitionIndex::new(0)), 1, bytes_max, compression);
        // What a generator gives does not shrink.
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        };
        let mut batches = Vec::new();
        for line in 1..=500 {
            let value: Vec<u8> = (0..40).map(|_| noise()).collect();
            batches.extend(batcher.push(record(line, None, &value), NOW).expect("fits"));
        }
        assert!(batches.len() > 4 && batches.iter().all(|batch| batch.bytes.len() <= bytes_max), "{compression}");
        let view = BatchView::parse(&batches[0].bytes).expect("a batch");
        assert_eq!(view.header().compression(), compression);
    }

    #[test]
    fn a_record_of_exactly_the_bound_passes_and_one_byte_more_is_named() {
        let bytes_max = 1000;
        let fits = (0..bytes_max).rev().find(|length| {
            let mut batcher = Batcher::new(Target::Any, 1, bytes_max, Compression::None);
            batcher.push(record(1, None, &vec![0; *length]), NOW).is_ok()
        });
        let fits = fits.expect("an empty record fits");
        let mut batcher = Batcher::new(Target::Any, 1, bytes_max, Compression::None);
        batcher.push(record(1, None, &vec![0; fits]), NOW).expect("fits");
        let error = batcher.push(record(17, None, &vec![0; fits + 1]), NOW).expect_err("too large").to_string();
        assert!(error.starts_with("line 17 makes a batch of 1001 bytes"), "{error}");
        let batches: Vec<_> = batcher.drain().collect::<Result<_, _>>().expect("the first record is whole");
        assert_eq!(batches[0].bytes.len(), bytes_max);
    }
}
