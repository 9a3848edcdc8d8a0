//! A batch with some of its records left out: what compaction makes of it.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};

use super::builder::{LENGTH_MAX, put_header};
use super::compression::{Compressor, STEP_BYTES};
use super::header::CHECKSUMMED_FROM;
use super::varint::{put_varlong, varlong_bytes};
use super::{Attributes, BATCH_HEADER_BYTES, BatchHeader, BuildError, Compression, RawRecord};
use crate::numbers::{Offset, Timestamp};

/// Writes a stored batch again, with the records that are kept of it.
///
/// Offsets, leader epoch, producer and compression stay; `last offset delta` too, so the batch still stands for all the
/// offsets that it had. It may end up without any record. A record is kept as it stands, but for its timestamp delta.
///
/// ```
/// use ringmq_wire::Timestamp;
/// use ringmq_wire::batch::{BatchBuilder, BatchRewriter, BatchView, Compression, RecordRef, Scratch};
///
/// let mut builder = BatchBuilder::new(Compression::None);
/// for value in ["old", "new"] {
///     let timestamp = Timestamp::new(1_700_000_000_000);
///     builder.append(&RecordRef { timestamp, key: Some(b"key"), value: Some(value.as_bytes()), headers: &[] })?;
/// }
/// let batch = builder.finish()?;
/// let view = BatchView::parse(&batch)?;
///
/// let mut scratch = Scratch::default();
/// let mut rewriter = BatchRewriter::new(view.header(), None);
/// for record in view.open(&mut scratch)?.records()?.skip(1) {
///     rewriter.keep(&record?)?;
/// }
/// let rewritten = rewriter.finish()?;
/// let view = BatchView::parse(&rewritten)?;
/// assert_eq!((view.header().record_count, view.header().last_offset_delta), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchRewriter {
    header: BatchHeader,
    batch: BytesMut,
}

impl BatchRewriter {
    /// Begins a batch in the place of the one with that header. With a delete horizon, the time from which the
    /// tombstones in it may be dropped, that is written into the batch (KIP-534); without, the batch's own stays.
    #[must_use]
    pub fn new(header: &BatchHeader, delete_horizon: Option<Timestamp>) -> Self {
        Self::with_capacity(header, delete_horizon, 0)
    }

    /// The same with room for that many bytes of records.
    #[must_use]
    pub fn with_capacity(header: &BatchHeader, delete_horizon: Option<Timestamp>, bytes: usize) -> Self {
        let mut header = BatchHeader { record_count: 0, ..*header };
        if let Some(horizon) = delete_horizon {
            header.attributes = header.attributes.with_delete_horizon();
            header.base_timestamp = horizon;
        }
        if !header.attributes.is_append_time() {
            header.max_timestamp = Timestamp::new(-1);
        }
        let mut batch = BytesMut::with_capacity(BATCH_HEADER_BYTES.saturating_add(bytes));
        batch.put_bytes(0, BATCH_HEADER_BYTES);
        Self { header, batch }
    }

    /// Keeps a record of the batch. They come in their order.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`] or [`BuildError::Timestamp`].
    pub fn keep(&mut self, record: &RawRecord<'_>) -> Result<(), BuildError> {
        let rest = self.begin(record)?;
        self.go_on(rest);
        Ok(())
    }

    /// As [`BatchRewriter::keep`], for a record that is too long to be copied in one go: what is returned is given to
    /// [`BatchRewriter::go_on`] then, in pieces.
    ///
    /// # Errors
    /// As [`BatchRewriter::keep`].
    pub fn begin<'a>(&mut self, record: &RawRecord<'a>) -> Result<&'a [u8], BuildError> {
        let header = &mut self.header;
        let timestamp = record.timestamp;
        let timestamp_delta = match header.attributes.is_append_time() {
            true => Some(0),
            false => timestamp.get().checked_sub(header.base_timestamp.get()),
        };
        let timestamp_delta = timestamp_delta.ok_or(BuildError::Timestamp { timestamp })?;
        let length = 1 + varlong_bytes(timestamp_delta) + record.rest.len();
        let bytes = self.batch.len().saturating_add(length);
        let too_large = BuildError::TooLarge { bytes };
        let (Ok(length), true) = (i32::try_from(length), bytes < LENGTH_MAX) else { return Err(too_large) };
        put_varlong(length.into(), &mut self.batch);
        // The attributes of a record are unused.
        self.batch.put_u8(0);
        put_varlong(timestamp_delta, &mut self.batch);
        header.record_count += 1;
        header.max_timestamp = header.max_timestamp.max(timestamp);
        Ok(record.rest)
    }

    /// Copies a piece of the record that was begun.
    pub fn go_on(&mut self, piece: &[u8]) {
        self.batch.put_slice(piece);
    }

    /// Ends the batch: compresses it as it was, and writes header and checksum.
    ///
    /// # Errors
    /// What the compressor reports.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        let mut finishing = self.finish_in_steps()?;
        loop {
            if let Some(batch) = finishing.step()? {
                return Ok(batch);
            }
        }
    }

    /// As [`BatchRewriter::finish`], for who must not compute for long in one go.
    ///
    /// # Errors
    /// As [`BatchRewriter::finish`].
    pub fn finish_in_steps(self) -> Result<FinishingBatch, BuildError> {
        let Self { header, batch } = self;
        let stage = match header.compression() {
            Compression::None => Stage::of_checksum(header, batch)?,
            compression => Stage::of_compression(compression, header, batch)?,
        };
        Ok(FinishingBatch { stage })
    }
}

