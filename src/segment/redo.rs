//! What the journals have of a log, and its way into frames when the log is opened.
//!
//! Recovery reads frames first, then what the journals have that follows them. All of it was flushed when it was read.
//! It goes into frames before the log serves, so that the journals can be used again; until that is durable they stay
//! as they are, and whatever interrupts it, the next start finds the same.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::local::Listener;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::time;
use ringmq_wire::batch::{BatchHeader, empty_batches};
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::frame::Generation;
use crate::generation::{JournalFile, LogGenerations, LostTable};
use crate::room::{self, NoRoom};
use crate::staging::{Group, Staged, StagedBatches};
use crate::state::{LogCore, LogState};
use crate::writer;

/// What the journals have of one log, and what they tell of it.
#[derive(Clone, Debug, Default)]
pub struct Journaled {
    /// What no frame may have, in the order of the journal.
    pub appends: Vec<JournaledAppend>,
    /// How far the log's frames were durable, as entries say.
    pub frames_ends: Vec<JournalClaim>,
    /// How far the log was durable in blocks that are damaged now.
    pub lost_ends: Vec<JournalClaim>,
    /// A damaged block may have been about this log, and nothing tells how far.
    pub lost_unknown: bool,
    /// A file of theirs that cannot be judged now. What it has of the log nobody knows.
    pub unread: Option<Arc<UnreadJournal>>,
    /// What they had of it when the process started was kept for the next start: the metadata did not have the log then.
    pub kept_for_next_start: bool,
}

/// A file of the journals of which nobody can tell, at this start, what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnreadJournal {
    /// The disk does not give it.
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// It is not there, and what is lost of the generation tables may say that it was removed, for nobody needed it.
    Missing {
        /// The file.
        file: JournalFile,
        /// What cannot be read of the tables.
        lost: LostTable,
    },
}

/// An append that the journal has.
#[derive(Clone, Debug)]
pub struct JournaledAppend {
    /// Of which of the logs that ever had the name.
    pub log_number: u64,
    /// The life of the log that took it in.
    pub generation: u64,
    /// Of its first record.
    pub base_offset: Offset,
    /// One past its last record.
    pub next_offset: Offset,
    /// Whole record batches, which carry their offsets. The journal's checksum was right.
    pub batches: Bytes,
}

impl JournaledAppend {
    /// Whether it is what was appended.
    pub(crate) fn is_well_formed(&self) -> bool {
        staged(self.clone()).is_ok()
    }
}

/// Something that a block of a journal says of a log.
#[derive(Clone, Copy, Debug)]
pub struct JournalClaim {
    /// The life of the log that said it. It holds only up to where a later one begins.
    pub generation: u64,
    /// How far.
    pub offset: Offset,
}

impl Journaled {
    /// The appends that go on where the frames end, one behind the other.
    pub(crate) fn following(&self, known: &LogGenerations, frames_end: Offset) -> Vec<JournaledAppend> {
        let (mut following, mut end) = (Vec::new(), frames_end);
        if SeededBug::RedoBelowStart.is_in() {
            let bases = self.appends.iter().map(|append| append.base_offset);
            end = bases.filter(|base| *base < known.log_start()).min().unwrap_or(end);
        }
        for append in self.appends.iter().filter(|append| append.log_number == known.number().0) {
            let offsets = append.base_offset..append.next_offset;
            if append.base_offset == end
                && end < append.next_offset
                && known.owns(Generation(append.generation), offsets)
            {
                end = append.next_offset;
                following.push(append.clone());
            }
        }
        following
    }

    /// The offsets of what was appended, or is told of, under a generation that the tables do not know.
    pub(crate) fn of_unknown_generation(&self, known: Option<&LogGenerations>) -> Option<Range<Offset>> {
        let is_unknown = |append: &&JournaledAppend| {
            known.is_none_or(|known| {
                append.log_number == known.number().0 && Generation(append.generation) > known.latest().0
            })
        };
        let unknown = self.appends.iter().filter(is_unknown);
        let appended = unknown.map(|append| append.base_offset..append.next_offset);
        // Without any generation whatever is told of the log is of an unknown one.
        let claims = self.frames_ends.iter().chain(&self.lost_ends).filter(|_| known.is_none());
        appended
            .chain(claims.map(|claim| Offset::ZERO..claim.offset))
            .reduce(|all, next| all.start.min(next.start)..all.end.max(next.end))
    }

    /// How far the log's frames were durable.
    pub(crate) fn proven_frames_end(&self, known: &LogGenerations) -> Offset {
        furthest(&self.frames_ends, known)
    }

    /// How far the log was durable.
    pub(crate) fn proven_end(&self, known: &LogGenerations) -> Offset {
        furthest(&self.lost_ends, known)
    }
}

fn furthest(claims: &[JournalClaim], known: &LogGenerations) -> Offset {
    let holds = |claim: &JournalClaim| claim.offset.min(known.owned_end(Generation(claim.generation)));
    claims.iter().map(holds).max().unwrap_or(Offset::ZERO)
}

/// Why what the journals have could not be put into frames.
#[derive(Debug)]
pub(crate) enum RedoError {
    /// It is not what was appended.
    Malformed { base_offset: Offset, next_offset: Offset },
    /// The file system failed, or is full.
    Io(io::Error),
}

/// Puts the appends, which follow the frames, into frames. Everything is durable when this returns.
pub(crate) async fn redo(log: &Rc<LogCore>, appends: Vec<JournaledAppend>) -> Result<(), RedoError> {
    let count = appends.len();
    if count == 0 {
        return Ok(());
    }
    for append in appends {
        let staged = staged(append)?;
        let mut state = log.state.borrow_mut();
        state.end = staged.next_offset;
        state.journaled.push(staged.base_offset..staged.next_offset);
        state.staging.push(staged);
    }
    put_into_frames(log).await?;
    let end = log.state.borrow().end;
    tracing::info!(partition = %log.id, appends = count, %end, "put what the journal had into segments");
    Ok(())
}

