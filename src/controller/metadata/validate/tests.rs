//! Requests that become commands, and those that do not.

use ringmq_wire::{BrokerId, ErrorCode, TOPIC_NAME_CHARS_MAX};
use uuid::Uuid;

use super::*;
use crate::metadata::{Cluster, State};

fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions, replicas: 1, settings: Vec::new() }
}

fn counting_ids() -> impl FnMut() -> TopicId {
    let mut last = 100;
    move || {
        last += 1;
        TopicId::new(Uuid::from_u128(last))
    }
}

fn state() -> State {
    State::new(Cluster { id: Uuid::from_u128(77), broker: BrokerId::new(0) })
}

fn plan(state: &State, topics: &[NewTopic]) -> CreatePlan {
    plan_creates(&state.image(), &TopicSettings::default(), topics, counting_ids()).unwrap()
}

fn create(state: &mut State, topics: &[NewTopic]) {
    for command in plan(state, topics).commands {
        state.apply(command).unwrap();
    }
}

/// The error of a request that creates this one topic.
fn refusal(state: &State, topic: NewTopic) -> (ErrorCode, String) {
    let plan = plan(state, &[topic]);
    assert_eq!(plan.commands, []);
    let error = plan.outcomes.into_iter().next().unwrap().unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn a_plan_can_be_applied_and_spreads_partitions_on() {
    let mut state = state();
    let plan = plan(&state, &[new_topic("a", 3), new_topic("b", 4)]);
    let ids: Vec<TopicId> = plan.outcomes.into_iter().map(Result::unwrap).collect();
    for command in plan.commands {
        state.apply(command).unwrap();
    }
    let image = state.image();
    assert_eq!([image.topic("a").unwrap().id, image.topic("b").unwrap().id], ids[..]);
    assert_eq!(image.topic("a").unwrap().slots.first_slot(), Slot::new(0));
    assert_eq!(image.topic("b").unwrap().slots.first_slot(), Slot::new(3));
    assert_eq!(image.next_slot(), Slot::new(7));
}

#[test]
fn bad_names_are_refused() {
    let long = "x".repeat(TOPIC_NAME_CHARS_MAX + 1);
    for name in ["", ".", "..", "../x", "a/b", "a b", "a\0", "ä", &long] {
        assert_eq!(refusal(&state(), new_topic(name, 1)).0, ErrorCode::InvalidTopicName, "{name:?}");
    }
}

#[test]
fn partitions_are_at_least_one_and_bounded_for_a_topic_and_in_total() {
    for partitions in [0, 10_001, u32::MAX] {
        let (code, text) = refusal(&state(), new_topic("a", partitions));
        assert_eq!(code, ErrorCode::InvalidPartitionCount);
        assert!(text.contains(&partitions.to_string()) && text.contains("10000"), "{text}");
    }
    assert!(plan(&state(), &[new_topic("a", 10_000)]).outcomes[0].is_ok());

    let mut full = state();
    for n in 0..9 {
        create(&mut full, &[new_topic(&format!("t{n}"), 10_000)]);
    }
    create(&mut full, &[new_topic("t9", 9_990)]);
    let plan = plan(&full, &[new_topic("six", 6), new_topic("five", 5), new_topic("four", 4)]);
    let codes: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.as_ref().err().map(|e| e.code())).collect();
    assert_eq!(codes, [None, Some(ErrorCode::InvalidPartitionCount), None]);
    assert!(plan.outcomes[1].as_ref().unwrap_err().to_string().contains("4 more"));
}

#[test]
fn more_replicas_than_brokers_are_refused_with_the_number_of_brokers() {
    for replicas in [0, 2, 3, u16::MAX] {
        let (code, text) = refusal(&state(), NewTopic { replicas, ..new_topic("a", 1) });
        assert_eq!(code, ErrorCode::InvalidReplicationFactor);
        assert!(text.contains(&format!("{replicas} replicas")) && text.contains("1 broker"), "{text}");
    }
}