/// A batch that is compressed, and its checksum computed, in steps.
pub struct FinishingBatch {
    stage: Stage,
}

enum Stage {
    Compress { header: BatchHeader, records: Bytes, compressor: Compressor },
    Checksum { header: BatchHeader, batch: BytesMut, at: usize, digest: Box<Digest> },
    Done,
}

impl FinishingBatch {
    /// Bytes that one step works on, at most.
    pub const STEP_BYTES: usize = STEP_BYTES;

    /// Goes on for some tens of microseconds, a hundred or two where it compresses. The batch, when that was the last step.
    ///
    /// # Errors
    /// What the compressor reports.
    pub fn step(&mut self) -> Result<Option<Bytes>, BuildError> {
        let (stage, done) = std::mem::replace(&mut self.stage, Stage::Done).step()?;
        self.stage = stage;
        Ok(done)
    }
}

impl fmt::Debug for FinishingBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishingBatch").finish_non_exhaustive()
    }
}

impl Stage {
    /// The records stand behind room for the header.
    fn of_compression(compression: Compression, header: BatchHeader, batch: BytesMut) -> Result<Stage, BuildError> {
        let mut compressed = BytesMut::with_capacity(BATCH_HEADER_BYTES + batch.len() / 2);
        compressed.put_bytes(0, BATCH_HEADER_BYTES);
        let records = batch.freeze().slice(BATCH_HEADER_BYTES..);
        let compressor = Compressor::new(compression, records.len(), compressed)?;
        Ok(Stage::Compress { header, records, compressor })
    }

    fn of_checksum(mut header: BatchHeader, mut batch: BytesMut) -> Result<Stage, BuildError> {
        put_header(&mut header, &mut batch)?;
        let digest = Box::new(Digest::new(CrcAlgorithm::Crc32Iscsi));
        Ok(Stage::Checksum { header, batch, at: CHECKSUMMED_FROM, digest })
    }

    fn step(self) -> Result<(Stage, Option<Bytes>), BuildError> {
        match self {
            Stage::Compress { header, mut records, mut compressor } => {
                compressor.step(&mut records)?;
                match records.is_empty() {
                    true => Ok((Stage::of_checksum(header, compressor.finish()?)?, None)),
                    false => Ok((Stage::Compress { header, records, compressor }, None)),
                }
            }
            Stage::Checksum { mut header, mut batch, at, mut digest } => {
                let end = at.saturating_add(STEP_BYTES).min(batch.len());
                digest.update(&batch[at..end]);
                if end < batch.len() {
                    return Ok((Stage::Checksum { header, batch, at: end, digest }, None));
                }
                // The upper half of its result is zero.
                header.crc = u32::try_from(digest.finalize()).unwrap_or(u32::MAX);
                batch[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
                Ok((Stage::Done, Some(batch.freeze())))
            }
            Stage::Done => Ok((Stage::Done, None)),
        }
    }
}

/// Batches without records that stand for these offsets, one behind the other: as many as it takes. There are no records
/// at these offsets, and never will be.
///
/// # Errors
/// None that a caller could bring about.
pub fn empty_batches(offsets: Range<Offset>) -> Result<Vec<Bytes>, BuildError> {
    let (mut batches, mut next) = (Vec::new(), offsets.start);
    while next < offsets.end {
        let count = (offsets.end.as_u64() - next.as_u64()).min(u64::from(i32::MAX.cast_unsigned()));
        let header = BatchHeader {
            base_offset: next,
            batch_length: 0,
            partition_leader_epoch: None,
            crc: 0,
            attributes: Attributes::new(Compression::None),
            last_offset_delta: u32::try_from(count - 1).unwrap_or(0),
            base_timestamp: Timestamp::new(-1),
            max_timestamp: Timestamp::new(-1),
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        };
        next = header.next_offset();
        batches.push(BatchRewriter::new(&header, None).finish()?);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, BatchView, Record, RecordRef, Scratch, set_base_offset};

    const COMPRESSIONS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    type Given = (u16, Option<u8>, Option<Vec<u8>>);
    type Owned = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn batch(records: &[Given], compression: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new(compression);
        for (time, key, value) in records {
            let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("none", None)];
            let key = key.map(|key| vec![key]);
            let timestamp = Timestamp::new(i64::from(*time));
            builder.append(&RecordRef { timestamp, key: key.as_deref(), value: value.as_deref(), headers }).unwrap();
        }
        let mut batch = builder.finish().unwrap().to_vec();
        set_base_offset(&mut batch, Offset::new(1_000));
        batch
    }

