//! Random commands and histories for property tests.

use proptest::prelude::*;
use ringmq_wire::{ProducerId, TopicId, TopicName};
use uuid::Uuid;

use super::command::Command;
use super::image::Topic;
use super::placement::{Slot, SlotRuns};
use super::settings::{SettingChoices, SettingKey};

/// Any command that can be encoded.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let id = (2..=u128::MAX).prop_map(|id| TopicId::new(Uuid::from_u128(id)));
    let name = prop_oneof!["[a-zA-Z0-9_-]{1,20}", "[a-z][a-zA-Z0-9._-]{0,248}"];
    let first = any::<i64>().prop_map(|id| ProducerId::new(id & i64::MAX));
    prop_oneof![topic(id.clone(), name).prop_map(Command::CreateTopic), of_a_topic(id), producer_ids(first)]
}

/// Commands over few ids and names, so that many of them meet the same topic.
pub(crate) fn history() -> impl Strategy<Value = Vec<Command>> {
    let id = (2..12_u128).prop_map(|id| TopicId::new(Uuid::from_u128(id)));
    let command = prop_oneof![
        topic(id.clone(), "[a-d]").prop_map(Command::CreateTopic),
        of_a_topic(id),
        producer_ids((0..4_i64).prop_map(ProducerId::new)),
    ];
    prop::collection::vec(command, 0..60)
}

fn producer_ids(first: impl Strategy<Value = ProducerId>) -> impl Strategy<Value = Command> {
    (first, 1..=3_u32).prop_map(|(first, count)| Command::AllocateProducerIds { first, count })
}

/// Commands about a topic that there is already, or is not.
fn of_a_topic(id: impl Strategy<Value = TopicId> + Clone + 'static) -> impl Strategy<Value = Command> {
    prop_oneof![
        id.clone().prop_map(Command::DeleteTopic),
        (id.clone(), settings()).prop_map(|(id, settings)| Command::SetTopicSettings { id, settings }),
        (id, 1..=10_000_u32, any::<u32>()).prop_map(|(id, partitions, slot)| Command::AddPartitions {
            id,
            partitions,
            first_slot: Slot::new(slot)
        }),
    ]
}

fn topic(id: impl Strategy<Value = TopicId>, name: impl Strategy<Value = String>) -> impl Strategy<Value = Topic> {
    (id, name, 1..=10_000_u32, 1..=32_767_u16, any::<u32>(), settings()).prop_map(
        |(id, name, partitions, replicas, slot, settings)| Topic {
            id,
            name: TopicName::parse(&name).unwrap(),
            partitions,
            replicas,
            slots: SlotRuns::new(Slot::new(slot)),
            settings,
        },
    )
}

fn settings() -> impl Strategy<Value = SettingChoices> {
    prop::collection::vec((prop::sample::select(&SettingKey::ALL[..]), any::<u64>()), 0..4).prop_map(|chosen| {
        let mut settings = SettingChoices::default();
        for (key, value) in chosen {
            settings.insert(key, value);
        }
        settings
    })
}
