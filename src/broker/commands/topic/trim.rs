//! `ringmq topic trim`: delete the oldest records of topics.

use ringmq_client::{
    Client, Consumer, DeleteBefore, Error, Offset, OffsetSpec, PartitionIndex, PartitionOffset, PartitionStart,
};
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
    let consumer = client.consumer();
    // First of all, whatever is looked up behind it: what arrives from now on is kept.
    let listed = match &args.partition {
        None => consumer.list_offsets_each(topic, OffsetSpec::Latest).await?,
        Some(partitions) => consumer.list_offsets_of(topic, partitions.as_slice(), OffsetSpec::Latest).await?,
    };
    let (mut ends, mut outcomes) = (Vec::new(), Vec::new());
    for listed in listed {
        match listed {
            Ok(end) => ends.push(end),
            Err(error) => outcomes.push(Err(error)),
        }
    }
    let mut wanted = Vec::new();
    for (end, young) in ends.iter().zip(look_up(&consumer, topic, args.before, &ends).await?) {
        match young {
            Ok(young) => wanted.push((end.partition, delete_before(args.before, young, end.offset))),
            Err(error) => outcomes.push(Err(error)),
        }
    }
    if !wanted.is_empty() {
        outcomes.extend(client.admin().delete_records_each(topic, &wanted).await?);
    }
    Ok(outcomes)
}

/// For each partition the first record that is as young as is asked for, if there is one.
async fn look_up(
    consumer: &Consumer,
    topic: &str,
    before: TrimBefore,
    ends: &[PartitionOffset],
) -> Result<Vec<Result<Option<Offset>, Error>>, Error> {
    let partitions: Vec<PartitionIndex> = ends.iter().map(|end| end.partition).collect();
    match before {
        TrimBefore::Time(time) if !partitions.is_empty() => {
            let found = consumer.list_offsets_of(topic, &partitions, OffsetSpec::Timestamp(time)).await?;
            Ok(found.into_iter().map(|found| found.map(|found| found.offset)).collect())
        }
        _ => Ok(partitions.iter().map(|_| Ok(None)).collect()),
    }
}

/// What is to be deleted of a partition whose first record of the time is at `young`, and which ended at `end` before
/// that was looked up: without one it is not the end that it has when the broker deletes.
fn delete_before(before: TrimBefore, young: Option<Offset>, end: Option<Offset>) -> DeleteBefore {
    match before {
        TrimBefore::Offset(offset) => DeleteBefore::Offset(offset),
        TrimBefore::Time(_) => DeleteBefore::Offset(young.or(end).unwrap_or(Offset::ZERO)),
        TrimBefore::Latest => DeleteBefore::HighWatermark,
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

#[cfg(test)]
mod tests {
    use ringmq_client::Timestamp;

    use super::*;

    #[test]
    fn what_arrives_while_a_time_is_looked_up_is_kept() {
        let (young, end) = (Some(Offset::new(3)), Some(Offset::new(9)));
        let time = TrimBefore::Time(Timestamp::new(1_000));
        assert_eq!(delete_before(time, young, end), DeleteBefore::Offset(Offset::new(3)));
        assert_eq!(delete_before(time, None, end), DeleteBefore::Offset(Offset::new(9)));
        assert_eq!(delete_before(TrimBefore::Latest, None, end), DeleteBefore::HighWatermark);
        assert_eq!(delete_before(TrimBefore::Offset(Offset::new(5)), None, end), DeleteBefore::Offset(Offset::new(5)));
    }
}
