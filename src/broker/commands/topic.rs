//! `ringmq topic`: create, list, describe, alter, trim and delete topics.

use ringmq_client::{NewTopic, TopicAlteration, TopicDescription};
use serde::Serialize;

use super::{CommandError, connect};
use crate::cli::{AlterTopicArgs, CreateTopicArgs, ListTopicsArgs, OutputFormat, TopicNameArgs};
use crate::exit::Exit;
use crate::output;

mod trim;

pub(crate) use trim::trim;

/// Creates a topic.
///
/// # Errors
/// When the broker refuses or none answers.
pub(crate) async fn create(args: &CreateTopicArgs) -> Result<Exit, CommandError> {
    let mut topic = NewTopic::new(&args.name).partitions(args.partitions).replicas(args.replicas);
    for (key, value) in &args.settings {
        topic = topic.setting(key, value);
    }
    let topic_id = connect(&args.connection).await?.admin().create_topic(topic).await?;
    let created = Created { name: &args.name, topic_id: topic_id.to_string(), partitions: args.partitions };
    match args.output.output {
        OutputFormat::Text => {
            output::print(&format!("created topic {} with {} partition(s)", args.name, args.partitions))?;
        }
        OutputFormat::Json => output::print_json(&created)?,
    }
    Ok(Exit::Done)
}

/// Lists all topics by name.
///
/// # Errors
/// When no broker answers.
pub(crate) async fn list(args: &ListTopicsArgs) -> Result<Exit, CommandError> {
    let topics = connect(&args.connection).await?.admin().list_topics().await?;
    match args.output.output {
        OutputFormat::Text if topics.is_empty() => {}
        OutputFormat::Text => {
            let rows = topics
                .iter()
                .map(|topic| vec![topic.name.to_string(), topic.partitions.to_string(), topic.replicas.to_string()]);
            output::print(&output::table(&["NAME", "PARTITIONS", "REPLICAS"], rows))?;
        }
        OutputFormat::Json => {
            let listed = topics.iter().map(|topic| Listed {
                name: topic.name.to_string(),
                topic_id: topic.topic_id.to_string(),
                partitions: topic.partitions,
                replicas: topic.replicas,
            });
            output::print_json(&listed.collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Done)
}

/// Shows a topic's settings and partitions.
///
/// # Errors
/// When there is no such topic or no broker answers.
pub(crate) async fn describe(args: &TopicNameArgs) -> Result<Exit, CommandError> {
    let topic = connect(&args.connection).await?.admin().describe_topic(&args.name).await?;
    let described = Described::new(&topic);
    match args.output.output {
        OutputFormat::Text => output::print(&described.to_text())?,
        OutputFormat::Json => output::print_json(&described)?,
    }
    Ok(Exit::Done)
}

/// Changes a topic's settings and number of partitions.
///
/// # Errors
/// When the broker refuses or none answers.
pub(crate) async fn alter(args: &AlterTopicArgs) -> Result<Exit, CommandError> {
    let mut alteration = TopicAlteration::new(&args.name);
    for (key, value) in &args.set {
        alteration = alteration.set(key, value);
    }
    for key in &args.unset {
        alteration = alteration.unset(key);
    }
    if let Some(partitions) = args.partitions {
        alteration = alteration.partitions(partitions);
    }
    let admin = connect(&args.connection).await?.admin();
    admin.alter_topic(alteration).await?;
    match args.output.output {
        OutputFormat::Text => output::print(&format!("altered topic {}", args.name))?,
        // What it is like now, whoever else has altered it.
        OutputFormat::Json => output::print_json(&Described::new(&admin.describe_topic(&args.name).await?))?,
    }
    Ok(Exit::Done)
}

/// Deletes a topic and its records.
///
/// # Errors
/// When there is no such topic or no broker answers.
pub(crate) async fn delete(args: &TopicNameArgs) -> Result<Exit, CommandError> {
    connect(&args.connection).await?.admin().delete_topic(&args.name).await?;
    match args.output.output {
        OutputFormat::Text => output::print(&format!("deleted topic {}", args.name))?,
        OutputFormat::Json => output::print_json(&Deleted { name: &args.name })?,
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Created<'a> {
    name: &'a str,
    topic_id: String,
    partitions: u32,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    topic_id: String,
    partitions: u32,
    replicas: u16,
}

#[derive(Serialize)]
struct Deleted<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    topic_id: String,
    settings: Vec<Setting<'a>>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
    is_default: bool,
}

#[derive(Serialize)]
struct Partition {
    partition: u32,
    leader: i32,
    leader_epoch: i32,
    shard: u16,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    offline: bool,
    log_start_offset: i64,
    log_end_offset: i64,
    size_bytes: u64,
}

impl<'a> Described<'a> {
    fn new(topic: &'a TopicDescription) -> Self {
        let ids = |brokers: &[ringmq_wire::BrokerId]| brokers.iter().map(|broker| broker.get()).collect();
        let partitions = topic.partitions.iter().map(|described| Partition {
            partition: described.metadata.partition.get(),
            leader: described.metadata.leader.get(),
            leader_epoch: described.metadata.leader_epoch.get(),
            shard: described.metadata.shard.get(),
            replicas: ids(&described.metadata.replicas),
            in_sync: ids(&described.metadata.in_sync),
            offline: described.metadata.offline,
            log_start_offset: described.log_start_offset.get(),
            log_end_offset: described.log_end_offset.get(),
            size_bytes: described.size_bytes,
        });
        let settings = topic.settings.iter().map(|setting| Setting {
            key: &setting.key,
            value: &setting.value,
            is_default: setting.is_default,
        });
        Self {
            name: &topic.name,
            topic_id: topic.topic_id.to_string(),
            settings: settings.collect(),
            partitions: partitions.collect(),
        }
    }

    fn to_text(&self) -> String {
        let settings = self.settings.iter().map(|setting| {
            let origin = if setting.is_default { "default" } else { "set" };
            vec![setting.key.to_owned(), setting.value.to_owned(), origin.to_owned()]
        });
        let partitions = self.partitions.iter().map(|partition| {
            vec![
                partition.partition.to_string(),
                partition.leader.to_string(),
                partition.shard.to_string(),
                partition.log_start_offset.to_string(),
                partition.log_end_offset.to_string(),
                partition.size_bytes.to_string(),
                if partition.offline { "offline" } else { "online" }.to_owned(),
            ]
        });
        let head = ["PARTITION", "LEADER", "SHARD", "START", "END", "BYTES", "STATE"];
        format!(
            "topic {} ({})\n\n{}\n\n{}",
            self.name,
            self.topic_id,
            output::table(&["SETTING", "VALUE", "ORIGIN"], settings),
            output::table(&head, partitions),
        )
    }
}
