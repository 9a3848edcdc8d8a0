//! Fetch: reads record batches, waiting for enough of them.
//!
//! A request whose partitions are on several shards is asked of all of them at once, each with a share of the bytes that
//! make an answer worth its while. As soon as one has its share, the others are hurried: they answer with what they
//! have. The shares are such that whenever all shards together have `min_bytes`, at least one of them has its share, so
//! that nothing is waited for in vain; if the sum is still too small, another round starts from what was found.
//!
//! `max_bytes` is divided over the shards; each of them sends at least one batch when it has any, so an answer can
//! exceed it by a batch a shard.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_runtime::local::{Listener, Permit, Semaphore};
use ringmq_runtime::task::{self, Stop};
use ringmq_runtime::time::{self, Instant};
use ringmq_segment::{Log, LogId};
use ringmq_wire::protocol::frame::encode_response_head;
use ringmq_wire::protocol::{FetchRequest, FetchResponseHead, FetchedPartition, FetchedTopic};
use ringmq_wire::{Detail, ErrorCode, Offset, PartitionIndex, WireError};

use crate::directory::Owner;
use crate::error::Details;
use crate::limits::COPY_BYTES_MAX;
use crate::mailbox::Message;
use crate::outbox::{Hold, Slice};
use crate::partition::Partition;
use crate::reply_bytes::{Charge, CopiedBatches, ReplyRoom};
use crate::server::Shard;
use crate::session::{Call, Session};
use crate::split::{Merged, Share, Split, unanswered};
use crate::stats::{Counter, Stage};

/// What is wanted of one partition.
#[derive(Debug, Clone, Copy)]
struct Part {
    id: LogId,
    from: Offset,
    bytes_max: usize,
}

/// When a share is answered, and how much it may carry.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// Answered as soon as there are as many bytes.
    bytes_enough: usize,
    bytes_max: usize,
    /// Answered then with what there is.
    deadline: Instant,
}

/// The partitions of one request that another shard owns.
pub(crate) struct ForwardedFetch {
    parts: Vec<Part>,
    terms: Terms,
    /// Dropped on the other side when the request waits only for this shard.
    hurry: OneshotReceiver<()>,
    charge: Charge,
    reply: OneshotSender<Vec<Outcome<CopiedBatches>>>,
}

type Outcome<B> = Result<Read<B>, WireError>;

/// What was read of one partition: whole batches, in pieces of memory of type `B`.
#[derive(Debug)]
struct Read<B> {
    log_start_offset: Offset,
    high_watermark: Offset,
    batches: Vec<B>,
    bytes: usize,
    /// More is there, but did not fit.
    cut: bool,
}

impl<B> Read<B> {
    fn nothing(log_start_offset: Offset, high_watermark: Offset) -> Self {
        Self { log_start_offset, high_watermark, batches: Vec::new(), bytes: 0, cut: false }
    }

    /// The batches apart from the rest.
    fn take_batches(self) -> (Read<()>, Vec<B>) {
        let Self { log_start_offset, high_watermark, batches, bytes, cut } = self;
        (Read { log_start_offset, high_watermark, batches: Vec::new(), bytes, cut }, batches)
    }
}

impl Read<()> {
    /// The same with its batches in other memory.
    fn with<C>(self, batches: Vec<C>) -> Read<C> {
        let Self { log_start_offset, high_watermark, bytes, cut, .. } = self;
        Read { log_start_offset, high_watermark, batches, bytes, cut }
    }
}

/// What one shard has found.
struct Found<B> {
    outcomes: Vec<Outcome<B>>,
    /// Room for it in the bounds of the connection and of this shard, where it lies in this shard's memory.
    room: [Option<Permit>; 2],
}

impl<B> Found<B> {
    fn bytes(&self) -> usize {
        self.outcomes.iter().flatten().map(|read| read.bytes).sum()
    }

    /// Whether waiting would not make it better: it is an error, or as much as fits.
    fn final_as_it_is(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.as_ref().map_or(true, |read| read.cut))
    }

    fn map<C>(self, mut each: impl FnMut(B) -> C) -> Found<C> {
        let mut read = |(read, batches): (Read<()>, Vec<B>)| read.with(batches.into_iter().map(&mut each).collect());
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.map(Read::take_batches).map(&mut read));
        Found { outcomes: outcomes.collect(), room: self.room }
    }
}

