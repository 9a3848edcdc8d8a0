//! Fetch: reads record batches, waiting for enough of them.
//!
//! A request whose partitions are on several shards is asked of all of them at once, each with a share of the bytes that
//! make an answer worth its while. As soon as one has its share, the others are hurried: they answer with what they
//! have. The shares are such that whenever all shards together have `min_bytes`, at least one of them has its share, so
//! that nothing is waited for in vain; if the sum is still too small, another round starts from what was found.
//!
//! `max_bytes` is divided over the shards; each of them sends at least one batch when it has any, so an answer can
//! exceed it by a batch a shard.

mod share;
pub(crate) mod subscribe;

use std::future::Future;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_runtime::local::Listener;
use ringmq_runtime::task;
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::protocol::frame::encode_response_head;
use ringmq_wire::protocol::{FetchRequest, FetchResponseHead, FetchTopic, FetchedPartition, FetchedTopic};
use ringmq_wire::{Detail, ErrorCode, Offset, PartitionIndex, WireError};

use crate::error::Details;
use crate::limits::{FETCH_BYTES, FETCH_PART_BYTES, FETCH_TOPIC_BYTES, FETCHED_PART_BYTES, Limits};
use crate::mailbox::Message;
use crate::outbox::Slice;
use crate::reply_bytes::{Charge, CopiedBatches, ReplyRoom};
use crate::room::{FetchPlace, Held};
use crate::server::Shard;
use crate::session::{Call, Session};
use crate::split::{self, Merged, Share, Split, unanswered};
use crate::stats::{Counter, Stage, Stats};
use crate::turns::Turns;
use share::{Asker, Found, Outcome, Part, Read, Terms};

/// The partitions of one request that another shard owns.
pub(crate) struct ForwardedFetch {
    parts: Vec<Part>,
    terms: Terms,
    /// Dropped on the other side when the request waits only for this shard.
    hurry: OneshotReceiver<()>,
    charge: Charge,
    reply: OneshotSender<Vec<Outcome<CopiedBatches>>>,
}

/// Answers a fetch when there is enough to read, no time left, or no room to wait in.
pub(crate) async fn handle(session: Rc<Session>, mut call: Call, request: FetchRequest) {
    let shard = &session.shard;
    let parts = part_count(&request.topics);
    let FetchPlace { room, wanted, is_wanted } = shard.fetches.enter(weight(&request.topics)).await;
    call.trade_room(room);

    let (split, mut merged) = match split(shard, parts, &request.topics).await {
        Ok(split) => split,
        Err(error) => return session.refuse(call, &error),
    };
    // An error is told at once, and who asks for no bytes has them.
    let may_wait = merged.is_empty() && request.min_bytes > 0 && !is_wanted;
    let terms = terms(&request, parts, &shard.config.limits, call.received, may_wait);
    let shares = split.into_shares();
    let hurry = pin!(first_of(session.ended.stopped(), vacated(shard, wanted, is_wanted)));
    let answers = ask_shares(&session, &shares, terms, hurry).await;
    let ready = Instant::now();
    shard.stats.record(Stage::FetchReady, ready.saturating_duration_since(call.received));

    let mut room = Held::default();
    for (share, found) in shares.iter().zip(answers) {
        merged.put_share(&share.places, found.outcomes, unanswered);
        if share.shard == shard.config.shard {
            room = found.room;
        }
    }
    let (head, slices) = response(&shard.stats, request, merged.into_answers(unanswered));
    shard.stats.add(Counter::FetchedBytes, slices.iter().map(|slice| slice.len()).sum());
    let correlation = call.correlation;
    let encode = |out: &mut BytesMut| encode_response_head(correlation, &head, out);
    if let Err(unplaced) = session.put(call, encode, (room, slices), (Stage::FetchAnswered, ready)) {
        unplaced.put_or_refuse(&session).await;
    }
}

fn part_count(topics: &[FetchTopic]) -> usize {
    topics.iter().map(|topic| topic.partitions.len()).sum()
}

/// What a request is taken to weigh while it is under way.
fn weight(topics: &[FetchTopic]) -> usize {
    FETCH_BYTES + topics.len() * FETCH_TOPIC_BYTES + part_count(topics) * FETCH_PART_BYTES
}

