//! The commands of the metadata log and their bytes (`docs/formats/metadata-log.md`).
//!
//! ```text
//!  0      2      4
//! ┌──────┬──────┬─────────────┐
//! │ kind │ ver. │ body ...    │
//! └──────┴──────┴─────────────┘
//! ```

use bytes::{Buf, BufMut};
use ringmq_wire::{ProducerId, TOPIC_NAME_CHARS_MAX, TopicId, TopicName, TopicNameError};
use uuid::Uuid;

use super::PARTITIONS_PER_TOPIC_MAX;
use super::image::Topic;
use super::placement::{Slot, SlotRuns};
use super::settings::{SettingChoices, SettingKey};

/// One change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A topic comes to be, with everything that is known of it.
    CreateTopic(Topic),
    /// A topic is gone; its id is never used again.
    DeleteTopic(TopicId),
    /// A topic chooses these settings from now on, and no others.
    SetTopicSettings {
        /// The topic.
        id: TopicId,
        /// All that it chooses.
        settings: SettingChoices,
    },
    /// A topic has more partitions from now on.
    AddPartitions {
        /// The topic.
        id: TopicId,
        /// How many partitions it has then, more than before.
        partitions: u32,
        /// Where those that it gets start in the round of shards.
        first_slot: Slot,
    },
    /// Ids of idempotent producers are given to a shard, which hands them out; no other one ever gets them.
    AllocateProducerIds {
        /// The first one: the one behind all that were allocated before.
        first: ProducerId,
        /// How many, at least 1.
        count: u32,
    },
}

/// The longest encoding of any command.
pub const COMMAND_BYTES_MAX: usize =
    HEADER_BYTES + UUID_BYTES + 2 + TOPIC_NAME_CHARS_MAX + 4 + 2 + 4 + SETTINGS_BYTES_MAX;
/// The longest encoding of both commands that alter a topic.
pub const ALTERATION_BYTES_MAX: usize =
    HEADER_BYTES + UUID_BYTES + SETTINGS_BYTES_MAX + HEADER_BYTES + UUID_BYTES + 4 + 4;

const HEADER_BYTES: usize = 4;
const UUID_BYTES: usize = 16;
const SETTINGS_BYTES_MAX: usize = 2 + SettingKey::ALL.len() * (2 + 8);

const CREATE_TOPIC: u16 = 1;
const DELETE_TOPIC: u16 = 2;
const SET_TOPIC_SETTINGS: u16 = 3;
const ADD_PARTITIONS: u16 = 4;
const ALLOCATE_PRODUCER_IDS: u16 = 5;
/// The only version of all bodies so far.
const VERSION: u16 = 1;

impl Command {
    /// Appends the command's bytes, at most [`COMMAND_BYTES_MAX`].
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u16(self.kind());
        out.put_u16(VERSION);
        match self {
            Command::CreateTopic(topic) => encode_topic(topic, out),
            Command::DeleteTopic(id) => out.put_slice(id.as_bytes()),
            Command::SetTopicSettings { id, settings } => {
                out.put_slice(id.as_bytes());
                encode_settings(settings, out);
            }
            Command::AddPartitions { id, partitions, first_slot } => {
                out.put_slice(id.as_bytes());
                out.put_u32(*partitions);
                out.put_u32(first_slot.get());
            }
            Command::AllocateProducerIds { first, count } => {
                out.put_i64(first.get());
                out.put_u32(*count);
            }
        }
    }

    const fn kind(&self) -> u16 {
        match self {
            Command::CreateTopic(_) => CREATE_TOPIC,
            Command::DeleteTopic(_) => DELETE_TOPIC,
            Command::SetTopicSettings { .. } => SET_TOPIC_SETTINGS,
            Command::AddPartitions { .. } => ADD_PARTITIONS,
            Command::AllocateProducerIds { .. } => ALLOCATE_PRODUCER_IDS,
        }
    }

    /// Reads the command that `bytes` hold, no more and no less.
    ///
    /// # Errors
    /// [`CommandError`] says whether a newer release wrote the bytes or whether they are damaged. Nothing is allocated
    /// before its length has been checked.
    pub fn decode(mut bytes: &[u8]) -> Result<Command, CommandError> {
        let input = &mut bytes;
        let kind = input.try_get_u16()?;
        let version = input.try_get_u16()?;
        let command = match (kind, version) {
            (CREATE_TOPIC, VERSION) => Command::CreateTopic(decode_topic(input)?),
            (DELETE_TOPIC, VERSION) => Command::DeleteTopic(decode_topic_id(input)?),
            (SET_TOPIC_SETTINGS, VERSION) => {
                Command::SetTopicSettings { id: decode_topic_id(input)?, settings: decode_settings(input)? }
            }
            (ADD_PARTITIONS, VERSION) => Command::AddPartitions {
                id: decode_topic_id(input)?,
                partitions: decode_partitions(input)?,
                first_slot: Slot::new(input.try_get_u32()?),
            },
            (ALLOCATE_PRODUCER_IDS, VERSION) => {
                let first = decode_producer_id(input)?;
                let count = input.try_get_u32()?;
                if count == 0 {
                    return Err(CommandError::NoProducerIds);
                }
                Command::AllocateProducerIds { first, count }
            }
            _ => return Err(CommandError::Unknown { kind, version }),
        };
        match input.len() {
            0 => Ok(command),
            bytes => Err(CommandError::LeftOver { bytes }),
        }
    }
}