#[test]
fn a_bad_setting_is_refused_with_key_value_and_range() {
    let settings = vec![Setting { key: "segment_bytes".into(), value: "7".into() }];
    let (code, text) = refusal(&state(), NewTopic { settings, ..new_topic("a", 1) });
    assert_eq!(code, ErrorCode::InvalidSetting);
    assert!(text.contains("segment_bytes = \"7\"") && text.contains("1048576 to 1099511627776"), "{text}");
}

#[test]
fn a_living_name_is_taken_and_free_again_once_deleted() {
    let mut state = state();
    create(&mut state, &[new_topic("a", 1)]);
    assert_eq!(refusal(&state, new_topic("a", 1)).0, ErrorCode::TopicAlreadyExists);
    let first = state.image().topic("a").unwrap().id;

    let deletes = plan_deletes(&state.image(), &["a".to_owned()]).unwrap();
    for command in deletes.commands {
        state.apply(command).unwrap();
    }
    create(&mut state, &[new_topic("a", 1)]);
    assert_ne!(state.image().topic("a").unwrap().id, first, "the counting ids start again, and must be passed over");
}

#[test]
fn a_name_twice_in_one_request_fails_both_times_and_only_that_name() {
    let mut state = state();
    let plan = plan(&state, &[new_topic("a", 1), new_topic("b", 1), new_topic("a", 2)]);
    let codes: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.as_ref().err().map(|e| e.code())).collect();
    assert_eq!(codes, [Some(ErrorCode::MalformedRequest), None, Some(ErrorCode::MalformedRequest)]);
    assert_eq!(plan.commands.len(), 1);

    create(&mut state, &[new_topic("a", 1), new_topic("b", 1)]);
    let names = ["a", "a", "b"].map(str::to_owned);
    let plan = plan_deletes(&state.image(), &names).unwrap();
    assert_eq!(plan.commands, [Command::DeleteTopic(state.image().topic("b").unwrap().id)]);
}

#[test]
fn deleting_what_is_not_there_is_an_unknown_topic() {
    let names = ["nobody", "../x", ""].map(str::to_owned);
    let plan = plan_deletes(&state().image(), &names).unwrap();
    let codes: Vec<_> = plan.outcomes.iter().map(|outcome| outcome.as_ref().unwrap_err().code()).collect();
    assert_eq!(codes, [ErrorCode::UnknownTopic, ErrorCode::InvalidTopicName, ErrorCode::InvalidTopicName]);
    assert_eq!(plan.commands, []);
}

#[test]
fn a_request_with_too_many_topics_is_refused_whole() {
    let topics: Vec<NewTopic> = (0..=TOPICS_PER_REQUEST_MAX).map(|n| new_topic(&n.to_string(), 1)).collect();
    let image = state().image();
    let error = plan_creates(&image, &TopicSettings::default(), &topics, counting_ids()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RequestTooLarge);
    let plan = plan_creates(&image, &TopicSettings::default(), &topics[1..], counting_ids()).unwrap();
    assert_eq!(plan.commands.len(), TOPICS_PER_REQUEST_MAX);
}

fn alteration(name: &str, set: &[(&str, &str)], unset: &[&str], partitions: Option<u32>) -> TopicAlteration {
    let set = set.iter().map(|(key, value)| Setting { key: (*key).into(), value: (*value).into() }).collect();
    TopicAlteration { name: name.into(), set, unset: unset.iter().map(|key| (*key).into()).collect(), partitions }
}

fn plan_alteration(state: &State, topics: &[TopicAlteration]) -> AlterPlan {
    plan_alterations(&state.image(), &TopicSettings::default(), topics).unwrap()
}

fn codes(plan: &AlterPlan) -> Vec<Option<ErrorCode>> {
    plan.outcomes.iter().map(|outcome| outcome.as_ref().err().map(AlterTopicError::code)).collect()
}

