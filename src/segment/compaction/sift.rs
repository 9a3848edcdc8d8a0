//! Which records of a batch stay.

use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::batch::{
    BatchRewriter, BatchView, Compression, DecompressLimits, FinishingBatch, HeaderCheck, OpeningBatch, RawRecord,
    RawRecords, Scratch,
};
use ringmq_wire::{Offset, Timestamp};

use super::latest::LatestOffsets;
use super::pace::{PIECE_BYTES, Pace, RECORD_BYTES};
use super::{Clock, DECOMPRESSED_BYTES_MAX};

/// How many times as long a batch may become when it is written again: other compressors do somewhat better than ours. One
/// that was made to become hundreds of times as long stays as it is.
const GROWTH_MAX: usize = 3;

/// What a record takes before its offset delta: length, attributes, timestamp delta.
const RECORD_HEAD_BYTES_MAX: usize = 16;

/// Looking at a header takes as long as moving so many bytes.
const HEADER_BYTES: usize = 32;

/// Making a decompressor takes as long as moving so many bytes.
const DECOMPRESSOR_BYTES: usize = 8 << 10;

/// What is left of a batch.
pub(super) enum Left {
    /// All of it, as it is.
    Everything,
    /// Fewer records, or the same with the time from which its tombstones may go.
    Rewritten(Bytes),
    /// No record: a batch without any, which stands for the same offsets.
    Nothing(Bytes),
}

impl Left {
    /// Whether that is not what the batch was. One that was without any record before may have to be kept for the same
    /// reason again.
    pub(super) fn differs_from(&self, batch: &BatchView<'_>) -> bool {
        !matches!(self, Left::Everything) && batch.header().record_count > 0
    }
}

/// Tells what stays.
pub(super) struct Sieve {
    latest: LatestOffsets,
    /// Beyond it no key is known.
    until: Offset,
    clock: Clock,
    /// How long tombstones stay that are met for the first time.
    tombstone_retention: Duration,
    scratch: Scratch,
    at: Mark,
}

/// What the batches that came so far have left behind.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    removed: u64,
    tombstones_due: Option<Timestamp>,
    /// Whether a batch came whose keys are not known.
    met_unreadable: bool,
}

impl Sieve {
    pub(super) fn new(latest: LatestOffsets, until: Offset, clock: Clock, tombstone_retention: Duration) -> Sieve {
        let scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX });
        Sieve { latest, until, clock, tombstone_retention, scratch, at: Mark::default() }
    }

    /// Gives its memory back.
    pub(super) async fn free(self, pace: &mut Pace) {
        self.latest.free(pace).await;
    }

    /// Records that did not stay.
    pub(super) fn removed(&self) -> u64 {
        self.at.removed
    }

    /// When the first of the tombstones that stayed may go.
    pub(super) fn tombstones_due(&self) -> Option<Timestamp> {
        self.at.tombstones_due
    }

    /// Where it is, to come back to.
    pub(super) fn mark(&self) -> Mark {
        self.at
    }

    /// What came since then is to come again.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.at = mark;
    }

    /// What is left of the batch; batches come in the order of the log. One that cannot be read, or not be written without
    /// becoming much longer, stays as it is.
    pub(super) async fn sift(&mut self, batch: &BatchView<'_>, pace: &mut Pace) -> Left {
        let mut scratch = std::mem::take(&mut self.scratch);
        let left = self.try_sift(batch, &mut scratch, pace).await;
        self.scratch = scratch;
        left.unwrap_or_else(|| {
            self.at.met_unreadable = true;
            Left::Everything
        })
    }

    async fn try_sift(&mut self, batch: &BatchView<'_>, scratch: &mut Scratch, pace: &mut Pace) -> Option<Left> {
        let records = open(batch, scratch, pace).await?;
        let kept = self.look(batch, records.clone(), pace).await?;
        let header = batch.header();
        let count = kept.records.iter().filter(|kept| **kept).count();
        let all = count == kept.records.len();
        // What a tombstone deletes is gone only as far as the keys are known.
        let deleted_is_gone = header.next_offset() <= self.until && !self.at.met_unreadable;
        let first_met = kept.tombstones && !header.attributes.has_delete_horizon() && deleted_is_gone;
        let horizon = first_met.then(|| self.clock.after(self.tombstone_retention));
        if all && horizon.is_none() && count > 0 {
            self.expect(kept.tombstones.then(|| delete_horizon(batch)).flatten());
            return Some(Left::Everything);
        }
        let rewritten = rewrite(batch, records, &kept, horizon, pace).await?;
        self.at.removed += (kept.records.len() - count) as u64;
        if count == 0 {
            return Some(Left::Nothing(rewritten));
        }
        self.expect(kept.tombstones.then(|| horizon.or(delete_horizon(batch))).flatten());
        Some(Left::Rewritten(rewritten))
    }

    async fn look(&self, batch: &BatchView<'_>, records: RawRecords<'_>, pace: &mut Pace) -> Option<Kept> {
        let is_over = delete_horizon(batch).is_some_and(|horizon| horizon <= self.clock.now);
        let tombstones_go = is_over && !self.at.met_unreadable;
        let mut kept = Kept { records: Vec::new(), bytes: 0, tombstones: false };
        for record in records {
            let record = record.ok()?;
            if !is_sound(&record, pace).await {
                return None;
            }
            let stays = self.stays(&record, tombstones_go);
            kept.records.push(stays);
            kept.bytes += if stays { record.len_bytes() + RECORD_HEAD_BYTES_MAX } else { 0 };
            kept.tombstones |= stays && is_tombstone(&record);
            pace.spend_record(record.key.map_or(0, <[u8]>::len)).await;
        }
        Some(kept)
    }

    fn stays(&self, record: &RawRecord<'_>, tombstones_go: bool) -> bool {
        let Some(key) = record.key else { return true };
        if record.offset >= self.until {
            return true;
        }
        let replaced = self.latest.of(key).is_some_and(|latest| record.offset < latest);
        !(replaced || tombstones_go && is_tombstone(record))
    }

    /// A tombstone stayed until then, unless it has to stay for another reason.
    fn expect(&mut self, tombstones_due: Option<Timestamp>) {
        let both = self.at.tombstones_due.into_iter().chain(tombstones_due.filter(|_| !self.at.met_unreadable));
        self.at.tombstones_due = both.min();
    }
}

