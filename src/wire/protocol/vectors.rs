//! The test vectors of the protocol, both ways, and the document that describes it.

use bytes::BytesMut;
use serde_json::Value;

use super::frame::*;
use super::preamble::{BrokerPreamble, ClientPreamble};
use super::*;
use crate::codec::Codec;
use crate::codec::described::{Described, bytes_from_hex};
use crate::error::{Detail, ErrorCode, WireError};
use crate::numbers::CorrelationId;

const DOCUMENT: &str = include_str!("../../../docs/formats/native-protocol.md");

fn vectors(kind: &str) -> Vec<Value> {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/protocol.json")).expect("protocol.json is JSON");
    let vectors = file[kind].as_array().expect("an array of vectors").clone();
    assert!(!vectors.is_empty());
    vectors
}

/// Gives every struct of the protocol to another macro, behind what else that takes.
macro_rules! every_struct {
    ($then:ident $($arguments:tt)*) => {
        $then! { $($arguments)*:
            ProduceHead ProduceTopic ProducePartition ProduceResponse ProducedTopic ProducedPartition
            FetchRequest FetchTopic FetchPartition FetchResponseHead FetchedTopic FetchedPartition
            ListOffsetsRequest ListOffsetsTopic ListOffsetsPartition ListOffsetsResponse ListedOffsetTopic ListedOffset
            MetadataRequest MetadataResponse BrokerInfo TopicMetadata PartitionMetadata
            DiscoverControllerRequest DiscoverControllerResponse
            CreateTopicsRequest NewTopic Setting CreateTopicsResponse CreatedTopic
            DeleteTopicsRequest DeleteTopicsResponse DeletedTopic
            ListTopicsRequest ListTopicsResponse ListedTopic
            DescribeTopicsRequest DescribeTopicsResponse DescribedTopic DescribedSetting DescribedPartition
            DescribeClusterRequest DescribeClusterResponse DescribedBroker DescribedShard
            AlterTopicsRequest TopicAlteration AlterTopicsResponse AlteredTopic
            DeleteRecordsRequest DeleteRecordsTopic DeleteRecordsPartition DeleteRecordsResponse DeletedRecordsTopic
            DeletedRecords
            StatsRequest StatsResponse ShardStats NamedValue StageLatency DeviceUse TaskStall
            InitProducerIdRequest InitProducerIdResponse
            SubscribeRequest SubscribedHead
            GrantCreditRequest GrantCreditResponse UnsubscribeRequest UnsubscribeResponse
        }
    };
}

/// Calls a generic function with the struct that a vector names.
macro_rules! with_struct {
    ($name:expr, $function:ident $arguments:tt: $($type:ident)*) => {
        match $name {
            $(stringify!($type) => $function::<$type> $arguments,)*
            name => panic!("no message is called {name}"),
        }
    };
}

/// Calls a generic function with each struct.
macro_rules! with_each {
    ($function:ident: $($type:ident)*) => {
        $($function::<$type>();)*
    };
}

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap_or_else(|| panic!("{field} of {vector} is a text"))
}

#[test]
fn every_message_vector_holds_both_ways() {
    fn check<T: Codec + Described + PartialEq + std::fmt::Debug>(vector: &Value) {
        let (value, bytes) = (T::from_json(&vector["fields"]), bytes_from_hex(&vector["hex"]));
        let mut encoded = BytesMut::new();
        value.encode(&mut encoded);
        assert_eq!(encoded, bytes, "{}", vector["name"]);
        assert_eq!(T::decode_whole(&bytes), Ok(value), "{}", vector["name"]);
    }
    for vector in vectors("messages") {
        every_struct!(with_struct text(&vector, "struct"), check(&vector));
    }
}

#[test]
fn every_rejected_vector_is_refused() {
    fn check<T: Codec + std::fmt::Debug>(vector: &Value) {
        assert!(T::decode_whole(&bytes_from_hex(&vector["hex"])).is_err(), "{}", vector["why"]);
    }
    for vector in vectors("rejected") {
        every_struct!(with_struct text(&vector, "struct"), check(&vector));
    }
}

#[test]
fn every_frame_vector_holds_both_ways() {
    for vector in vectors("frames") {
        let bytes = bytes_from_hex(&vector["hex"]);
        let fields = &vector["fields"];
        match text(&vector, "kind") {
            "client preamble" => {
                let preamble = ClientPreamble {
                    version_min: u8::from_json(&fields["version_min"]),
                    version_max: u8::from_json(&fields["version_max"]),
                    flags: u16::from_json(&fields["flags"]),
                };
                assert_eq!(preamble.encode(), *bytes);
                assert_eq!(ClientPreamble::decode(preamble.encode()), Ok(preamble));
            }
            "broker preamble" => {
                let preamble = BrokerPreamble {
                    version: Described::from_json(&fields["version"]),
                    version_max: u8::from_json(&fields["version_max"]),
                    flags: u16::from_json(&fields["flags"]),
                };
                assert_eq!(preamble.encode(), *bytes);
                assert_eq!(BrokerPreamble::decode(preamble.encode()), Ok(preamble));
            }
            "hello" => {
                let hello = Hello::from_json(fields);
                let mut encoded = BytesMut::new();
                hello.encode_with_length(&mut encoded);
                assert_eq!(encoded, bytes);
                assert_eq!(Hello::decode_with_length(&bytes), Ok(Some((hello, bytes.len()))));
            }
            "request" => check_request(&vector, &bytes),
            "response" => check_response(&vector, &bytes),
            "error response" => check_error_response(&vector, &bytes),
            kind => panic!("no frame is a {kind}"),
        }
    }
}

