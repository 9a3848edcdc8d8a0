//! AlterTopics: forwarded to the controller, which answers when every shard goes by the topics as altered.

use std::rc::Rc;

use ringmq_controller::ControllerRequest;
use ringmq_wire::WireError;
use ringmq_wire::protocol::{AlterTopicsRequest, AlterTopicsResponse};

use crate::session::Session;

/// Forwards the request and waits as long as it allows.
///
/// # Errors
/// What the controller says of the whole request; `RequestTimedOut`, after which the topics may be altered all the same.
pub(crate) async fn handle(
    session: Rc<Session>,
    request: AlterTopicsRequest,
) -> Result<AlterTopicsResponse, WireError> {
    let timeout_ms = request.timeout_ms;
    let ask = |reply| ControllerRequest::AlterTopics { request, reply };
    session.shard.ask_controller(timeout_ms, ask).await
}
