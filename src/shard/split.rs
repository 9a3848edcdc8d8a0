//! A request cut into one share per shard, and the answers put back in the order of the request.

use std::future::Future;
use std::task::Poll;

use ringmq_runtime::channel::OneshotSender;
use ringmq_runtime::random::Set;
use ringmq_runtime::task::Stop;
use ringmq_segment::LogId;
use ringmq_wire::{ErrorCode, PartitionIndex, ShardIndex, TopicName, WireError};

use crate::directory::Owner;
use crate::mailbox::{Asked, Message};
use crate::server::Shard;
use crate::stats::Counter;
use crate::turns::Turns;

/// The parts of one request that one shard owns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share<P> {
    pub(crate) shard: ShardIndex,
    /// Where each part stood in the request.
    pub(crate) places: Vec<usize>,
    pub(crate) parts: Vec<P>,
}

/// A request cut by owner. Shares are in the order in which their shards first appear.
#[derive(Debug)]
pub(crate) struct Split<P> {
    shares: Vec<Share<P>>,
}

impl<P> Split<P> {
    pub(crate) fn new() -> Self {
        Self { shares: Vec::new() }
    }

    /// Adds the part that stood at `place` to its owner's share, behind what the owner has already.
    pub(crate) fn add(&mut self, shard: ShardIndex, place: usize, part: P) {
        match self.shares.iter_mut().find(|share| share.shard == shard) {
            Some(share) => {
                share.places.push(place);
                share.parts.push(part);
            }
            None => self.shares.push(Share { shard, places: vec![place], parts: vec![part] }),
        }
    }

    pub(crate) fn into_shares(self) -> Vec<Share<P>> {
        self.shares
    }
}

/// Answers in the order of the request, whichever shard they come from.
#[derive(Debug)]
pub(crate) struct Merged<A> {
    answers: Vec<Option<A>>,
}

impl<A> Merged<A> {
    /// Room for the answers to `count` parts.
    pub(crate) fn new(count: usize) -> Self {
        Self { answers: std::iter::repeat_with(|| None).take(count).collect() }
    }

    /// Whether no answer was put yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.iter().all(Option::is_none)
    }

    /// Puts the answer to the part at `place`.
    pub(crate) fn put(&mut self, place: usize, answer: A) {
        if let Some(slot) = self.answers.get_mut(place) {
            *slot = Some(answer);
        }
    }

    /// Puts one shard's answers, or what `missing` makes for each part that it left out.
    pub(crate) fn put_share(
        &mut self,
        places: &[usize],
        answers: impl IntoIterator<Item = A>,
        mut missing: impl FnMut() -> A,
    ) {
        let mut answers = answers.into_iter();
        for &place in places {
            let answer = answers.next().unwrap_or_else(&mut missing);
            self.put(place, answer);
        }
    }

    /// All answers; what was never put is made by `missing`.
    pub(crate) fn into_answers(self, mut missing: impl FnMut() -> A) -> Vec<A> {
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(&mut missing)).collect()
    }
}

impl<T, E> Merged<Result<T, E>> {
    /// Those that failed already, with their places.
    pub(crate) fn into_errors(self) -> Vec<(usize, E)> {
        let answers = self.answers.into_iter().enumerate();
        answers.filter_map(|(place, answer)| answer?.err().map(|error| (place, error))).collect()
    }
}

/// Cuts a request by owner: `wanted` are its partitions in order, each with what is wanted of it, and `part` makes of
/// that what its owner is asked. A partition that is nowhere has its answer at once.
///
/// # Errors
/// `MalformedRequest` for a partition that is there twice: each would be read again, for the few bytes that name it.
pub(crate) async fn by_owner<'a, W, P, A>(
    shard: &Shard,
    count: usize,
    wanted: impl Iterator<Item = (&'a TopicName, PartitionIndex, W)>,
    part: impl Fn(LogId, W) -> P,
) -> Result<(Split<P>, Merged<Result<A, WireError>>), WireError> {
    let (mut split, mut merged) = (Split::new(), Merged::new(count));
    let mut seen = Set::default();
    let mut turns = Turns::default();
    for (place, (topic, partition, wanted)) in wanted.enumerate() {
        let located = shard.directory.borrow().locate(topic, partition);
        let (owner, id) = match located {
            Ok(Owner::Here(partition)) => (shard.config.shard, partition.id()),
            Ok(Owner::Elsewhere(owner, id)) => (owner, id),
            Err(error) => {
                merged.put(place, Err(error));
                continue;
            }
        };
        if count > 1 && !seen.insert(id) {
            let detail = format!(
                "the request names partition {partition} of topic {:?} more than once; name it once",
                topic.as_str()
            );
            return Err(WireError::new(ErrorCode::MalformedRequest, detail));
        }
        split.add(owner, place, part(id, wanted));
        turns.give_way_if_due().await;
    }
    Ok((split, merged))
}

/// One shard's share under way: where its parts stood, and its answer or why it could not be asked.
pub(crate) struct AskedShare<A> {
    pub(crate) places: Vec<usize>,
    pub(crate) asked: Result<Asked<A>, WireError>,
}

