//! What is accepted and not yet in a frame, and when it goes into one.
//!
//! An append is *queued* until there is room for it, and *staged* from then on: it has its offsets, and space in the
//! active segment as if it were to get a frame of its own (rule 13 of the storage protocol). What is staged may be
//! durable already, by the journal; it stays in memory until a frame has it.
//!
//! # Group commit
//! While writes are at the device the next frame gathers. Two rules decide:
//! 1. **What becomes one frame.** An append of more than [`COPY_BYTES_MAX`] becomes a frame by itself, in place when
//!    it came in a [`FrameBuf`]. Smaller ones are copied together, in order, up to `frame_bytes_max`.
//! 2. **When it goes.** A frame of [`FULL_FRAME_BYTES`] or more goes while fewer than `writes_in_flight_max` writes
//!    are at the device. A smaller one goes only while fewer than [`SMALL_WRITES_IN_FLIGHT_MAX`] are: each costs a
//!    flush of the device whatever its size, so those that come meanwhile had better share one.
//! 3. **What nobody waits for**, because the journal has it, goes in frames of at most [`CHECKPOINT_FRAME_BYTES_MAX`], few at
//!    a time: what someone waits for is never behind much of it, at the device or on the core.
//!
//! An append that finds the log idle is written at once: nothing waits for a timer.

use std::collections::VecDeque;

use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::local::Sender;
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::append::{Append, AppendError, Appended};
use crate::cache::CachedFrame;
use crate::frame::Generation;
use crate::payload::{FrameBuf, frame_bytes_for};

/// Up to here an append is copied into a frame that it shares. Copying costs some 10 µs for 64 KiB, a write of its
/// own some 100 µs.
pub(crate) const COPY_BYTES_MAX: usize = 64 * 1024;
/// From here on a frame does not wait for company.
pub(crate) const FULL_FRAME_BYTES: usize = 64 * 1024;
/// Writes that may be at the device when a frame of less than [`FULL_FRAME_BYTES`] joins them: one under way and one
/// queued behind it.
pub(crate) const SMALL_WRITES_IN_FLIGHT_MAX: usize = 2;

/// A frame of what the journal has is at most so long: a fraction of a millisecond of the device, and of the core that
/// copies it together.
pub(crate) const CHECKPOINT_FRAME_BYTES_MAX: usize = 256 * 1024;
/// And so many of a log are at the device.
pub(crate) const CHECKPOINT_WRITES_IN_FLIGHT_MAX: usize = 2;

/// Tells an append's caller how it ended.
pub(crate) type Waiter = Sender<Result<Appended, AppendError>>;

/// An accepted append, without a place in the log.
pub(crate) struct Queued {
    pub(crate) append: Append,
    pub(crate) waiter: Waiter,
}

/// The accepted appends of one log that there is no room for yet, in the order of their acceptance.
#[derive(Default)]
pub(crate) struct Queue {
    appends: VecDeque<Queued>,
    payload_bytes: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, queued: Queued) {
        self.payload_bytes += queued.append.payload_bytes();
        self.appends.push_back(queued);
    }

    pub(crate) fn first(&self) -> Option<&Append> {
        self.appends.front().map(|queued| &queued.append)
    }

    pub(crate) fn take_first(&mut self) -> Option<Queued> {
        let first = self.appends.pop_front()?;
        self.payload_bytes -= first.append.payload_bytes();
        Some(first)
    }

    pub(crate) fn take_all(&mut self) -> VecDeque<Queued> {
        self.payload_bytes = 0;
        std::mem::take(&mut self.appends)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// Bytes of the batches that wait.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }
}

/// An append with its place in the log.
pub(crate) struct Staged {
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) record_count: u32,
    pub(crate) max_timestamp: Timestamp,
    /// Which life of the log took it in: a frame holds batches of one.
    pub(crate) generation: Generation,
    /// What its batches carry, as their offsets.
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) batches: StagedBatches,
}

/// Batches that carry their offsets.
pub(crate) enum StagedBatches {
    /// In memory that becomes a frame as it is. Nobody else sees them before.
    InPlace(FrameBuf),
    /// To be copied into a frame.
    Shared(IoBuf),
}

impl StagedBatches {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            StagedBatches::InPlace(frame) => frame.payload(),
            StagedBatches::Shared(batches) => batches,
        }
    }
}