/// A topic that is created: its partitions are one run.
fn encode_topic(topic: &Topic, out: &mut impl BufMut) {
    debug_assert!(topic.slots.added().is_empty(), "nothing was added yet");
    out.put_slice(topic.id.as_bytes());
    encode_name(&topic.name, out);
    out.put_u32(topic.partitions);
    out.put_u16(topic.replicas);
    out.put_u32(topic.slots.first_slot().get());
    encode_settings(&topic.settings, out);
}

pub(super) fn encode_name(name: &TopicName, out: &mut impl BufMut) {
    put_u16_len(name.len(), out);
    out.put_slice(name.as_bytes());
}

pub(super) fn encode_settings(settings: &SettingChoices, out: &mut impl BufMut) {
    let settings = settings.iter();
    put_u16_len(settings.len(), out);
    for (key, value) in settings {
        out.put_u16(key.number());
        out.put_u64(value);
    }
}

/// Writes a length that the type of what follows bounds far below 2¹⁶ (a name, a set of settings).
fn put_u16_len(len: usize, out: &mut impl BufMut) {
    const { assert!(TOPIC_NAME_CHARS_MAX <= u16::MAX as usize && SettingKey::ALL.len() <= u16::MAX as usize) };
    out.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
}

fn decode_topic(input: &mut &[u8]) -> Result<Topic, CommandError> {
    let id = decode_topic_id(input)?;
    let name = decode_name(input)?;
    let partitions = decode_partitions(input)?;
    let replicas = decode_replicas(input)?;
    let slots = SlotRuns::new(Slot::new(input.try_get_u32()?));
    let settings = decode_settings(input)?;
    Ok(Topic { id, name, partitions, replicas, slots, settings })
}

pub(super) fn decode_partitions(input: &mut &[u8]) -> Result<u32, CommandError> {
    let partitions = input.try_get_u32()?;
    let valid = (1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions);
    if valid { Ok(partitions) } else { Err(CommandError::Partitions { partitions }) }
}

pub(super) fn decode_replicas(input: &mut &[u8]) -> Result<u16, CommandError> {
    let replicas = input.try_get_u16()?;
    let valid = (1..=i16::MAX.unsigned_abs()).contains(&replicas);
    if valid { Ok(replicas) } else { Err(CommandError::Replicas { replicas }) }
}

pub(super) fn decode_producer_id(input: &mut &[u8]) -> Result<ProducerId, CommandError> {
    let id = input.try_get_i64()?;
    ProducerId::checked(id).ok_or(CommandError::ProducerId { id })
}

pub(super) fn decode_topic_id(input: &mut &[u8]) -> Result<TopicId, CommandError> {
    let id = TopicId::new(Uuid::from_u128(input.try_get_u128()?));
    if id.get().is_nil() || id == TopicId::METADATA {
        return Err(CommandError::ReservedTopicId { id });
    }
    Ok(id)
}

pub(super) fn decode_name(input: &mut &[u8]) -> Result<TopicName, CommandError> {
    let len = usize::from(input.try_get_u16()?);
    let (bytes, rest) = input.split_at_checked(len).ok_or(CommandError::CutShort)?;
    *input = rest;
    let text = std::str::from_utf8(bytes).map_err(|_| CommandError::NameNotText)?;
    Ok(TopicName::parse(text)?)
}

