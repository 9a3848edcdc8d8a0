//! Subscribe: one request that is answered again and again, each time that there is something to read, within the credit
//! of the client and the room of the shard.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_runtime::local::{Event, Semaphore};
use ringmq_runtime::random::Map;
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::protocol::frame::encode_response_head;
use ringmq_wire::protocol::{
    FetchedTopic, GrantCreditRequest, GrantCreditResponse, SubscribeRequest, SubscribedHead, UnsubscribeRequest,
    UnsubscribeResponse,
};
use ringmq_wire::{CorrelationId, ErrorCode, PartitionIndex, ShardIndex, TopicName, WireError};

use super::share::{Found, Outcome, Part, Terms};
use super::{ask_shares, fetched, first_of, split, weight};
use crate::error::Details;
use crate::limits::FETCHED_PART_BYTES;
use crate::outbox::Slice;
use crate::room::{FetchPlace, Held};
use crate::server::Shard;
use crate::session::{Call, Session};
use crate::split::{Share, unanswered};
use crate::stats::{Counter, Stage};
use crate::turns::Turns;

/// The shortest time between two frames without records.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// How long what had no room, and was refused for that, is left alone.
const OVERLOADED_PAUSE: Duration = Duration::from_millis(10);

/// More than that is not counted.
const CREDIT_MAX: i64 = u32::MAX as i64;

/// Frames of one subscription that its peer has not taken: one that is written, one to follow it. What comes meanwhile
/// comes together in the next.
const FRAMES_UNSENT_MAX: usize = 2;

/// A frame takes as long as checking or copying so many bytes, however few it has.
const FRAME_BYTES_MIN: usize = 64 << 10;

/// The open subscriptions of one connection, by the correlation id of their request.
#[derive(Clone, Default)]
pub(crate) struct Subscriptions(Rc<RefCell<Map<CorrelationId, Rc<Consent>>>>);

/// What the client of a subscription lets come.
struct Consent {
    /// Bytes that may be sent. Below zero there were more than that.
    credit: Cell<i64>,
    is_withdrawn: Cell<bool>,
    changed: Event,
}

/// An open subscription; it is not open any more once this is dropped.
pub(crate) struct Subscription {
    all: Subscriptions,
    id: CorrelationId,
    consent: Rc<Consent>,
}

impl Subscriptions {
    /// Opens one, if fewer than `open_max` are.
    ///
    /// # Errors
    /// - `MalformedRequest` where one with that correlation id is open.
    /// - `Overloaded` where no more may be.
    pub(crate) fn open(
        &self,
        id: CorrelationId,
        credit_bytes: u32,
        open_max: usize,
    ) -> Result<Subscription, WireError> {
        let mut all = self.0.borrow_mut();
        if all.contains_key(&id) {
            let detail =
                format!("a subscription with correlation id {id} is open; use another one until its last frame");
            return Err(WireError::new(ErrorCode::MalformedRequest, detail));
        }
        if all.len() >= open_max {
            let detail = format!(
                "{} subscriptions are open on this connection, and at most half of the requests that it may have in flight \
                 can be; end one, name more partitions in one, or open another connection",
                all.len()
            );
            return Err(WireError::new(ErrorCode::Overloaded, detail));
        }
        let (credit, is_withdrawn) = (Cell::new(credit_bytes.into()), Cell::new(false));
        let consent = Rc::new(Consent { credit, is_withdrawn, changed: Event::new() });
        all.insert(id, consent.clone());
        Ok(Subscription { all: self.clone(), id, consent })
    }

    /// Lets more bytes of a subscription come. One that has just ended needs none.
    pub(crate) fn grant_credit(&self, request: &GrantCreditRequest) -> GrantCreditResponse {
        if let Some(consent) = self.get(request.subscription) {
            let credit = consent.credit.get().saturating_add(request.credit_bytes.into());
            consent.credit.set(credit.min(CREDIT_MAX));
            consent.changed.notify_all();
        }
        GrantCreditResponse {}
    }

    /// Ends a subscription, if it has not just ended by itself.
    pub(crate) fn unsubscribe(&self, request: &UnsubscribeRequest) -> UnsubscribeResponse {
        if let Some(consent) = self.get(request.subscription) {
            consent.is_withdrawn.set(true);
            consent.changed.notify_all();
        }
        UnsubscribeResponse {}
    }

    /// One that is still open.
    fn get(&self, id: u32) -> Option<Rc<Consent>> {
        self.0.borrow().get(&CorrelationId::new(id)).cloned()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.all.0.borrow_mut().remove(&self.id);
    }
}

impl Consent {
    /// Waits until something may be sent.
    async fn given(&self) {
        self.until(|| self.credit.get() > 0).await;
    }

    /// Waits until nothing is wanted any more.
    async fn withdrawn(&self) {
        self.until(|| self.is_withdrawn.get()).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let changed = self.changed.listen();
            if holds() {
                return;
            }
            changed.await;
        }
    }
}

