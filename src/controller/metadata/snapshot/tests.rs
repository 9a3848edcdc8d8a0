//! Images there and back, and bytes that are no snapshot.

use proptest::prelude::*;
use ringmq_wire::{BrokerId, TopicName};

use super::*;
use crate::metadata::{Command, SettingChoices, State, arbitrary};

fn cluster() -> Cluster {
    Cluster { id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), broker: BrokerId::new(0) }
}

/// The image that the commands which fit add up to.
fn image_of(commands: Vec<Command>) -> Arc<Image> {
    let mut state = State::new(cluster());
    for command in commands {
        // What does not fit changes nothing.
        let _ = state.apply(command);
    }
    state.image()
}

fn example() -> Arc<Image> {
    let topic = |id: u128, name: &str| Topic {
        id: TopicId::new(Uuid::from_u128(id)),
        name: TopicName::parse(name).unwrap(),
        partitions: 3,
        replicas: 1,
        slots: SlotRuns::new(Slot::new(7)),
        settings: SettingChoices::parse([("segment_age_ms", "5000")], &Default::default()).unwrap(),
    };
    let id = topic(3, "b").id;
    image_of(vec![
        Command::CreateTopic(topic(2, "a")),
        Command::CreateTopic(topic(3, "b")),
        Command::DeleteTopic(topic(2, "a").id),
        Command::AddPartitions { id, partitions: 5, first_slot: Slot::new(10) },
        Command::AllocateProducerIds { first: ProducerId::ZERO, count: 1_000 },
    ])
}

fn decode(bytes: &[u8], image: &Image) -> Result<Image, SnapshotError> {
    decode_snapshot(bytes, cluster(), image.applied())
}

/// The snapshot with a body of its own, and checksums that fit it.
fn sealed(image: &Image, body: &[u8]) -> Vec<u8> {
    [encode_head(image, body).as_slice(), body].concat()
}

#[test]
fn the_bytes_are_those_of_the_format_page() {
    let image = example();
    let bytes = SnapshotEncoder::new(&image).finish();
    let mut body = vec![0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 1];
    body.extend([[0; 15].as_slice(), &[3], &[0, 1], b"b", &[0, 0, 0, 5, 0, 1, 0, 0, 0, 7]].concat());
    body.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0x13, 0x88]);
    body.extend([0, 1, 0, 0, 0, 3, 0, 0, 0, 10]);
    body.extend([[0, 0, 0, 1].as_slice(), &[0; 15], &[2]].concat());
    assert_eq!(bytes[HEAD_BYTES..], body);

    let mut head = b"RQMS\0\x02\0\0".to_vec();
    head.extend(1..=16);
    head.extend([0, 0, 0, 0, 0, 0, 0, 5]);
    head.extend((body.len() as u64).to_be_bytes());
    head.extend(crc32fast::hash(&body).to_be_bytes());
    head.extend(crc32fast::hash(&head).to_be_bytes());
    assert_eq!(bytes[..HEAD_BYTES], head);
    assert_eq!(decode(&bytes, &image).as_ref(), Ok(&*image));
}

#[test]
fn a_snapshot_of_before_there_were_producers_is_read() {
    let mut image = Image::clone(&example());
    let bytes = SnapshotEncoder::new(&image).finish();
    let body = [&bytes[HEAD_BYTES..HEAD_BYTES + 4], &bytes[HEAD_BYTES + 12..]].concat();
    let mut older = sealed(&image, &body);
    older[5] = 1;
    let checksum = crc32fast::hash(&older[..CHECKED_BYTES]).to_be_bytes();
    older[CHECKED_BYTES..HEAD_BYTES].copy_from_slice(&checksum);
    image.set_next_producer_id(ProducerId::ZERO);
    assert_eq!(decode(&older, &image), Ok(image));
}

#[test]
fn an_image_of_many_topics_is_written_in_steps() {
    let topic = |n: u128| Topic {
        id: TopicId::new(Uuid::from_u128(n + 2)),
        name: TopicName::parse(&format!("t{n}")).unwrap(),
        partitions: 1,
        replicas: 1,
        slots: SlotRuns::new(Slot::default()),
        settings: Default::default(),
    };
    let image = image_of((0..2_500).map(|n| Command::CreateTopic(topic(n))).collect());
    let mut encoder = SnapshotEncoder::new(&image);
    let mut steps = 1;
    while encoder.step() {
        steps += 1;
    }
    assert_eq!(steps, 3);
    let bytes = encoder.finish();
    assert_eq!(bytes, SnapshotEncoder::new(&image).finish());
    assert_eq!(decode(&bytes, &image).as_ref(), Ok(&*image));
}

