//! What a log knows of idempotent producers when it is opened: a snapshot, and what frames hold behind it. Which
//! snapshot counts and what is read: `docs/formats/producer-snapshot.md`, "Reading".

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::file::IoClass;
use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_wire::batch::BatchHeader;
use ringmq_wire::{Offset, Timestamp};

use crate::check::FrameCheck;
use crate::frame::FrameHeader;
use crate::generation::LogGenerations;
use crate::layout::{FileKind, LogId, file_name};
use crate::producers::{ProducerSnapshot, ProducerSnapshotError, Producers};
use crate::scan::{FrameScanner, next_frame};
use crate::segment::Segment;

/// What frames tell of producers that were read one behind the other.
///
/// Of a producer of which a batch is missing among them it would be wrong, and which these are nobody knows. Unknown is
/// better than wrong: where a batch is missing, all that was told before it is forgotten.
#[derive(Default)]
pub(crate) struct ToldByFrames {
    producers: Producers,
    /// From here on, no batch is missing.
    whole_from: Offset,
}

impl ToldByFrames {
    /// Adds what the batches of the next frame tell. Those that compaction took out are missing.
    pub(crate) fn read(&mut self, header: &FrameHeader, frame: &[u8]) {
        let (mut next, mut batches) = (header.base_offset, &frame[header.payload_range()]);
        while let Ok(batch) = BatchHeader::decode(batches) {
            if batch.base_offset > next {
                self.miss(batch.base_offset);
            }
            self.producers.read_batch(&batch, header.written_at);
            (next, batches) = (batch.next_offset(), batches.get(batch.size_bytes()..).unwrap_or_default());
        }
        if header.next_offset > next {
            self.miss(header.next_offset);
        }
    }

    /// Something is missing in front of `until`.
    fn miss(&mut self, until: Offset) {
        *self = ToldByFrames { producers: Producers::default(), whole_from: until };
    }

    /// Adds it, from `from` on, to what is known up to there.
    fn add_to(&self, known: &mut Producers, from: Offset) {
        if self.whole_from > from {
            *known = Producers::default();
        }
        known.add(&self.producers, from);
    }
}

/// What recovery found in frames that it read anyway.
pub(crate) struct ReadAnyway {
    pub(crate) told: ToldByFrames,
    /// Frames from here on were read.
    pub(crate) from: Offset,
    /// The end of the frames.
    pub(crate) end: Offset,
}

/// What is known of producers at the end of the frames.
pub(crate) struct RecoveredProducers {
    pub(crate) producers: Producers,
    /// The offset of the snapshot that counted.
    pub(crate) snapshot: Option<Offset>,
}

/// The files of one log.
pub(crate) struct ProducerRecovery<'a> {
    pub(crate) id: LogId,
    pub(crate) dir: &'a Path,
    pub(crate) known: &'a Rc<LogGenerations>,
    /// Of the snapshots that there are, ascending.
    pub(crate) snapshots: &'a [Offset],
    /// Of the segments with frames, ascending.
    pub(crate) bases: &'a [Offset],
    pub(crate) now: Timestamp,
    pub(crate) expiry: Duration,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] ProducerSnapshotError),
    #[error("it is of another log, or of records that were cut off since")]
    OtherLife,
    #[error("it is of offset {0}, which is not in its name")]
    OtherOffset(Offset),
    #[error("the log ends before it, at {0}")]
    BeyondTheEnd(Offset),
    #[error("the log begins behind it, at {0}: what came between is deleted")]
    BeforeTheBeginning(Offset),
}

