//! What a client does with the bytes of a connection: preamble, hello, frames, and the body of every type of response.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::{decode_alike, decode_exact, decode_sections, within_memory};
use ringmq_wire::protocol::frame::{RESPONSE_HEAD_BYTES, ResponseHead, decode_error_body, decode_response_head};
use ringmq_wire::protocol::preamble::{BrokerPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::*;

const RESPONSE_BYTES_MAX: u32 = 1024 * 1024;

fuzz_target!(|bytes: &[u8]| {
    every_response(bytes);
    match bytes.split_first_chunk::<PREAMBLE_BYTES>() {
        Some((preamble, behind)) => match BrokerPreamble::decode(*preamble) {
            Ok(preamble) => {
                assert_eq!(BrokerPreamble::decode(preamble.encode()), Ok(preamble));
                read_hello(behind);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                read_frames(bytes);
            }
        },
        None => read_frames(bytes),
    }
});

fn read_hello(bytes: &[u8]) {
    if let Ok(Some((hello, hello_bytes))) = within_memory(bytes, Hello::decode_with_length) {
        for request_type in RequestType::ALL {
            if let Some(versions) = hello.versions(request_type) {
                assert!(hello.request_types.iter().any(|known| known.version_min == *versions.start()));
            }
        }
        read_frames(&bytes[hello_bytes..]);
    }
}

fn read_frames(mut bytes: &[u8]) {
    loop {
        let head = match decode_response_head(bytes, RESPONSE_BYTES_MAX) {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        let behind = &bytes[RESPONSE_HEAD_BYTES..];
        let Some((body, rest)) = behind.split_at_checked(head.body_bytes as usize) else { return };
        read_body(head, body);
        bytes = rest;
    }
}

/// A client knows from its own request what a response is; here the correlation id says it.
fn read_body(head: ResponseHead, body: &[u8]) {
    if !head.error.is_none() {
        if let Ok(error) = decode_error_body(head.error, body) {
            assert!(!error.to_string().is_empty());
        }
        return;
    }
    let types = RequestType::ALL;
    read_response(types[head.correlation_id.get() as usize % types.len()], body);
}

fn read_response(request_type: RequestType, body: &[u8]) {
    match request_type {
        RequestType::Produce => decode_alike::<ProduceResponse>(body),
        RequestType::Fetch => decode_sections::<FetchResponseHead>(body),
        RequestType::ListOffsets => decode_alike::<ListOffsetsResponse>(body),
        RequestType::Metadata => decode_alike::<MetadataResponse>(body),
        RequestType::DiscoverController => decode_exact::<DiscoverControllerResponse>(body),
        RequestType::CreateTopics => decode_alike::<CreateTopicsResponse>(body),
        RequestType::DeleteTopics => decode_alike::<DeleteTopicsResponse>(body),
        RequestType::ListTopics => decode_exact::<ListTopicsResponse>(body),
        RequestType::DescribeTopics => decode_alike::<DescribeTopicsResponse>(body),
        RequestType::DescribeCluster => decode_exact::<DescribeClusterResponse>(body),
        RequestType::Stats => decode_exact::<StatsResponse>(body),
        RequestType::AlterTopics => decode_alike::<AlterTopicsResponse>(body),
        RequestType::DeleteRecords => decode_alike::<DeleteRecordsResponse>(body),
        RequestType::InitProducerId => decode_alike::<InitProducerIdResponse>(body),
        RequestType::Subscribe => decode_sections::<SubscribedHead>(body),
        RequestType::GrantCredit => decode_exact::<GrantCreditResponse>(body),
        RequestType::Unsubscribe => decode_exact::<UnsubscribeResponse>(body),
    }
}

fn every_response(bytes: &[u8]) {
    decode_alike::<FetchResponseHead>(bytes);
    decode_alike::<SubscribedHead>(bytes);
    for request_type in RequestType::ALL {
        read_response(request_type, bytes);
    }
}
