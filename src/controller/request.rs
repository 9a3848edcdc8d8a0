//! What goes through the controller's door, and what comes out of it.

use std::ops::Range;
use std::sync::Arc;

use ringmq_runtime::channel::OneshotSender;
use ringmq_wire::protocol::{
    AlterTopicsRequest, AlterTopicsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse,
};
use ringmq_wire::{ProducerId, WireError};

use crate::metadata::Image;

/// The answer to a request: a response with an outcome for each topic, or one error for the request as a whole.
pub type Reply<Response> = OneshotSender<Result<Response, WireError>>;

/// What the controller is asked: changes for clients, and questions of the broker's own.
#[derive(Debug)]
pub enum ControllerRequest {
    /// Create topics.
    CreateTopics {
        /// What to create.
        request: CreateTopicsRequest,
        /// Takes the answer.
        reply: Reply<CreateTopicsResponse>,
    },
    /// Delete topics.
    DeleteTopics {
        /// What to delete.
        request: DeleteTopicsRequest,
        /// Takes the answer.
        reply: Reply<DeleteTopicsResponse>,
    },
    /// Alter topics.
    AlterTopics {
        /// What to alter.
        request: AlterTopicsRequest,
        /// Takes the answer.
        reply: Reply<AlterTopicsResponse>,
    },
    /// Give ids of idempotent producers to a shard, so many that it need not ask for each. They are never given again.
    AllocateProducerIds {
        /// Takes them.
        reply: Reply<Range<ProducerId>>,
    },
    /// Write to the log which tasks held the core of the controller's executor, in one line.
    LogStalls,
}

/// A new image for a shard.
///
/// A shard gets one after the other, each later than the last, but not every image that there was: while it applies one,
/// those that come meanwhile are skipped but for the latest. It compares the image with the one before to find what to
/// open, what to alter and what to delete.
#[derive(Debug)]
pub struct MetadataUpdate {
    /// What is true from now on.
    pub image: Arc<Image>,
    /// To be told when the shard serves new topics, goes by altered ones and has let go of deleted ones. Dropping it says that the shard ends.
    pub applied: OneshotSender<()>,
}