impl ProducerRecovery<'_> {
    /// # Errors
    /// When a file that is needed cannot be read. A snapshot can be done without.
    pub(crate) async fn recover(&self, read: ReadAnyway) -> io::Result<RecoveredProducers> {
        let snapshot = self.latest_snapshot(read.end).await;
        let (mut producers, from, snapshot) = match snapshot {
            Some(snapshot) => (snapshot.producers, snapshot.offset, Some(snapshot.offset)),
            None => (Producers::default(), self.first_that_counts().await?, None),
        };
        if from < read.from {
            self.read_frames(from, read.from).await?.add_to(&mut producers, from);
        }
        read.told.add_to(&mut producers, from);
        producers.expire(self.now, self.expiry);
        Ok(RecoveredProducers { producers, snapshot })
    }

    async fn latest_snapshot(&self, end: Offset) -> Option<ProducerSnapshot> {
        if SeededBug::ForgetProducers.is_in() {
            return None;
        }
        for offset in self.snapshots.iter().rev() {
            let path = self.dir.join(file_name(*offset, FileKind::Producers));
            match self.load(&path, *offset, end).await {
                Ok(snapshot) => return Some(snapshot),
                Err(error) => tracing::warn!(
                    snapshot = %path.display(), %error,
                    "cannot use a snapshot of producers; the start goes on from what is before it"
                ),
            }
        }
        None
    }

    async fn load(&self, path: &Path, offset: Offset, end: Offset) -> Result<ProducerSnapshot, Unusable> {
        if offset > end {
            return Err(Unusable::BeyondTheEnd(end));
        }
        // Of a producer that sent more then, it would be wrong; with nothing at all the producer is merely unknown.
        if let Some(first) = self.bases.first().filter(|first| offset < **first) {
            return Err(Unusable::BeforeTheBeginning(*first));
        }
        let snapshot = ProducerSnapshot::decode(&fs::read_small(path, ProducerSnapshot::BYTES_MAX).await?)?;
        if snapshot.offset != offset {
            return Err(Unusable::OtherOffset(snapshot.offset));
        }
        let is_of_this_life = snapshot.id == self.id
            && snapshot.log_number == self.known.number()
            && snapshot.generation <= self.known.latest().0
            && offset <= self.known.owned_end(snapshot.generation);
        if is_of_this_life { Ok(snapshot) } else { Err(Unusable::OtherLife) }
    }

    /// Where to begin without a snapshot: all that was written before has expired.
    async fn first_that_counts(&self) -> io::Result<Offset> {
        let oldest = self.now.get().saturating_sub(i64::try_from(self.expiry.as_millis()).unwrap_or(i64::MAX));
        for base in self.bases.iter().skip(1).rev() {
            let indexed = Segment::new(self.dir, *base).indexed(self.known.number()).await?;
            // An index that was kept when its segment had no frame yet does not tell when that was written.
            let indexed = indexed.filter(|coverage| coverage.end > *base);
            if indexed.is_some_and(|coverage| coverage.first_written_at.get() <= oldest) {
                return Ok(*base);
            }
        }
        Ok(self.bases.first().copied().unwrap_or(Offset::ZERO))
    }

    /// What the frames tell that hold offsets of `from..until`.
    async fn read_frames(&self, from: Offset, until: Offset) -> io::Result<ToldByFrames> {
        let ends = self.bases.iter().skip(1).copied().chain([until]);
        let needed = self.bases.iter().copied().zip(ends).filter(|(base, end)| *base < until && *end > from);
        let needed: Vec<(Offset, Offset)> = needed.collect();
        if !needed.is_empty() {
            tracing::info!(
                partition = %self.id, %from, %until, segments = needed.len(),
                "no snapshot tells what producers have stored; reading it from segments"
            );
        }
        let mut told = ToldByFrames::default();
        for (base, end) in needed {
            self.read_segment(base, end.min(until), &mut told).await?;
        }
        Ok(told)
    }

    async fn read_segment(&self, base: Offset, until: Offset, told: &mut ToldByFrames) -> io::Result<()> {
        let check = FrameCheck { id: self.id, segment_base: base, generations: self.known.clone() };
        let file = Segment::new(self.dir, base).open_for_reading().await?;
        let beginning = FramePlace { offset: base, position: 0 };
        let mut scanner = FrameScanner::new(&file, check.clone(), beginning).await?;
        while scanner.expected() < until {
            match scanner.next_frame().await? {
                Ok((header, frame)) => told.read(&header, &frame),
                Err(fault) => {
                    let (behind, limit) = (scanner.position() + BLOCK_BYTES as u64, scanner.file_bytes());
                    let next = next_frame(&file, &check, IoClass::Recovery, behind, limit).await?;
                    let expected = scanner.expected();
                    let next = next.filter(|place| place.offset >= expected);
                    tracing::warn!(
                        partition = %self.id, segment = %base, offset = %expected, %fault,
                        "a damaged frame may have told of producers; what is before it tells nothing of them any more, and \
                         retries may be stored twice"
                    );
                    told.miss(next.map_or(until, |place| place.offset));
                    match next {
                        Some(place) => scanner.skip_to(place),
                        None => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }
}
