//! `ringmq topic`: create, list, describe, alter, trim and delete topics.

use ringmq_client::{Error, NewTopic, TopicAlteration, TopicDescription};
use serde::Serialize;

use super::{CommandError, connect};
use crate::cli::{AlterTopicArgs, CreateTopicArgs, ListTopicsArgs, OutputFormat, TopicNamesArgs};
use crate::exit::{self, Exit};
use crate::output;

mod trim;

pub(crate) use trim::trim;

/// Creates topics, each with the same partitions and settings.
///
/// # Errors
/// When no broker answers. What is refused is told of on standard error.
pub(crate) async fn create(args: &CreateTopicArgs) -> Result<Exit, CommandError> {
    let topic = |name: &String| {
        let topic = NewTopic::new(name).partitions(args.partitions).replicas(args.replicas);
        args.settings.iter().fold(topic, |topic, (key, value)| topic.setting(key, value))
    };
    let admin = connect(&args.connection).await?.admin();
    let created = admin.create_topics(args.topics.iter().map(topic).collect()).await?;
    each(&args.topics, created, |name, topic_id| match args.output.output {
        OutputFormat::Text => output::print(&format!("created topic {name} with {} partition(s)", args.partitions)),
        OutputFormat::Json => {
            output::print_json(&Created { name, topic_id: topic_id.to_string(), partitions: args.partitions })
        }
    })
}

/// Prints what became of each topic; what was refused goes to standard error.
///
/// # Errors
/// When standard output fails.
fn each<T>(
    topics: &[String],
    outcomes: Vec<Result<T, Error>>,
    mut print: impl FnMut(&str, T) -> std::io::Result<()>,
) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    for (topic, outcome) in topics.iter().zip(outcomes) {
        match outcome {
            Ok(done) => print(topic, done)?,
            Err(error) => {
                exit::report(&error);
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
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

/// Shows the settings and partitions of topics.
///
/// # Errors
/// When no broker answers. A topic that is not there is told of on standard error.
pub(crate) async fn describe(args: &TopicNamesArgs) -> Result<Exit, CommandError> {
    let described = connect(&args.connection).await?.admin().describe_topics(&args.topics).await?;
    let mut is_first = true;
    each(&args.topics, described, |_, topic| {
        let described = Described::new(&topic);
        let between = if std::mem::take(&mut is_first) { "" } else { "\n" };
        match args.output.output {
            OutputFormat::Text => output::print(&format!("{between}{}", described.to_text())),
            OutputFormat::Json => output::print_json(&described),
        }
    })
}

/// Changes the settings and numbers of partitions of topics.
///
/// # Errors
/// When no broker answers. What is refused is told of on standard error.
pub(crate) async fn alter(args: &AlterTopicArgs) -> Result<Exit, CommandError> {
    let alteration = |name: &String| {
        let alteration = TopicAlteration::new(name);
        let alteration = args.set.iter().fold(alteration, |alteration, (key, value)| alteration.set(key, value));
        let alteration = args.unset.iter().fold(alteration, TopicAlteration::unset);
        match args.partitions {
            Some(partitions) => alteration.partitions(partitions),
            None => alteration,
        }
    };
    let admin = connect(&args.connection).await?.admin();
    let altered = admin.alter_topics(args.topics.iter().map(alteration).collect()).await?;
    if args.output.output == OutputFormat::Text {
        return each(&args.topics, altered, |name, ()| output::print(&format!("altered topic {name}")));
    }
    // What they are like now, whoever else has altered them.
    let now = admin.describe_topics(&args.topics).await?;
    let outcomes = altered.into_iter().zip(now).map(|(altered, now)| altered.and(now)).collect();
    each(&args.topics, outcomes, |_, topic| output::print_json(&Described::new(&topic)))
}

/// Deletes topics and their records.
///
/// # Errors
/// When no broker answers. A topic that is not there is told of on standard error.
pub(crate) async fn delete(args: &TopicNamesArgs) -> Result<Exit, CommandError> {
    let deleted = connect(&args.connection).await?.admin().delete_topics(&args.topics).await?;
    each(&args.topics, deleted, |name, ()| match args.output.output {
        OutputFormat::Text => output::print(&format!("deleted topic {name}")),
        OutputFormat::Json => output::print_json(&Deleted { name }),
    })
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
                if partition.offline { output::red("offline") } else { "online".to_owned() },
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