/// Sends records as they come until the subscription ends.
pub(crate) async fn handle(
    session: Rc<Session>,
    mut call: Call,
    request: SubscribeRequest,
    Subscription { consent, .. }: &Subscription,
) {
    let shard = &session.shard;
    let FetchPlace { room, wanted, is_wanted } = shard.fetches.enter(weight(&request.topics)).await;
    call.trade_room(room);
    let mut stream = match Stream::new(shard, &request).await {
        Ok(stream) => stream,
        Err(error) => return session.refuse(call, &error),
    };
    let hurried = Cell::new(is_wanted);
    let mut hurry = pin!(async {
        let ended = first_of(session.ended.stopped(), shard.stop.stopped());
        let left = first_of(consent.withdrawn(), session.outbox.broken());
        first_of(first_of(ended, left), wanted).await;
        hurried.set(true);
    });
    let unsent = Semaphore::new(FRAMES_UNSENT_MAX);
    let mut turns = Turns::default();
    loop {
        let slot = unless(&hurried, hurry.as_mut(), unsent.acquire(1)).await;
        let frame = stream.next(&session, consent, hurry.as_mut(), &hurried).await;
        let is_last = hurried.get() || stream.shares.is_empty();
        let (correlation, bytes, ready) = (call.correlation, frame.bytes, Instant::now());
        consent.credit.set(consent.credit.get().saturating_sub(i64::try_from(bytes).unwrap_or(CREDIT_MAX)));
        shard.stats.add(Counter::FetchedBytes, bytes);

        let (head, slices, room) = stream.head(shard, frame, is_last);
        let encode = |out: &mut BytesMut| encode_response_head(correlation, &head, out);
        let stage = (Stage::FetchAnswered, ready);
        let Some(slot) = slot.filter(|_| !is_last) else {
            if let Err(unplaced) = session.put(call, encode, (room, slices), stage) {
                unplaced.put_or_refuse(&session).await;
            }
            return;
        };
        if let Err(error) = session.put_part(slot, encode, (room, slices), stage, hurry.as_mut()).await {
            return session.refuse(call, &error);
        }
        turns.give_way_for(bytes.max(FRAME_BYTES_MIN)).await;
    }
}

