//! What one shard finds of a fetch: reads its partitions, and waits until there is enough.
//!
//! All partitions are looked at once. A wait that ends because some of them have more looks at those alone, counts what
//! they have got, and only then, if that is enough or the wait is over, everything is read that is sent.

use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ringmq_runtime::buffer::{AlignedBuf, IoBuf};
use ringmq_runtime::local::Listener;
use ringmq_runtime::time::{self, Instant};
use ringmq_segment::{Log, LogId};
use ringmq_wire::{ErrorCode, Offset, WireError};

use crate::limits::PINNED_PER_BYTE_MAX;
use crate::partition::Partition;
use crate::reply_bytes::Charge;
use crate::room::{Held, Room};
use crate::server::Shard;
use crate::turns::Turns;

/// What is wanted of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) id: LogId,
    pub(super) from: Offset,
    pub(super) bytes_max: usize,
}

/// When a share is answered, and how much it may carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Answered as soon as there are as many bytes.
    pub(super) bytes_enough: usize,
    pub(super) bytes_max: usize,
    /// What the head of the answer takes up beside the records, on the shard that sends it.
    pub(super) head_bytes: usize,
    /// Answered then with what there is.
    pub(super) deadline: Instant,
}

pub(super) type Outcome<B> = Result<Read<B>, WireError>;

/// What was read of one partition: whole batches, in pieces of memory of type `B`.
#[derive(Debug)]
pub(super) struct Read<B> {
    pub(super) log_start_offset: Offset,
    pub(super) high_watermark: Offset,
    pub(super) batches: Vec<B>,
    pub(super) bytes: usize,
    /// Where to read on.
    pub(super) next: Offset,
    /// More is there, but did not fit.
    cut: bool,
}

impl<B> Read<B> {
    pub(super) fn nothing(log_start_offset: Offset, high_watermark: Offset) -> Self {
        Self { log_start_offset, high_watermark, batches: Vec::new(), bytes: 0, next: high_watermark, cut: false }
    }

    /// The batches apart from the rest.
    pub(super) fn take_batches(self) -> (Read<()>, Vec<B>) {
        let Self { log_start_offset, high_watermark, batches, bytes, next, cut } = self;
        (Read { log_start_offset, high_watermark, batches: Vec::new(), bytes, next, cut }, batches)
    }
}

impl Read<()> {
    /// The same with its batches in other memory.
    pub(super) fn with<C>(self, batches: Vec<C>) -> Read<C> {
        let Self { log_start_offset, high_watermark, bytes, next, cut, .. } = self;
        Read { log_start_offset, high_watermark, batches, bytes, next, cut }
    }
}

/// What one shard has found.
pub(super) struct Found<B> {
    pub(super) outcomes: Vec<Outcome<B>>,
    /// Room for it in the bounds of the connection and of this shard, where it lies in this shard's memory.
    pub(super) room: Held,
}

impl<B> Found<B> {
    /// The same error for every partition.
    pub(super) fn failed(parts: &[Part], error: &WireError) -> Self {
        Self { outcomes: parts.iter().map(|_| Err(error.clone())).collect(), room: Held::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.outcomes.iter().flatten().map(|read| read.bytes).sum()
    }

    /// Whether waiting would not make it better: it is an error, or as much as fits.
    pub(super) fn is_final(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.as_ref().map_or(true, |read| read.cut))
    }

    pub(super) fn map<C>(self, mut each: impl FnMut(B) -> C) -> Found<C> {
        let mut read = |(read, batches): (Read<()>, Vec<B>)| read.with(batches.into_iter().map(&mut each).collect());
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.map(Read::take_batches).map(&mut read));
        Found { outcomes: outcomes.collect(), room: self.room }
    }
}

/// Reads this shard's partitions, waiting until there is enough, someone hurries, or time is up.
///
/// Where there is no room for what would be read, because peers do not take their answers, the partitions are `Overloaded`
/// in the end; who is hurried meanwhile has found nothing.
pub(super) async fn find(
    shard: &Shard,
    parts: &[Part],
    terms: Terms,
    asker: Asker<'_>,
    hurry: impl Future<Output = ()>,
) -> Found<IoBuf> {
    let hurry = pin!(shard.stop.or_stop(hurry));
    let mut patience = Patience { hurry, is_hurried: false, deadline: terms.deadline };
    let mut watched = watch(shard, parts).await;
    let mut look = watched.iter().any(Watched::has_news);
    loop {
        if look || patience.is_over() {
            let found = match read_with_room(shard, &watched, &terms, asker, &mut patience).await {
                Ok(found) => found,
                Err(NoRoom::Hurried) => nothing(&watched),
                Err(NoRoom::Overloaded(error)) => return Found::failed(parts, &error),
            };
            if patience.is_over() || found.bytes() >= terms.bytes_enough || found.is_final() {
                return found;
            }
            for (watched, outcome) in watched.iter_mut().zip(&found.outcomes) {
                watched.count_from(outcome);
            }
        }
        look = wait_for_enough(shard, &mut watched, terms.bytes_enough, &mut patience).await;
    }
}