fn terms(request: &FetchRequest, parts: usize, limits: &Limits, received: Instant, may_wait: bool) -> Terms {
    let bytes_max = request.max_bytes.clamp(1, limits.fetch_bytes_max) as usize;
    let wait = Duration::from_millis(if may_wait { request.max_wait_ms.into() } else { 0 });
    Terms {
        bytes_enough: (request.min_bytes as usize).min(bytes_max),
        bytes_max,
        head_bytes: parts * FETCHED_PART_BYTES,
        deadline: received + wait.min(limits.fetch_wait_max),
    }
}

/// Done when a place is wanted; where it was from the beginning, after a moment, in which what is there can be read.
async fn vacated(shard: &Shard, wanted: Listener, is_wanted: bool) {
    match is_wanted {
        true => time::sleep(shard.config.limits.forward_wait_max).await,
        false => wanted.await,
    }
}

/// Done when either is.
async fn first_of(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => other.as_mut().poll(cx),
    })
    .await;
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
        let outcomes = match find_charged(&serving, &parts, terms, &charge, hurried).await {
            Ok(outcomes) => outcomes,
            Err(error) => parts.iter().map(|_| Err(error.clone())).collect(),
        };
        // Whoever asked may have ended meanwhile.
        let _ = reply.send(outcomes);
    });
}

/// Reads a share for another shard's client, within what that one may have under way.
async fn find_charged(
    shard: &Shard,
    parts: &[Part],
    terms: Terms,
    charge: &Charge,
    hurried: impl Future<Output = ()>,
) -> Result<Vec<Outcome<CopiedBatches>>, WireError> {
    let found = share::find(shard, parts, terms, Asker::Elsewhere(charge), hurried).await;
    let bytes = found.bytes();
    shard.stats.add(Counter::ForwardedBytes, bytes);
    let room = charge.reserve(bytes, shard.config.limits.forward_wait_max).await?;
    Ok(copy(found, &Arc::new(room)).await)
}

/// Copies what was found, for another core.
async fn copy(found: Found<IoBuf>, room: &Arc<ReplyRoom>) -> Vec<Outcome<CopiedBatches>> {
    let mut outcomes = Vec::with_capacity(found.outcomes.len());
    let mut turns = Turns::default();
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
            turns.give_way_for(slice.len()).await;
        }
        outcomes.push(Ok(read.with(copies)));
    }
    outcomes
}

/// Cuts a request by owner; what is nowhere is answered at once.
async fn split(
    shard: &Shard,
    count: usize,
    topics: &[FetchTopic],
) -> Result<(Split<Part>, Merged<Outcome<Slice>>), WireError> {
    let parts = topics.iter().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(|part| (&topic.topic, part.partition, (part.fetch_offset, part.partition_max_bytes)))
    });
    let part = |id, (from, bytes_max): (Offset, u32)| Part { id, from, bytes_max: bytes_max.max(1) as usize };
    split::by_owner(shard, count, parts, part).await
}

/// Asks for the shares; `hurry` makes everyone answer with what there is.
async fn ask_shares(
    session: &Rc<Session>,
    shares: &[Share<Part>],
    terms: Terms,
    mut hurry: Pin<&mut impl Future<Output = ()>>,
) -> Vec<Found<Slice>> {
    match shares {
        [] => Vec::new(),
        [share] => vec![ask(session, share, terms, hurry).await],
        _ => ask_all(session, shares, terms, &mut hurry).await,
    }
}

/// Asks every shard for its share until all together have enough, or `hurry` is done.
async fn ask_all(
    session: &Rc<Session>,
    shares: &[Share<Part>],
    terms: Terms,
    hurry: &mut Pin<&mut impl Future<Output = ()>>,
) -> Vec<Found<Slice>> {
    let mut found_bytes = vec![0; shares.len()];
    loop {
        let missing = terms.bytes_enough.saturating_sub(found_bytes.iter().sum());
        let (hurry_on, hurried) = task::stop();
        let asked = shares.iter().zip(&found_bytes).map(|(share, found)| {
            // If together they find what is missing, one of them finds this much more than it had.
            let share_terms = Terms {
                bytes_enough: found + missing.div_ceil(shares.len()),
                bytes_max: terms.bytes_max.div_ceil(shares.len()),
                ..terms
            };
            ask(session, share, share_terms, Box::pin(hurried.stopped()))
        });
        let (answers, in_hurry) = all_after_first(asked.collect(), hurry, || hurry_on.stop()).await;

        let found: Vec<usize> = answers.iter().map(Found::bytes).collect();
        let enough = found.iter().sum::<usize>() >= terms.bytes_enough || answers.iter().any(Found::is_final);
        if enough || in_hurry || Instant::now() >= terms.deadline {
            return answers;
        }
        found_bytes = found;
    }
}

