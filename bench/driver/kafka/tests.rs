use ringmq_client::TopicName;
use ringmq_wire::Offset;

use super::*;

fn topic() -> TopicName {
    TopicName::parse("tp").unwrap()
}

fn head(body: &[u8]) -> ResponseHead {
    let body_bytes = u32::try_from(body.len()).unwrap();
    ResponseHead { body_bytes, correlation_id: CorrelationId::new(0), error: ErrorCode::None }
}

/// The bytes of fields, written as hexadecimal digits with spaces.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

const CLIENT: &str = "000c 72696e676d712d62656e6368";

#[test]
fn a_produce_request_is_as_the_protocol_says() {
    let to = Destination { topic: &topic(), partition: PartitionIndex::new(5), acks: Acks::All };
    let found = Kafka.produce_head(&to, 0x100).unwrap();
    // Behind the length: key, version, correlation id, client id; no transaction, acks, time-out; one topic, its name; one
    // partition, its number; the batch's length.
    let expected = format!(
        "00000132 0000 0003 00000000 {CLIENT} ffff ffff 00007530 00000001 0002 7470 00000001 00000005 00000100"
    );
    assert_eq!(found, bytes(&expected));
    assert_eq!(u32::from_be_bytes(*found.first_chunk().unwrap()) as usize, found.len() - 4 + 0x100);
    let acks = |acks| Kafka.produce_head(&Destination { acks, ..to }, 1).unwrap()[28..30].to_vec();
    assert_eq!((acks(Acks::None), acks(Acks::Leader)), (bytes("0000"), bytes("0001")));
    // What is written there is the correlation id.
    assert_eq!(found[Kafka.correlation_id_at()..][..4], [0; 4]);
}

#[test]
fn a_fetch_request_is_as_the_protocol_says() {
    let (topic, partition, offset) = (topic(), PartitionIndex::new(5), Offset::new(77));
    let fetch = Fetch { topic: &topic, partition, offset, bytes: 0x1000, max_wait_ms: 500 };
    let mut found = BytesMut::from(&b"before"[..]);
    Kafka.encode_fetch(CorrelationId::new(9), &fetch, &mut found).unwrap();
    let expected = format!(
        "00000043 0001 0004 00000009 {CLIENT} ffffffff 000001f4 00000001 00001000 00 00000001 0002 7470 00000001 00000005 \
         000000000000004d 00001000"
    );
    let expected = bytes(&expected);
    assert_eq!(found[6..], expected);
    assert_eq!(expected.len() - 4, 0x43);
}

#[test]
fn an_acknowledgement_stands_for_all_that_was_sent() {
    let good = bytes("00000001 0002 7470 00000001 00000005 0000 000000000000004d ffffffffffffffff 00000000");
    assert_eq!(Kafka.acknowledged(&head(&good), &good, 12).unwrap(), 12);
    let bad = bytes("00000001 0002 7470 00000001 00000005 0006 ffffffffffffffff ffffffffffffffff 00000000");
    let refused = Kafka.acknowledged(&head(&bad), &bad, 12).unwrap_err();
    assert!(matches!(&refused, WorkerError::Partition { partition, .. } if partition.get() == 5), "{refused}");
    assert!(refused.to_string().contains("NOT_LEADER_OR_FOLLOWER"), "{refused}");
    assert!(matches!(Kafka.acknowledged(&head(&good), &good[..10], 12), Err(WorkerError::Connection(_))));
}

#[test]
fn what_a_fetch_brought_is_found_as_soon_as_its_head_is_there() {
    // No throttling; one topic, one partition; no error, offsets; one aborted transaction; 16 bytes of batches.
    let start = bytes(
        "00000000 00000001 0002 7470 00000001 00000005 0000 0000000000000100 0000000000000100 00000001 0000000000000001 \
         0000000000000002 00000010",
    );
    let whole = [start.clone(), vec![0; 16]].concat();
    let head = head(&whole);
    for arrived in 0..=whole.len() {
        match Kafka.fetched(&head, &whole[..arrived]).unwrap() {
            None => assert!(arrived < start.len(), "{arrived}"),
            Some((fetched, taken)) => {
                assert!(arrived >= start.len() && taken == start.len(), "{arrived}");
                assert_eq!((fetched.partition.get(), fetched.records_bytes), (5, 16));
                assert!(fetched.error.is_none());
            }
        }
    }
    let refused =
        bytes("00000000 00000001 0002 7470 00000001 00000005 0001 ffffffffffffffff ffffffffffffffff ffffffff ffffffff");
    let (fetched, _) = Kafka.fetched(&super::tests::head(&refused), &refused).unwrap().unwrap();
    assert!(fetched.error.unwrap().to_string().contains("OFFSET_OUT_OF_RANGE"));
    // A response that ends, or whose batches end, before it says so.
    assert!(Kafka.fetched(&super::tests::head(&start[..20]), &start[..20]).is_err());
    assert!(Kafka.fetched(&super::tests::head(&start), &start).is_err());
}

#[test]
fn a_producer_gets_its_identity() {
    let mut out = BytesMut::new();
    Kafka.encode_init_producer_id(&mut out).unwrap();
    assert_eq!(out, bytes(&format!("0000001c 0016 0000 00000000 {CLIENT} ffff 00007530")));
    let body = bytes("00000000 0000 00000000000003e8 0002");
    let found = Kafka.decode_init_producer_id(&head(&body), &body).unwrap();
    assert_eq!((found.producer_id.get(), found.producer_epoch.get()), (1000, 2));
    for bad in ["00000000 000f 00000000000003e8 0002", "00000000 0000 ffffffffffffffff 0002", "00000000 0000"] {
        assert!(Kafka.decode_init_producer_id(&head(&bytes(bad)), &bytes(bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_head_of_a_response_needs_all_its_bytes_and_a_length() {
    let whole = bytes("00000006 00000009 0102");
    for length in 0..8 {
        assert_eq!(Kafka.decode_response_head(&whole[..length]).unwrap(), None);
    }
    let (found, taken) = Kafka.decode_response_head(&whole).unwrap().unwrap();
    assert_eq!((found.body_bytes, found.correlation_id.get(), taken), (2, 9, 8));
    assert!(Kafka.decode_response_head(&bytes("00000003 00000009")).is_err());
}