#[test]
fn an_alteration_becomes_what_differs() {
    let mut state = state();
    create(&mut state, &[new_topic("a", 3), new_topic("b", 4), new_topic("c", 1)]);
    let asked = [
        alteration("a", &[("segment_age_ms", "5000")], &[], Some(5)),
        alteration("b", &[], &["segment_age_ms"], Some(4)),
        alteration("c", &[], &[], Some(2)),
    ];
    let plan = plan_alteration(&state, &asked);
    assert_eq!(codes(&plan), [None, None, None]);
    let image = state.image();
    let settings = SettingChoices::parse([("segment_age_ms", "5000")], &TopicSettings::default()).unwrap();
    let [a, c] = ["a", "c"].map(|name| image.topic(name).unwrap().id);
    assert_eq!(
        plan.commands,
        [
            Command::SetTopicSettings { id: a, settings },
            Command::AddPartitions { id: a, partitions: 5, first_slot: Slot::new(8) },
            Command::AddPartitions { id: c, partitions: 2, first_slot: Slot::new(10) },
        ]
    );
    for command in plan.commands {
        state.apply(command).unwrap();
    }
    assert_eq!(plan_alteration(&state, &asked).commands, [], "the same again changes nothing");
    assert_eq!(state.image().next_slot(), Slot::new(11));
}

#[test]
fn an_alteration_is_refused_whole_and_alone() {
    let mut state = state();
    create(&mut state, &[new_topic("a", 3), new_topic("b", 3)]);
    let plan = plan_alteration(
        &state,
        &[
            alteration("a", &[("segment_age_ms", "5000")], &[], Some(2)),
            alteration("b", &[], &[], Some(4)),
            alteration("nobody", &[], &[], None),
            alteration("../x", &[], &[], None),
        ],
    );
    let expected = [ErrorCode::InvalidPartitionCount, ErrorCode::UnknownTopic, ErrorCode::InvalidTopicName];
    assert_eq!(codes(&plan), [Some(expected[0]), None, Some(expected[1]), Some(expected[2])]);
    assert_eq!(plan.commands.len(), 1, "only what is asked of `b`");
    let text = plan.outcomes[0].as_ref().unwrap_err().to_string();
    assert!(text.contains("3 partitions") && text.contains('2'), "{text}");

    let twice = plan_alteration(&state, &[alteration("a", &[], &[], Some(4)), alteration("a", &[], &[], Some(5))]);
    assert_eq!(codes(&twice), [Some(ErrorCode::MalformedRequest); 2]);
    assert_eq!(twice.commands, []);

    for (set, unset) in [
        (&[("segment_bites", "1")][..], &[][..]),
        (&[("segment_bytes", "1")], &[]),
        (&[], &["segment_bites"]),
        (&[("segment_age_ms", "5000")], &["segment_age_ms"]),
        (&[("segment_bytes", "1048576"), ("batch_bytes_max", "1048577")], &[]),
    ] {
        let refused = plan_alteration(&state, &[alteration("a", set, unset, Some(4))]);
        assert_eq!(codes(&refused), [Some(ErrorCode::InvalidSetting)], "{set:?} {unset:?}");
        assert_eq!(refused.commands, []);
    }
}

#[test]
fn added_partitions_are_bounded_for_a_topic_and_in_total() {
    let mut state = state();
    for n in 0..9 {
        create(&mut state, &[new_topic(&format!("t{n}"), 10_000)]);
    }
    create(&mut state, &[new_topic("a", 4_000), new_topic("b", 5_990)]);
    for asked in [0, 10_001, u32::MAX] {
        let plan = plan_alteration(&state, &[alteration("a", &[], &[], Some(asked))]);
        assert_eq!(codes(&plan), [Some(ErrorCode::InvalidPartitionCount)]);
    }
    let asked = [alteration("a", &[], &[], Some(4_006)), alteration("b", &[], &[], Some(5_995))];
    let plan = plan_alteration(&state, &asked);
    assert_eq!(codes(&plan), [None, Some(ErrorCode::InvalidPartitionCount)]);
    assert!(plan.outcomes[1].as_ref().unwrap_err().to_string().contains("4 more"));
}
