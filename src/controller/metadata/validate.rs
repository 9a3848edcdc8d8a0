//! Which requests become commands, and why the others do not.
//!
//! Each topic of a request succeeds or fails on its own. What a plan holds is checked against one image and valid as
//! long as no other command is applied in between: the controller plans and logs one request after the other.

use std::collections::BTreeMap;

use ringmq_wire::protocol::NewTopic;
use ringmq_wire::{TopicId, TopicName};

use super::command::Command;
use super::image::{Image, Topic};
use super::placement::Slot;
use super::settings::{SettingChoices, TopicSettings};
use super::{PARTITIONS_PER_TOPIC_MAX, PARTITIONS_TOTAL_MAX, TOPICS_PER_REQUEST_MAX};
use crate::error::{CreateTopicError, DeleteTopicError, RequestError};
use crate::excerpt::Excerpt;

/// What a request to create topics comes down to.
#[derive(Debug)]
pub struct CreatePlan {
    /// What to log, all or nothing; empty when no topic can be created.
    pub commands: Vec<Command>,
    /// For each topic of the request, in its order: the id it will have, or why it cannot be created.
    pub outcomes: Vec<Result<TopicId, CreateTopicError>>,
}

/// What a request to delete topics comes down to.
#[derive(Debug)]
pub struct DeletePlan {
    /// What to log, all or nothing; empty when no topic can be deleted.
    pub commands: Vec<Command>,
    /// For each topic of the request, in its order: whether it will be deleted, or why not.
    pub outcomes: Vec<Result<(), DeleteTopicError>>,
}

/// Plans the creation of `topics`; `draw_id` gives a new random id at each call.
///
/// # Errors
/// The request as a whole is too large. What is wrong with single topics is in the plan.
pub fn plan_creates(
    image: &Image,
    defaults: &TopicSettings,
    topics: &[NewTopic],
    draw_id: impl FnMut() -> TopicId,
) -> Result<CreatePlan, RequestError> {
    check_size(topics.len())?;
    let mentions = Mentions::count(topics.iter().map(|topic| topic.name.as_str()));
    let mut planner = CreatePlanner {
        image,
        defaults,
        draw_id,
        partitions: image.partition_count(),
        next_slot: image.next_slot(),
        commands: Vec::new(),
    };
    let outcomes = topics
        .iter()
        .map(|topic| {
            mentions.once(&topic.name).map_err(|name| CreateTopicError::NamedTwice { name })?;
            planner.plan(topic)
        })
        .collect();
    Ok(CreatePlan { commands: planner.commands, outcomes })
}

/// Plans the deletion of the topics with these names.
///
/// # Errors
/// The request as a whole is too large. What is wrong with single topics is in the plan.
pub fn plan_deletes(image: &Image, names: &[String]) -> Result<DeletePlan, RequestError> {
    check_size(names.len())?;
    let mentions = Mentions::count(names.iter().map(String::as_str));
    let mut commands = Vec::new();
    let outcomes = names
        .iter()
        .map(|name| {
            mentions.once(name).map_err(|name| DeleteTopicError::NamedTwice { name })?;
            let name = TopicName::parse(name)?;
            let topic = image.topic(&name).ok_or(DeleteTopicError::Unknown { name })?;
            commands.push(Command::DeleteTopic(topic.id));
            Ok(())
        })
        .collect();
    Ok(DeletePlan { commands, outcomes })
}

fn check_size(topics: usize) -> Result<(), RequestError> {
    if topics > TOPICS_PER_REQUEST_MAX { Err(RequestError::TooManyTopics { topics }) } else { Ok(()) }
}

/// How often a request mentions each name. Topics that it mentions twice all fail, whatever their order: with different
/// settings beside them nobody can say which was meant.
struct Mentions<'a>(BTreeMap<&'a str, u32>);

impl<'a> Mentions<'a> {
    fn count(names: impl Iterator<Item = &'a str>) -> Mentions<'a> {
        let mut count = BTreeMap::new();
        for name in names {
            *count.entry(name).or_default() += 1;
        }
        Mentions(count)
    }

    fn once(&self, name: &str) -> Result<(), Excerpt> {
        if self.0.get(name).is_some_and(|times| *times > 1) { Err(Excerpt::new(name)) } else { Ok(()) }
    }
}

struct CreatePlanner<'a, DrawId> {
    image: &'a Image,
    defaults: &'a TopicSettings,
    draw_id: DrawId,
    /// Partitions of all topics, those planned so far counted.
    partitions: u32,
    next_slot: Slot,
    commands: Vec<Command>,
}

impl<DrawId: FnMut() -> TopicId> CreatePlanner<'_, DrawId> {
    fn plan(&mut self, new: &NewTopic) -> Result<TopicId, CreateTopicError> {
        let name = TopicName::parse(&new.name)?;
        if self.image.topic(&name).is_some() {
            return Err(CreateTopicError::Exists { name });
        }
        let partitions = self.check_partitions(new.partitions)?;
        let replicas = self.check_replicas(new.replicas)?;
        let pairs = new.settings.iter().map(|setting| (setting.key.as_str(), setting.value.as_str()));
        let settings = SettingChoices::parse(pairs, self.defaults)?;

        let id = self.unused_id();
        let first_slot = self.next_slot;
        self.partitions += partitions;
        self.next_slot = first_slot.advance(partitions);
        self.commands.push(Command::CreateTopic(Topic { id, name, partitions, replicas, first_slot, settings }));
        Ok(id)
    }

    fn check_partitions(&self, asked: u32) -> Result<u32, CreateTopicError> {
        if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&asked) {
            return Err(CreateTopicError::Partitions { asked });
        }
        let left = PARTITIONS_TOTAL_MAX.saturating_sub(self.partitions);
        if asked > left {
            return Err(CreateTopicError::PartitionsTotal { asked, left });
        }
        Ok(asked)
    }

    fn check_replicas(&self, asked: u16) -> Result<u16, CreateTopicError> {
        let brokers = self.image.brokers().len();
        if asked == 0 || usize::from(asked) > brokers {
            return Err(CreateTopicError::Replicas { asked, brokers });
        }
        Ok(asked)
    }

    /// Random ids do not collide in practice; where one does, files of two topics would meet, so it costs a look.
    fn unused_id(&mut self) -> TopicId {
        loop {
            let id = (self.draw_id)();
            let planned = |command: &Command| matches!(command, Command::CreateTopic(topic) if topic.id == id);
            let used = id.get().is_nil()
                || id == TopicId::METADATA
                || self.image.topic_by_id(id).is_some()
                || self.image.deleted().contains(id)
                || self.commands.iter().any(planned);
            if !used {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::protocol::Setting;
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
        assert_eq!(image.topic("a").unwrap().first_slot, Slot::new(0));
        assert_eq!(image.topic("b").unwrap().first_slot, Slot::new(3));
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
        assert_ne!(
            state.image().topic("a").unwrap().id,
            first,
            "the counting ids start again, and must be passed over"
        );
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
}
