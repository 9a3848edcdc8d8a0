//! DeleteRecords: the oldest records of partitions, up to an offset.

use std::rc::Rc;

use ringmq_segment::LogId;
use ringmq_wire::protocol::{DeleteRecordsRequest, DeleteRecordsResponse, DeletedRecords, DeletedRecordsTopic};
use ringmq_wire::{Detail, ErrorCode, Offset, PartitionIndex, WireError};

use crate::error::Details;
use crate::handlers::one_by_one::{self, Forwarded};
use crate::mailbox::Message;
use crate::server::Shard;
use crate::session::Session;
use crate::stats::Stats;

/// Of each partition, below which offset; `None` for the high watermark.
pub(crate) type ForwardedDeleteRecords = Forwarded<Option<Offset>, Offset>;

/// Where the log begins now.
type Outcome = Result<Offset, WireError>;

/// Deletes, and answers with where each partition begins.
///
/// # Errors
/// When a partition is named twice; others have errors of their own.
pub(crate) async fn handle(
    session: Rc<Session>,
    request: DeleteRecordsRequest,
) -> Result<DeleteRecordsResponse, WireError> {
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let wanted = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|part| (&topic.topic, part.partition, part.before)));
    let outcomes = one_by_one::ask(&session, count, wanted, delete, Message::DeleteRecords).await?;
    Ok(response(&session.shard.stats, request, outcomes))
}

/// Serves the partitions that another shard's client asked for.
pub(crate) fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedDeleteRecords) {
    one_by_one::serve(shard, "forwarded delete records", forwarded, delete);
}

async fn delete(shard: &Shard, id: LogId, before: Option<Offset>) -> Outcome {
    let partition = shard.directory.borrow().owned(id)?;
    let log = partition.usable_log()?;
    let before = before.unwrap_or_else(|| log.offsets().readable);
    log.delete_records(before).await.map_err(|cause| partition.delete_records_failed(&cause))
}

/// The outcomes in the shape of the request.
fn response(stats: &Stats, request: DeleteRecordsRequest, outcomes: Vec<Outcome>) -> DeleteRecordsResponse {
    let mut details = Details::new(stats);
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let parts = topic.partitions.iter().zip(&mut outcomes);
        let partitions = parts.map(|(part, outcome)| deleted(part.partition, outcome, &mut details)).collect();
        DeletedRecordsTopic { topic: topic.topic, partitions }
    });
    DeleteRecordsResponse { topics: topics.collect() }
}

fn deleted(partition: PartitionIndex, outcome: Outcome, details: &mut Details<'_>) -> DeletedRecords {
    let ((error, detail), log_start_offset) = match outcome {
        Ok(start) => ((ErrorCode::None, Detail::NONE), start),
        Err(error) => (details.of(error), Offset::ZERO),
    };
    DeletedRecords { partition, error, detail, log_start_offset }
}
