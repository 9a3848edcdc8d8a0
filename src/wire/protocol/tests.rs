//! What must hold for every message, whatever it carries and whatever arrives in its place.

use bytes::BytesMut;
use proptest::prelude::*;

use super::frame::*;
use super::*;
use crate::codec::sample::Sample;
use crate::codec::{Codec, DecodeProblem, Reader};
use crate::error::{Detail, ErrorCode, WireError};
use crate::numbers::{CorrelationId, PartitionIndex};
use crate::topic_name::TopicName;

/// What decoding may hold at its peak: an empty string takes 2 bytes on the wire and 24 in memory, a short topic name
/// 3 and about 60; the rest is for error texts.
const MEMORY_FACTOR_MAX: u64 = 32;
const MEMORY_BASE_BYTES: u64 = 4096;

fn encoded<T: Codec>(value: &T) -> BytesMut {
    let mut out = BytesMut::new();
    value.encode(&mut out);
    out
}

/// Decodes bytes that may hold anything; what comes out of them must go back in.
fn decode_anything<T: Codec + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let mut decoded = None;
    let memory = allocation_counter::measure(|| decoded = T::decode_whole(bytes).ok());
    let memory_max = MEMORY_FACTOR_MAX * bytes.len() as u64 + MEMORY_BASE_BYTES;
    assert!(memory.bytes_max <= memory_max, "{} bytes took {} of memory", bytes.len(), memory.bytes_max);
    if let Some(value) = decoded {
        assert_eq!(T::decode_whole(&encoded(&value)).as_ref(), Ok(&value));
    }
}

macro_rules! properties_of_every_message {
    ($($name:ident: $type:ty;)*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(128))]

                #[test]
                fn comes_back_from_its_bytes(value in <$type>::sample()) {
                    let bytes = encoded(&value);
                    prop_assert!(bytes.len() >= <$type>::BYTES_MIN);
                    prop_assert_eq!(<$type>::decode_whole(&bytes), Ok(value));
                }

                #[test]
                fn is_refused_when_bytes_are_missing_or_left_over(value in <$type>::sample()) {
                    let mut bytes = encoded(&value);
                    for end in 0..bytes.len() {
                        prop_assert!(<$type>::decode_whole(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
                    }
                    bytes.extend_from_slice(&[0]);
                    let refused = <$type>::decode_whole(&bytes).map_err(|error| error.problem);
                    prop_assert_eq!(refused, Err(DecodeProblem::LeftOver { bytes: 1 }));
                }

                #[test]
                fn is_decoded_from_damaged_bytes_without_harm(
                    value in <$type>::sample(),
                    damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
                ) {
                    let mut bytes = encoded(&value);
                    if !bytes.is_empty() {
                        for (index, byte) in damage {
                            let index = index.index(bytes.len());
                            bytes[index] = byte;
                        }
                    }
                    decode_anything::<$type>(&bytes);
                }

                #[test]
                fn is_decoded_from_any_bytes_without_harm(
                    bytes in proptest::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..200),
                ) {
                    decode_anything::<$type>(&bytes);
                }
            }
        }
    )*};
}

properties_of_every_message! {
    hello: Hello;
    produce_head: ProduceHead;
    produce_response: ProduceResponse;
    fetch_request: FetchRequest;
    fetch_response_head: FetchResponseHead;
    list_offsets_request: ListOffsetsRequest;
    list_offsets_response: ListOffsetsResponse;
    metadata_request: MetadataRequest;
    metadata_response: MetadataResponse;
    discover_controller_request: DiscoverControllerRequest;
    discover_controller_response: DiscoverControllerResponse;
    create_topics_request: CreateTopicsRequest;
    create_topics_response: CreateTopicsResponse;
    delete_topics_request: DeleteTopicsRequest;
    delete_topics_response: DeleteTopicsResponse;
    list_topics_request: ListTopicsRequest;
    list_topics_response: ListTopicsResponse;
    describe_topics_request: DescribeTopicsRequest;
    describe_topics_response: DescribeTopicsResponse;
    describe_cluster_request: DescribeClusterRequest;
    describe_cluster_response: DescribeClusterResponse;
    alter_topics_request: AlterTopicsRequest;
    alter_topics_response: AlterTopicsResponse;
    delete_records_request: DeleteRecordsRequest;
    delete_records_response: DeleteRecordsResponse;
    stats_request: StatsRequest;
    stats_response: StatsResponse;
    init_producer_id_request: InitProducerIdRequest;
    init_producer_id_response: InitProducerIdResponse;
    subscribe_request: SubscribeRequest;
    subscribed_head: SubscribedHead;
    grant_credit_request: GrantCreditRequest;
    grant_credit_response: GrantCreditResponse;
    unsubscribe_request: UnsubscribeRequest;
    unsubscribe_response: UnsubscribeResponse;
}