impl Staged {
    pub(crate) fn payload_bytes(&self) -> usize {
        self.batches.bytes().len()
    }

    /// What it takes of a segment at most.
    pub(crate) fn own_frame_bytes(&self) -> usize {
        frame_bytes_for(self.payload_bytes())
    }

    /// As readers see it, when it is durable without a frame.
    pub(crate) fn readable(&self) -> Option<CachedFrame> {
        let StagedBatches::Shared(batches) = &self.batches else { return None };
        let Staged { base_offset, next_offset, max_timestamp, .. } = *self;
        Some(CachedFrame { base_offset, next_offset, max_timestamp, payload: batches.clone() })
    }

    /// Whether it may share a frame with `first`.
    fn goes_with(&self, first: &Staged) -> bool {
        self.payload_bytes() <= COPY_BYTES_MAX
            && (self.generation, self.leader_epoch) == (first.generation, first.leader_epoch)
    }
}

/// The appends of one log that have offsets and are in no frame, in the order of their offsets.
#[derive(Default)]
pub(crate) struct Staging {
    appends: VecDeque<Staged>,
    /// What all of them take of a segment, each in a frame of its own.
    frame_bytes: u64,
    /// The bytes of their batches.
    payload_bytes: usize,
}

/// The appends that would make up the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) appends: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) records: u32,
    /// Header and padding included.
    pub(crate) frame_bytes: usize,
}

impl Group {
    /// Whether it may go out beside the writes that are at the device.
    pub(crate) fn may_go(self, writes_in_flight: usize, writes_in_flight_max: usize) -> bool {
        let max = if self.frame_bytes >= FULL_FRAME_BYTES {
            writes_in_flight_max
        } else {
            writes_in_flight_max.min(SMALL_WRITES_IN_FLIGHT_MAX)
        };
        writes_in_flight < max
    }
}

impl Staging {
    pub(crate) fn push(&mut self, staged: Staged) {
        self.frame_bytes += staged.own_frame_bytes() as u64;
        self.payload_bytes += staged.payload_bytes();
        self.appends.push_back(staged);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// What all appends take of a segment at most.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// The bytes of the batches that wait for a frame.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    pub(crate) fn first(&self) -> Option<&Staged> {
        self.appends.front()
    }

    /// The next frame as it would be now; behind its first append only such that end at or below `until` join it. `None`
    /// when nothing is staged.
    pub(crate) fn next_group(&self, frame_bytes_max: usize, until: Offset) -> Option<Group> {
        let mut appends = self.appends.iter();
        let first = appends.next()?;
        let (payload_bytes, records) = (first.payload_bytes(), first.record_count);
        let mut group = Group { appends: 1, payload_bytes, records, frame_bytes: 0 };
        if group.payload_bytes <= COPY_BYTES_MAX {
            for staged in appends {
                let together = group.payload_bytes + staged.payload_bytes();
                let Some(records) = group.records.checked_add(staged.record_count) else { break };
                let fits = frame_bytes_for(together) <= frame_bytes_max && staged.next_offset <= until;
                if !staged.goes_with(first) || !fits {
                    break;
                }
                group = Group { appends: group.appends + 1, payload_bytes: together, records, frame_bytes: 0 };
            }
        }
        group.frame_bytes = frame_bytes_for(group.payload_bytes);
        Some(group)
    }

    /// Takes the group out.
    pub(crate) fn take(&mut self, group: Group) -> impl ExactSizeIterator<Item = Staged> + '_ {
        let taken = self.appends.iter().take(group.appends).map(|staged| staged.own_frame_bytes() as u64);
        self.frame_bytes -= taken.sum::<u64>();
        self.payload_bytes -= group.payload_bytes;
        self.appends.drain(..group.appends)
    }

    /// Forgets the appends at and beyond `end`: they will never be durable.
    pub(crate) fn cut(&mut self, end: Offset) {
        while let Some(last) = self.appends.pop_back_if(|last| last.next_offset > end) {
            self.frame_bytes -= last.own_frame_bytes() as u64;
            self.payload_bytes -= last.payload_bytes();
        }
    }

    /// From the append on that holds `from`, or the first.
    pub(crate) fn from(&self, from: Offset) -> impl Iterator<Item = &Staged> {
        let first = self.appends.partition_point(|staged| staged.next_offset <= from);
        self.appends.range(first..)
    }
}

#[cfg(test)]
mod tests;