fn check_request(vector: &Value, bytes: &[u8]) {
    let id = CorrelationId::new(u32::from_json(&vector["correlation_id"]));
    let head = decode_request_head(bytes, u32::MAX).expect("valid").expect("whole");
    assert_eq!(head.correlation_id, id);
    assert_eq!(head.known_type().map(RequestType::name), Ok(text(vector, "type")));
    let (body, fields) = (&bytes[REQUEST_HEAD_BYTES..], &vector["fields"]);
    assert_eq!(head.body_bytes as usize, body.len());

    let mut encoded = BytesMut::new();
    match text(vector, "struct") {
        "ProduceHead" => {
            let value = ProduceHead::from_json(fields);
            encode_request_head(id, &value, &mut encoded).expect("short");
            check_sections(value, vector, body, head.body_bytes, &mut encoded);
        }
        "MetadataRequest" => {
            let value = MetadataRequest::from_json(fields);
            encode_request(id, &value, &mut encoded).expect("short");
            assert_eq!(MetadataRequest::decode_whole(body), Ok(value));
        }
        "DiscoverControllerRequest" => {
            encode_request(id, &DiscoverControllerRequest {}, &mut encoded).expect("short");
            assert!(body.is_empty());
        }
        name => panic!("no request vector is expected for {name}"),
    }
    assert_eq!(encoded, bytes);
}

fn check_response(vector: &Value, bytes: &[u8]) {
    let id = CorrelationId::new(u32::from_json(&vector["correlation_id"]));
    let head = decode_response_head(bytes, u32::MAX).expect("valid").expect("whole");
    assert_eq!((head.correlation_id, head.error), (id, ErrorCode::None));
    let (body, fields) = (&bytes[RESPONSE_HEAD_BYTES..], &vector["fields"]);
    assert_eq!(head.body_bytes as usize, body.len());

    let mut encoded = BytesMut::new();
    match text(vector, "struct") {
        "FetchResponseHead" => {
            let value = FetchResponseHead::from_json(fields);
            encode_response_head(id, &value, &mut encoded).expect("short");
            check_sections(value, vector, body, head.body_bytes, &mut encoded);
        }
        "SubscribedHead" => {
            let value = SubscribedHead::from_json(fields);
            encode_response_head(id, &value, &mut encoded).expect("short");
            check_sections(value, vector, body, head.body_bytes, &mut encoded);
        }
        "ListTopicsResponse" => {
            let value = ListTopicsResponse::from_json(fields);
            encode_response(id, &value, &mut encoded).expect("short");
            assert_eq!(ListTopicsResponse::decode_whole(body), Ok(value));
        }
        name => panic!("no response vector is expected for {name}"),
    }
    assert_eq!(encoded, bytes);
}

fn check_sections<H: SectionHead + PartialEq + std::fmt::Debug>(
    value: H,
    vector: &Value,
    body: &[u8],
    body_bytes: u32,
    encoded: &mut BytesMut,
) {
    let sections: Vec<Vec<u8>> = vector["sections"].as_array().expect("sections").iter().map(bytes_from_hex).collect();
    let sections = sections.concat();
    encoded.extend_from_slice(&sections);
    assert_eq!(H::decode_head(body, body_bytes), Ok(Some((value, body.len() - sections.len()))));
}

fn check_error_response(vector: &Value, bytes: &[u8]) {
    let id = CorrelationId::new(u32::from_json(&vector["correlation_id"]));
    let error =
        WireError { code: Described::from_json(&vector["error"]), detail: Detail::from_json(&vector["detail"]) };
    let mut encoded = BytesMut::new();
    encode_error_response(id, &error, &mut encoded);
    assert_eq!(encoded, bytes);
    let head = decode_response_head(bytes, u32::MAX).expect("valid").expect("whole");
    assert_eq!(head.correlation_id, id);
    assert_eq!(decode_error_body(head.error, &bytes[RESPONSE_HEAD_BYTES..]), Ok(error));
}

/// The names and types in the table behind a struct's heading.
fn documented_fields(heading: &str) -> Vec<(&'static str, String)> {
    let (_, section) =
        DOCUMENT.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("{heading} has no heading"));
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` | ").expect("a name, then a type");
        let (field_type, _) = rest.split_once(" | ").expect("a type, then a meaning");
        (name, field_type.to_owned())
    })
    .collect()
}

#[test]
fn the_document_gives_every_struct_as_it_is_declared() {
    fn check<T: Described>() {
        assert_eq!(documented_fields(&T::type_name()), T::fields(), "{}", T::type_name());
    }
    every_struct!(with_each check);
}

#[test]
fn the_document_numbers_the_types_as_they_are() {
    for request_type in RequestType::ALL {
        let (min, max) = request_type.versions().into_inner();
        assert_eq!((min, max), (1, 1), "give the document a range");
        let row = format!("| {} | {request_type} | {min} |", request_type.to_u16());
        assert!(DOCUMENT.contains(&row), "{row}");
        let heading = format!("\n## {request_type} ({})\n", request_type.to_u16());
        assert!(DOCUMENT.contains(&heading), "{heading}");
    }
}