/// Sends every share to its shard, one message each, all at the same time: however many have no room, the wait for it is
/// that of one. `bytes` is what a part carries in records.
pub(crate) async fn send_shares<P, A: Send + 'static>(
    shard: &Shard,
    shares: Vec<Share<P>>,
    bytes: impl Fn(&P) -> usize,
    message: impl Fn(Vec<P>, OneshotSender<A>) -> Message,
) -> Vec<AskedShare<A>> {
    let send = async |Share { shard: owner, places, parts }: Share<P>| {
        let bytes = parts.iter().map(&bytes).sum();
        shard.stats.add(Counter::ForwardedBytes, bytes);
        AskedShare { places, asked: shard.doors.ask(owner, bytes, |reply| message(parts, reply)).await }
    };
    all_of(shares.into_iter().map(send).collect()).await
}

/// Waits for all futures: their outputs in the same order.
async fn all_of<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(cx) {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Asks every owner for its share, this shard through `here`, and puts the answers in order. A shard that cannot answer
/// fails its share alone; what is not answered when the connection has `ended` is not waited for.
pub(crate) async fn ask_owners<P, A>(
    shard: &Shard,
    ended: &Stop,
    split: Split<P>,
    mut merged: Merged<Result<A, WireError>>,
    here: impl AsyncFnOnce(Vec<P>) -> Vec<Result<A, WireError>>,
    message: impl Fn(Vec<P>, OneshotSender<Vec<Result<A, WireError>>>) -> Message,
) -> Vec<Result<A, WireError>>
where
    P: Send,
    A: Send + 'static,
{
    let (own, others): (Vec<_>, Vec<_>) =
        split.into_shares().into_iter().partition(|share| share.shard == shard.config.shard);
    let asked = send_shares(shard, others, |_| 0, message).await;
    // While the others work.
    if let Some(Share { places, parts, .. }) = own.into_iter().next() {
        merged.put_share(&places, here(parts).await, unanswered);
    }
    for AskedShare { places, asked } in asked {
        let answered = async { asked?.answer(&shard.stats).await };
        match ended.or_stop(answered).await.unwrap_or_else(|| Err(connection_ended())) {
            Ok(answers) => merged.put_share(&places, answers, unanswered),
            Err(error) => merged.put_share(&places, [], || Err(error.clone())),
        }
    }
    merged.into_answers(unanswered)
}

/// What stands for an answer that nobody waits for any more.
pub(crate) fn connection_ended() -> WireError {
    WireError::new(ErrorCode::ShuttingDown, "the connection ended, or the broker stops, before this was looked up")
}

/// What stands for an answer that should be there and is not.
pub(crate) fn unanswered<A>() -> Result<A, WireError> {
    Err(WireError::new(ErrorCode::UnknownServerError, "a shard answered for fewer partitions than it was asked for"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use ringmq_runtime::sim::{Sim, SimConfig};
    use ringmq_runtime::time::{self, Instant};

    use super::*;

    #[test]
    fn each_shard_gets_one_share_in_the_order_of_the_request() {
        let mut split = Split::new();
        for (place, shard) in [1, 0, 1, 2, 0].into_iter().enumerate() {
            split.add(ShardIndex::new(shard), place, place * 10);
        }
        let share = |shard, places: &[usize]| Share {
            shard: ShardIndex::new(shard),
            places: places.to_vec(),
            parts: places.iter().map(|place| place * 10).collect(),
        };
        assert_eq!(split.into_shares(), [share(1, &[0, 2]), share(0, &[1, 4]), share(2, &[3])]);
    }

    #[test]
    fn an_answer_that_a_shard_leaves_out_is_made_up_for() {
        let mut merged = Merged::new(3);
        merged.put_share(&[2, 0], ["c"], || "missing");
        assert_eq!(merged.into_answers(|| "unasked"), ["missing", "unasked", "c"]);
    }

    #[test]
    fn all_are_waited_for_at_the_same_time() {
        Sim::new(SimConfig::with_seed(1)).run(|| async {
            let began = Instant::now();
            let sleep = async |seconds| {
                time::sleep(Duration::from_secs(seconds)).await;
                seconds
            };
            assert_eq!(all_of([3, 1, 2].map(sleep).into()).await, [3, 1, 2]);
            assert_eq!(began.elapsed().as_secs(), 3, "as long as the longest, in simulated time");
            assert_eq!(all_of(Vec::<std::future::Ready<u8>>::new()).await, []);
        });
    }

    proptest! {
        /// Whatever the owners are, cutting and merging is the identity.
        #[test]
        fn answers_come_back_in_the_order_of_the_parts(owners in prop::collection::vec(0u16..5, 0..50)) {
            let mut split = Split::new();
            for (place, &owner) in owners.iter().enumerate() {
                split.add(ShardIndex::new(owner), place, place);
            }
            let mut merged = Merged::new(owners.len());
            for share in split.into_shares() {
                prop_assert!(share.parts.iter().all(|&part| owners[part] == share.shard.get()));
                merged.put_share(&share.places, share.parts, || usize::MAX);
            }
            let expected: Vec<usize> = (0..owners.len()).collect();
            prop_assert_eq!(merged.into_answers(|| usize::MAX), expected);
        }
    }
}
