//! Produce: sections are received, staged in the order read, and answered when they are durable.
//!
//! All of a request is received before any of it is staged, so that half a request leaves no trace. Staging gives way, but
//! waits for nothing, and the connection reads its next request only afterwards: that is what keeps the order of one
//! connection and partition, here and through the mailbox of another shard.

use std::future::Future;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmq_runtime::channel::OneshotSender;
use ringmq_runtime::time::Instant;
use ringmq_segment::{Appending, FrameBuf, LogId, Payload};
use ringmq_wire::protocol::frame::encode_response;
use ringmq_wire::protocol::{Acks, ProduceHead, ProduceResponse, ProducedPartition, ProducedTopic, SectionHead};
use ringmq_wire::{Detail, ErrorCode, Offset, PartitionIndex, ShardIndex, WireError};

use crate::connection::End;
use crate::directory::Owner;
use crate::error::Details;
use crate::frame_reader::{FrameReader, ReadEnd};
use crate::limits::DIRECT_SECTION_BYTES_MIN;
use crate::mailbox::Message;
use crate::partition::Partition;
use crate::server::Shard;
use crate::session::{Call, Receiving, Session};
use crate::split::{self, AskedShare, Split};
use crate::stats::{Counter, Stage, Stats};
use crate::turns::Turns;

/// The sections of one request that another shard owns, in the order of the request.
pub(crate) struct ForwardedProduce {
    sections: Vec<(LogId, Bytes)>,
    reply: OneshotSender<Vec<Outcome>>,
}

/// What became of one section.
type Outcome = Result<Stored, WireError>;

/// Where durable records are.
#[derive(Debug, Clone, Copy)]
struct Stored {
    base_offset: Offset,
    next_offset: Offset,
    log_start_offset: Offset,
}

/// A section that was received, and where it goes.
enum Section {
    Here(Rc<Partition>, Payload),
    Elsewhere(ShardIndex, LogId, Bytes),
    Refused(WireError),
}

/// A section after staging.
enum Staged {
    Here(Rc<Partition>, Appending),
    /// Part of the share of another shard.
    Elsewhere,
    Done(Outcome),
}

/// Receives a produce, stages it, and leaves a task behind that answers it.
///
/// # Errors
/// When the connection ends before the request is whole.
pub(crate) async fn handle(
    session: &Rc<Session>,
    reader: &mut FrameReader,
    receiving: Receiving<'_>,
    call: Call,
    body_bytes: usize,
) -> Result<(), End> {
    let Some((mut call, head)) = receive_head(session, reader, call, body_bytes).await? else { return Ok(()) };
    let count = head.topics.iter().map(|topic| topic.partitions.len()).sum();
    let (parts, receiving) = session.room_for_parts(count, receiving).await;
    call.hold_parts(parts);
    let sections = receive_sections(&session.shard, reader, &head, count).await?;
    drop(receiving);
    let whole = Instant::now();
    session.shard.stats.record(Stage::ProduceReceived, whole.saturating_duration_since(call.received));

    let (staged, elsewhere) = stage(sections).await;
    let asked = forward(&session.shard, elsewhere).await;
    let staged_at = Instant::now();
    session.shard.stats.record(Stage::ProduceStaged, staged_at.saturating_duration_since(whole));

    session.spawn("produce", settle(session.clone(), call, head, staged, asked, staged_at));
    Ok(())
}

/// Serves the sections that another shard's client sent. They are staged when this is done.
pub(crate) async fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedProduce) {
    let received = Instant::now();
    let sections = forwarded.sections.into_iter().map(|(id, batches)| match shard.directory.borrow().owned(id) {
        Ok(partition) => Section::Here(partition, Payload::Copied(batches)),
        Err(error) => Section::Refused(error),
    });
    let (mut staged, _) = stage(sections.collect()).await;
    shard.stats.record(Stage::ProduceStaged, received.elapsed());

    let stats = shard.clone();
    shard.spawn_forwarded("forwarded produce", async move {
        let staged_at = Instant::now();
        settle_here(&mut staged).await;
        stats.stats.record(Stage::ProduceDurable, staged_at.elapsed());
        // Whoever asked may have ended; the records are durable all the same.
        let _ = forwarded.reply.send(staged.into_iter().map(Staged::into_outcome).collect());
    });
}