/// Whose the answer is.
#[derive(Clone, Copy)]
pub(super) enum Asker<'a> {
    /// A connection of this shard, with the room that it has for what its peer has not taken.
    Here(&'a Room),
    /// One of another shard, with the accounts that the answer is charged to.
    Elsewhere(&'a Charge),
}

/// A partition that is looked at, and how far it is known.
struct Watched {
    part: Part,
    log: Result<(Rc<Partition>, Log), WireError>,
    /// Done when the log has more than it had when it was looked at.
    moved: Option<Listener>,
    has_moved: bool,
    /// Counted up to here.
    next: Offset,
    /// What was counted.
    bytes: usize,
}

/// Looks the partitions up.
async fn watch(shard: &Shard, parts: &[Part]) -> Vec<Watched> {
    let mut watched = Vec::with_capacity(parts.len());
    let mut turns = Turns::default();
    for &part in parts {
        watched.push(Watched::new(shard, part));
        turns.give_way_if_due().await;
    }
    watched
}

impl Watched {
    fn new(shard: &Shard, part: Part) -> Self {
        let log = shard.directory.borrow().owned(part.id).and_then(|partition| {
            let log = partition.log()?;
            Ok((partition, log))
        });
        // Taken before looking: what becomes durable from here on ends the next wait.
        let moved = log.as_ref().ok().map(|(_, log)| log.readable_moved());
        Self { part, log, moved, has_moved: false, next: part.from, bytes: 0 }
    }

    /// Whether there is something to read, an error included.
    fn has_news(&self) -> bool {
        self.log.as_ref().map_or(true, |(_, log)| log.offsets().readable != self.part.from)
    }

    /// No batch that the partition takes today is larger.
    fn batch_bytes_max(&self) -> usize {
        self.log.as_ref().map_or(0, |(partition, _)| partition.batch_bytes_max())
    }

    fn poll_moved(&mut self, cx: &mut Context<'_>) -> bool {
        let moved = self.moved.as_mut().is_some_and(|moved| Pin::new(moved).poll(cx).is_ready());
        self.has_moved |= moved;
        moved
    }

    /// Counts from what was read on.
    fn count_from(&mut self, outcome: &Outcome<IoBuf>) {
        if let Ok(read) = outcome {
            (self.next, self.bytes) = (read.next, read.bytes);
        }
    }

    /// Looks again at a partition that has moved, and counts up to `missing` bytes that it has got: how many, or `None` when
    /// only reading it as it is sent can tell. It is looked up anew: a topic may be deleted while its readers wait.
    async fn count(&mut self, shard: &Shard, missing: usize) -> Option<usize> {
        let (next, bytes) = (self.next, self.bytes);
        *self = Self { next, bytes, ..Self::new(shard, self.part) };
        let (_, log) = self.log.as_ref().ok()?;
        let mut counted = 0;
        while self.next != log.offsets().readable && counted < missing {
            let left = self.part.bytes_max.saturating_sub(self.bytes);
            // Written just now, so it is in memory.
            let read = log.read(self.next, left.max(1)).await.ok()?;
            if read.bytes == 0 || read.bytes > left {
                return None;
            }
            self.next = read.next_offset;
            self.bytes += read.bytes;
            counted += read.bytes;
        }
        Some(counted)
    }
}

/// Waits until there may be enough; `false` when the wait is over. Only what has moved is looked at.
async fn wait_for_enough(
    shard: &Shard,
    watched: &mut [Watched],
    bytes_enough: usize,
    patience: &mut Patience<'_, impl Future>,
) -> bool {
    let counted: usize = watched.iter().map(|watched| watched.bytes).sum();
    let mut missing = bytes_enough.saturating_sub(counted);
    let mut turns = Turns::default();
    while !patience.is_over() {
        let deadline = patience.deadline;
        let moved = std::future::poll_fn(|cx| {
            let mut any = false;
            watched.iter_mut().for_each(|watched| any |= watched.poll_moved(cx));
            if any { Poll::Ready(()) } else { Poll::Pending }
        });
        if patience.race(Some(deadline), moved).await.is_err() {
            return false;
        }
        for moved in watched.iter_mut().filter(|watched| watched.has_moved) {
            match moved.count(shard, missing).await {
                Some(counted) if counted < missing => missing -= counted,
                _ => return true,
            }
            turns.give_way_if_due().await;
        }
    }
    false
}

/// How long a fetch waits, and who may end it.
struct Patience<'a, H> {
    hurry: Pin<&'a mut H>,
    is_hurried: bool,
    deadline: Instant,
}