/// Waits for all futures; calls `hurry` once when the first of them is done, or `ended`. Their outputs, and whether it was
/// the latter.
async fn all_after_first<T>(
    futures: Vec<impl Future<Output = T>>,
    ended: &mut Pin<&mut impl Future<Output = ()>>,
    hurry: impl FnOnce(),
) -> (Vec<T>, bool) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let (mut hurry, mut has_ended) = (Some(hurry), false);
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
            let mut hurried = |_: &mut _| {
                has_ended = ended.as_mut().poll(cx).is_ready();
                has_ended || outputs.iter().any(Option::is_some)
            };
            match hurry.take_if(&mut hurried) {
                // It may have made others ready.
                Some(hurry) => hurry(),
                None => return Poll::Pending,
            }
        }
    })
    .await;
    (outputs.into_iter().flatten().collect(), has_ended)
}

/// Asks one shard, this one or another, for its share; `hurry` makes it answer with what it has.
async fn ask(
    session: &Rc<Session>,
    share: &Share<Part>,
    terms: Terms,
    hurry: Pin<impl DerefMut<Target = impl Future<Output = ()>>>,
) -> Found<Slice> {
    let shard = &session.shard;
    if share.shard == shard.config.shard {
        let found = share::find(shard, &share.parts, terms, Asker::Here(&session.responses), hurry).await;
        return found.map(Slice::Local);
    }
    match ask_elsewhere(session, share, terms, hurry).await {
        Ok(outcomes) => Found { outcomes, room: Held::default() }.map(Slice::Copied),
        Err(error) => Found::failed(&share.parts, &error),
    }
}

async fn ask_elsewhere(
    session: &Session,
    share: &Share<Part>,
    terms: Terms,
    hurry: Pin<impl DerefMut<Target = impl Future<Output = ()>>>,
) -> Result<Vec<Outcome<CopiedBatches>>, WireError> {
    let shard = &session.shard;
    let charge = Charge { connection: session.forwarded_bytes.clone(), shards: shard.doors.incoming(share.shard)? };
    let terms = Terms { head_bytes: 0, ..terms };
    let (hurry_on, hurried) = channel::oneshot();
    let message =
        |reply| Message::Fetch(ForwardedFetch { parts: share.parts.clone(), terms, hurry: hurried, charge, reply });
    let asked = shard.doors.ask_to_wait(share.shard, message).await?;
    let mut answer = pin!(asked.answer(&shard.stats));
    let mut hurry = hurry;
    let answered = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        hurry.as_mut().poll(cx).map(|()| None)
    });
    match answered.await {
        Some(answer) => answer,
        None => {
            drop(hurry_on);
            answer.await
        }
    }
}

/// The outcomes in the shape of the request, and the record bytes in their order.
fn response(stats: &Stats, request: FetchRequest, outcomes: Vec<Outcome<Slice>>) -> (FetchResponseHead, Vec<Slice>) {
    let (mut details, mut slices) = (Details::new(stats), Vec::new());
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
    details: &mut Details<'_>,
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
        let mut ended = pin!(pending());
        let mut all = pin!(all_after_first(switched(&done), &mut ended, || *hurried.borrow_mut() += 1));
        assert!(poll(all.as_mut()).is_pending());
        assert_eq!(*hurried.borrow(), 0, "nobody is hurried before the first answer");
        done[1].set(true);
        assert!(poll(all.as_mut()).is_pending());
        assert_eq!(*hurried.borrow(), 1);
        done.iter().for_each(|done| done.set(true));
        assert_eq!(poll(all.as_mut()), Poll::Ready((vec![0, 1, 2], false)));
        assert_eq!(*hurried.borrow(), 1);
    }

    #[test]
    fn those_who_answer_when_hurried_are_not_waited_for() {
        let done = [const { Cell::new(false) }; 2];
        done[0].set(true);
        let mut ended = pin!(pending());
        let mut all = pin!(all_after_first(switched(&done), &mut ended, || done[1].set(true)));
        assert_eq!(poll(all.as_mut()), Poll::Ready((vec![0, 1], false)));
    }

    #[test]
    fn the_end_of_the_connection_hurries_everyone() {
        let done = [const { Cell::new(false) }; 2];
        let all_at_once = || done.iter().for_each(|done| done.set(true));
        let mut ended = pin!(std::future::ready(()));
        let mut all = pin!(all_after_first(switched(&done), &mut ended, all_at_once));
        assert_eq!(poll(all.as_mut()), Poll::Ready((vec![0, 1], true)));
    }
}
