//! `ringmq topic trim`: delete the oldest records of a topic.

use ringmq_client::{Client, DeleteBefore, Error, OffsetSpec, PartitionIndex, PartitionOffset, PartitionStart};
use serde::Serialize;

use super::super::{CommandError, connect};
use crate::cli::{OutputFormat, TrimBefore, TrimTopicArgs};
use crate::exit::{self, Exit};
use crate::output;

/// Deletes the records, and prints where each partition begins.
///
/// # Errors
/// When the topic is unknown or no broker answers. A partition that cannot be trimmed is told of on standard error.
pub(crate) async fn trim(args: &TrimTopicArgs) -> Result<Exit, CommandError> {
    let client = connect(&args.connection).await?;
    let (wanted, mut failed) = wanted(&client, args).await?;
    let mut trimmed = Vec::new();
    if !wanted.is_empty() {
        for outcome in client.admin().delete_records_each(&args.name, &wanted).await? {
            match outcome {
                Ok(start) => trimmed.push(start),
                Err(error) => failed.push(error),
            }
        }
    }
    failed.iter().for_each(|error| exit::report(error));
    print(args.output.output, &trimmed)?;
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Up to where each partition is to be trimmed, and why some cannot be.
async fn wanted(
    client: &Client,
    args: &TrimTopicArgs,
) -> Result<(Vec<(PartitionIndex, DeleteBefore)>, Vec<Error>), CommandError> {
    let at = match args.before {
        TrimBefore::Time(time) => OffsetSpec::Timestamp(time),
        // These ask for nothing but which partitions there are.
        TrimBefore::Offset(_) | TrimBefore::Latest => OffsetSpec::Latest,
    };
    let consumer = client.consumer();
    let listed = match args.partition {
        None => consumer.list_offsets_each(&args.name, at).await?,
        Some(partition) => vec![Ok(consumer.list_offset(&args.name, PartitionIndex::new(partition), at).await?)],
    };
    let (mut wanted, mut failed) = (Vec::new(), Vec::new());
    for listed in listed {
        match listed {
            Ok(found) => wanted.push((found.partition, delete_before(args.before, found))),
            Err(error) => failed.push(error),
        }
    }
    Ok((wanted, failed))
}

fn delete_before(before: TrimBefore, found: PartitionOffset) -> DeleteBefore {
    match (before, found.offset) {
        (TrimBefore::Offset(offset), _) | (TrimBefore::Time(_), Some(offset)) => DeleteBefore::Offset(offset),
        // No record is that young.
        (TrimBefore::Time(_), None) | (TrimBefore::Latest, _) => DeleteBefore::HighWatermark,
    }
}

fn print(format: OutputFormat, trimmed: &[PartitionStart]) -> Result<(), CommandError> {
    match format {
        OutputFormat::Text if trimmed.is_empty() => {}
        OutputFormat::Text => {
            let row = |start: &PartitionStart| vec![start.partition.to_string(), start.log_start.to_string()];
            output::print(&output::table(&["PARTITION", "START"], trimmed.iter().map(row)))?;
        }
        OutputFormat::Json => {
            let trimmed = trimmed
                .iter()
                .map(|start| Trimmed { partition: start.partition.get(), log_start_offset: start.log_start.get() });
            output::print_json(&trimmed.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Trimmed {
    partition: u32,
    log_start_offset: i64,
}