/// Answers a fetch when there is enough to read, or no time left.
pub(crate) async fn handle(session: Rc<Session>, mut call: Call, request: FetchRequest) {
    let shard = &session.shard;
    let parts = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    call.hold_parts(shard.request_parts.acquire(parts).await);
    let limits = &shard.config.limits;
    let bytes_max = request.max_bytes.clamp(1, limits.fetch_bytes_max) as usize;
    let (split, mut merged) = split(shard, &request);
    // An error is told at once, and who asks for no bytes has them.
    let may_wait = merged.is_empty() && request.min_bytes > 0;
    let wait = Duration::from_millis(if may_wait { request.max_wait_ms.into() } else { 0 });
    let terms = Terms {
        bytes_enough: (request.min_bytes as usize).min(bytes_max),
        bytes_max,
        deadline: call.received + wait.min(limits.fetch_wait_max),
    };

    let shares = split.into_shares();
    let answers = match &shares[..] {
        [] => Vec::new(),
        [share] => vec![ask(&session, share, terms, &session.ended).await],
        _ => ask_all(&session, &shares, terms).await,
    };
    let ready = Instant::now();
    shard.stats.record(Stage::FetchReady, ready.saturating_duration_since(call.received));

    let mut room = [None, None];
    for (share, found) in shares.iter().zip(answers) {
        merged.put_share(&share.places, found.outcomes, unanswered);
        if found.room[0].is_some() {
            room = found.room;
        }
    }
    let (head, slices) = response(request, merged.into_answers(unanswered));
    shard.stats.add(Counter::FetchedBytes, slices.iter().map(|slice| slice.len()).sum());
    let correlation = call.correlation;
    let hold = Hold { _slot: call.done_with_request(), _room: room, stage: (Stage::FetchAnswered, ready) };
    session.outbox.put_with_records(hold, correlation, |out| encode_response_head(correlation, &head, out), slices);
}

/// Serves a share that another shard's client asked for.
pub(crate) fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedFetch) {
    let serving = shard.clone();
    shard.spawn_forwarded("forwarded fetch", async move {
        let ForwardedFetch { parts, terms, hurry, charge, reply } = forwarded;
        let hurried = async {
            // Nothing is ever sent: the other side lets go.
            let _ = hurry.await;
        };
        let found = fetch_here(&serving, &parts, terms, None, hurried).await;
        let bytes = found.bytes();
        serving.stats.add(Counter::ForwardedBytes, bytes);
        let outcomes = match charge.reserve(bytes, serving.config.limits.forward_wait_max).await {
            Ok(room) => copy(found, &Arc::new(room)).await,
            Err(error) => parts.iter().map(|_| Err(error.clone())).collect(),
        };
        // Whoever asked may have ended meanwhile.
        let _ = reply.send(outcomes);
    });
}

/// Copies what was found, for another core.
async fn copy(found: Found<IoBuf>, room: &Arc<ReplyRoom>) -> Vec<Outcome<CopiedBatches>> {
    let mut outcomes = Vec::with_capacity(found.outcomes.len());
    let mut copied = 0;
    for outcome in found.outcomes {
        let (read, batches) = match outcome {
            Ok(read) => read.take_batches(),
            Err(error) => {
                outcomes.push(Err(error));
                continue;
            }
        };
        let mut copies = Vec::with_capacity(batches.len());
        for slice in batches {
            copies.push(CopiedBatches::copy(&slice, room));
            copied += slice.len();
            if copied >= COPY_BYTES_MAX {
                copied = 0;
                task::yield_to_io().await;
            }
        }
        outcomes.push(Ok(read.with(copies)));
    }
    outcomes
}

/// Cuts a request by owner; what is nowhere is answered at once.
fn split(shard: &Shard, request: &FetchRequest) -> (Split<Part>, Merged<Outcome<Slice>>) {
    let directory = shard.directory.borrow();
    let wanted = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (&topic.topic, part)));
    let (mut split, mut merged) = (Split::new(), Merged::new(wanted.clone().count()));
    for (place, (topic, part)) in wanted.enumerate() {
        let (owner, id) = match directory.locate(topic, part.partition) {
            Ok(Owner::Here(partition)) => (shard.config.shard, partition.id()),
            Ok(Owner::Elsewhere(owner, id)) => (owner, id),
            Err(error) => {
                merged.put(place, Err(error));
                continue;
            }
        };
        let bytes_max = part.partition_max_bytes.max(1) as usize;
        split.add(owner, place, Part { id, from: part.fetch_offset, bytes_max });
    }
    (split, merged)
}