/// The head: which sections follow. `None` when it cannot be decoded; the request was refused and skipped then.
async fn receive_head(
    session: &Session,
    reader: &mut FrameReader,
    call: Call,
    body_bytes: usize,
) -> Result<Option<(Call, ProduceHead)>, End> {
    let mut known = body_bytes.min(size_of::<u32>());
    loop {
        let body = reader.peek(known).await?;
        match ProduceHead::decode_head(body, u32::try_from(body_bytes).unwrap_or(u32::MAX)) {
            Ok(Some((head, sections_from))) => {
                reader.consume(sections_from);
                return Ok(Some((call, head)));
            }
            // The first four bytes say how long the head is, and the decoder has checked it against its limit.
            Ok(None) => match body.first_chunk() {
                Some(length) => known = size_of::<u32>() + u32::from_be_bytes(*length) as usize,
                None => known = body_bytes.min(size_of::<u32>()),
            },
            Err(error) => {
                reader.skip(body_bytes).await?;
                session.refuse(call, &WireError::from(&error));
                return Ok(None);
            }
        }
    }
}

/// All sections, each received to where it is used; what is refused is read and dropped.
async fn receive_sections(
    shard: &Shard,
    reader: &mut FrameReader,
    head: &ProduceHead,
    count: usize,
) -> Result<Vec<Section>, ReadEnd> {
    let mut sections = Vec::with_capacity(count);
    let mut turns = Turns::default();
    let mut any_large = false;
    for topic in &head.topics {
        for partition in &topic.partitions {
            let bytes = partition.records_bytes as usize;
            let owner = shard.directory.borrow().locate(&topic.topic, partition.partition);
            shard.stats.add(Counter::ProducedBytes, bytes);
            any_large |= owner.is_ok() && bytes >= DIRECT_SECTION_BYTES_MIN;
            sections.push(match owner {
                Ok(Owner::Here(owned)) if bytes >= DIRECT_SECTION_BYTES_MIN => {
                    let mut frame = FrameBuf::with_payload_len(bytes);
                    reader.read_exact(frame.payload_mut()).await?;
                    Section::Here(owned, Payload::Frame(frame))
                }
                Ok(Owner::Here(owned)) => Section::Here(owned, Payload::Copied(receive_copy(reader, bytes).await?)),
                Ok(Owner::Elsewhere(owner, id)) => Section::Elsewhere(owner, id, receive_copy(reader, bytes).await?),
                Err(error) => {
                    reader.skip(bytes).await?;
                    Section::Refused(error)
                }
            });
            turns.give_way_if_due().await;
        }
    }
    reader.expect_large_section(any_large);
    Ok(sections)
}

/// A section in memory of its own, which may go to another core.
async fn receive_copy(reader: &mut FrameReader, bytes: usize) -> Result<Bytes, ReadEnd> {
    if bytes <= reader.available() {
        let copied = Bytes::copy_from_slice(reader.peek(bytes).await?);
        reader.consume(bytes);
        return Ok(copied);
    }
    // The system gives large memory zeroed; what is received has to be initialised without `unsafe`.
    let mut copied = BytesMut::zeroed(bytes);
    reader.read_exact(&mut copied).await?;
    Ok(copied.freeze())
}

/// Stages what is owned here, in order, and sorts the rest by its owner. It gives way, but waits for nothing.
async fn stage(sections: Vec<Section>) -> (Vec<Staged>, Split<(LogId, Bytes)>) {
    let (mut staged, mut elsewhere) = (Vec::with_capacity(sections.len()), Split::new());
    let mut turns = Turns::default();
    for (place, section) in sections.into_iter().enumerate() {
        staged.push(match section {
            Section::Here(partition, payload) => match partition.append(payload, &mut turns).await {
                Ok(appending) => Staged::Here(partition, appending),
                Err(error) => Staged::Done(Err(error)),
            },
            Section::Elsewhere(owner, id, batches) => {
                elsewhere.add(owner, place, (id, batches));
                Staged::Elsewhere
            }
            Section::Refused(error) => Staged::Done(Err(error)),
        });
        turns.give_way_if_due().await;
    }
    (staged, elsewhere)
}

/// Sends each other shard its share. A shard without room refuses its share alone.
async fn forward(shard: &Shard, elsewhere: Split<(LogId, Bytes)>) -> Vec<AskedShare<Vec<Outcome>>> {
    let message = |sections, reply| Message::Produce(ForwardedProduce { sections, reply });
    split::send_shares(shard, elsewhere.into_shares(), |(_, batches)| batches.len(), message).await
}

