//! Which offsets of which partitions are to be read.

use ringmq_client::{Consumer, Error, OffsetSpec, PartitionOffset, Start};
use ringmq_wire::{Offset, PartitionIndex};

use crate::cli::ConsumeArgs;
use crate::commands::CommandError;

/// What is to be read of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset.
    pub from: Offset,
    /// The offset to end before; `None` goes on for ever.
    pub end: Option<Offset>,
}

/// What can be read, and why the rest cannot.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// By partition.
    pub readable: Vec<Range>,
    /// An error for each partition that gave no offsets.
    pub unreadable: Vec<CommandError>,
}

/// Asks the broker where to begin and, unless it follows, where to end.
///
/// # Errors
/// When there is no such topic or partition, or an offset is named that a partition does not have.
pub(super) async fn ranges(consumer: &Consumer, args: &ConsumeArgs) -> Result<Ranges, CommandError> {
    let ends = listed(consumer, args, OffsetSpec::Latest).await?;
    let starts = match args.from {
        Start::Earliest | Start::Offset(_) => Some(listed(consumer, args, OffsetSpec::Earliest).await?),
        Start::Time(time) => Some(listed(consumer, args, OffsetSpec::Timestamp(time)).await?),
        Start::Latest => None,
    };
    let mut starts = starts.map(Vec::into_iter);
    let mut ranges = Ranges::default();
    for end in ends {
        // One for each, in the same order.
        let start = starts.as_mut().and_then(Iterator::next).transpose();
        match (start, end) {
            (Ok(start), Ok(end)) => ranges.readable.push(range(args, start, end)?),
            (Err(error), _) | (_, Err(error)) if args.partition.is_none() => ranges.unreadable.push(error.into()),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        }
    }
    Ok(ranges)
}

/// The offsets of all partitions that are to be read, by partition.
async fn listed(
    consumer: &Consumer,
    args: &ConsumeArgs,
    at: OffsetSpec,
) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
    match args.partition {
        None => consumer.list_offsets_each(&args.topic, at).await,
        Some(partition) => Ok(vec![consumer.list_offset(&args.topic, PartitionIndex::new(partition), at).await]),
    }
}

/// From where the partition begins, as far as that was asked for, to where it ends.
fn range(args: &ConsumeArgs, start: Option<PartitionOffset>, end: PartitionOffset) -> Result<Range, CommandError> {
    let partition = end.partition;
    let none = || Error::Nonsense(format!("partition {partition} was listed without an offset"));
    let end = end.offset.ok_or_else(none)?;
    let found = start.and_then(|start| start.offset);
    let from = match args.from {
        Start::Earliest => found.ok_or_else(none)?,
        // With a time no record may be that young: begin with the next one that comes.
        Start::Latest | Start::Time(_) => found.unwrap_or(end),
        Start::Offset(offset) => checked_offset(args, partition, offset, found.ok_or_else(none)?, end)?,
    };
    Ok(Range { partition, from, end: (!args.follow).then_some(end) })
}

/// The offset that was named, if the partition has it; its end counts.
fn checked_offset(
    args: &ConsumeArgs,
    partition: PartitionIndex,
    offset: Offset,
    start: Offset,
    end: Offset,
) -> Result<Offset, CommandError> {
    if (start..=end).contains(&offset) {
        return Ok(offset);
    }
    let (topic, partition, start, end) = (args.topic.clone(), partition.get(), start.get(), end.get());
    Err(CommandError::OffsetOutOfRange { topic, partition, offset: offset.get(), start, end })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &[&str]) -> ConsumeArgs {
        let line = ["ringmq", "consume", "t"].iter().chain(flags);
        match Cli::try_parse_from(line).expect("valid").command {
            Command::Consume(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn at(offset: Option<i64>) -> PartitionOffset {
        PartitionOffset { partition: PartitionIndex::new(1), offset: offset.map(Offset::new), timestamp: None }
    }

    #[test]
    fn an_offset_must_lie_in_every_partition_that_is_read() {
        let named = |offset: &str| range(&args(&["--from", offset]), Some(at(Some(5))), at(Some(7)));
        for offset in 5..=7 {
            assert_eq!(named(&offset.to_string()).expect("in it, the end included").from, Offset::new(offset));
        }
        for outside in ["4", "8"] {
            let error = named(outside).expect_err("outside").to_string();
            assert!(error.contains("partition 1") && error.contains("valid: 5 to 7"), "{error}");
        }
    }

    #[test]
    fn a_range_ends_where_the_log_did_unless_it_is_followed() {
        let found = |flags: &[&str], start| range(&args(flags), start, at(Some(7))).expect("valid");
        let (partition, end) = (PartitionIndex::new(1), Some(Offset::new(7)));
        let earliest = found(&[], Some(at(Some(5))));
        assert_eq!(earliest, Range { partition, from: Offset::new(5), end });
        let latest = found(&["--from", "latest", "--follow"], None);
        assert_eq!(latest, Range { partition, from: Offset::new(7), end: None });
        let young = found(&["--from", "@99"], Some(at(None)));
        assert_eq!(young, Range { partition, from: Offset::new(7), end });
        range(&args(&[]), Some(at(None)), at(Some(7))).expect_err("every log has an earliest offset");
    }
}
