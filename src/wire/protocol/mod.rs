//! The native protocol: preamble and hello, then frames that carry requests and responses.
//!
//! A connection starts with 8 bytes each way ([`preamble`]) and the broker's [`Hello`]. From then on each side sends
//! frames ([`frame`]); requests may be pipelined and may be answered out of order. Each type of request has a file of
//! its own with the request, the response and their layouts; a layout is the struct's fields in order (see
//! [`crate::codec`]). `docs/formats/native-protocol.md` shows every byte.
//!
//! Most messages are the whole body of their frame ([`Message`]). Produce requests, Fetch responses and the frames of a
//! subscription are a *head* followed by *sections* of record batches ([`SectionHead`]), so that records are received straight into the buffer
//! that is written, and sent from where they were read.

pub mod frame;
pub mod preamble;

mod alter_topics;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_topics;
mod discover_controller;
mod fetch;
mod hello;
mod init_producer_id;
mod list_offsets;
mod list_topics;
mod message;
mod metadata;
mod produce;
mod request_type;
mod stats;
mod subscribe;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use alter_topics::{AlterTopicsRequest, AlterTopicsResponse, AlteredTopic, TopicAlteration};
pub use create_topics::{CreateTopicsRequest, CreateTopicsResponse, CreatedTopic, NewTopic, Setting};
pub use delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic, DeletedRecords,
    DeletedRecordsTopic,
};
pub use delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse, DeletedTopic};
pub use describe_cluster::{DescribeClusterRequest, DescribeClusterResponse, DescribedBroker, DescribedShard};
pub use describe_topics::{
    DescribeTopicsRequest, DescribeTopicsResponse, DescribedPartition, DescribedSetting, DescribedTopic,
};
pub use discover_controller::{DiscoverControllerRequest, DiscoverControllerResponse};
pub use fetch::{FetchPartition, FetchRequest, FetchResponseHead, FetchTopic, FetchedPartition, FetchedTopic};
pub use hello::{HELLO_BYTES_MAX, Hello, TypeVersions};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic, ListedOffset, ListedOffsetTopic,
    OffsetSpec,
};
pub use list_topics::{ListTopicsRequest, ListTopicsResponse, ListedTopic};
pub use message::{Message, Request, SectionHead};
pub use metadata::{BrokerInfo, MetadataRequest, MetadataResponse, PartitionMetadata, TopicMetadata};
pub use produce::{
    Acks, ProduceHead, ProducePartition, ProduceResponse, ProduceTopic, ProducedPartition, ProducedTopic,
};
pub use request_type::RequestType;
pub use stats::{DeviceUse, NamedValue, ShardStats, StageLatency, StatsRequest, StatsResponse, TaskStall};
pub use subscribe::{
    GrantCreditRequest, GrantCreditResponse, SubscribeRequest, SubscribedHead, UnsubscribeRequest, UnsubscribeResponse,
};
