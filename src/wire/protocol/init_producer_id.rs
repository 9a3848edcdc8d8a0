//! InitProducerId: an identity for an idempotent producer.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::numbers::{ProducerEpoch, ProducerId};

layout! {
    /// Asks for an identity that no other producer has or had; any broker answers.
    pub struct InitProducerIdRequest {
        /// How long the broker may take, in milliseconds: now and then it has to ask the controller.
        pub timeout_ms: u32,
    }

    /// The identity.
    pub struct InitProducerIdResponse {
        /// The number that goes into every batch.
        pub producer_id: ProducerId,
        /// The epoch that goes with it at first.
        pub producer_epoch: ProducerEpoch,
    }
}

impl Message for InitProducerIdRequest {}
impl Message for InitProducerIdResponse {}
request!(InitProducerIdRequest is InitProducerId, answered by InitProducerIdResponse);
