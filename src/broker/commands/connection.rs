//! From the flags of a command to a connected client.

use ringmq_client::{Client, Error};

use crate::cli::ConnectionArgs;

/// Connects to the first broker that answers.
///
/// # Errors
/// When none of them does.
pub(crate) async fn connect(args: &ConnectionArgs) -> Result<Client, Error> {
    let timeout = args.timeout;
    let brokers = args.brokers.clone();
    Client::builder().brokers(brokers).timeout(timeout).connect().await
}
