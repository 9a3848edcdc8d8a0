//! What is accepted and not yet in a frame, and when it goes out.
//!
//! # Group commit
//! While writes are at the device the next frame gathers. Two rules decide:
//! 1. **What becomes one frame.** An append of more than [`COPY_BYTES_MAX`] becomes a frame by itself, in place when
//!    it came in a [`FrameBuf`]. Smaller ones are copied together, in order, up to `frame_bytes_max`.
//! 2. **When it goes.** A frame of [`FULL_FRAME_BYTES`] or more goes while fewer than `writes_in_flight_max` writes
//!    are at the device. A smaller one goes only while fewer than [`SMALL_WRITES_IN_FLIGHT_MAX`] are: each costs a
//!    flush of the device whatever its size, so those that come meanwhile had better share one.
//!
//! An append that finds the log idle is written at once: nothing waits for a timer.

use std::collections::VecDeque;

use ringmq_runtime::local::Sender;

use crate::append::{Append, AppendError, Appended};
use crate::payload::frame_bytes_for;

#[cfg(doc)]
use crate::payload::FrameBuf;

/// Up to here an append is copied into a frame that it shares. Copying costs some 10 µs for 64 KiB, a write of its
/// own some 100 µs.
pub(crate) const COPY_BYTES_MAX: usize = 64 * 1024;
/// From here on a frame does not wait for company.
pub(crate) const FULL_FRAME_BYTES: usize = 64 * 1024;
/// Writes that may be at the device when a frame of less than [`FULL_FRAME_BYTES`] joins them: one under way and one
/// queued behind it.
pub(crate) const SMALL_WRITES_IN_FLIGHT_MAX: usize = 2;

/// Tells an append's caller how it ended.
pub(crate) type Waiter = Sender<Result<Appended, AppendError>>;

/// An accepted append.
pub(crate) struct Staged {
    pub(crate) append: Append,
    pub(crate) waiter: Waiter,
}

/// The accepted appends of one log, in the order of their acceptance.
#[derive(Default)]
pub(crate) struct Staging {
    queue: VecDeque<Staged>,
    payload_bytes: usize,
    /// Set when there was no room for a group: the first append may fit where the group did not.
    one_at_a_time: bool,
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
        self.payload_bytes += staged.append.payload_bytes();
        self.queue.push_back(staged);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of the batches that wait.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// The next frame as it would be now; `None` when nothing waits.
    pub(crate) fn next_group(&self, frame_bytes_max: usize) -> Option<Group> {
        let mut appends = self.queue.iter().map(|staged| &staged.append);
        let first = appends.next()?;
        let (payload_bytes, records) = (first.payload_bytes(), first.record_count());
        let mut group = Group { appends: 1, payload_bytes, records, frame_bytes: 0 };
        if group.payload_bytes <= COPY_BYTES_MAX && !self.one_at_a_time {
            for append in appends {
                let together = group.payload_bytes + append.payload_bytes();
                let Some(records) = group.records.checked_add(append.record_count()) else { break };
                if append.payload_bytes() > COPY_BYTES_MAX || frame_bytes_for(together) > frame_bytes_max {
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
        self.payload_bytes -= group.payload_bytes;
        self.one_at_a_time = false;
        self.queue.drain(..group.appends)
    }

    /// Takes the first one out.
    pub(crate) fn take_first(&mut self) -> Option<Staged> {
        let first = self.queue.pop_front()?;
        self.payload_bytes -= first.append.payload_bytes();
        self.one_at_a_time = false;
        Some(first)
    }

    /// Makes the next group the first append alone.
    pub(crate) fn take_one_at_a_time(&mut self) {
        self.one_at_a_time = true;
    }

    /// Takes everything out.
    pub(crate) fn take_all(&mut self) -> VecDeque<Staged> {
        self.payload_bytes = 0;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests;
