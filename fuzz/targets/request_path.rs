//! What a broker does with the bytes of a connection: preamble, frames, and the body of every type of request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::{decode_exact, decode_sections};
use ringmq_wire::protocol::frame::{REQUEST_HEAD_BYTES, decode_request_head};
use ringmq_wire::protocol::preamble::{ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::*;

const REQUEST_BYTES_MAX: u32 = 1024 * 1024;

fuzz_target!(|bytes: &[u8]| {
    every_request(bytes);
    match bytes.split_first_chunk::<PREAMBLE_BYTES>() {
        Some((preamble, frames)) => match ClientPreamble::decode(*preamble) {
            Ok(preamble) => {
                assert_eq!(ClientPreamble::decode(preamble.encode()), Ok(preamble));
                if preamble.answer().version.is_some() {
                    read_frames(frames);
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                read_frames(bytes);
            }
        },
        None => read_frames(bytes),
    }
});

fn read_frames(mut bytes: &[u8]) {
    loop {
        let head = match decode_request_head(bytes, REQUEST_BYTES_MAX) {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                assert!(!error.to_string().is_empty() && !error.code().is_none());
                return;
            }
        };
        assert!(head.body_bytes < REQUEST_BYTES_MAX);
        let behind = &bytes[REQUEST_HEAD_BYTES..];
        let Some((body, rest)) = behind.split_at_checked(head.body_bytes as usize) else {
            // The rest of the body has not arrived; the head of a produce request may be there already.
            if let Ok(Some((produce, _))) = ProduceHead::decode_head(behind, head.body_bytes) {
                assert!(produce.section_bytes() <= u64::from(head.body_bytes));
            }
            return;
        };
        match head.known_type() {
            Ok(request_type) => read_body(request_type, body),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        bytes = rest;
    }
}

fn read_body(request_type: RequestType, body: &[u8]) {
    match request_type {
        RequestType::Produce => decode_sections::<ProduceHead>(body),
        RequestType::Fetch => decode_exact::<FetchRequest>(body),
        RequestType::ListOffsets => decode_exact::<ListOffsetsRequest>(body),
        RequestType::Metadata => decode_exact::<MetadataRequest>(body),
        RequestType::DiscoverController => decode_exact::<DiscoverControllerRequest>(body),
        RequestType::CreateTopics => decode_exact::<CreateTopicsRequest>(body),
        RequestType::DeleteTopics => decode_exact::<DeleteTopicsRequest>(body),
        RequestType::ListTopics => decode_exact::<ListTopicsRequest>(body),
        RequestType::DescribeTopics => decode_exact::<DescribeTopicsRequest>(body),
        RequestType::DescribeCluster => decode_exact::<DescribeClusterRequest>(body),
        RequestType::Stats => decode_exact::<StatsRequest>(body),
        RequestType::AlterTopics => decode_exact::<AlterTopicsRequest>(body),
        RequestType::DeleteRecords => decode_exact::<DeleteRecordsRequest>(body),
        RequestType::InitProducerId => decode_exact::<InitProducerIdRequest>(body),
        RequestType::Subscribe => decode_exact::<SubscribeRequest>(body),
        RequestType::GrantCredit => decode_exact::<GrantCreditRequest>(body),
        RequestType::Unsubscribe => decode_exact::<UnsubscribeRequest>(body),
    }
}

fn every_request(bytes: &[u8]) {
    decode_exact::<ProduceHead>(bytes);
    for request_type in RequestType::ALL {
        read_body(request_type, bytes);
    }
}
