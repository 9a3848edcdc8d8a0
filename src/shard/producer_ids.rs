//! Ids for idempotent producers. The controller gives them to a shard many at a time, each once and for ever; the shard
//! hands them out one by one.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use ringmq_controller::ControllerRequest;
use ringmq_runtime::local::Semaphore;
use ringmq_runtime::time;
use ringmq_wire::{ErrorCode, ProducerId, WireError};

use crate::server::Shard;

/// The ids that a shard can hand out.
pub(crate) struct ProducerIds {
    left: RefCell<Range<i64>>,
    /// One unit: whoever asks the controller for more.
    asking: Semaphore,
}

impl ProducerIds {
    /// None, until the first producer asks for one.
    pub(crate) fn new() -> Self {
        Self { left: RefCell::new(0..0), asking: Semaphore::new(1) }
    }

    /// An id that no producer has or had.
    ///
    /// # Errors
    /// What the controller says, as [`Shard::ask_controller`]; `RequestTimedOut` also where others wait for it.
    pub(crate) async fn next(&self, shard: &Shard, timeout_ms: u32) -> Result<ProducerId, WireError> {
        if let Some(id) = self.take() {
            return Ok(id);
        }
        let asking = time::timeout(Duration::from_millis(timeout_ms.into()), self.asking.acquire(1)).await;
        let Ok(_asking) = asking else {
            let detail = "the controller gave the shard no producer ids in this time; try again";
            return Err(WireError::new(ErrorCode::RequestTimedOut, detail));
        };
        // Somebody else may have asked meanwhile.
        if let Some(id) = self.take() {
            return Ok(id);
        }
        let ask = |reply| ControllerRequest::AllocateProducerIds { reply };
        let Range { start, end } = shard.ask_controller(timeout_ms, ask).await?;
        *self.left.borrow_mut() = start.get()..end.get();
        let none = || WireError::new(ErrorCode::UnknownServerError, "the controller gave the shard no producer ids");
        self.take().ok_or_else(none)
    }

    fn take(&self) -> Option<ProducerId> {
        self.left.borrow_mut().next().map(ProducerId::new)
    }
}
