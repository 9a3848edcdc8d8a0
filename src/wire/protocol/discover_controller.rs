//! DiscoverController: which broker is the controller.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::numbers::BrokerId;

layout! {
    /// Asks for the controller; any broker answers. Its body is empty.
    pub struct DiscoverControllerRequest {}

    /// How to reach the controller.
    pub struct DiscoverControllerResponse {
        /// The broker that is the controller.
        pub controller: BrokerId,
        /// Its host name or address, as clients reach it.
        pub host: String,
        /// Its public port.
        pub port: u16,
        /// How often the cluster has had a new controller.
        pub controller_epoch: u64,
    }
}

impl Message for DiscoverControllerRequest {}
impl Message for DiscoverControllerResponse {}
request!(DiscoverControllerRequest is DiscoverController, answered by DiscoverControllerResponse);