pub(super) fn decode_settings(input: &mut &[u8]) -> Result<SettingChoices, CommandError> {
    let mut settings = SettingChoices::default();
    let mut above = 0;
    for _ in 0..input.try_get_u16()? {
        let number = input.try_get_u16()?;
        let value = input.try_get_u64()?;
        let key = SettingKey::from_number(number).ok_or(CommandError::UnknownSetting { number })?;
        if number <= above {
            return Err(CommandError::SettingOrder { number });
        }
        above = number;
        settings.insert(key, value);
    }
    Ok(settings)
}

/// Why bytes are not a command that this release knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A kind, or a version of a kind, that this release does not know: it was written by a newer one.
    #[error("command kind {kind} in version {version} is unknown here: a newer release of RingMQ wrote it")]
    Unknown {
        /// The command's kind.
        kind: u16,
        /// The version of its body.
        version: u16,
    },
    /// The bytes end in the middle of the command.
    #[error("the command ends before its last field")]
    CutShort,
    /// Bytes follow the command's last field.
    #[error("{bytes} bytes follow the command's last field")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// The topic's name is not text at all.
    #[error("the topic's name is not UTF-8")]
    NameNotText,
    /// The topic's name breaks a rule for names.
    #[error("the topic's name is not valid: {0}")]
    Name(#[from] TopicNameError),
    /// The id is one that no topic may have.
    #[error("{id} is a reserved topic id")]
    ReservedTopicId {
        /// The id.
        id: TopicId,
    },
    /// The number of partitions is out of range.
    #[error("{partitions} partitions are not within 1 to {PARTITIONS_PER_TOPIC_MAX}")]
    Partitions {
        /// The number found.
        partitions: u32,
    },
    /// The number of replicas is out of range.
    #[error("{replicas} replicas are not within 1 to {}", i16::MAX)]
    Replicas {
        /// The number found.
        replicas: u16,
    },
    /// A producer id is negative.
    #[error("{id} is not a producer id")]
    ProducerId {
        /// The number found.
        id: i64,
    },
    /// No producer id is allocated.
    #[error("no producer id is allocated, where there has to be at least one")]
    NoProducerIds,
    /// The setting's number means nothing to this release: it was written by a newer one.
    #[error("setting {number} is unknown here: a newer release of RingMQ wrote it")]
    UnknownSetting {
        /// The number found.
        number: u16,
    },
    /// Settings are not in ascending order, or one is there twice.
    #[error("setting {number} is out of order")]
    SettingOrder {
        /// The number found.
        number: u16,
    },
}

impl From<bytes::TryGetError> for CommandError {
    fn from(_: bytes::TryGetError) -> Self {
        CommandError::CutShort
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metadata::arbitrary;

    fn encoded(command: &Command) -> Vec<u8> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        bytes
    }

