//! How compaction keeps out of the way: what it computes it computes in slices, and the rounds of one core work in turns.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use ringmq_runtime::local::{Permit, Semaphore};
use ringmq_runtime::task;

/// Work that is done in one go, in bytes; the core then looks at its sockets and files. Some 50 to 200 µs.
pub(super) const SLICE_BYTES: usize = 128 << 10;

/// What is copied in one go, in bytes.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Looking at a record takes as long as moving so many bytes, and its own.
pub(super) const RECORD_BYTES: usize = 512;

/// What is read was checked, as fast as so many bytes are moved in the time of one.
const READ_PART: usize = 4;

/// What a round reads before it lets those of other logs go on, in bytes: some tenths of a second.
const TURN_BYTES: usize = 32 << 20;

/// What the compactions of one core's logs share: who works, and the memory for keys. Clones share it.
///
/// Several rounds may be under way, of which one works at a time; they take turns, first come, first served. So a log
/// whose round takes an hour keeps nobody else waiting for long, and one core never computes for two of them in a row.
#[derive(Clone)]
pub struct CompactionBudget {
    turns: Semaphore,
    turn_bytes: usize,
    key_bytes_free: Rc<Cell<usize>>,
}

impl CompactionBudget {
    /// The default memory for keys: 32 MiB.
    pub const KEY_BYTES_DEFAULT: usize = 32 << 20;

    /// With that much memory for the keys of all rounds that are under way, in bytes, about. A round takes half of what is
    /// free when it begins, and gives back what it does not need once it knows its keys.
    #[must_use]
    pub fn new(key_bytes_max: usize) -> CompactionBudget {
        let (turns, key_bytes_free) = (Semaphore::new(1), Rc::new(Cell::new(key_bytes_max)));
        CompactionBudget { turns, turn_bytes: TURN_BYTES, key_bytes_free }
    }

    /// The same with other turns.
    #[cfg(test)]
    pub(crate) fn with_turns_of(self, turn_bytes: usize) -> CompactionBudget {
        CompactionBudget { turn_bytes, ..self }
    }

    /// Half of the memory that is free.
    pub(super) fn take_keys(&self) -> KeyBytes {
        let free = self.key_bytes_free.get();
        let taken = free / 2;
        self.key_bytes_free.set(free - taken);
        KeyBytes { free: self.key_bytes_free.clone(), taken }
    }
}

impl Default for CompactionBudget {
    fn default() -> CompactionBudget {
        CompactionBudget::new(CompactionBudget::KEY_BYTES_DEFAULT)
    }
}

impl fmt::Debug for CompactionBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactionBudget").field("key_bytes_free", &self.key_bytes_free.get()).finish_non_exhaustive()
    }
}

/// Memory that a round may use for keys; given back when it is dropped.
pub(super) struct KeyBytes {
    free: Rc<Cell<usize>>,
    taken: usize,
}

impl KeyBytes {
    pub(super) fn get(&self) -> usize {
        self.taken
    }

    /// Gives back what is not needed.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let kept = bytes.min(self.taken);
        self.free.set(self.free.get() + self.taken - kept);
        self.taken = kept;
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// The pace of one round.
pub(super) struct Pace {
    turns: Semaphore,
    turn: Option<Permit>,
    turn_bytes_max: usize,
    /// Bytes that were read in this turn, and in all.
    turn_bytes: usize,
    bytes_read: u64,
    /// Bytes that were worked on in this slice.
    spent: usize,
}

impl Pace {
    /// Waits for the first turn.
    pub(super) async fn new(budget: &CompactionBudget) -> Pace {
        let turns = budget.turns.clone();
        let turn = Some(turns.acquire(1).await);
        Pace { turns, turn, turn_bytes_max: budget.turn_bytes, turn_bytes: 0, bytes_read: 0, spent: 0 }
    }

    /// Waits for another turn where this one has had its share. The log may be closed meanwhile.
    pub(super) async fn take_turn(&mut self) {
        if self.turn_bytes >= self.turn_bytes_max {
            self.turn_bytes = 0;
            // Whoever waits comes first.
            self.turn = None;
            self.turn = Some(self.turns.acquire(1).await);
        }
    }

    /// So many bytes were read.
    pub(super) async fn read(&mut self, bytes: usize) {
        self.turn_bytes += bytes;
        self.bytes_read += bytes as u64;
        self.spend(bytes / READ_PART).await;
    }

    /// Bytes that were read in this round.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// So many bytes were worked on: lets the core look at its sockets and files where that is enough for one slice.
    #[inline]
    pub(super) async fn spend(&mut self, bytes: usize) {
        self.spent += bytes;
        if self.spent >= SLICE_BYTES {
            self.spent = 0;
            task::yield_to_io().await;
        }
    }

    /// As [`Pace::spend`], of a record that was looked at.
    #[inline]
    pub(super) async fn spend_record(&mut self, bytes: usize) {
        self.spend(RECORD_BYTES + bytes).await;
    }
}
