//! Idempotent producers: ids, and what is sent again.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;
use ringmq_wire::batch::{BatchProducer, set_producer};
use ringmq_wire::protocol::{Acks, InitProducerIdRequest, ProduceResponse};
use ringmq_wire::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence};

use crate::broker::{Broker, Options, data_dir};
use crate::data::{batch, create, tagged, values};
use crate::peer::{Peer, fetch_request};

/// An id that the broker gave.
pub(crate) fn producer_id(peer: &mut Peer) -> ProducerId {
    let given = peer.call(&InitProducerIdRequest { timeout_ms: 30_000 }).expect("an id");
    assert_eq!(given.producer_epoch, ProducerEpoch::ZERO);
    given.producer_id
}

/// Two records of the producer, from that sequence on.
fn sequenced(id: ProducerId, epoch: i16, sequence: i32, value_bytes: usize) -> Bytes {
    let mut batch = batch(&format!("s{sequence}"), 2, value_bytes).to_vec();
    let producer = BatchProducer { id, epoch: ProducerEpoch::new(epoch), base_sequence: Sequence::new(sequence) };
    set_producer(&mut batch, producer);
    Bytes::from(batch)
}

/// Code and base offset of each partition.
fn outcomes(produced: &ProduceResponse) -> Vec<(ErrorCode, i64)> {
    produced.topics[0].partitions.iter().map(|partition| (partition.error, partition.base_offset.get())).collect()
}

#[test]
fn what_is_sent_again_is_stored_once_and_answered_as_the_first_time() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options { shards: 2, ..Options::default() });
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 2);
    let id = producer_id(&mut peer);

    // One partition of this shard and one of the other; small, and large enough to be received directly.
    let everywhere = |batch: Bytes| [(0, batch.clone()), (1, batch)];
    for (sequence, value_bytes) in [(0, 100), (2, 50_000), (4, 100)] {
        let sections = everywhere(sequenced(id, 0, sequence, value_bytes));
        let first = peer.produce("t", &sections);
        assert_eq!(outcomes(&first), [(ErrorCode::None, i64::from(sequence)); 2]);
        // Again on this connection, and on one to the other shard.
        assert_eq!(peer.produce("t", &sections), first);
        assert_eq!(broker.connect_to(1).produce("t", &sections), first);
    }
    let mut refused = |batch: Bytes| peer.produce("t", &everywhere(batch)).topics[0].partitions[1].clone();
    let gap = refused(sequenced(id, 0, 8, 100));
    assert_eq!(gap.error, ErrorCode::OutOfOrderSequence);
    assert!(gap.detail.contains("sequence 8") && gap.detail.contains("6 is next"), "{}", gap.detail);
    assert_eq!(refused(sequenced(id, 0, 5, 100)).error, ErrorCode::DuplicateSequence);
    assert_eq!(refused(sequenced(id, 1, 0, 100)).error, ErrorCode::None);
    assert_eq!(refused(sequenced(id, 0, 6, 100)).error, ErrorCode::InvalidProducerEpoch);

    let (_, sections) = peer.fetch(&fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]));
    let stored = [tagged("s0", 2), tagged("s2", 2), tagged("s4", 2), tagged("s0", 2)].concat();
    assert_eq!([values(&sections[0], Offset::ZERO), values(&sections[1], Offset::ZERO)], [stored.clone(), stored]);
}

#[test]
fn what_nobody_waits_for_is_stored_once_too() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 1);
    let id = producer_id(&mut peer);
    for _ in 0..3 {
        let (_, frame) = peer.produce_frame("t", Acks::None, &[(0, sequenced(id, 0, 0, 100))]);
        peer.stream.write_all(&frame).expect("the request is taken");
    }
    let last = peer.produce("t", &[(0, sequenced(id, 0, 2, 100))]);
    assert_eq!(outcomes(&last), [(ErrorCode::None, 2)]);
}

#[test]
fn batches_of_one_section_are_of_one_producer_in_order() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 1);
    let (id, other) = (producer_id(&mut peer), producer_id(&mut peer));
    let mut together = |batches: &[Bytes]| outcomes(&peer.produce("t", &[(0, Bytes::from(batches.concat()))]))[0];
    let invalid = (ErrorCode::InvalidBatch, 0);
    assert_eq!(together(&[sequenced(id, 0, 0, 9), sequenced(other, 0, 0, 9)]), invalid);
    assert_eq!(together(&[sequenced(id, 0, 0, 9), sequenced(id, 0, 4, 9)]), invalid);
    assert_eq!(together(&[sequenced(id, 0, 0, 9), batch("none", 1, 9)]), invalid);
    assert_eq!(together(&[batch("none", 1, 9), sequenced(id, 0, 0, 9)]), invalid);
    let whole = [sequenced(id, 0, 0, 9), sequenced(id, 0, 2, 9), sequenced(id, 0, 4, 9)];
    assert_eq!(together(&whole), (ErrorCode::None, 0));
    assert_eq!(together(&whole), (ErrorCode::None, 0), "as a whole");
    assert_eq!(together(&whole[1..2]), (ErrorCode::None, 2), "and in part");
    assert_eq!(together(&[whole[2].clone(), sequenced(id, 0, 6, 9)]).0, ErrorCode::DuplicateSequence, "half of it new");
}

#[test]
fn producers_are_known_after_a_restart_and_ids_never_come_again() {
    let dir = data_dir();
    let mut ids = BTreeSet::new();
    let mut known = None;
    for life in 0..3 {
        let broker = Broker::start(dir.path(), Options { shards: 2, ..Options::default() });
        let mut peers = [broker.connect_to(0), broker.connect_to(1)];
        for peer in &mut peers {
            for _ in 0..3 {
                assert!(ids.insert(producer_id(peer)), "in life {life}");
            }
        }
        if life == 0 {
            create(&mut peers[0], "t", 1);
        }
        let id = *known.get_or_insert_with(|| producer_id(&mut peers[0]));
        for sequence in [2 * life, 0, 2 * life] {
            let produced = peers[1].produce("t", &[(0, sequenced(id, 0, sequence, 100))]);
            assert_eq!(outcomes(&produced), [(ErrorCode::None, i64::from(sequence))], "life {life}");
        }
        broker.stop();
    }
}
