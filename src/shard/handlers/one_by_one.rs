//! Requests that do the same with each of their partitions, one after the other, on the shards that own them.

use std::rc::Rc;

use ringmq_runtime::channel::OneshotSender;
use ringmq_segment::LogId;
use ringmq_wire::{PartitionIndex, TopicName, WireError};

use crate::mailbox::Message;
use crate::server::Shard;
use crate::session::Session;
use crate::split;
use crate::turns::Turns;

/// The partitions of one request that another shard owns, each with what is wanted of it.
pub(crate) struct Forwarded<W, A> {
    parts: Vec<(LogId, W)>,
    reply: OneshotSender<Vec<Result<A, WireError>>>,
}

/// Has each partition's owner do `each`; the answers are in the order of the request.
///
/// # Errors
/// When a partition is named twice; others have errors of their own.
pub(super) async fn ask<'a, W: Copy + Send, A: Send + 'static>(
    session: &Session,
    count: usize,
    wanted: impl Iterator<Item = (&'a TopicName, PartitionIndex, W)>,
    each: impl AsyncFn(&Shard, LogId, W) -> Result<A, WireError>,
    message: impl Fn(Forwarded<W, A>) -> Message,
) -> Result<Vec<Result<A, WireError>>, WireError> {
    let shard = &session.shard;
    let (split, merged) = split::by_owner(shard, count, wanted, |id, wanted| (id, wanted)).await?;
    let here = async |parts: Vec<_>| do_all(shard, &parts, &each, || session.ended.is_stopped()).await;
    let message = |parts, reply| message(Forwarded { parts, reply });
    Ok(split::ask_owners(shard, &session.ended, split, merged, here, message).await)
}

/// Does it with the partitions that another shard's client asked for.
pub(super) fn serve<W: Copy + 'static, A: Send + 'static>(
    shard: &Rc<Shard>,
    name: &'static str,
    forwarded: Forwarded<W, A>,
    each: impl AsyncFn(&Shard, LogId, W) -> Result<A, WireError> + 'static,
) {
    let serving = shard.clone();
    shard.spawn_forwarded(name, async move {
        let Forwarded { parts, reply } = forwarded;
        let outcomes = do_all(&serving, &parts, &each, || serving.stop.is_stopped() || reply.is_abandoned()).await;
        // Whoever asked may have ended meanwhile.
        let _ = reply.send(outcomes);
    });
}

/// One partition after the other, until `ended`.
async fn do_all<W: Copy, A>(
    shard: &Shard,
    parts: &[(LogId, W)],
    each: &impl AsyncFn(&Shard, LogId, W) -> Result<A, WireError>,
    ended: impl Fn() -> bool,
) -> Vec<Result<A, WireError>> {
    let mut outcomes = Vec::with_capacity(parts.len());
    let mut turns = Turns::default();
    for &(id, wanted) in parts {
        outcomes.push(if ended() { Err(split::connection_ended()) } else { each(shard, id, wanted).await });
        turns.give_way_if_due().await;
    }
    outcomes
}