    fn owned(record: &Record<'_>) -> Owned {
        let headers = record.headers().map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)));
        (
            record.offset.get(),
            record.timestamp.get(),
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
            headers.collect(),
        )
    }

    fn all(batch: &[u8]) -> Vec<Owned> {
        let view = BatchView::parse(batch).unwrap();
        view.verify_checksum().unwrap();
        let mut scratch = Scratch::default();
        view.records(&mut scratch).unwrap().map(|record| owned(&record.unwrap())).collect()
    }

    fn rewrite(batch: &[u8], horizon: Option<Timestamp>, keep: impl Fn(usize) -> bool) -> Bytes {
        let view = BatchView::parse(batch).unwrap();
        let mut rewriter = BatchRewriter::new(view.header(), horizon);
        let mut scratch = Scratch::default();
        let mut opening = view.open(&mut scratch).unwrap();
        while !opening.step().unwrap() {}
        for (at, record) in opening.records().unwrap().enumerate() {
            if keep(at) {
                rewriter.keep(&record.unwrap()).unwrap();
            }
        }
        rewriter.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_as_it_was(
            records in prop::collection::vec((any::<u16>(), any::<Option<u8>>(), any::<Option<Vec<u8>>>()), 1..20),
            kept in prop::collection::vec(any::<bool>(), 20),
            again in prop::collection::vec(any::<bool>(), 20),
            compression in prop::sample::select(&COMPRESSIONS[..]),
            horizon in any::<Option<u32>>(),
        ) {
            let before = batch(&records, compression);
            let horizon = horizon.map(|horizon| Timestamp::new(i64::from(horizon)));
            let after = rewrite(&before, horizon, |at| kept[at]);
            let expected: Vec<Owned> = all(&before).into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(record, _)| record).collect();
            prop_assert_eq!(all(&after), expected.clone());
            let (old, new) = (*BatchView::parse(&before).unwrap().header(), *BatchView::parse(&after).unwrap().header());
            prop_assert_eq!((new.base_offset, new.next_offset()), (old.base_offset, old.next_offset()));
            prop_assert_eq!(new.compression(), compression);
            prop_assert_eq!(new.attributes.has_delete_horizon(), horizon.is_some());
            prop_assert_eq!(horizon.unwrap_or(old.base_timestamp), new.base_timestamp);
            let max = expected.iter().map(|record| record.1).max().unwrap_or(-1);
            prop_assert_eq!(new.max_timestamp.get(), max);

            // And once more, with offsets that have gaps, a horizon that stays.
            let twice = rewrite(&after, None, |at| again[at]);
            let expected: Vec<Owned> = expected.into_iter().zip(&again).filter(|(_, kept)| **kept).map(|(record, _)| record).collect();
            prop_assert_eq!(all(&twice), expected);
            let newest = *BatchView::parse(&twice).unwrap().header();
            prop_assert_eq!((newest.next_offset(), newest.attributes), (old.next_offset(), new.attributes));
        }
    }

    #[test]
    fn empty_batches_stand_for_all_offsets_and_hold_nothing() {
        let many = 3 * i64::from(i32::MAX) + 5;
        for (from, count, batches) in [(7, 0, 0), (7, 1, 1), (0, 1 << 20, 1), (9, many, 4)] {
            let offsets = Offset::new(from)..Offset::new(from + count);
            let empty = empty_batches(offsets.clone()).unwrap();
            assert_eq!(empty.len(), batches);
            let end = empty.iter().fold(offsets.start, |next, batch| {
                let view = BatchView::parse(batch).unwrap();
                view.verify_checksum().unwrap();
                assert_eq!((view.header().base_offset, view.header().record_count), (next, 0));
                assert_eq!(view.records(&mut Scratch::default()).unwrap().count(), 0);
                view.header().next_offset()
            });
            assert_eq!(end, offsets.end);
        }
    }

    #[test]
    fn header_keys_that_are_no_text_stay() {
        let mut before = batch(&[(1, Some(1), None)], Compression::None);
        let at = before.windows(1).rposition(|byte| byte == b"h").unwrap();
        before[at] = 0xff;
        let view = BatchView::parse(&before).unwrap();
        let record =
            view.records(&mut Scratch::default()).unwrap().next().unwrap().map(|record| owned(&record)).unwrap();
        assert_eq!(record.4[0].0, [0xff]);
        assert_eq!(all(&rewrite(&before, None, |_| true)), [record]);
    }
}