const ID: CorrelationId = CorrelationId::new(7);

fn produce_head(records_bytes: &[u32]) -> ProduceHead {
    let partitions = (0..).zip(records_bytes).map(|(partition, &records_bytes)| ProducePartition {
        partition: PartitionIndex::new(partition),
        records_bytes,
    });
    let topic = TopicName::parse("orders").expect("a valid name");
    let topics = vec![ProduceTopic { topic, partitions: partitions.collect() }];
    ProduceHead { acks: Acks::All, timeout_ms: 30_000, topics }
}

/// A Produce body up to its sections, and the length that its frame announces for all of it.
fn produce_body(head: &ProduceHead) -> (BytesMut, u32) {
    let mut out = BytesMut::new();
    encode_request_head(ID, head, &mut out).expect("a short head");
    let frame = decode_request_head(&out, u32::MAX).expect("a whole head").expect("a valid one");
    (out.split_off(REQUEST_HEAD_BYTES), frame.body_bytes)
}

proptest! {
    #[test]
    fn a_request_comes_back_from_its_frame(request in FetchRequest::sample(), id: u32) {
        let mut out = BytesMut::from(&b"what was there before"[..]);
        let frame_at = out.len();
        encode_request(CorrelationId::new(id), &request, &mut out).expect("a short frame");
        let frame = &out[frame_at..];
        for end in 0..REQUEST_HEAD_BYTES {
            prop_assert_eq!(decode_request_head(&frame[..end], u32::MAX), Ok(None));
        }
        let head = decode_request_head(frame, u32::MAX).expect("valid").expect("whole");
        prop_assert_eq!(head.known_type(), Ok(RequestType::Fetch));
        prop_assert_eq!(head.correlation_id.get(), id);
        prop_assert_eq!(head.body_bytes as usize, frame.len() - REQUEST_HEAD_BYTES);
        prop_assert_eq!(FetchRequest::decode_whole(&frame[REQUEST_HEAD_BYTES..]), Ok(request));
    }

    #[test]
    fn a_response_comes_back_from_its_frame(response in MetadataResponse::sample(), id: u32) {
        let mut frame = BytesMut::new();
        encode_response(CorrelationId::new(id), &response, &mut frame).expect("a short frame");
        for end in 0..RESPONSE_HEAD_BYTES {
            prop_assert_eq!(decode_response_head(&frame[..end], u32::MAX), Ok(None));
        }
        let head = decode_response_head(&frame, u32::MAX).expect("valid").expect("whole");
        prop_assert_eq!(head.error, ErrorCode::None);
        prop_assert_eq!(head.correlation_id.get(), id);
        prop_assert_eq!(head.body_bytes as usize, frame.len() - RESPONSE_HEAD_BYTES);
        prop_assert_eq!(MetadataResponse::decode_whole(&frame[RESPONSE_HEAD_BYTES..]), Ok(response));
    }

    #[test]
    fn a_head_arrives_in_pieces_and_says_where_its_sections_start(lengths in prop::collection::vec(0u32..1000, 0..5)) {
        let head = produce_head(&lengths);
        let (body, body_bytes) = produce_body(&head);
        prop_assert_eq!(u64::from(body_bytes), body.len() as u64 + head.section_bytes());
        for end in 0..body.len() {
            prop_assert_eq!(ProduceHead::decode_head(&body[..end], body_bytes), Ok(None));
        }
        prop_assert_eq!(ProduceHead::decode_head(&body, body_bytes), Ok(Some((head, body.len()))));
    }

    #[test]
    fn a_head_is_decoded_from_any_bytes_without_harm(body: Vec<u8>, body_bytes in prop_oneof![0u32..64, any::<u32>()]) {
        let _ = ProduceHead::decode_head(&body, body_bytes);
        let _ = FetchResponseHead::decode_head(&body, body_bytes);
        let _ = SubscribedHead::decode_head(&body, body_bytes);
    }

    #[test]
    fn a_frame_head_is_decoded_from_any_bytes_without_harm(bytes: Vec<u8>, length_max: u32) {
        if let Ok(Some(head)) = decode_request_head(&bytes, length_max) {
            prop_assert!(head.body_bytes <= length_max);
        }
        if let Ok(Some(head)) = decode_response_head(&bytes, length_max) {
            prop_assert!(head.body_bytes <= length_max);
        }
    }
}

