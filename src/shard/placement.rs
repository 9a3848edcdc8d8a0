//! Where partitions are and what they hold, put together from the metadata and from the shards that own them.

use std::rc::Rc;
use std::sync::Arc;

use ringmq_controller::metadata::Topic;
use ringmq_runtime::channel::OneshotSender;
use ringmq_runtime::random::Set;
use ringmq_segment::LogId;
use ringmq_wire::protocol::{DescribedPartition, PartitionMetadata};
use ringmq_wire::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, WireError};

use crate::mailbox::Message;
use crate::server::Shard;
use crate::session::Session;
use crate::split::{self, Merged, Split};
use crate::turns::Turns;

/// Partitions of another shard that a client of this one wants to know something of.
pub(crate) struct ForwardedQuestion<A> {
    parts: Vec<LogId>,
    reply: OneshotSender<Vec<Result<A, WireError>>>,
}

/// What the owner says of a partition that serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Online;

/// How much a partition holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    start: Offset,
    end: Offset,
    size_bytes: u64,
}

/// Refuses a request that names a topic twice: it would be answered many times over, at a great cost for a few bytes.
///
/// # Errors
/// `MalformedRequest` with the name.
pub(crate) fn each_once<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), WireError> {
    let mut seen = Set::default();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(name) => {
            let detail = format!("the request names the topic {name:?} more than once; name it once");
            Err(WireError::new(ErrorCode::MalformedRequest, detail))
        }
    }
}

/// Where every partition of every topic is, in their order. A partition whose shard cannot be asked now shows as any that
/// serves: where it is, is known here, and that it is offline is told to whoever goes there.
pub(crate) async fn locate(session: &Session, topics: &[Arc<Topic>]) -> Vec<Vec<PartitionMetadata>> {
    let message = |parts, reply| Message::IsOnline(ForwardedQuestion { parts, reply });
    let outcomes = ask_owners(session, topics, online, message).await;
    assemble(session, topics, outcomes, |metadata, _| metadata).await
}

/// Every partition of every topic, in their order, with what it holds.
///
/// # Errors
/// When a shard could not be asked now. That says nothing of its partitions.
pub(crate) async fn describe(
    session: &Session,
    topics: &[Arc<Topic>],
) -> Result<Vec<Vec<DescribedPartition>>, WireError> {
    let message = |parts, reply| Message::Describe(ForwardedQuestion { parts, reply });
    let outcomes = ask_owners(session, topics, extent, message).await;
    if let Some(error) = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).find(|error| error.is_retriable())
    {
        return Err(error.clone());
    }
    let described = |metadata, outcome: Result<Extent, WireError>| {
        let extent = outcome.unwrap_or(Extent { start: Offset::ZERO, end: Offset::ZERO, size_bytes: 0 });
        DescribedPartition {
            metadata,
            log_start_offset: extent.start,
            log_end_offset: extent.end,
            size_bytes: extent.size_bytes,
        }
    };
    Ok(assemble(session, topics, outcomes, described).await)
}

/// What the owner of every partition says: this shard with `here` of each, the others asked with `message`.
async fn ask_owners<A: Send + 'static>(
    session: &Session,
    topics: &[Arc<Topic>],
    here: fn(&Shard, LogId) -> Result<A, WireError>,
    message: impl Fn(Vec<LogId>, OneshotSender<Vec<Result<A, WireError>>>) -> Message,
) -> Vec<Result<A, WireError>> {
    let shard = &session.shard;
    let count = topics.iter().map(|topic| topic.partition_indexes().len()).sum();
    let (mut split, merged) = (Split::new(), Merged::new(count));
    let mut turns = Turns::default();
    let mut place = 0;
    for topic in topics {
        for partition in topic.partition_indexes() {
            let owner = shard.directory.borrow().shard_of(topic, partition);
            split.add(owner, place, LogId { topic_id: topic.id, partition });
            place += 1;
            turns.give_way_if_due().await;
        }
    }
    split::ask_owners(shard, &session.ended, split, merged, async |parts| each(shard, &parts, here).await, message)
        .await
}

/// Puts what the owners say in the order of the topics and their partitions.
async fn assemble<A, T>(
    session: &Session,
    topics: &[Arc<Topic>],
    outcomes: Vec<Result<A, WireError>>,
    each: impl Fn(PartitionMetadata, Result<A, WireError>) -> T,
) -> Vec<Vec<T>> {
    let mut outcomes = outcomes.into_iter();
    let mut turns = Turns::default();
    let mut all = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes().len());
        for (partition, outcome) in topic.partition_indexes().zip(&mut outcomes) {
            // An error means that the partition can be neither written nor read, unless it may pass.
            let offline = outcome.as_ref().is_err_and(|error| !error.is_retriable());
            partitions.push(each(metadata(session, topic, partition, offline), outcome));
            turns.give_way_if_due().await;
        }
        all.push(partitions);
    }
    all
}

/// Serves another shard's client that wants to know which partitions serve.
pub(crate) fn serve_forwarded_is_online(shard: &Rc<Shard>, forwarded: ForwardedQuestion<Online>) {
    serve_forwarded(shard, forwarded, online);
}

/// Serves another shard's client that wants to know what partitions hold.
pub(crate) fn serve_forwarded_describe(shard: &Rc<Shard>, forwarded: ForwardedQuestion<Extent>) {
    serve_forwarded(shard, forwarded, extent);
}

fn serve_forwarded<A: Send + 'static>(
    shard: &Rc<Shard>,
    forwarded: ForwardedQuestion<A>,
    here: fn(&Shard, LogId) -> Result<A, WireError>,
) {
    let serving = shard.clone();
    shard.spawn_forwarded("forwarded describe", async move {
        let outcomes = each(&serving, &forwarded.parts, here).await;
        // Whoever asked may have ended meanwhile.
        let _ = forwarded.reply.send(outcomes);
    });
}

/// What `here` says of each partition. Nothing looks at the disk.
async fn each<A>(
    shard: &Shard,
    parts: &[LogId],
    here: fn(&Shard, LogId) -> Result<A, WireError>,
) -> Vec<Result<A, WireError>> {
    let mut outcomes = Vec::with_capacity(parts.len());
    let mut turns = Turns::default();
    for &id in parts {
        outcomes.push(here(shard, id));
        turns.give_way_if_due().await;
    }
    outcomes
}

fn online(shard: &Shard, id: LogId) -> Result<Online, WireError> {
    let partition = shard.directory.borrow().owned(id)?;
    partition.usable_log().map(|_| Online)
}

fn extent(shard: &Shard, id: LogId) -> Result<Extent, WireError> {
    let partition = shard.directory.borrow().owned(id)?;
    let log = partition.usable_log()?;
    let offsets = log.offsets();
    Ok(Extent { start: offsets.start, end: offsets.end, size_bytes: log.size_bytes() })
}

fn metadata(session: &Session, topic: &Topic, partition: PartitionIndex, offline: bool) -> PartitionMetadata {
    let shard = &session.shard;
    let owner = shard.directory.borrow().shard_of(topic, partition);
    let broker = shard.config.broker;
    PartitionMetadata {
        partition,
        leader: broker,
        leader_epoch: LeaderEpoch::ZERO,
        shard: owner,
        shard_port: session.endpoints.roster.port(owner),
        replicas: vec![broker],
        in_sync: if offline { Vec::new() } else { vec![broker] },
        offline,
    }
}