struct Kept {
    /// Whether each record stays.
    records: Vec<bool>,
    /// What those that do take, at the most.
    bytes: usize,
    /// Whether a tombstone is among those that do.
    tombstones: bool,
}

/// The batch's records, decompressed; `None` where that cannot be done.
pub(super) async fn open<'s>(
    batch: &BatchView<'s>,
    scratch: &'s mut Scratch,
    pace: &mut Pace,
) -> Option<RawRecords<'s>> {
    let mut opening = batch.open(scratch).ok()?;
    while !opening.step().ok()? {
        pace.spend(OpeningBatch::STEP_BYTES).await;
    }
    if batch.header().compression() != Compression::None {
        pace.spend(DECOMPRESSOR_BYTES + batch.bytes().len().min(OpeningBatch::STEP_BYTES)).await;
    }
    opening.records().ok()
}

/// Whether its headers are as they should be.
pub(super) async fn is_sound(record: &RawRecord<'_>, pace: &mut Pace) -> bool {
    let Ok(mut check) = record.check_headers() else { return false };
    loop {
        match check.step() {
            Ok(true) => return true,
            Ok(false) => pace.spend(HeaderCheck::STEP_HEADERS * HEADER_BYTES).await,
            Err(_) => return false,
        }
    }
}

/// The batch with the records that are kept, if it does not become too long.
async fn rewrite(
    batch: &BatchView<'_>,
    records: RawRecords<'_>,
    kept: &Kept,
    horizon: Option<Timestamp>,
    pace: &mut Pace,
) -> Option<Bytes> {
    let mut rewriter = BatchRewriter::with_capacity(batch.header(), horizon, kept.bytes);
    for (record, kept) in records.zip(&kept.records) {
        let record = record.ok()?;
        if *kept {
            for piece in rewriter.begin(&record).ok()?.chunks(PIECE_BYTES) {
                rewriter.go_on(piece);
                pace.spend(piece.len()).await;
            }
        }
        pace.spend(RECORD_BYTES / 4).await;
    }
    let is_compressed = batch.header().compression() != Compression::None;
    let mut finishing = rewriter.finish_in_steps().ok()?;
    loop {
        if let Some(rewritten) = finishing.step().ok()? {
            return Some(rewritten)
                .filter(|rewritten| rewritten.len() <= batch.bytes().len().saturating_mul(GROWTH_MAX));
        }
        // Compressing is slow: each step is a slice of its own.
        pace.spend(FinishingBatch::STEP_BYTES * if is_compressed { 2 } else { 1 }).await;
    }
}

fn is_tombstone(record: &RawRecord<'_>) -> bool {
    record.key.is_some() && record.value.is_none()
}

/// From when on the batch's tombstones may go (KIP-534).
fn delete_horizon(batch: &BatchView<'_>) -> Option<Timestamp> {
    let header = batch.header();
    header.attributes.has_delete_horizon().then_some(header.base_timestamp)
}
