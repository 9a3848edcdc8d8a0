//! Which records of a batch stay.

use bytes::Bytes;
use ringmq_runtime::task;
use ringmq_wire::batch::{BatchError, BatchRewriter, BatchView, DecompressLimits, Record, Scratch};
use ringmq_wire::{Offset, Timestamp};

use super::latest::LatestOffsets;
use super::{DECOMPRESSED_BYTES_MAX, RECORDS_IN_A_ROW_MAX};

/// How many times as long a batch may become when it is written again: other compressors do somewhat better than ours. One
/// that was made to become hundreds of times as long stays as it is.
const GROWTH_MAX: usize = 3;

/// What is left of a batch.
pub(super) enum Left {
    /// All of it, as it is.
    Everything,
    /// Fewer records, or the same with the time from which its tombstones may go.
    Rewritten(Bytes),
    /// No record: a batch without any, which stands for the same offsets.
    Nothing(Bytes),
}

/// Tells what stays.
pub(super) struct Sieve {
    latest: LatestOffsets,
    /// Beyond it no key is known.
    until: Offset,
    now: Timestamp,
    /// When the tombstones may go that are met for the first time.
    horizon: Timestamp,
    scratch: Scratch,
    removed: u64,
    tombstones_due: Option<Timestamp>,
    /// Whether a batch came whose keys are not known.
    met_unreadable: bool,
}

impl Sieve {
    pub(super) fn new(latest: LatestOffsets, until: Offset, now: Timestamp, horizon: Timestamp) -> Sieve {
        let scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX });
        Sieve { latest, until, now, horizon, scratch, removed: 0, tombstones_due: None, met_unreadable: false }
    }

    /// Records that did not stay.
    pub(super) fn removed(&self) -> u64 {
        self.removed
    }

    /// When the first of the tombstones that stayed may go.
    pub(super) fn tombstones_due(&self) -> Option<Timestamp> {
        self.tombstones_due
    }

    /// What is left of the batch; batches come in the order of the log. One that cannot be read, or not be written without
    /// becoming much longer, stays as it is.
    pub(super) async fn sift(&mut self, batch: &BatchView<'_>) -> Left {
        let Ok(kept) = self.kept(batch).await else {
            self.met_unreadable = true;
            return Left::Everything;
        };
        let header = batch.header();
        let count = kept.records.iter().filter(|kept| **kept).count();
        let all = count == kept.records.len();
        // What a tombstone deletes is gone only as far as the keys are known.
        let deleted_is_gone = header.next_offset() <= self.until && !self.met_unreadable;
        let first_met = kept.tombstones && !header.attributes.has_delete_horizon() && deleted_is_gone;
        let horizon = first_met.then_some(self.horizon);
        if all && horizon.is_none() && count > 0 {
            self.expect(kept.tombstones.then(|| delete_horizon(batch)).flatten());
            return Left::Everything;
        }
        let Some(rewritten) = self.rewrite(batch, &kept.records, horizon).await else {
            self.met_unreadable = true;
            return Left::Everything;
        };
        self.removed += (kept.records.len() - count) as u64;
        if count == 0 {
            return Left::Nothing(rewritten);
        }
        self.expect(kept.tombstones.then(|| horizon.or(delete_horizon(batch))).flatten());
        Left::Rewritten(rewritten)
    }

    async fn kept(&mut self, batch: &BatchView<'_>) -> Result<Kept, BatchError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let kept = self.look(batch, &mut scratch).await;
        self.scratch = scratch;
        kept
    }

    async fn look(&self, batch: &BatchView<'_>, scratch: &mut Scratch) -> Result<Kept, BatchError> {
        let is_over = delete_horizon(batch).is_some_and(|horizon| horizon <= self.now);
        let tombstones_go = is_over && !self.met_unreadable;
        let mut kept = Kept { records: Vec::new(), tombstones: false };
        for record in batch.records(scratch)? {
            let record = record?;
            let stays = self.stays(&record, tombstones_go);
            kept.records.push(stays);
            kept.tombstones |= stays && is_tombstone(&record);
            if kept.records.len().is_multiple_of(RECORDS_IN_A_ROW_MAX) {
                task::yield_to_io().await;
            }
        }
        Ok(kept)
    }

    fn stays(&self, record: &Record<'_>, tombstones_go: bool) -> bool {
        let Some(key) = record.key else { return true };
        if record.offset >= self.until {
            return true;
        }
        let replaced = self.latest.of(key).is_some_and(|latest| record.offset < latest);
        !(replaced || tombstones_go && is_tombstone(record))
    }

    async fn rewrite(&mut self, batch: &BatchView<'_>, kept: &[bool], horizon: Option<Timestamp>) -> Option<Bytes> {
        let mut rewriter = BatchRewriter::new(batch.header(), horizon);
        let records = batch.records(&mut self.scratch).ok()?;
        for (seen, (record, kept)) in (1..).zip(records.zip(kept)) {
            let record = record.ok()?;
            if *kept {
                rewriter.keep(&record).ok()?;
            }
            if seen % RECORDS_IN_A_ROW_MAX == 0 {
                task::yield_to_io().await;
            }
        }
        rewriter.finish().ok().filter(|rewritten| rewritten.len() <= batch.bytes().len().saturating_mul(GROWTH_MAX))
    }

    /// A tombstone stayed until then, unless it has to stay for another reason.
    fn expect(&mut self, tombstones_due: Option<Timestamp>) {
        let both = self.tombstones_due.into_iter().chain(tombstones_due.filter(|_| !self.met_unreadable));
        self.tombstones_due = both.min();
    }
}

struct Kept {
    /// Whether each record stays.
    records: Vec<bool>,
    /// Whether a tombstone is among those that do.
    tombstones: bool,
}

fn is_tombstone(record: &Record<'_>) -> bool {
    record.key.is_some() && record.value.is_none()
}

/// From when on the batch's tombstones may go (KIP-534).
fn delete_horizon(batch: &BatchView<'_>) -> Option<Timestamp> {
    let header = batch.header();
    header.attributes.has_delete_horizon().then_some(header.base_timestamp)
}