#[test]
fn sections_of_another_length_than_announced_are_refused() {
    let (body, body_bytes) = produce_body(&produce_head(&[100, 200]));
    for wrong in [body_bytes - 1, body_bytes + 1] {
        let error = ProduceHead::decode_head(&body, wrong).expect_err("not 300 bytes");
        let present = u64::from(wrong) - body.len() as u64;
        assert_eq!(error.problem, DecodeProblem::Sections { announced: 300, present });
    }
}

#[test]
fn sections_that_add_up_beyond_a_frame_cannot_be_encoded() {
    let mut out = BytesMut::from(&b"kept"[..]);
    let error = encode_request_head(ID, &produce_head(&[u32::MAX, 1]), &mut out).expect_err("too long");
    assert!(matches!(error, FrameError::TooLong { .. }));
    assert_eq!(out, b"kept"[..]);
}

#[test]
fn a_head_beyond_its_limit_is_neither_sent_nor_awaited() {
    let mut out = BytesMut::from(&b"kept"[..]);
    let error = encode_request_head(ID, &produce_head(&[0; 140_000]), &mut out).expect_err("too long");
    assert!(matches!(error, FrameError::TooLong { length_max: ProduceHead::HEAD_BYTES_MAX, .. }));
    assert_eq!(out, b"kept"[..]);

    let claimed = (ProduceHead::HEAD_BYTES_MAX + 1).to_be_bytes();
    let error = ProduceHead::decode_head(&claimed, u32::MAX).expect_err("too long");
    assert!(matches!(error.problem, DecodeProblem::TooLong { .. }));
}

#[test]
fn a_head_longer_than_its_frame_is_refused() {
    assert!(matches!(
        ProduceHead::decode_head(&[0, 0, 0, 17], 20).expect_err("16 are left").problem,
        DecodeProblem::Truncated { needed: 17, remaining: 16 }
    ));
    for body_bytes in 0..4 {
        assert!(ProduceHead::decode_head(&[], body_bytes).is_err(), "no room for a length");
    }
}

#[test]
fn a_count_is_checked_against_the_bytes_before_memory_is_taken_for_it() {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    bytes.extend_from_slice(&[0; 64]);
    let memory = allocation_counter::measure(|| {
        let error = ListTopicsResponse::decode_whole(&bytes).expect_err("4 billion topics");
        assert_eq!(error.field, "ListTopicsResponse.topics");
        assert_eq!(error.problem, DecodeProblem::Count { count: u32::MAX, remaining: 64 });
        assert_eq!(error.code(), ErrorCode::MalformedRequest);
    });
    assert_eq!(memory.count_total, 0);
}

#[test]
fn a_frame_that_is_impossible_or_too_long_is_refused_as_soon_as_that_is_clear() {
    assert_eq!(
        decode_request_head(&7u32.to_be_bytes(), 1000),
        Err(FrameError::TooShort { length: 7, length_min: 8 }),
        "before the rest of a head that can never come"
    );
    assert_eq!(decode_response_head(&[0; 4], 1000), Err(FrameError::TooShort { length: 0, length_min: 6 }));

    let mut frame = BytesMut::new();
    encode_request_head(ID, &produce_head(&[5000]), &mut frame).expect("a short head");
    let error = decode_request_head(&frame, 1000).expect_err("over the limit");
    assert_eq!(error.code(), ErrorCode::RequestTooLarge);
    assert!(matches!(error, FrameError::TooLong { correlation_id: ID, length_max: 1000, .. }), "{error}");
}

#[test]
fn only_a_request_with_records_may_be_larger_than_the_control_limit() {
    let frame = |request_type: RequestType| {
        let mut frame = (CONTROL_REQUEST_BYTES_MAX + 1).to_be_bytes().to_vec();
        frame.extend_from_slice(&request_type.to_u16().to_be_bytes());
        frame.extend_from_slice(&[0, 1, 0, 0, 0, 7]);
        frame
    };
    for request_type in RequestType::ALL {
        let decoded = decode_request_head(&frame(request_type), u32::MAX);
        if request_type == RequestType::Produce {
            assert!(matches!(decoded, Ok(Some(_))));
        } else {
            assert!(matches!(decoded, Err(FrameError::TooLong { length_max: CONTROL_REQUEST_BYTES_MAX, .. })));
        }
    }
}

