//! ListOffsets: the earliest offset, the latest, or the first at a time.

use std::rc::Rc;

use ringmq_segment::LogId;
use ringmq_wire::protocol::{ListOffsetsRequest, ListOffsetsResponse, ListedOffset, ListedOffsetTopic, OffsetSpec};
use ringmq_wire::{Detail, ErrorCode, Offset, PartitionIndex, Timestamp, WireError};

use crate::error::Details;
use crate::handlers::one_by_one::{self, Forwarded};
use crate::mailbox::Message;
use crate::server::Shard;
use crate::session::Session;
use crate::stats::Stats;

/// Of each partition, which offset.
pub(crate) type ForwardedListOffsets = Forwarded<OffsetSpec, Found>;

type Outcome = Result<Found, WireError>;

/// An offset, and the timestamp of its record where a timestamp was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    offset: Option<Offset>,
    timestamp: Option<Timestamp>,
}

/// Answers with one offset for each partition.
///
/// # Errors
/// When a partition is named twice; others have errors of their own.
pub(crate) async fn handle(
    session: Rc<Session>,
    request: ListOffsetsRequest,
) -> Result<ListOffsetsResponse, WireError> {
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let wanted = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|part| (&topic.topic, part.partition, part.at)));
    let outcomes = one_by_one::ask(&session, count, wanted, find, Message::ListOffsets).await?;
    Ok(response(&session.shard.stats, request, outcomes))
}

/// Serves the partitions that another shard's client asked for.
pub(crate) fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedListOffsets) {
    one_by_one::serve(shard, "forwarded list offsets", forwarded, find);
}

async fn find(shard: &Shard, id: LogId, at: OffsetSpec) -> Outcome {
    let partition = shard.directory.borrow().owned(id)?;
    let log = partition.log()?;
    match at {
        OffsetSpec::Earliest => Ok(Found { offset: Some(log.offsets().start), timestamp: None }),
        OffsetSpec::Latest => Ok(Found { offset: Some(log.offsets().readable), timestamp: None }),
        OffsetSpec::Timestamp(timestamp) => {
            let found = log.find_timestamp(timestamp).await.map_err(|cause| partition.read_failed(&cause))?;
            Ok(Found { offset: found.map(|(offset, _)| offset), timestamp: found.map(|(_, timestamp)| timestamp) })
        }
    }
}

/// The outcomes in the shape of the request.
fn response(stats: &Stats, request: ListOffsetsRequest, outcomes: Vec<Outcome>) -> ListOffsetsResponse {
    let mut details = Details::new(stats);
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let parts = topic.partitions.iter().zip(&mut outcomes);
        let partitions = parts.map(|(part, outcome)| listed(part.partition, outcome, &mut details)).collect();
        ListedOffsetTopic { topic: topic.topic, partitions }
    });
    ListOffsetsResponse { topics: topics.collect() }
}

fn listed(partition: PartitionIndex, outcome: Outcome, details: &mut Details<'_>) -> ListedOffset {
    let ((error, detail), found) = match outcome {
        Ok(found) => ((ErrorCode::None, Detail::NONE), found),
        Err(error) => (details.of(error), Found { offset: None, timestamp: None }),
    };
    ListedOffset { partition, error, detail, offset: found.offset, timestamp: found.timestamp }
}