/// Why something was not waited for.
enum Impatience {
    Hurried,
    TimeOver,
}

impl<H: Future> Patience<'_, H> {
    fn is_over(&self) -> bool {
        self.is_hurried || Instant::now() >= self.deadline
    }

    /// What `future` gives, unless someone hurries, or it is `until`, before.
    async fn race<T>(&mut self, until: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Impatience> {
        let mut future = pin!(future);
        let mut timer = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ready) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(ready));
            }
            self.is_hurried = self.is_hurried || self.hurry.as_mut().poll(cx).is_ready();
            if self.is_hurried {
                return Poll::Ready(Err(Impatience::Hurried));
            }
            let Some(until) = until else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| time::sleep(until.saturating_duration_since(Instant::now())));
            Pin::new(timer).poll(cx).map(|()| Err(Impatience::TimeOver))
        })
        .await
    }
}

/// Why nothing can be read.
enum NoRoom {
    Hurried,
    Overloaded(WireError),
}

/// Reads the partitions once there is room for it. The first batch passes whatever its size: where that is more than there
/// is room for, it is let go of, and read again when there is. Few at a time do that, so that what they hold meanwhile is
/// bounded.
async fn read_with_room(
    shard: &Shard,
    watched: &[Watched],
    terms: &Terms,
    asker: Asker<'_>,
    patience: &mut Patience<'_, impl Future>,
) -> Result<Found<IoBuf>, NoRoom> {
    let mut needed = 0;
    loop {
        let (mut room, bytes) = reserve(shard, watched, terms, needed, asker, patience).await?;
        let may_exceed = bytes < watched.iter().map(Watched::batch_bytes_max).max().unwrap_or(0);
        let _turn = if may_exceed { Some(shard.reads_beyond_room.acquire(1).await) } else { None };
        let outcomes = read_all(watched, terms).await;
        let read: usize = outcomes.iter().flatten().map(|read| read.bytes).sum();
        if read <= bytes {
            room.shrink_to(read + terms.head_bytes);
            return Ok(Found { outcomes, room });
        }
        needed = read;
    }
}

/// Room for what may be read, for `needed` bytes at least, and for the head of the answer, in the bounds of the connection
/// (if it is one of this shard) and of the shard; and for how many bytes that is.
///
/// Who waits for its own connection waits for its own peer, as long as nobody hurries: the peer is slow, and that is
/// all the sooner over. What all share is waited for until the deadline, but not less than a moment. What is read for
/// another shard lies in this one's memory no longer than a moment, and takes room there when it is copied; where there
/// is none to take nothing is read.
async fn reserve(
    shard: &Shard,
    watched: &[Watched],
    terms: &Terms,
    needed: usize,
    asker: Asker<'_>,
    patience: &mut Patience<'_, impl Future>,
) -> Result<(Held, usize), NoRoom> {
    let news = watched.iter().filter(|watched| watched.has_news());
    let wanted = news.fold(0, |sum: usize, watched| sum.saturating_add(watched.part.bytes_max)).min(terms.bytes_max);
    let bytes = wanted.max(needed);
    if bytes == 0 {
        return Ok((Held::default(), 0));
    }
    let wanted = bytes + terms.head_bytes;
    let wait_max = shard.config.limits.forward_wait_max;
    let in_connection = match asker {
        Asker::Here(responses) => {
            if let Some(room) = responses.of_allowance(wanted) {
                return Ok((room, bytes));
            }
            match patience.race(None, responses.connection.acquire(wanted)).await {
                Ok(room) => Some(room),
                Err(_) => return Err(NoRoom::Hurried),
            }
        }
        Asker::Elsewhere(charge) => match patience.race(None, charge.has_room(wanted, wait_max)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => return Err(NoRoom::Overloaded(error)),
            Err(_) => return Err(NoRoom::Hurried),
        },
    };
    let until = patience.deadline.max(Instant::now() + wait_max);
    match patience.race(Some(until), shard.response_bytes.acquire(wanted)).await {
        Ok(room) => Ok((Held::new(in_connection, room), bytes)),
        Err(Impatience::Hurried) => Err(NoRoom::Hurried),
        Err(Impatience::TimeOver) => Err(NoRoom::Overloaded(overloaded())),
    }
}

fn overloaded() -> WireError {
    let detail =
        "other clients do not take what they have fetched, and there is no room for more; fetch again after a moment";
    WireError::new(ErrorCode::Overloaded, detail)
}

