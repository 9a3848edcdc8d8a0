//! `ringmq topic trim`: delete the oldest records of topics.

use ringmq_client::{Client, DeleteBefore, Error, OffsetSpec, PartitionOffset, PartitionStart};
use serde::Serialize;

use super::super::{CommandError, connect};
use crate::cli::{OutputFormat, TrimBefore, TrimTopicArgs};
use crate::exit::{self, Exit};
use crate::output;

/// Deletes the records, and prints where each partition begins.
///
/// # Errors
/// When standard output fails. A topic or a partition that cannot be trimmed is told of on standard error.
pub(crate) async fn trim(args: &TrimTopicArgs) -> Result<Exit, CommandError> {
    let client = connect(&args.connection).await?;
    let (mut exit, mut trimmed) = (Exit::Done, Vec::new());
    for topic in &args.topics {
        for outcome in trim_topic(&client, topic, args).await.unwrap_or_else(|error| vec![Err(error)]) {
            match outcome {
                Ok(PartitionStart { partition, log_start }) => {
                    trimmed.push(Trimmed { topic, partition: partition.get(), log_start_offset: log_start.get() });
                }
                Err(error) => {
                    exit::report(&error);
                    exit = Exit::Failed;
                }
            }
        }
    }
    print(args.output.output, &trimmed)?;
    Ok(exit)
}

/// What became of each partition of one topic.
async fn trim_topic(
    client: &Client,
    topic: &str,
    args: &TrimTopicArgs,
) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
    let at = match args.before {
        TrimBefore::Time(time) => OffsetSpec::Timestamp(time),
        // These ask for nothing but which partitions there are.
        TrimBefore::Offset(_) | TrimBefore::Latest => OffsetSpec::Latest,
    };
    let consumer = client.consumer();
    let listed = match &args.partition {
        None => consumer.list_offsets_each(topic, at).await?,
        Some(partitions) => consumer.list_offsets_of(topic, partitions.as_slice(), at).await?,
    };
    let (mut wanted, mut outcomes) = (Vec::new(), Vec::new());
    for listed in listed {
        match listed {
            Ok(found) => wanted.push((found.partition, delete_before(args.before, found))),
            Err(error) => outcomes.push(Err(error)),
        }
    }
    if !wanted.is_empty() {
        outcomes.extend(client.admin().delete_records_each(topic, &wanted).await?);
    }
    Ok(outcomes)
}

fn delete_before(before: TrimBefore, found: PartitionOffset) -> DeleteBefore {
    match (before, found.offset) {
        (TrimBefore::Offset(offset), _) | (TrimBefore::Time(_), Some(offset)) => DeleteBefore::Offset(offset),
        // No record is that young.
        (TrimBefore::Time(_), None) | (TrimBefore::Latest, _) => DeleteBefore::HighWatermark,
    }
}

fn print(format: OutputFormat, trimmed: &[Trimmed<'_>]) -> Result<(), CommandError> {
    match format {
        OutputFormat::Text if trimmed.is_empty() => {}
        OutputFormat::Text => {
            let row = |one: &Trimmed<'_>| {
                vec![one.topic.to_owned(), one.partition.to_string(), one.log_start_offset.to_string()]
            };
            output::print(&output::table(&["TOPIC", "PARTITION", "START"], trimmed.iter().map(row)))?;
        }
        OutputFormat::Json => output::print_json(&trimmed)?,
    }
    Ok(())
}

#[derive(Serialize)]
struct Trimmed<'a> {
    topic: &'a str,
    partition: u32,
    log_start_offset: i64,
}
