//! Which offsets of which partitions are to be read.

use ringmq_client::{Consumer, Error, OffsetSpec, PartitionOffset, Start};
use ringmq_wire::{Offset, PartitionIndex};

use super::resume::Positions;
use crate::cli::{ConsumeArgs, ConsumeTo};
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

impl Range {
    /// How many offsets it has; `None` when it has no end.
    pub(super) fn len(&self) -> Option<u64> {
        self.end.map(|end| end.checked_sub(self.from).unwrap_or_default())
    }
}

/// What can be read, and why the rest cannot.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// By partition.
    pub readable: Vec<Range>,
    /// An error for each partition that gave no offsets.
    pub unreadable: Vec<CommandError>,
}

/// Asks the broker where to begin and, unless it follows, where to end. Saved positions go before `--from`.
///
/// # Errors
/// When there is no such topic or partition, or an offset is named that a partition does not have.
pub(super) async fn ranges(consumer: &Consumer, args: &ConsumeArgs, saved: &Positions) -> Result<Ranges, CommandError> {
    let listed = async |at| match &args.partition {
        None => consumer.list_offsets_each(&args.topic, at).await,
        Some(partitions) => consumer.list_offsets_of(&args.topic, partitions.as_slice(), at).await,
    };
    let listed_at = async |time| match time {
        None => Ok(Vec::new()),
        Some(time) => listed(OffsetSpec::Timestamp(time)).await,
    };
    let from_time = if let Start::Time(time) = args.from { Some(time) } else { None };
    let to_time = if let Some(ConsumeTo::Time(time)) = args.to { Some(time) } else { None };

    let ends = listed(OffsetSpec::Latest).await?;
    let mut starts = listed(OffsetSpec::Earliest).await?.into_iter();
    let mut from = listed_at(from_time).await?.into_iter();
    let mut to = listed_at(to_time).await?.into_iter();
    let mut ranges = Ranges::default();
    for end in ends {
        // One for each partition, in the same order, as far as it was asked for.
        match Log::new(end, starts.next(), from.next(), to.next()) {
            Ok(log) => ranges.readable.push(log.range(args, saved)?),
            Err(error) => ranges.unreadable.push(error.into()),
        }
    }
    Ok(ranges)
}

/// What a partition has.
#[derive(Debug, Clone, Copy)]
struct Log {
    partition: PartitionIndex,
    start: Offset,
    end: Offset,
    /// The first record of the time that `--from` names or later.
    from: Option<Offset>,
    /// The same for `--to`.
    to: Option<Offset>,
}

/// What a partition has answered.
type Listed = Result<PartitionOffset, Error>;

impl Log {
    fn new(end: Listed, start: Option<Listed>, from: Option<Listed>, to: Option<Listed>) -> Result<Self, Error> {
        let (end, start, from, to) = (end?, start.transpose()?, from.transpose()?, to.transpose()?);
        let partition = end.partition;
        let none = || Error::Nonsense(format!("partition {partition} was listed without an offset"));
        let at = |listed: Option<PartitionOffset>| listed.and_then(|listed| listed.offset);
        Ok(Self {
            partition,
            start: at(start).ok_or_else(none)?,
            end: end.offset.ok_or_else(none)?,
            from: at(from),
            to: at(to),
        })
    }

    fn range(&self, args: &ConsumeArgs, saved: &Positions) -> Result<Range, CommandError> {
        let from = match (saved.get(self.partition), args.from) {
            (Some(offset), _) => saved.checked(self.partition, offset, self.start..=self.end)?,
            (None, Start::Earliest) => self.start,
            (None, Start::Offset(offset)) => self.checked(&args.topic, offset)?,
            // With a time no record may be that young: begin with the next one that comes.
            (None, Start::Latest | Start::Time(_)) => self.from.unwrap_or(self.end),
        };
        let end = match args.to {
            _ if args.follow => None,
            None => Some(self.end),
            Some(ConsumeTo::Offset(offset)) => Some(offset.min(self.end)),
            Some(ConsumeTo::Time(_)) => Some(self.to.unwrap_or(self.end)),
        };
        Ok(Range { partition: self.partition, from, end })
    }

    /// The offset that was named, if the partition has it; its end counts.
    fn checked(&self, topic: &str, offset: Offset) -> Result<Offset, CommandError> {
        if (self.start..=self.end).contains(&offset) {
            return Ok(offset);
        }
        Err(CommandError::OffsetOutOfRange {
            topic: topic.to_owned(),
            partition: self.partition.get(),
            offset: offset.get(),
            start: self.start.get(),
            end: self.end.get(),
        })
    }
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

    /// A log of the offsets 5 to 7, whose times are what `from` and `to` say.
    fn log(from: Option<i64>, to: Option<i64>) -> Log {
        let at = |offset: Option<i64>| {
            let partition = PartitionIndex::new(1);
            Ok(PartitionOffset { partition, offset: offset.map(Offset::new), timestamp: None })
        };
        Log::new(at(Some(7)), Some(at(Some(5))), Some(at(from)), Some(at(to))).expect("a log")
    }

    #[test]
    fn an_offset_must_lie_in_every_partition_that_is_read() {
        let named = |offset: &str| log(None, None).range(&args(&["--from", offset]), &Positions::default());
        for offset in 5..=7 {
            assert_eq!(named(&offset.to_string()).expect("in it, the end included").from, Offset::new(offset));
        }
        for outside in ["4", "8"] {
            let error = named(outside).expect_err("outside").to_string();
            assert!(error.contains("partition 1") && error.contains("valid: 5 to 7"), "{error}");
        }
    }

    #[test]
    fn a_range_begins_and_ends_where_it_is_told() {
        let found = |flags: &[&str], from, to| {
            let range = log(from, to).range(&args(flags), &Positions::default()).expect("valid");
            (range.from.get(), range.end.map(Offset::get), range.len())
        };
        assert_eq!(found(&[], None, None), (5, Some(7), Some(2)));
        assert_eq!(found(&["--from", "latest", "--follow"], None, None), (7, None, None));
        assert_eq!(found(&["--from", "@99"], None, None), (7, Some(7), Some(0)), "no record is that young");
        assert_eq!(found(&["--from", "@9", "--to", "@99"], Some(6), None), (6, Some(7), Some(1)));
        assert_eq!(found(&["--to", "@9"], None, Some(6)), (5, Some(6), Some(1)));
        assert_eq!(found(&["--to", "6"], None, None), (5, Some(6), Some(1)));
        assert_eq!(found(&["--to", "99"], None, None), (5, Some(7), Some(2)), "not beyond the end");
        assert_eq!(found(&["--from", "6", "--to", "5"], None, None), (6, Some(5), Some(0)));
    }

    #[test]
    fn a_saved_position_goes_before_the_flag() {
        let args = args(&["--from", "latest"]);
        let saved = |offset| Positions::of("p.json", [(PartitionIndex::new(1), Offset::new(offset))]);
        assert_eq!(log(None, None).range(&args, &saved(6)).expect("valid").from, Offset::new(6));
        let error = log(None, None).range(&args, &saved(4)).expect_err("deleted meanwhile").to_string();
        assert!(error.contains("p.json") && error.contains("from 5 to 7"), "{error}");
    }

    #[test]
    fn a_log_without_an_earliest_offset_is_refused() {
        let end =
            Ok(PartitionOffset { partition: PartitionIndex::new(1), offset: Some(Offset::ZERO), timestamp: None });
        Log::new(end, None, None, None).expect_err("every log has an earliest offset");
    }
}