/// Waits until everything is durable, and answers. There is one replica, so `timeout_ms` has nothing to bound.
///
/// One such task waits for each request in flight, so it is kept small: an `async fn` would hold its arguments twice, and
/// what few requests need has memory of its own.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn settle(
    session: Rc<Session>,
    call: Call,
    head: ProduceHead,
    mut staged: Vec<Staged>,
    asked: Vec<AskedShare<Vec<Outcome>>>,
    staged_at: Instant,
) -> impl Future<Output = ()> {
    async move {
        settle_here(&mut staged).await;
        if !asked.is_empty() {
            Box::pin(settle_shares(&session.shard, &mut staged, asked)).await;
        }
        let durable_at = Instant::now();
        session.shard.stats.record(Stage::ProduceDurable, durable_at.saturating_duration_since(staged_at));
        if head.acks == Acks::None {
            return tell_failure(&session, staged);
        }
        let response = response(&session.shard.stats, head, staged.into_iter().map(Staged::into_outcome));
        let correlation = call.correlation;
        let encode = |out: &mut BytesMut| encode_response(correlation, &response, out);
        if let Err(unplaced) = session.put(call, encode, Default::default(), (Stage::ProduceAnswered, durable_at)) {
            Box::pin(unplaced.put(&session)).await;
        }
    }
}

/// Of a produce that nobody waits for, what failed is counted.
fn tell_failure(session: &Session, staged: Vec<Staged>) {
    if let Some(error) = staged.into_iter().find_map(|section| section.into_outcome().err()) {
        session.shard.stats.add(Counter::Errors, 1);
        tracing::debug!(peer = %session.peer, %error, "a produce that nobody waits for failed");
    }
}

/// Waits for this shard's sections, one after the other: they become durable in about that order.
async fn settle_here(staged: &mut [Staged]) {
    for section in staged {
        if let Staged::Here(partition, appending) = section {
            let outcome = appending.await.map(|appended| Stored {
                base_offset: appended.base_offset,
                next_offset: appended.next_offset,
                log_start_offset: partition.log().map_or(Offset::ZERO, |log| log.offsets().start),
            });
            *section = Staged::Done(outcome.map_err(|cause| partition.append_failed(&cause)));
        }
    }
}

/// Waits for the answers of other shards and puts each where its sections stood.
async fn settle_shares(shard: &Shard, staged: &mut [Staged], asked: Vec<AskedShare<Vec<Outcome>>>) {
    for AskedShare { places, asked } in asked {
        let answered = async { asked?.answer(&shard.stats).await };
        let mut outcomes = match answered.await {
            Ok(outcomes) => outcomes,
            Err(error) => vec![Err(error); places.len()],
        }
        .into_iter();
        for place in places {
            if let Some(outcome) = outcomes.next() {
                staged[place] = Staged::Done(outcome);
            }
        }
    }
}

impl Staged {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::Done(outcome) => outcome,
            // Every section was settled; a shard that answers for fewer sections than it was given is at fault.
            Self::Here(..) | Self::Elsewhere => {
                Err(WireError::new(ErrorCode::UnknownServerError, "the section was not answered for"))
            }
        }
    }
}

/// The outcomes in the shape of the request.
fn response(stats: &Stats, head: ProduceHead, outcomes: impl IntoIterator<Item = Outcome>) -> ProduceResponse {
    let mut details = Details::new(stats);
    let mut outcomes = outcomes.into_iter();
    let topics = head.topics.into_iter().map(|topic| {
        let sections = topic.partitions.iter().zip(&mut outcomes);
        let partitions =
            sections.map(|(section, outcome)| produced(section.partition, outcome, &mut details)).collect();
        ProducedTopic { topic: topic.topic, partitions }
    });
    ProduceResponse { topics: topics.collect() }
}

fn produced(partition: PartitionIndex, outcome: Outcome, details: &mut Details<'_>) -> ProducedPartition {
    let nowhere = Stored { base_offset: Offset::ZERO, next_offset: Offset::ZERO, log_start_offset: Offset::ZERO };
    let ((error, detail), stored) = match outcome {
        Ok(stored) => ((ErrorCode::None, Detail::NONE), stored),
        Err(error) => (details.of(error), nowhere),
    };
    ProducedPartition {
        partition,
        error,
        detail,
        base_offset: stored.base_offset,
        next_offset: stored.next_offset,
        log_start_offset: stored.log_start_offset,
        append_time: None,
    }
}