/// Offsets that may have been shown before they were durable, and were lost, are not given again: after a stop that was
/// not clean the log goes on behind all that were reserved. Batches without records take their place, under a generation
/// of their own: what a journal may still hold of these offsets does not count any more (rule 2 of the storage protocol).
pub(crate) async fn skip_reserved(log: &Rc<LogCore>) -> Result<(), RedoError> {
    let skipped = {
        let state = log.state.borrow();
        let stopped_cleanly = state.generations.as_ref().and_then(|known| known.clean_end()) == Some(state.end);
        state.end..if stopped_cleanly { state.end } else { state.reserved_until() }
    };
    if skipped.is_empty() || SeededBug::GiveLostOffsetsAgain.is_in() {
        return Ok(());
    }
    let raised = log.reserve.lend("to skip offsets", is_full, async || room::raise_generation(log).await).await;
    raised.map_err(|no_room| RedoError::Io(no_room.into_io()))?;
    for batch in empty_batches(skipped.clone()).map_err(|error| RedoError::Io(io::Error::other(error)))? {
        let mut state = log.state.borrow_mut();
        let Some(generation) = state.generation else { return Ok(()) };
        let header = BatchHeader::decode(&batch).map_err(|error| RedoError::Io(io::Error::other(error)))?;
        let staged = Staged {
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            record_count: 0,
            max_timestamp: header.max_timestamp,
            generation,
            leader_epoch: LeaderEpoch::ZERO,
            batches: StagedBatches::Shared(IoBuf::from(batch)),
        };
        state.end = staged.next_offset;
        state.staging.push(staged);
    }
    put_into_frames(log).await?;
    tracing::warn!(
        partition = %log.id, from = %skipped.start, until = %skipped.end,
        "skipped offsets: the topic's flush is relaxed, and after a stop that was not clean some may have been shown that \
         are lost"
    );
    Ok(())
}

/// Puts what is staged into frames, durably.
async fn put_into_frames(log: &Rc<LogCore>) -> Result<(), RedoError> {
    log.state.borrow_mut().settle();
    loop {
        let (group, moved) = next_group(log)?;
        match group {
            Next::Nothing => return Ok(()),
            Next::Wait => moved.await,
            Next::Group(group) => {
                make_room(log, group).await.map_err(RedoError::Io)?;
                learn_of_producers(log, group);
                writer::launch(log, group);
            }
        }
    }
}

enum Next {
    Nothing,
    Wait,
    Group(Group),
}

fn next_group(log: &LogCore) -> Result<(Next, Listener), RedoError> {
    let moved = log.writer_moved.listen();
    let state = log.state.borrow();
    if let Some(poison) = &state.poison {
        return Err(RedoError::Io(io::Error::new(poison.source.kind(), poison.clone())));
    }
    let in_flight = state.window.in_flight();
    let next = match state.staging.next_group(log.config().shared_frame_bytes_max(), Offset::MAX) {
        Some(group) if group.may_go(in_flight, log.config().writes_in_flight_max) => Next::Group(group),
        None if in_flight == 0 => Next::Nothing,
        _ => Next::Wait,
    };
    Ok((next, moved))
}

/// As frames get it, and not before: a snapshot is of what is in frames.
fn learn_of_producers(log: &LogCore, group: Group) {
    let now = Timestamp::new(time::wall_clock());
    let LogState { staging, producers, .. } = &mut *log.state.borrow_mut();
    for staged in staging.from(Offset::ZERO).take(group.appends) {
        producers.read(staged.batches.bytes(), now);
    }
}

/// The process that had room for it is gone, and a power failure may have taken the room along.
async fn make_room(log: &Rc<LogCore>, group: Group) -> io::Result<()> {
    while let Some(room) = writer::room_for(log, group) {
        let made = log.reserve.lend("for what the journal has", is_full, async || writer::make_room(log, room).await);
        made.await.map_err(NoRoom::into_io)?;
    }
    Ok(())
}

fn is_full(no_room: &NoRoom) -> bool {
    matches!(no_room, NoRoom::Full(_))
}

fn staged(append: JournaledAppend) -> Result<Staged, RedoError> {
    let JournaledAppend { generation, base_offset, next_offset, batches, .. } = append;
    let malformed = RedoError::Malformed { base_offset, next_offset };
    let (mut next, mut record_count, mut max_timestamp) = (base_offset, 0_u32, Timestamp::new(i64::MIN));
    let (mut rest, mut leader_epoch) = (&batches[..], LeaderEpoch::ZERO);
    while !rest.is_empty() {
        let header = BatchHeader::decode(rest).ok().filter(|header| header.base_offset == next);
        let Some((header, behind)) = header.and_then(|header| Some((header, rest.get(header.size_bytes()..)?))) else {
            return Err(malformed);
        };
        let counted = record_count.checked_add(header.record_count).zip(next.checked_add(header.record_count.into()));
        let Some((records, end)) = counted else { return Err(malformed) };
        (record_count, next, rest) = (records, end, behind);
        max_timestamp = max_timestamp.max(header.max_timestamp);
        leader_epoch = header.partition_leader_epoch.unwrap_or(LeaderEpoch::ZERO);
    }
    if next != next_offset || next == base_offset {
        return Err(malformed);
    }
    let (generation, batches) = (Generation(generation), StagedBatches::Shared(IoBuf::from(batches)));
    Ok(Staged { base_offset, next_offset, record_count, max_timestamp, generation, leader_epoch, batches })
}
