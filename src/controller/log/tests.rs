//! Replaying logs that no controller would write.

use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_wire::TopicName;

use super::*;
use crate::metadata::{SettingChoices, SettingKey, Slot, SlotRuns, Topic};

const DATA: &str = "/data";

fn topic(id: u128, name: &str) -> Command {
    Command::CreateTopic(Topic {
        id: TopicId::new(uuid::Uuid::from_u128(id)),
        name: TopicName::parse(name).unwrap(),
        partitions: 2,
        replicas: 1,
        slots: SlotRuns::new(Slot::default()),
        settings: Default::default(),
    })
}

fn bytes_of(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes
}

fn append_of(values: &[Option<&[u8]>], compression: Compression) -> Append {
    let mut batch = BatchBuilder::new(compression);
    for value in values {
        batch.append(&RecordRef { timestamp: Timestamp::new(1), key: None, value: *value, headers: &[] }).unwrap();
    }
    Append::validated(Payload::Copied(batch.finish().unwrap()), &LIMITS).unwrap()
}

/// Opens a metadata log that holds these batches, one frame each.
fn replay(appends: Vec<Append>) -> Result<State, MetadataLogError> {
    Sim::new(SimConfig::with_seed(1)).run(|| async {
        let directory = DataDirectory::open(Path::new(DATA)).await.unwrap();
        let (log, _) = open_log(directory.path()).await.unwrap();
        for append in appends {
            log.append(append).await.unwrap();
        }
        log.close().await.unwrap();
        // Its generation table stays locked as long as it lives.
        drop(log);
        let Opened { log, state, .. } = MetadataLog::open(&directory).await?;
        log.close().await;
        Ok(state)
    })
}

fn replay_error(appends: Vec<Append>) -> ReplayError {
    match replay(appends) {
        Err(MetadataLogError::Replay(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_come_back_in_order_whatever_the_batches() {
    let commands = [topic(2, "a"), topic(3, "b"), Command::DeleteTopic(TopicId::new(uuid::Uuid::from_u128(2)))];
    let values: Vec<Vec<u8>> = commands.iter().map(bytes_of).collect();
    let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_slice())).collect();
    let together = replay(vec![append_of(&values, Compression::None)]).unwrap().image();
    let apart = replay(values.iter().map(|value| append_of(&[*value], Compression::None)).collect()).unwrap().image();
    assert_eq!(together, apart);
    assert_eq!(together.applied(), Offset::new(3));
    assert_eq!(together.topics_by_name().len(), 1);
}

#[test]
fn a_log_longer_than_a_read_is_replayed_to_its_end() {
    let commands: Vec<Command> = (0..6_000).map(|n| topic(n + 2, &format!("{n:0>249}"))).collect();
    let appends = commands.chunks(2_000).map(batch_of).collect();
    let image = replay(appends).unwrap().image();
    assert_eq!(image.topics().len(), 6_000);
}

#[test]
fn a_log_of_the_first_release_is_read_as_it_was() {
    // `CreateTopic` and `DeleteTopic` in version 1, byte by byte.
    let create = |id: u8, name: &[u8; 1], partitions: u8, first_slot: u8| {
        let mut bytes = vec![0, 1, 0, 1];
        bytes.extend([[0; 15].as_slice(), &[id], &[0, 1], name, &[0, 0, 0, partitions, 0, 1]].concat());
        bytes.extend([0, 0, 0, first_slot, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0x13, 0x88]);
        bytes
    };
    let mut delete = vec![0, 2, 0, 1];
    delete.extend([[0; 15].as_slice(), &[2]].concat());
    let values = [create(2, b"a", 3, 0), create(3, b"b", 2, 3), delete];
    let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_slice())).collect();
    let image = replay(vec![append_of(&values, Compression::None)]).unwrap().image();
    let topic = image.topic("b").unwrap();
    assert_eq!((topic.partitions, topic.slots.first_slot(), topic.slots.added()), (2, Slot::new(3), &[][..]));
    assert_eq!(topic.settings.iter().collect::<Vec<_>>(), [(crate::metadata::SettingKey::SegmentAgeMs, 5_000)]);
    assert_eq!((image.applied(), image.next_slot(), image.deleted().iter().len()), (Offset::new(3), Slot::new(5), 1));
}

#[test]
fn a_command_of_a_newer_release_refuses_the_start() {
    let good = bytes_of(&topic(2, "a"));
    let error = replay_error(vec![append_of(&[Some(&good), Some(&[0, 99, 0, 1])], Compression::None)]);
    assert!(
        matches!(error, ReplayError::Command { offset, cause: CommandError::Unknown { kind: 99, version: 1 } } if offset == Offset::new(1)),
        "{error}"
    );
    assert!(
        error.to_string().contains("offset 1: command kind 99 in version 1 is unknown here: a newer release"),
        "{error}"
    );
}

#[test]
fn what_is_no_command_refuses_the_start() {
    let good = bytes_of(&topic(2, "a"));
    let cut = replay_error(vec![append_of(&[Some(&good[..good.len() - 1])], Compression::None)]);
    assert!(matches!(cut, ReplayError::Command { cause: CommandError::CutShort, .. }), "{cut}");
    let none = replay_error(vec![append_of(&[None], Compression::None)]);
    assert!(matches!(none, ReplayError::NoCommand { .. }), "{none}");
    let compressed = replay_error(vec![append_of(&[Some(&good)], Compression::Lz4)]);
    assert!(matches!(compressed, ReplayError::Compressed { .. }), "{compressed}");
}

#[test]
fn a_command_that_contradicts_those_before_it_refuses_the_start() {
    let appends = vec![batch_of(&[topic(2, "a")]), batch_of(&[topic(3, "a")])];
    let error = replay_error(appends);
    assert!(matches!(error, ReplayError::Apply { cause: ApplyError::NameTaken { .. }, .. }), "{error}");
    assert!(error.to_string().starts_with("offset 1: "), "{error}");
}

#[test]
fn the_largest_change_fits_a_frame() {
    let mut largest = topic(2, &"x".repeat(ringmq_wire::TOPIC_NAME_CHARS_MAX));
    let Command::CreateTopic(topic) = &mut largest else { unreachable!() };
    let settings = SettingKey::ALL.map(|key| (key.name(), key.text(*key.range().start())));
    let settings = settings.iter().map(|(name, value)| (*name, &**value));
    topic.settings = SettingChoices::parse(settings, &Default::default()).unwrap();
    let (id, settings) = (topic.id, topic.settings.clone());
    let append = batch_of(&vec![largest; TOPICS_PER_REQUEST_MAX]);
    assert!(append.payload_bytes() <= BATCH_BYTES_MAX);
    assert!(append.payload_bytes() > BATCH_BYTES_MAX / 10 * 9, "the bound is to be near: {}", append.payload_bytes());

    let more = Command::AddPartitions { id, partitions: 10_000, first_slot: Slot::new(u32::MAX) };
    let alteration = [Command::SetTopicSettings { id, settings }, more];
    let alterations: Vec<Command> = alteration.iter().cycle().take(COMMANDS_MAX).cloned().collect();
    let append = batch_of(&alterations);
    assert_eq!(append.record_count() as usize, COMMANDS_MAX);
    assert!(append.payload_bytes() <= BATCH_BYTES_MAX);
}