/// What `future` gives, unless there is a hurry before.
async fn unless<T>(
    hurried: &Cell<bool>,
    mut hurry: Pin<&mut impl Future<Output = ()>>,
    future: impl Future<Output = T>,
) -> Option<T> {
    if hurried.get() {
        return None;
    }
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(ready) => Poll::Ready(Some(ready)),
        Poll::Pending => hurry.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// A subscription under way.
struct Stream {
    topics: Vec<TopicName>,
    /// Each partition of the request, by its place there, with the place of its topic.
    partitions: Vec<(usize, PartitionIndex)>,
    /// Those that are still subscribed to, and how far they are sent.
    shares: Vec<Share<Part>>,
    /// What is not to be had, until it is told.
    refused: Vec<(usize, WireError)>,
    frame_bytes_max: usize,
    heartbeat: Duration,
    has_asked: bool,
}

/// What one frame tells.
#[derive(Default)]
struct Frame {
    /// By the places of the partitions.
    told: Vec<(usize, Outcome<Slice>)>,
    bytes: usize,
    room: Held,
}

impl Stream {
    async fn new(shard: &Rc<Shard>, request: &SubscribeRequest) -> Result<Stream, WireError> {
        let limits = &shard.config.limits;
        let topics = request.topics.iter().enumerate();
        let partitions = topics.flat_map(|(at, topic)| topic.partitions.iter().map(move |part| (at, part.partition)));
        let partitions: Vec<_> = partitions.collect();
        let (split, merged) = split(shard, partitions.len(), &request.topics).await?;
        let heartbeat = Duration::from_millis(request.heartbeat_ms.into());
        Ok(Stream {
            topics: request.topics.iter().map(|topic| topic.topic.clone()).collect(),
            partitions,
            shares: split.into_shares(),
            refused: merged.into_errors(),
            frame_bytes_max: request.max_bytes.clamp(1, limits.fetch_bytes_max) as usize,
            heartbeat: heartbeat.max(HEARTBEAT_MIN).min(limits.fetch_wait_max),
            has_asked: false,
        })
    }

    /// What comes next: records within the credit, or nothing when it is time for a sign of life, or `hurry` is done.
    async fn next(
        &mut self,
        session: &Rc<Session>,
        consent: &Consent,
        mut hurry: Pin<&mut impl Future<Output = ()>>,
        hurried: &Cell<bool>,
    ) -> Frame {
        if !self.refused.is_empty() {
            let refused = std::mem::take(&mut self.refused).into_iter();
            return Frame { told: refused.map(|(place, error)| (place, Err(error))).collect(), ..Frame::default() };
        }
        let mut deadline = Instant::now() + self.heartbeat;
        loop {
            // Whoever always finds something would never look.
            let looked = std::future::poll_fn(|cx| Poll::Ready(hurried.get() || hurry.as_mut().poll(cx).is_ready()));
            let is_over = looked.await;
            let has_credit = consent.credit.get() > 0;
            if self.shares.is_empty() || (is_over && (self.has_asked || !has_credit)) {
                return Frame::default();
            }
            if is_over {
                // Who is not let in for long gets what there is, to come further each time.
                deadline = Instant::now();
            }
            if !has_credit {
                let left = deadline.saturating_duration_since(Instant::now());
                let credited = time::timeout(left, first_of(consent.given(), hurry.as_mut())).await;
                if credited.is_err() || hurried.get() {
                    return Frame::default();
                }
            }
            let credit = usize::try_from(consent.credit.get()).unwrap_or(0);
            let terms = Terms {
                bytes_enough: 1,
                bytes_max: credit.clamp(1, self.frame_bytes_max),
                head_bytes: self.shares.iter().map(|share| share.parts.len()).sum::<usize>() * FETCHED_PART_BYTES,
                deadline,
            };
            self.has_asked = true;
            let answers = match is_over {
                // What is there is read, and nobody who does not take it is waited for.
                true => {
                    let moment = time::sleep(session.shard.config.limits.forward_wait_max);
                    ask_shares(session, &self.shares, terms, pin!(first_of(session.ended.stopped(), moment))).await
                }
                false => ask_shares(session, &self.shares, terms, hurry.as_mut()).await,
            };
            let frame = self.take(answers, session.shard.config.shard);
            if !frame.told.is_empty() || hurried.get() || Instant::now() >= deadline {
                return frame;
            }
            time::sleep(OVERLOADED_PAUSE).await;
        }
    }

    /// Goes on behind what was found. A partition with an error belongs to the stream no more; one for which there was no
    /// room does.
    fn take(&mut self, answers: Vec<Found<Slice>>, own: ShardIndex) -> Frame {
        let mut frame = Frame::default();
        for (share, found) in self.shares.iter_mut().zip(answers) {
            if share.shard == own {
                frame.room = found.room;
            }
            let mut outcomes = found.outcomes.into_iter();
            let mut gone = Vec::new();
            for (at, (&place, part)) in share.places.iter().zip(&mut share.parts).enumerate() {
                match outcomes.next().unwrap_or_else(unanswered) {
                    Ok(read) if read.bytes == 0 => {}
                    Ok(read) => {
                        part.from = read.next;
                        frame.bytes += read.bytes;
                        frame.told.push((place, Ok(read)));
                    }
                    Err(error) if error.code == ErrorCode::Overloaded => {}
                    Err(error) => {
                        gone.push(at);
                        frame.told.push((place, Err(error)));
                    }
                }
            }
            remove(&mut share.places, &gone);
            remove(&mut share.parts, &gone);
            // Another one comes first the next time.
            let another = share.parts.len().min(1);
            share.places.rotate_left(another);
            share.parts.rotate_left(another);
        }
        self.shares.retain(|share| !share.parts.is_empty());
        frame
    }

    /// The head of a frame, its records, and the room that they have.
    fn head(&self, shard: &Shard, frame: Frame, is_last: bool) -> (SubscribedHead, Vec<Slice>, Held) {
        let Frame { mut told, room, .. } = frame;
        told.sort_by_key(|(place, _)| *place);
        let (mut details, mut slices) = (Details::new(&shard.stats), Vec::new());
        let mut topics: Vec<FetchedTopic> = Vec::new();
        let mut last_topic = None;
        for (place, outcome) in told {
            let Some(&(topic, partition)) = self.partitions.get(place) else { continue };
            if last_topic.replace(topic) != Some(topic) {
                topics.push(FetchedTopic { topic: self.topics[topic].clone(), partitions: Vec::new() });
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(fetched(partition, outcome, &mut details, &mut slices));
            }
        }
        (SubscribedHead { is_last, topics }, slices, room)
    }
}

/// Removes what stands at these places, which rise.
fn remove<T>(from: &mut Vec<T>, places: &[usize]) {
    let (mut at, mut gone) = (0..from.len(), places.iter().copied().peekable());
    from.retain(|_| gone.next_if_eq(&at.next().unwrap_or(usize::MAX)).is_none());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_leaves_the_rest_in_its_order() {
        for (gone, left) in
            [(&[][..], &[0, 1, 2, 3, 4][..]), (&[0, 4], &[1, 2, 3]), (&[0, 1, 2, 3, 4], &[]), (&[2], &[0, 1, 3, 4])]
        {
            let mut places = vec![0, 1, 2, 3, 4];
            remove(&mut places, gone);
            assert_eq!(places, left);
        }
    }

    #[test]
    fn an_id_is_free_again_once_its_subscription_is_closed() {
        let (all, id) = (Subscriptions::default(), CorrelationId::new(7));
        let open = all.open(id, 5, 1).expect("the first");
        let code = |refused: Result<Subscription, WireError>| refused.err().map(|error| error.code);
        assert_eq!(code(all.open(id, 5, 2)), Some(ErrorCode::MalformedRequest));
        assert!(all.open(CorrelationId::new(8), 5, 2).is_ok());
        assert_eq!(code(all.open(CorrelationId::new(8), 5, 1)), Some(ErrorCode::Overloaded));
        assert!(all.get(7).is_some() && all.get(8).is_none());
        drop(open);
        assert!(all.open(id, 5, 1).is_ok());
    }
}
