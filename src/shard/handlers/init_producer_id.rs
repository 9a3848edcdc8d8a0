//! InitProducerId: an identity for an idempotent producer, out of those that the shard has.

use std::rc::Rc;

use ringmq_wire::protocol::{InitProducerIdRequest, InitProducerIdResponse};
use ringmq_wire::{ProducerEpoch, WireError};

use crate::session::Session;

/// Hands an id out; when the shard has none left it asks the controller, and waits as long as the request allows.
///
/// # Errors
/// What the controller says; `RequestTimedOut`.
pub(crate) async fn handle(
    session: Rc<Session>,
    request: InitProducerIdRequest,
) -> Result<InitProducerIdResponse, WireError> {
    let producer_id = session.shard.producer_ids.next(&session.shard, request.timeout_ms).await?;
    Ok(InitProducerIdResponse { producer_id, producer_epoch: ProducerEpoch::ZERO })
}