    fn topic(name: &str) -> Topic {
        Topic {
            id: TopicId::new(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
            name: TopicName::parse(name).unwrap(),
            partitions: 3,
            replicas: 1,
            slots: SlotRuns::new(Slot::new(7)),
            settings: SettingChoices::parse([("segment_bytes", "1048576")], &Default::default()).unwrap(),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format_page() {
        let mut expected = vec![0, 1, 0, 1];
        expected.extend(1..=16);
        expected.extend([0, 3]);
        expected.extend(b"a.b");
        expected.extend([0, 0, 0, 3, 0, 1, 0, 0, 0, 7]);
        expected.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(encoded(&Command::CreateTopic(topic("a.b"))), expected);

        let mut expected = vec![0, 2, 0, 1];
        expected.extend(1..=16);
        assert_eq!(encoded(&Command::DeleteTopic(topic("a").id)), expected);

        let (id, settings) = (topic("a").id, topic("a").settings);
        let mut expected = vec![0, 3, 0, 1];
        expected.extend(1..=16);
        expected.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(encoded(&Command::SetTopicSettings { id, settings }), expected);

        let mut expected = vec![0, 4, 0, 1];
        expected.extend(1..=16);
        expected.extend([0, 0, 0, 9, 0, 0, 1, 0]);
        assert_eq!(encoded(&Command::AddPartitions { id, partitions: 9, first_slot: Slot::new(256) }), expected);

        let expected = vec![0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0x12, 0x67, 0, 0, 3, 0xe8];
        assert_eq!(encoded(&Command::AllocateProducerIds { first: ProducerId::new(0x1267), count: 1_000 }), expected);
    }

    #[test]
    fn the_longest_command_is_as_long_as_the_limit() {
        let mut largest = topic(&"x".repeat(TOPIC_NAME_CHARS_MAX));
        for key in SettingKey::ALL {
            largest.settings.insert(key, u64::MAX);
        }
        let (id, settings) = (largest.id, largest.settings.clone());
        assert_eq!(encoded(&Command::CreateTopic(largest)).len(), COMMAND_BYTES_MAX);
        let more = Command::AddPartitions { id, partitions: 2, first_slot: Slot::new(u32::MAX) };
        let alteration = [Command::SetTopicSettings { id, settings }, more];
        assert_eq!(alteration.iter().map(|command| encoded(command).len()).sum::<usize>(), ALTERATION_BYTES_MAX);
    }

    #[test]
    fn a_newer_command_is_told_from_a_damaged_one() {
        assert_eq!(Command::decode(&[0, 9, 0, 1]), Err(CommandError::Unknown { kind: 9, version: 1 }));
        assert_eq!(Command::decode(&[0, 1, 0, 2, 1]), Err(CommandError::Unknown { kind: 1, version: 2 }));
        assert_eq!(Command::decode(&[0, 1, 0]), Err(CommandError::CutShort));
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        let good = encoded(&Command::CreateTopic(topic("abc")));
        let altered = |at: usize, bytes: &[u8]| {
            let mut copy = good.clone();
            copy[at..at + bytes.len()].copy_from_slice(bytes);
            Command::decode(&copy)
        };
        assert!(matches!(altered(4, &[0; 16]), Err(CommandError::ReservedTopicId { .. })));
        assert!(matches!(altered(4, TopicId::METADATA.as_bytes()), Err(CommandError::ReservedTopicId { .. })));
        assert!(matches!(altered(20, &[0, 0]), Err(CommandError::Name(_))));
        assert_eq!(altered(20, &[0xff, 0xff]), Err(CommandError::CutShort));
        assert_eq!(altered(22, &[0xff]), Err(CommandError::NameNotText));
        assert!(matches!(altered(22, b"../"), Err(CommandError::Name(_))));
        assert_eq!(altered(25, &[0; 4]), Err(CommandError::Partitions { partitions: 0 }));
        assert_eq!(altered(25, &[0xff; 4]), Err(CommandError::Partitions { partitions: u32::MAX }));
        assert_eq!(altered(29, &[0, 0]), Err(CommandError::Replicas { replicas: 0 }));
        assert_eq!(altered(35, &[0xff, 0xff]), Err(CommandError::CutShort));
        assert_eq!(altered(37, &[0, 77]), Err(CommandError::UnknownSetting { number: 77 }));

        let mut twice = good.clone();
        twice[36] = 2;
        twice.extend_from_slice(&good[37..]);
        assert_eq!(Command::decode(&twice), Err(CommandError::SettingOrder { number: 1 }));

        let mut longer = good;
        longer.push(0);
        assert_eq!(Command::decode(&longer), Err(CommandError::LeftOver { bytes: 1 }));
    }

    proptest! {
        #[test]
        fn commands_survive_the_way_through_bytes(command in arbitrary::command()) {
            let bytes = encoded(&command);
            prop_assert!(bytes.len() <= COMMAND_BYTES_MAX);
            prop_assert_eq!(Command::decode(&bytes), Ok(command));
        }

        #[test]
        fn a_command_cut_anywhere_is_refused(command in arbitrary::command(), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&command);
            prop_assert_eq!(Command::decode(&bytes[..cut.index(bytes.len())]), Err(CommandError::CutShort));
        }

        #[test]
        fn hostile_bytes_give_an_error_or_a_command_that_encodes_to_them(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(encoded(&command), bytes);
            }
        }

        #[test]
        fn one_altered_byte_never_gives_another_encoding(
            command in arbitrary::command(), at in any::<prop::sample::Index>(), with in any::<u8>()
        ) {
            let mut bytes = encoded(&command);
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok(other) = Command::decode(&bytes) {
                prop_assert_eq!(encoded(&other), bytes);
            }
        }
    }
}
