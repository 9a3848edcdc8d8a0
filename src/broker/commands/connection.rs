//! From the flags of a command to a connected client.

use ringmq_client::{Client, ClientBuilder, Error};

use crate::cli::ConnectionArgs;

/// Connects to the first broker that answers.
///
/// # Errors
/// When none of them does.
pub(crate) async fn connect(args: &ConnectionArgs) -> Result<Client, Error> {
    builder(args).connect().await
}

/// A client as the flags describe it, still to be connected.
pub(crate) fn builder(args: &ConnectionArgs) -> ClientBuilder {
    Client::builder().brokers(args.brokers.clone()).timeout(args.timeout)
}