/// How far the partitions are, without any records.
fn nothing(watched: &[Watched]) -> Found<IoBuf> {
    let nothing = |watched: &Watched| {
        let (_, log) = watched.log.as_ref().map_err(Clone::clone)?;
        let offsets = log.offsets();
        Ok(Read::nothing(offsets.start, offsets.readable))
    };
    Found { outcomes: watched.iter().map(nothing).collect(), room: Held::default() }
}

/// Reads the partitions in the order of the request until `bytes_max`. The first batch is read whatever its size.
async fn read_all(watched: &[Watched], terms: &Terms) -> Vec<Outcome<IoBuf>> {
    let mut bytes = 0;
    let mut outcomes = Vec::with_capacity(watched.len());
    let mut turns = Turns::default();
    for Watched { part, log, .. } in watched {
        let outcome = match log {
            Ok((partition, log)) => read(partition, log, part, terms.bytes_max.saturating_sub(bytes), bytes == 0).await,
            Err(error) => Err(error.clone()),
        };
        bytes += outcome.as_ref().map_or(0, |read| read.bytes);
        outcomes.push(outcome);
        turns.give_way_if_due().await;
    }
    outcomes
}

/// Reads one partition, `bytes_left` at most unless it is the `first` to give anything. A log gives what it has in one
/// piece, in memory or on disk; the pieces are put together here.
async fn read(partition: &Partition, log: &Log, part: &Part, bytes_left: usize, first: bool) -> Outcome<IoBuf> {
    let offsets = log.offsets();
    let mut found = Read { next: part.from, ..Read::nothing(offsets.start, offsets.readable) };
    let mut left = part.bytes_max.min(bytes_left);
    // One more piece is read while one like the last would fit: what does not fit is read for nothing.
    let mut last_bytes = 1;
    // Below the start, or beyond the end, the log says what is wrong.
    while found.next != log.offsets().readable && left >= last_bytes {
        let read = match log.read(found.next, left).await {
            Ok(read) => read,
            // What stands before a damaged frame is given; the fetch that begins there is told.
            Err(_) if found.bytes > 0 => break,
            Err(cause) => return Err(partition.read_failed(&cause)),
        };
        // A batch larger than what is left passes only where nothing else does.
        let alone = first && found.bytes == 0;
        if (read.bytes > left && !alone) || read.bytes == 0 {
            break;
        }
        found.next = read.next_offset;
        left = left.saturating_sub(read.bytes);
        last_bytes = read.bytes;
        found.bytes += read.bytes;
        found.batches.extend(unpinned(read.slices, read.bytes));
    }
    // What has become durable while the disk was read may be among what was read.
    found.high_watermark = log.offsets().readable;
    found.cut = found.next < found.high_watermark;
    Ok(found)
}

/// The same bytes, copied if they would keep much more memory alive than there are of them: room is taken for the bytes.
fn unpinned(slices: Vec<IoBuf>, bytes: usize) -> Vec<IoBuf> {
    let mut pinned = 0;
    let mut last: Option<&IoBuf> = None;
    for slice in &slices {
        if !last.is_some_and(|last| last.shares_memory_with(slice)) {
            pinned += slice.memory_bytes();
        }
        last = Some(slice);
    }
    if pinned <= bytes.saturating_mul(PINNED_PER_BYTE_MAX) {
        return slices;
    }
    let mut copy = AlignedBuf::with_len(bytes);
    let mut at = 0;
    for slice in &slices {
        copy[at..at + slice.len()].copy_from_slice(slice);
        at += slice.len();
    }
    vec![copy.freeze().slice(..bytes)]
}

#[cfg(test)]
mod tests {
    use ringmq_runtime::sim::{Sim, SimConfig};

    use super::*;

    #[test]
    fn an_answer_keeps_no_more_memory_than_a_few_times_its_bytes() {
        Sim::new(SimConfig::with_seed(1)).run(|| async {
            let mut frame = AlignedBuf::with_len(64 << 10);
            for (at, byte) in frame.iter_mut().enumerate() {
                *byte = u8::try_from(at % 251).unwrap();
            }
            let frame = frame.freeze();
            // Two parts of one frame keep it once.
            let most = vec![frame.slice(0..9_000), frame.slice(10_000..20_000)];
            let kept = unpinned(most.clone(), 19_000);
            assert!(kept.iter().zip(&most).all(|(kept, slice)| kept.shares_memory_with(slice)));

            let few = vec![frame.slice(100..200), frame.slice(300..1_000)];
            let copied = unpinned(few.clone(), 800);
            assert_eq!(copied.iter().map(|slice| slice.to_vec()).collect::<Vec<_>>().concat(), {
                few.iter().map(|slice| slice.to_vec()).collect::<Vec<_>>().concat()
            });
            let pinned: usize = copied.iter().map(IoBuf::memory_bytes).sum();
            assert!(pinned <= 4096, "{pinned} bytes are kept for 800");
        });
    }
}