#[test]
fn a_snapshot_is_taken_for_no_other() {
    let image = example();
    let bytes = SnapshotEncoder::new(&image).finish();
    let other = Cluster { id: Uuid::from_u128(5), ..cluster() };
    assert!(matches!(decode_snapshot(&bytes, other, image.applied()), Err(SnapshotError::OtherCluster { .. })));
    let offset = image.applied().checked_add(1).unwrap();
    assert_eq!(decode_snapshot(&bytes, cluster(), offset), Err(SnapshotError::OtherOffset { applied: 5 }));

    let mut newer = bytes.clone();
    newer[5] = 3;
    let checksum = crc32fast::hash(&newer[..CHECKED_BYTES]).to_be_bytes();
    newer[CHECKED_BYTES..HEAD_BYTES].copy_from_slice(&checksum);
    assert_eq!(decode(&newer, &image), Err(SnapshotError::Unknown { version: 3 }));
    assert_eq!(decode(b"", &image), Err(SnapshotError::CutShort));
    assert_eq!(decode(&[0; 100], &image), Err(SnapshotError::NotASnapshot));
}

#[test]
fn what_no_image_can_be_is_refused_in_spite_of_its_checksums() {
    let image = example();
    let body = SnapshotEncoder::new(&image).finish()[HEAD_BYTES..].to_vec();
    let altered = |at: usize, bytes: &[u8]| {
        let mut body = body.clone();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&sealed(&image, &body), &image)
    };
    assert_eq!(altered(0, &[]).as_ref(), Ok(&*image));
    assert!(matches!(altered(31, &[0]), Err(SnapshotError::Topic(CommandError::ReservedTopicId { .. }))));
    assert!(matches!(altered(34, b"/"), Err(SnapshotError::Topic(CommandError::Name(_)))));
    assert!(matches!(altered(35, &[0; 4]), Err(SnapshotError::Topic(CommandError::Partitions { .. }))));
    // The addition begins at the partition behind the last, then at the first.
    for first in [5, 0] {
        assert!(matches!(altered(62, &[first]), Err(SnapshotError::Contradiction { .. })), "{first}");
    }
    // The deleted topic is the living one; more are deleted than there are bytes, or than are remembered.
    assert!(matches!(altered(body.len() - 1, &[3]), Err(SnapshotError::Contradiction { .. })));
    assert_eq!(altered(70, &[0xff]), Err(SnapshotError::CutShort));
    // Another topic behind it, with a lower id or the same name; one with too many partitions.
    for (id, name, partitions) in [(2, "c", 1), (4, "b", 1)] {
        let topic = Topic {
            id: TopicId::new(Uuid::from_u128(id)),
            name: TopicName::parse(name).unwrap(),
            partitions,
            replicas: 1,
            slots: SlotRuns::new(Slot::default()),
            settings: Default::default(),
        };
        let mut twice = body[..67].to_vec();
        twice[15] = 2;
        encode_topic(&topic, &mut twice);
        twice.extend([0; 4]);
        assert!(matches!(decode(&sealed(&image, &twice), &image), Err(SnapshotError::Contradiction { .. })), "{name}");
    }
    let longer = [&body[..], &[0]].concat();
    assert_eq!(decode(&sealed(&image, &longer), &image), Err(SnapshotError::LeftOver { bytes: 1 }));
}

proptest! {
    #[test]
    fn every_image_comes_back_and_its_bytes_are_always_the_same(commands in arbitrary::history()) {
        let image = image_of(commands);
        let bytes = SnapshotEncoder::new(&image).finish();
        let decoded = decode(&bytes, &image);
        prop_assert_eq!(decoded.as_ref(), Ok(&*image));
        prop_assert_eq!(SnapshotEncoder::new(&decoded.unwrap()).finish(), bytes);
    }

    #[test]
    fn what_follows_a_snapshot_has_the_same_outcome(
        before in arbitrary::history(), after in arbitrary::history()
    ) {
        let image = image_of(before.clone());
        let restored = decode(&SnapshotEncoder::new(&image).finish(), &image).unwrap();
        let mut state = State::restored(restored);
        for command in after.clone() {
            let _ = state.apply(command);
        }
        prop_assert_eq!(state.image(), image_of([before, after].concat()));
    }

    #[test]
    fn one_altered_byte_never_goes_unnoticed(
        commands in arbitrary::history(), at in any::<prop::sample::Index>(), with in any::<u8>()
    ) {
        let image = image_of(commands);
        let good = SnapshotEncoder::new(&image).finish();
        let mut bad = good.clone();
        let at = at.index(bad.len());
        bad[at] = with;
        prop_assert_eq!(decode(&bad, &image).is_err(), bad != good);
    }

    #[test]
    fn a_snapshot_cut_anywhere_is_refused(commands in arbitrary::history(), cut in any::<prop::sample::Index>()) {
        let image = image_of(commands);
        let bytes = SnapshotEncoder::new(&image).finish();
        prop_assert!(decode(&bytes[..cut.index(bytes.len())], &image).is_err());
    }

    #[test]
    fn no_body_makes_it_panic(body in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..200)) {
        let image = example();
        if let Ok(decoded) = decode(&sealed(&image, &body), &image) {
            prop_assert_eq!(SnapshotEncoder::new(&decoded).finish(), sealed(&image, &body));
        }
    }
}
