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

/// Partitions of another shard that a client of this one wants to know of.
pub(crate) struct ForwardedDescribe {
    parts: Vec<LogId>,
    reply: OneshotSender<Vec<Outcome>>,
}

/// What the owner says; an error means that the partition can be neither written nor read.
type Outcome = Result<Extent, WireError>;

/// How much a partition holds.
#[derive(Debug, Clone, Copy)]
struct Extent {
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
    let outcomes = ask_owners(session, topics).await;
    assemble(&session.shard, topics, outcomes, |metadata, _| metadata).await
}

/// Every partition of every topic, in their order, with what it holds.
///
/// # Errors
/// When a shard could not be asked now. That says nothing of its partitions.
pub(crate) async fn describe(
    session: &Session,
    topics: &[Arc<Topic>],
) -> Result<Vec<Vec<DescribedPartition>>, WireError> {
    let outcomes = ask_owners(session, topics).await;
    if let Some(error) = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).find(|error| error.is_retriable())
    {
        return Err(error.clone());
    }
    let described = |metadata, outcome: Outcome| {
        let extent = outcome.unwrap_or(Extent { start: Offset::ZERO, end: Offset::ZERO, size_bytes: 0 });
        DescribedPartition {
            metadata,
            log_start_offset: extent.start,
            log_end_offset: extent.end,
            size_bytes: extent.size_bytes,
        }
    };
    Ok(assemble(&session.shard, topics, outcomes, described).await)
}

/// What the owner of every partition says.
async fn ask_owners(session: &Session, topics: &[Arc<Topic>]) -> Vec<Outcome> {
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
    split::ask_owners(
        shard,
        &session.ended,
        split,
        merged,
        async |parts| extents(shard, &parts).await,
        |parts, reply| Message::Describe(ForwardedDescribe { parts, reply }),
    )
    .await
}

/// Puts what the owners say in the order of the topics and their partitions.
async fn assemble<T>(
    shard: &Shard,
    topics: &[Arc<Topic>],
    outcomes: Vec<Outcome>,
    each: impl Fn(PartitionMetadata, Outcome) -> T,
) -> Vec<Vec<T>> {
    let mut outcomes = outcomes.into_iter();
    let mut turns = Turns::default();
    let mut all = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes().len());
        for (partition, outcome) in topic.partition_indexes().zip(&mut outcomes) {
            partitions.push(each(metadata(shard, topic, partition, &outcome), outcome));
            turns.give_way_if_due().await;
        }
        all.push(partitions);
    }
    all
}

/// Serves the partitions that another shard's client asked for.
pub(crate) fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedDescribe) {
    let serving = shard.clone();
    shard.spawn_forwarded("forwarded describe", async move {
        let outcomes = extents(&serving, &forwarded.parts).await;
        // Whoever asked may have ended meanwhile.
        let _ = forwarded.reply.send(outcomes);
    });
}

async fn extents(shard: &Shard, parts: &[LogId]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(parts.len());
    let mut turns = Turns::default();
    for &id in parts {
        outcomes.push(extent(shard, id).await);
        turns.give_way_if_due().await;
    }
    outcomes
}

async fn extent(shard: &Shard, id: LogId) -> Outcome {
    let partition = shard.directory.borrow().owned(id)?;
    let log = partition.usable_log()?;
    let offsets = log.offsets();
    // Only how long a sealed file is can be unknown, and whoever reads the log will hear of that.
    let size_bytes = log.size_bytes().await.unwrap_or_default();
    Ok(Extent { start: offsets.start, end: offsets.end, size_bytes })
}

fn metadata(shard: &Shard, topic: &Topic, partition: PartitionIndex, outcome: &Outcome) -> PartitionMetadata {
    let owner = shard.directory.borrow().shard_of(topic, partition);
    let offline = outcome.as_ref().is_err_and(|error| !error.is_retriable());
    let broker = shard.config.broker;
    PartitionMetadata {
        partition,
        leader: broker,
        leader_epoch: LeaderEpoch::ZERO,
        shard: owner,
        shard_port: shard.roster().port(owner),
        replicas: vec![broker],
        in_sync: if offline { Vec::new() } else { vec![broker] },
        offline,
    }
}
