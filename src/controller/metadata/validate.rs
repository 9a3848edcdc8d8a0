//! Which requests become commands, and why the others do not.
//!
//! Each topic of a request succeeds or fails on its own. What a plan holds is checked against one image and valid as
//! long as no other command is applied in between: the controller plans and logs one request after the other.

use std::collections::BTreeMap;

use ringmq_wire::protocol::{NewTopic, Setting, TopicAlteration};
use ringmq_wire::{TopicId, TopicName};

use super::command::Command;
use super::image::{Image, Topic};
use super::placement::{Slot, SlotRuns};
use super::settings::{SettingChoices, TopicSettings};
use super::{PARTITIONS_PER_TOPIC_MAX, PARTITIONS_TOTAL_MAX, TOPICS_PER_REQUEST_MAX};
use crate::error::{AlterTopicError, CreateTopicError, DeleteTopicError, RequestError};
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

/// What a request to alter topics comes down to.
#[derive(Debug)]
pub struct AlterPlan {
    /// What to log, all or nothing; empty when no topic is to be altered, or all are as they are to be.
    pub commands: Vec<Command>,
    /// For each topic of the request, in its order: whether it will be as asked for, or why not.
    pub outcomes: Vec<Result<(), AlterTopicError>>,
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

/// Plans the alteration of these topics. What a topic has already becomes no command.
///
/// # Errors
/// The request as a whole is too large. What is wrong with single topics is in the plan.
pub fn plan_alterations(
    image: &Image,
    defaults: &TopicSettings,
    topics: &[TopicAlteration],
) -> Result<AlterPlan, RequestError> {
    check_size(topics.len())?;
    let mentions = Mentions::count(topics.iter().map(|topic| topic.name.as_str()));
    let mut planner = AlterPlanner {
        image,
        defaults,
        partitions: image.partition_count(),
        next_slot: image.next_slot(),
        commands: Vec::new(),
    };
    let outcomes = topics
        .iter()
        .map(|topic| {
            mentions.once(&topic.name).map_err(|name| AlterTopicError::NamedTwice { name })?;
            planner.plan(topic)
        })
        .collect();
    Ok(AlterPlan { commands: planner.commands, outcomes })
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
        let settings = SettingChoices::parse(pairs(&new.settings), self.defaults)?;

        let id = self.unused_id();
        let slots = SlotRuns::new(self.next_slot);
        self.partitions += partitions;
        self.next_slot = self.next_slot.advance(partitions);
        self.commands.push(Command::CreateTopic(Topic { id, name, partitions, replicas, slots, settings }));
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

struct AlterPlanner<'a> {
    image: &'a Image,
    defaults: &'a TopicSettings,
    /// Partitions of all topics, those planned so far counted.
    partitions: u32,
    next_slot: Slot,
    commands: Vec<Command>,
}

impl AlterPlanner<'_> {
    fn plan(&mut self, alteration: &TopicAlteration) -> Result<(), AlterTopicError> {
        let name = TopicName::parse(&alteration.name)?;
        let topic = self.image.topic(&name).ok_or(AlterTopicError::Unknown { name })?;
        // Both are checked before either becomes a command.
        let settings = self.changed_settings(topic, alteration)?;
        let added = self.check_partitions(topic, alteration.partitions)?;
        if let Some(settings) = settings {
            self.commands.push(Command::SetTopicSettings { id: topic.id, settings });
        }
        if added > 0 {
            let partitions = topic.partitions + added;
            self.commands.push(Command::AddPartitions { id: topic.id, partitions, first_slot: self.next_slot });
            self.partitions += added;
            self.next_slot = self.next_slot.advance(added);
        }
        Ok(())
    }

    /// The topic's choices afterwards, if they differ.
    fn changed_settings(
        &self,
        topic: &Topic,
        alteration: &TopicAlteration,
    ) -> Result<Option<SettingChoices>, AlterTopicError> {
        if alteration.set.is_empty() && alteration.unset.is_empty() {
            return Ok(None);
        }
        let unset = alteration.unset.iter().map(String::as_str);
        let altered = topic.settings.altered(pairs(&alteration.set), unset, self.defaults)?;
        Ok((altered != topic.settings).then_some(altered))
    }

    /// How many partitions the topic gets.
    fn check_partitions(&self, topic: &Topic, asked: Option<u32>) -> Result<u32, AlterTopicError> {
        let Some(asked) = asked else { return Ok(0) };
        if asked == 0 || asked > PARTITIONS_PER_TOPIC_MAX {
            return Err(AlterTopicError::Partitions { asked });
        }
        let Some(added) = asked.checked_sub(topic.partitions) else {
            return Err(AlterTopicError::FewerPartitions { asked, has: topic.partitions });
        };
        let left = PARTITIONS_TOTAL_MAX.saturating_sub(self.partitions);
        if added > left {
            return Err(AlterTopicError::PartitionsTotal { added, left });
        }
        Ok(added)
    }
}

fn pairs(settings: &[Setting]) -> impl Iterator<Item = (&str, &str)> {
    settings.iter().map(|setting| (setting.key.as_str(), setting.value.as_str()))
}

#[cfg(test)]
mod tests;
