//! `ringmq topic trim`: delete the oldest records of topics.

use std::collections::BTreeSet;

use ringmq_client::{
    Consumer, DeleteBefore, DeleteRecords, Error, ListOffset, Offset, OffsetSpec, PartitionIndex, PartitionOffset,
    PartitionStart, TopicOffsets,
};
use serde::Serialize;

use super::super::{CommandError, connect};
use crate::cli::{OutputFormat, PartitionList, TrimBefore, TrimTopicArgs};
use crate::exit::{self, Exit};
use crate::output;

/// Deletes the records, and prints where each partition begins.
///
/// # Errors
/// When no broker answers, or standard output fails. A topic or a partition that cannot be trimmed is told of on standard
/// error.
pub(crate) async fn trim(args: &TrimTopicArgs) -> Result<Exit, CommandError> {
    let client = connect(&args.connection).await?;
    let consumer = client.consumer();
    let topics = distinct(&args.topics);
    let mut told = Told(Exit::Done);
    // First of all, whatever is looked up behind it: what arrives from now on is kept.
    let ends = told.good(ends(&consumer, &topics, args.partition.as_ref()).await?);
    let young = look_up(&consumer, args.before, &ends).await?;
    let wanted = ends.iter().zip(young).map(|((topic, end), young)| {
        let (topic, partition) = (topic.to_string(), end.partition);
        young.map(|young| DeleteRecords { topic, partition, before: delete_before(args.before, young, end.offset) })
    });
    let wanted = told.good(wanted);
    let deleted = client.admin().delete_records_many(&wanted).await?;
    let trimmed = wanted.iter().zip(deleted).map(|(wanted, start)| {
        start.map(|PartitionStart { partition, log_start }| Trimmed {
            topic: &wanted.topic,
            partition: partition.get(),
            log_start_offset: log_start.get(),
        })
    });
    print(args.output.output, &told.good(trimmed))?;
    Ok(told.0)
}

/// In their order, each once: a line of JSON tells all of a topic.
fn distinct(topics: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    topics.iter().filter(|topic| seen.insert(*topic)).cloned().collect()
}

/// How the command ends, as far as it has come.
struct Told(Exit);

impl Told {
    /// What is good of it; what is not is told of.
    fn good<T>(&mut self, outcomes: impl IntoIterator<Item = Result<T, Error>>) -> Vec<T> {
        let outcomes = outcomes.into_iter().filter_map(|outcome| {
            outcome
                .inspect_err(|error| {
                    exit::report(error);
                    self.0 = Exit::Failed;
                })
                .ok()
        });
        outcomes.collect()
    }
}

/// Where each partition that is to be trimmed ends, with its topic.
async fn ends<'a>(
    consumer: &Consumer,
    topics: &'a [String],
    partitions: Option<&PartitionList>,
) -> Result<Vec<Result<(&'a str, PartitionOffset), Error>>, Error> {
    let at = OffsetSpec::Latest;
    let Some(partitions) = partitions else {
        let listed = consumer.list_offsets_of_topics(topics, at).await?;
        let of_topic = |(topic, ends): (&'a String, TopicOffsets)| {
            let ends = ends.unwrap_or_else(|error| vec![Err(error)]);
            ends.into_iter().map(|end| Ok((topic.as_str(), end?)))
        };
        return Ok(topics.iter().zip(listed).flat_map(of_topic).collect());
    };
    let each = |topic: &'a String| partitions.as_slice().iter().map(move |&partition| (topic.as_str(), partition));
    let each: Vec<(&str, PartitionIndex)> = topics.iter().flat_map(each).collect();
    let wanted = each.iter().map(|&(topic, partition)| ListOffset { topic: topic.to_owned(), partition, at });
    let listed = consumer.list_offsets_many(&wanted.collect::<Vec<_>>()).await?;
    Ok(each.iter().zip(listed).map(|((topic, _), end)| Ok((*topic, end?))).collect())
}

/// For each partition the first record that is as young as is asked for, if there is one.
async fn look_up(
    consumer: &Consumer,
    before: TrimBefore,
    ends: &[(&str, PartitionOffset)],
) -> Result<Vec<Result<Option<Offset>, Error>>, Error> {
    let TrimBefore::Time(time) = before else { return Ok(ends.iter().map(|_| Ok(None)).collect()) };
    let at = OffsetSpec::Timestamp(time);
    let wanted = ends.iter().map(|(topic, end)| ListOffset { topic: topic.to_string(), partition: end.partition, at });
    let found = consumer.list_offsets_many(&wanted.collect::<Vec<_>>()).await?;
    Ok(found.into_iter().map(|found| found.map(|found| found.offset)).collect())
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
        OutputFormat::Json => {
            for partitions in trimmed.chunk_by(|one, next| one.topic == next.topic) {
                output::print_json(&TrimmedTopic { name: partitions[0].topic, partitions })?;
            }
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct TrimmedTopic<'a> {
    name: &'a str,
    partitions: &'a [Trimmed<'a>],
}

#[derive(Serialize)]
struct Trimmed<'a> {
    #[serde(skip)]
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
