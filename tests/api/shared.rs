//! Programs share what the client gives them between threads, and move it into tasks: each public type is `Send` and `Sync`.
//! The compiler proves it here, because no signature says so.

use ringmq_client::*;

use crate::sources::Sources;

/// Proves it of these types, and lists their names.
macro_rules! shared {
    ($($name:ty,)*) => {{
        fn is_shared<T: Send + Sync>() {}
        $(is_shared::<$name>();)*
        [$(stringify!($name)),*]
    }};
}

/// Fails to compile when one of the client's types is not.
pub(crate) fn names() -> impl IntoIterator<Item = &'static str> {
    shared! {
        AckedBy,
        AddressError,
        Admin,
        Attempt,
        BrokerAddress,
        BrokerStats,
        Client,
        ClientBuilder,
        ClientOptions,
        Connection,
        ConnectionError,
        ConsumedRecord,
        Consumer,
        ControllerInfo,
        DeleteBefore,
        DeleteRecords,
        Deliveries,
        Delivery,
        Error,
        FetchFrom,
        FetchOptions,
        FetchResponse,
        Fetched,
        Header,
        HostPort,
        ListOffset,
        NewTopic,
        PartitionAddresses,
        PartitionOffset,
        PartitionStart,
        Partitioner,
        PendingDelivery,
        Producer,
        RawFetched,
        Record,
        RecordStream,
        RequestError,
        Start,
        SubscribeOptions,
        TopicAlteration,
        TopicDescription,
        Until,
        blocking::Admin,
        blocking::Client,
        blocking::ClientBuilder,
        blocking::Consumer,
        blocking::PendingDelivery,
        blocking::Producer,
        blocking::RecordStream,
        testing::Broker,
        testing::BrokerError,
    }
}

/// The public types of these sources that nothing is proved of.
pub(crate) fn unproved(sources: &Sources) -> Vec<String> {
    let proved: Vec<&str> = names().into_iter().collect();
    let types = sources.public().into_values().flat_map(|module| module.items).filter(|item| item.is_type());
    types.map(|item| item.path).filter(|path| !proved.contains(&path.as_str())).collect()
}