#[test]
fn an_unknown_type_or_version_is_told_by_its_numbers() {
    let head = RequestHead { body_bytes: 0, request_type: 99, type_version: 1, correlation_id: ID };
    let error = head.known_type().expect_err("no such type");
    assert_eq!(error.to_string(), "UNSUPPORTED_REQUEST_TYPE: the broker does not know requests of type 99");
    for type_version in [0, 2] {
        let head = RequestHead { request_type: RequestType::Fetch.to_u16(), type_version, ..head };
        let error = head.known_type().expect_err("no such version");
        assert_eq!(error.code, ErrorCode::UnsupportedVersion);
        assert_eq!(
            error.detail.as_str(),
            format!("the broker speaks versions 1 to 1 of Fetch, not version {type_version}")
        );
    }
}

#[test]
fn a_request_that_failed_as_a_whole_is_answered_with_a_detail() {
    let error = WireError::new(ErrorCode::Overloaded, "x".repeat(5000));
    let mut frame = BytesMut::new();
    encode_error_response(ID, &error, &mut frame);
    let head = decode_response_head(&frame, u32::MAX).expect("valid").expect("whole");
    assert_eq!((head.correlation_id, head.error), (ID, ErrorCode::Overloaded));
    assert_eq!(head.body_bytes, 2 + 1024, "the detail was cut when it was made");
    assert_eq!(decode_error_body(head.error, &frame[RESPONSE_HEAD_BYTES..]), Ok(error));
}

#[test]
fn a_bad_topic_name_has_a_code_of_its_own() {
    let head = produce_head(&[]);
    let mut bytes = encoded(&head);
    let at = bytes.windows(6).position(|window| window == b"orders").expect("the name");
    bytes[at] = b'/';
    let error = ProduceHead::decode_whole(&bytes).expect_err("a bad name");
    assert_eq!(error.code(), ErrorCode::InvalidTopicName);
    assert_eq!(
        error.to_string(),
        "cannot decode ProduceTopic.topic at byte 9: the topic name holds '/' at byte 0; \
         use only a-z, A-Z, 0-9, '.', '_', '-'"
    );
}

#[test]
fn a_text_beyond_its_limit_never_arrives_shortened() {
    for length in [32_768, 65_535, 65_536, 100_000] {
        let request = DescribeTopicsRequest { topics: vec!["n".repeat(length)] };
        let error = DescribeTopicsRequest::decode_whole(&encoded(&request)).expect_err("too long");
        assert!(matches!(error.problem, DecodeProblem::TooLong { .. }), "{length} bytes: {error}");
    }
    let request = DescribeTopicsRequest { topics: vec!["n".repeat(32_767)] };
    assert_eq!(DescribeTopicsRequest::decode_whole(&encoded(&request)), Ok(request));
}

#[test]
fn values_that_no_encoder_writes_are_refused() {
    let problem = |error: crate::codec::DecodeError| error.problem;
    assert_eq!(bool::decode_whole(&[2]).map_err(problem), Err(DecodeProblem::Value { value: 2 }));
    assert_eq!(Acks::decode_whole(&[3]).map_err(problem), Err(DecodeProblem::Value { value: 3 }));
    assert_eq!(OffsetSpec::decode_whole(&[3]).map_err(problem), Err(DecodeProblem::Value { value: 3 }));
    let negative = crate::Offset::decode_whole(&[0xff; 8]).map_err(problem);
    assert_eq!(negative, Err(DecodeProblem::Value { value: -1 }));
    assert_eq!(String::decode_whole(&[0, 1, 0xff]).map_err(problem), Err(DecodeProblem::Utf8));
    let too_long = Detail::decode_whole(&[0x04, 0x01]).map_err(problem);
    assert_eq!(too_long, Err(DecodeProblem::TooLong { bytes: 1025, bytes_max: 1024 }));
}

#[test]
fn a_failed_read_leaves_the_reader_where_it_was() {
    let mut reader = Reader::new(&[1, 2, 3]);
    assert!(reader.take(4, "more").is_err());
    assert!(reader.take_array::<4>("more").is_err());
    assert_eq!((reader.position(), reader.remaining()), (0, 3));
}

#[test]
fn every_type_comes_back_from_its_number_and_has_a_range_of_versions() {
    for request_type in RequestType::ALL {
        assert_eq!(RequestType::from_u16(request_type.to_u16()), Some(request_type));
        assert!(!request_type.versions().is_empty());
    }
    assert_eq!(RequestType::from_u16(0), None);
    assert_eq!(RequestType::from_u16(18), None);
}
