//! Stats: what every shard of the broker has counted.

use std::rc::Rc;

use ringmq_wire::protocol::{StatsRequest, StatsResponse};
use ringmq_wire::{ShardIndex, WireError};

use crate::mailbox::{Asked, Message};
use crate::session::Session;
use crate::stats::StatsSnapshot;

/// Asks all other shards at once, then answers for all.
///
/// # Errors
/// When a shard cannot be asked now.
pub(crate) async fn handle(session: Rc<Session>, _: StatsRequest) -> Result<StatsResponse, WireError> {
    let shard = &session.shard;
    let (own, count) = (shard.config.shard, shard.config.shard_count.get());
    let mut asked: Vec<Option<Asked<StatsSnapshot>>> = Vec::with_capacity(usize::from(count));
    for index in (0..count).map(ShardIndex::new) {
        let ask = async || shard.doors.ask(index, 0, Message::Stats).await;
        asked.push(if index == own { None } else { Some(ask().await?) });
    }
    let mut shards = Vec::with_capacity(asked.len());
    for (index, asked) in (0..).map(ShardIndex::new).zip(asked) {
        let snapshot = match asked {
            Some(asked) => asked.answer(&shard.stats).await?,
            None => shard.statistics().await,
        };
        shards.push(snapshot.to_wire(index));
    }
    Ok(StatsResponse { shards })
}
