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
use ringmq_wire::{Offset, Timestamp};

use crate::check::FrameCheck;
use crate::generation::LogGenerations;
use crate::layout::{FileKind, LogId, file_name};
use crate::producers::{ProducerSnapshot, ProducerSnapshotError, Producers};
use crate::scan::{FrameScanner, next_frame};
use crate::segment::Segment;

/// What recovery found in frames that it read anyway.
pub(crate) struct ReadAnyway {
    pub(crate) producers: Producers,
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
            let before = self.read_frames(from, read.from).await?;
            producers.add(&before, from);
        }
        producers.add(&read.producers, from);
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
            if indexed.is_some_and(|coverage| coverage.first_written_at.get() <= oldest) {
                return Ok(*base);
            }
        }
        Ok(self.bases.first().copied().unwrap_or(Offset::ZERO))
    }

    /// What the frames tell that hold offsets of `from..until`.
    async fn read_frames(&self, from: Offset, until: Offset) -> io::Result<Producers> {
        let ends = self.bases.iter().skip(1).copied().chain([until]);
        let needed = self.bases.iter().copied().zip(ends).filter(|(base, end)| *base < until && *end > from);
        let needed: Vec<Offset> = needed.map(|(base, _)| base).collect();
        if !needed.is_empty() {
            tracing::info!(
                partition = %self.id, %from, %until, segments = needed.len(),
                "no snapshot tells what producers have stored; reading it from segments"
            );
        }
        let mut producers = Producers::default();
        for base in needed {
            self.read_segment(base, until, &mut producers).await?;
        }
        Ok(producers)
    }

    async fn read_segment(&self, base: Offset, until: Offset, producers: &mut Producers) -> io::Result<()> {
        let check = FrameCheck { id: self.id, segment_base: base, generations: self.known.clone() };
        let file = Segment::new(self.dir, base).open_for_reading().await?;
        let beginning = FramePlace { offset: base, position: 0 };
        let mut scanner = FrameScanner::new(&file, check.clone(), beginning).await?;
        while scanner.expected() < until {
            match scanner.next_frame().await? {
                Ok((header, frame)) => producers.read(&frame[header.payload_range()], header.written_at),
                Err(fault) => {
                    let (behind, limit) = (scanner.position() + BLOCK_BYTES as u64, scanner.file_bytes());
                    match next_frame(&file, &check, IoClass::ColdRead, behind, limit).await? {
                        Some(place) if place.offset >= scanner.expected() => {
                            let expected = scanner.expected();
                            tracing::warn!(
                                partition = %self.id, segment = %base, offset = %expected, %fault,
                                "a damaged frame may have told of producers; their retries may be stored twice"
                            );
                            scanner.skip_to(place);
                        }
                        _ => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }
}
