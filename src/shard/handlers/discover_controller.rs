//! DiscoverController: which broker is the controller.

use std::rc::Rc;

use ringmq_wire::WireError;
use ringmq_wire::protocol::{DiscoverControllerRequest, DiscoverControllerResponse};

use crate::session::Session;

/// Answers from this shard's copy of the metadata: the one broker that there is.
///
/// # Errors
/// While the broker starts.
pub(crate) async fn handle(
    session: Rc<Session>,
    _: DiscoverControllerRequest,
) -> Result<DiscoverControllerResponse, WireError> {
    let image = session.shard.directory.borrow().image()?;
    let address = session.advertised();
    Ok(DiscoverControllerResponse {
        controller: image.controller(),
        host: address.host,
        port: address.port,
        controller_epoch: u64::from(image.controller_epoch().get().unsigned_abs()),
    })
}