/// Asks every shard for its share until all together have enough.
async fn ask_all(session: &Rc<Session>, shares: &[Share<Part>], terms: Terms) -> Vec<Found<Slice>> {
    let mut found_bytes = vec![0; shares.len()];
    loop {
        let missing = terms.bytes_enough.saturating_sub(found_bytes.iter().sum());
        let (hurry, hurried) = task::stop();
        let asked = shares.iter().zip(&found_bytes).map(|(share, found)| {
            // If together they find what is missing, one of them finds this much more than it had.
            let share_terms = Terms {
                bytes_enough: found + missing.div_ceil(shares.len()),
                bytes_max: terms.bytes_max.div_ceil(shares.len()),
                deadline: terms.deadline,
            };
            ask(session, share, share_terms, &hurried)
        });
        let answers = all_after_first(asked.collect(), session.ended.stopped(), || hurry.stop()).await;

        let found: Vec<usize> = answers.iter().map(Found::bytes).collect();
        let enough = found.iter().sum::<usize>() >= terms.bytes_enough || answers.iter().any(Found::final_as_it_is);
        if enough || Instant::now() >= terms.deadline || session.ended.is_stopped() {
            return answers;
        }
        found_bytes = found;
    }
}

/// Waits for all futures; calls `hurry` once when the first of them is done, or `ended`.
async fn all_after_first<T>(
    futures: Vec<impl Future<Output = T>>,
    ended: impl Future<Output = ()>,
    hurry: impl FnOnce(),
) -> Vec<T> {
    let mut ended = pin!(ended);
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let mut hurry = Some(hurry);
    std::future::poll_fn(|cx| {
        loop {
            for (future, output) in futures.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
                if let Poll::Ready(ready) = future.as_mut().poll(cx) {
                    *output = Some(ready);
                }
            }
            if outputs.iter().all(Option::is_some) {
                return Poll::Ready(());
            }
            let hurried = |_: &mut _| outputs.iter().any(Option::is_some) || ended.as_mut().poll(cx).is_ready();
            match hurry.take_if(hurried) {
                // It may have made others ready.
                Some(hurry) => hurry(),
                None => return Poll::Pending,
            }
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Asks one shard, this one or another, for its share.
async fn ask(session: &Rc<Session>, share: &Share<Part>, terms: Terms, hurry: &Stop) -> Found<Slice> {
    let shard = &session.shard;
    if share.shard == shard.config.shard {
        let found = fetch_here(shard, &share.parts, terms, Some(&session.response_bytes), hurry.stopped()).await;
        return found.map(Slice::Local);
    }
    match ask_elsewhere(session, share, terms, hurry).await {
        Ok(outcomes) => Found { outcomes, room: [None, None] }.map(Slice::Copied),
        Err(error) => Found { outcomes: share.parts.iter().map(|_| Err(error.clone())).collect(), room: [None, None] },
    }
}

async fn ask_elsewhere(
    session: &Session,
    share: &Share<Part>,
    terms: Terms,
    hurry: &Stop,
) -> Result<Vec<Outcome<CopiedBatches>>, WireError> {
    let shard = &session.shard;
    let charge = Charge { connection: session.forwarded_bytes.clone(), shards: shard.doors.incoming(share.shard)? };
    let (hurry_on, hurried) = channel::oneshot();
    let message =
        |reply| Message::Fetch(ForwardedFetch { parts: share.parts.clone(), terms, hurry: hurried, charge, reply });
    let asked = shard.doors.ask(share.shard, 0, message).await?;
    let mut answer = pin!(asked.answer(&shard.stats));
    match hurry.or_stop(&mut answer).await {
        Some(answer) => answer,
        None => {
            drop(hurry_on);
            answer.await
        }
    }
}

/// Reads this shard's partitions, waiting until there is enough, someone hurries, or time is up.
async fn fetch_here(
    shard: &Shard,
    parts: &[Part],
    terms: Terms,
    connection: Option<&Semaphore>,
    hurried: impl Future<Output = ()>,
) -> Found<IoBuf> {
    let mut ended = pin!(wait_ended(shard, terms.deadline, hurried));
    let mut over = Instant::now() >= terms.deadline;
    loop {
        let logs = logs_of(shard, parts);
        // Taken before looking: what becomes durable from here on ends the wait below.
        let moved: Vec<Listener> = logs.iter().flatten().map(|(_, log)| log.durable_moved()).collect();
        let worth_reading = worth_reading(parts, &logs);
        if over || worth_reading {
            let room = match worth_reading {
                true => reserve(shard, parts, terms.bytes_max, connection).await,
                false => [None, None],
            };
            let found = read(parts, &logs, terms.bytes_max, room).await;
            if over || found.bytes() >= terms.bytes_enough || found.final_as_it_is() {
                return found;
            }
        }
        over = wait(moved, ended.as_mut()).await;
    }
}

/// Done when a fetch must wait no longer.
async fn wait_ended(shard: &Shard, deadline: Instant, hurried: impl Future<Output = ()>) {
    let left = deadline.saturating_duration_since(Instant::now());
    // A shard that stops answers with what it has.
    let stopped_or_hurried = shard.stop.or_stop(hurried);
    let _ = time::timeout(left, stopped_or_hurried).await;
}

/// Waits until one of the logs has more, or `ended`; whether it was the latter.
async fn wait(mut moved: Vec<Listener>, mut ended: Pin<&mut impl Future<Output = ()>>) -> bool {
    std::future::poll_fn(|cx| {
        if ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        let any_moved = moved.iter_mut().any(|moved| Pin::new(moved).poll(cx).is_ready());
        if any_moved { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

type LogOf = Result<(Rc<Partition>, Log), WireError>;

/// Looked up anew each time: a topic may be deleted while its readers wait.
fn logs_of(shard: &Shard, parts: &[Part]) -> Vec<LogOf> {
    let directory = shard.directory.borrow();
    let log_of = |part: &Part| {
        let partition = directory.owned(part.id)?;
        let log = partition.log()?;
        Ok((partition, log))
    };
    parts.iter().map(log_of).collect()
}

/// Whether any partition has something new, an error included.
fn worth_reading(parts: &[Part], logs: &[LogOf]) -> bool {
    parts.iter().zip(logs).any(|(part, log)| match log {
        Ok((_, log)) => log.offsets().durable != part.from,
        Err(_) => true,
    })
}

/// Room for what may be read, in the bounds of the connection (if it is one of this shard) and of the shard.
async fn reserve(
    shard: &Shard,
    parts: &[Part],
    bytes_max: usize,
    connection: Option<&Semaphore>,
) -> [Option<Permit>; 2] {
    let wanted = parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.bytes_max)).min(bytes_max);
    let in_connection = match connection {
        Some(connection) => Some(connection.acquire(wanted).await),
        None => None,
    };
    [in_connection, Some(shard.response_bytes.acquire(wanted).await)]
}

/// Reads the partitions in the order of the request until `bytes_max`. The first batch is read whatever its size.
async fn read(parts: &[Part], logs: &[LogOf], bytes_max: usize, mut room: [Option<Permit>; 2]) -> Found<IoBuf> {
    let mut bytes = 0;
    let mut outcomes = Vec::with_capacity(parts.len());
    for (part, log) in parts.iter().zip(logs) {
        let outcome = match log {
            Ok((partition, log)) => read_part(partition, log, part, bytes_max.saturating_sub(bytes), bytes == 0).await,
            Err(error) => Err(error.clone()),
        };
        bytes += outcome.as_ref().map_or(0, |read| read.bytes);
        outcomes.push(outcome);
    }
    room.iter_mut().flatten().for_each(|permit| permit.shrink_to(bytes));
    Found { outcomes, room }
}

/// Reads one partition, `bytes_left` at most unless it is the `first` to give anything. A log gives what it has in one
/// piece, in memory or on disk; the pieces are put together here.
async fn read_part(partition: &Partition, log: &Log, part: &Part, bytes_left: usize, first: bool) -> Outcome<IoBuf> {
    let offsets = log.offsets();
    let mut found = Read::nothing(offsets.start, offsets.durable);
    let (mut next, mut left) = (part.from, part.bytes_max.min(bytes_left));
    // One more piece is read while one like the last would fit: what does not fit is read for nothing.
    let mut last_bytes = 1;
    // Below the start, or beyond the end, the log says what is wrong.
    while next != offsets.durable && left >= last_bytes {
        let read = log.read(next, left).await.map_err(|cause| partition.read_failed(&cause))?;
        // A batch larger than what is left passes only where nothing else does.
        let alone = first && found.bytes == 0;
        if (read.bytes > left && !alone) || read.bytes == 0 {
            break;
        }
        next = read.next_offset;
        left = left.saturating_sub(read.bytes);
        last_bytes = read.bytes;
        found.bytes += read.bytes;
        found.batches.extend(read.slices);
    }
    found.cut = next < offsets.durable;
    Ok(found)
}

/// The outcomes in the shape of the request, and the record bytes in their order.
fn response(request: FetchRequest, outcomes: Vec<Outcome<Slice>>) -> (FetchResponseHead, Vec<Slice>) {
    let (mut details, mut slices) = (Details::new(), Vec::new());
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let parts = topic.partitions.iter().zip(&mut outcomes);
        let fetched = parts.map(|(part, outcome)| fetched(part.partition, outcome, &mut details, &mut slices));
        FetchedTopic { topic: topic.topic, partitions: fetched.collect() }
    });
    let head = FetchResponseHead { topics: topics.collect() };
    (head, slices)
}

fn fetched(
    partition: PartitionIndex,
    outcome: Outcome<Slice>,
    details: &mut Details,
    slices: &mut Vec<Slice>,
) -> FetchedPartition {
    let ((error, detail), read) = match outcome {
        Ok(read) => ((ErrorCode::None, Detail::NONE), read),
        Err(error) => (details.of(error), Read::nothing(Offset::ZERO, Offset::ZERO)),
    };
    slices.extend(read.batches);
    FetchedPartition {
        partition,
        error,
        detail,
        log_start_offset: read.log_start_offset,
        high_watermark: read.high_watermark,
        // A read is bounded by a fetch's bytes and one batch, both far below 4 GiB.
        records_bytes: u32::try_from(read.bytes).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::{pending, poll_fn};
    use std::task::{Context, Waker};

    use super::*;

    /// Polls once, as an executor would that nobody has woken since.
    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Futures that are done when their cell says so.
    fn switched(done: &[Cell<bool>]) -> Vec<impl Future<Output = usize>> {
        let one = |(number, done): (usize, _)| {
            let done: &Cell<bool> = done;
            poll_fn(move |_| if done.get() { Poll::Ready(number) } else { Poll::Pending })
        };
        done.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_first_answer_hurries_the_others_once() {
        let done = [const { Cell::new(false) }; 3];
        let hurried = RefCell::new(0);
        let mut all = pin!(all_after_first(switched(&done), pending(), || *hurried.borrow_mut() += 1));
        assert!(poll(all.as_mut()).is_pending());
        assert_eq!(*hurried.borrow(), 0, "nobody is hurried before the first answer");
        done[1].set(true);
        assert!(poll(all.as_mut()).is_pending());
        assert_eq!(*hurried.borrow(), 1);
        done.iter().for_each(|done| done.set(true));
        assert_eq!(poll(all.as_mut()), Poll::Ready(vec![0, 1, 2]));
        assert_eq!(*hurried.borrow(), 1);
    }

    #[test]
    fn those_who_answer_when_hurried_are_not_waited_for() {
        let done = [const { Cell::new(false) }; 2];
        done[0].set(true);
        let mut all = pin!(all_after_first(switched(&done), pending(), || done[1].set(true)));
        assert_eq!(poll(all.as_mut()), Poll::Ready(vec![0, 1]));
    }

    #[test]
    fn the_end_of_the_connection_hurries_everyone() {
        let done = [const { Cell::new(false) }; 2];
        let all_at_once = || done.iter().for_each(|done| done.set(true));
        let mut all = pin!(all_after_first(switched(&done), std::future::ready(()), all_at_once));
        assert_eq!(poll(all.as_mut()), Poll::Ready(vec![0, 1]));
    }
}
