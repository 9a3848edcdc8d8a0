//! Record bytes on their way back from the shard that owns them, and what bounds them.
//!
//! They lie in the memory of neither side's pool, and only the owner knows how many there will be. So the owner takes
//! room before it copies, in accounts that belong to the side that asked, and the room comes back there when the client
//! has the bytes: numbers that two shards share, and the only ones.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::{ErrorCode, WireError};

/// How soon a full account is looked at again, at first and at last; twice as long each time. Nobody wakes the waiter
/// across cores, and there may be very many.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(32);

/// A bound on bytes that are under way. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    taken: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Account {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { taken: Arc::default(), bytes_max }
    }

    fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| self.with(taken, bytes)).ok()?;
        Some(Reserved { taken: self.taken.clone(), bytes })
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.with(self.taken.load(Ordering::Acquire), bytes).is_some()
    }

    /// The sum, if it is allowed. A single answer beyond the bound passes alone instead of never.
    fn with(&self, taken: usize, bytes: usize) -> Option<usize> {
        let sum = taken.saturating_add(bytes);
        (taken == 0 || sum <= self.bytes_max).then_some(sum)
    }
}

/// Bytes in one account, given back when dropped, on whichever core that happens.
#[derive(Debug)]
struct Reserved {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// The accounts that an answer is charged to.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    /// Of the connection that asked: whoever does not take its answers gets no more of them, and others do.
    pub(crate) connection: Account,
    /// Of the two shards.
    pub(crate) shards: Account,
}

impl Charge {
    fn try_reserve(&self, bytes: usize) -> Option<ReplyRoom> {
        let connection = self.connection.try_reserve(bytes)?;
        let shards = self.shards.try_reserve(bytes)?;
        Some(ReplyRoom { _connection: connection, _shards: shards })
    }

    /// Room for an answer.
    ///
    /// # Errors
    /// `Overloaded` when there is none within `wait_max`.
    pub(crate) async fn reserve(&self, bytes: usize, wait_max: Duration) -> Result<ReplyRoom, WireError> {
        retry(wait_max, || self.try_reserve(bytes)).await
    }

    /// Waits until there is room for an answer of so many bytes, which is not taken yet: before they are read.
    ///
    /// # Errors
    /// `Overloaded` when there is none within `wait_max`.
    pub(crate) async fn has_room(&self, bytes: usize, wait_max: Duration) -> Result<(), WireError> {
        let has_room = || self.connection.has_room(bytes) && self.shards.has_room(bytes);
        retry(wait_max, || has_room().then_some(())).await
    }
}

/// Tries until `wait_max` is over.
async fn retry<T>(wait_max: Duration, attempt: impl Fn() -> Option<T>) -> Result<T, WireError> {
    let deadline = Instant::now() + wait_max;
    let mut retry = RETRY_MIN;
    loop {
        if let Some(got) = attempt() {
            return Ok(got);
        }
        if Instant::now() >= deadline {
            let detail = "answers that were fetched before are not read: read them and fetch again, or fetch from \
                              the partition's own port";
            return Err(WireError::new(ErrorCode::Overloaded, detail));
        }
        time::sleep(retry).await;
        retry = (2 * retry).min(RETRY_MAX);
    }
}

/// Room for one answer.
#[derive(Debug)]
pub(crate) struct ReplyRoom {
    _connection: Reserved,
    _shards: Reserved,
}

/// Record bytes copied from one shard to another.
#[derive(Debug, Clone)]
pub(crate) struct CopiedBatches {
    bytes: Bytes,
    _room: Arc<ReplyRoom>,
}

impl CopiedBatches {
    /// Copies `bytes`; `room` covers them, and what else belongs to the same answer.
    pub(crate) fn copy(bytes: &[u8], room: &Arc<ReplyRoom>) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), _room: room.clone() }
    }
}

impl Deref for CopiedBatches {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Room in accounts that nobody else uses.
    pub(crate) fn room(bytes: usize) -> Arc<ReplyRoom> {
        charge(bytes, bytes).try_reserve(bytes).map(Arc::new).unwrap()
    }

    fn charge(connection: usize, shards: usize) -> Charge {
        Charge { connection: Account::new(connection), shards: Account::new(shards) }
    }

    #[test]
    fn answers_beyond_the_bound_wait_and_a_single_one_passes_alone() {
        let charge = charge(100, 1_000);
        let first = charge.try_reserve(60).unwrap();
        assert!(charge.try_reserve(41).is_none());
        let second = charge.try_reserve(40).unwrap();
        drop(first);
        assert!(charge.try_reserve(500).is_none(), "not while another is under way");
        drop(second);
        let alone = charge.try_reserve(500).unwrap();
        assert!(charge.try_reserve(1).is_none());
        drop(alone);
        assert!(charge.try_reserve(100).is_some());
    }

    #[test]
    fn one_connection_does_not_use_up_what_all_have() {
        let shards = Account::new(1_000);
        let [slow, other] = [100, 100].map(|bytes| Charge { connection: Account::new(bytes), shards: shards.clone() });
        let _never_taken = slow.try_reserve(100).unwrap();
        assert!(slow.try_reserve(1).is_none());
        assert!(other.try_reserve(100).is_some());
        assert_eq!(
            shards.taken.load(Ordering::Acquire),
            100,
            "a refused answer leaves nothing behind in either account"
        );
    }

    #[test]
    fn room_comes_back_when_the_last_piece_of_an_answer_is_gone() {
        let charge = charge(10, 10);
        let room = Arc::new(charge.try_reserve(10).unwrap());
        let [first, second] = [CopiedBatches::copy(b"12345", &room), CopiedBatches::copy(b"67890", &room)];
        drop((room, first));
        assert!(charge.try_reserve(1).is_none());
        assert_eq!(&*second, b"67890");
        drop(second);
        assert!(charge.try_reserve(10).is_some());
    }
}
