//! DeleteRecords: the oldest records of partitions, up to an offset.

use std::rc::Rc;

use ringmq_runtime::channel::OneshotSender;
use ringmq_segment::LogId;
use ringmq_wire::protocol::{DeleteRecordsRequest, DeleteRecordsResponse, DeletedRecords, DeletedRecordsTopic};
use ringmq_wire::{Detail, ErrorCode, Offset, PartitionIndex, WireError};

use crate::error::Details;
use crate::mailbox::Message;
use crate::server::Shard;
use crate::session::Session;
use crate::split;
use crate::stats::Stats;
use crate::turns::Turns;

/// The partitions of one request that another shard owns.
pub(crate) struct ForwardedDeleteRecords {
    parts: Vec<Part>,
    reply: OneshotSender<Vec<Outcome>>,
}

/// Below which offset; `None` for the high watermark.
type Part = (LogId, Option<Offset>);
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
    let shard = &session.shard;
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let parts = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|part| (&topic.topic, part.partition, part.before)));
    let (split, merged) = split::by_owner(shard, count, parts, |id, before| (id, before)).await?;
    let outcomes = split::ask_owners(
        shard,
        &session.ended,
        split,
        merged,
        async |parts| delete_all(shard, &parts, || session.ended.is_stopped()).await,
        |parts, reply| Message::DeleteRecords(ForwardedDeleteRecords { parts, reply }),
    );
    Ok(response(&shard.stats, request, outcomes.await))
}

/// Serves the partitions that another shard's client asked for.
pub(crate) fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedDeleteRecords) {
    let serving = shard.clone();
    shard.spawn_forwarded("forwarded delete records", async move {
        let ForwardedDeleteRecords { parts, reply } = forwarded;
        let outcomes = delete_all(&serving, &parts, || serving.stop.is_stopped() || reply.is_abandoned()).await;
        // Whoever asked may have ended meanwhile.
        let _ = reply.send(outcomes);
    });
}

/// One partition after the other, until `ended`.
async fn delete_all(shard: &Shard, parts: &[Part], ended: impl Fn() -> bool) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(parts.len());
    let mut turns = Turns::default();
    for &(id, before) in parts {
        outcomes.push(if ended() { Err(split::connection_ended()) } else { delete(shard, id, before).await });
        turns.give_way_if_due().await;
    }
    outcomes
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
