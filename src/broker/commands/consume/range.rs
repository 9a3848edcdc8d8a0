//! Which offsets of which partitions are to be read.

use ringmq_client::{Consumer, Error, OffsetSpec, PartitionOffset};
use ringmq_wire::{Offset, PartitionIndex, Timestamp};

use crate::cli::ConsumeArgs;
use crate::commands::CommandError;
use crate::start::Start;

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

/// Asks the broker where to begin and, unless it follows, where to end.
///
/// # Errors
/// When there is no such topic or partition, or an offset is named that a partition does not have.
pub(super) async fn ranges(consumer: &Consumer, args: &ConsumeArgs) -> Result<Vec<Range>, CommandError> {
    let ends = offsets(consumer, args, OffsetSpec::Latest).await?;
    let starts = match args.from {
        Start::Earliest => offsets(consumer, args, OffsetSpec::Earliest).await?,
        Start::Latest => ends.clone(),
        Start::Offset(offset) => {
            let earliest = offsets(consumer, args, OffsetSpec::Earliest).await?;
            check_offset(&args.topic, offset, &earliest, &ends)?;
            ends.iter().map(|end| Position { offset: Offset::new(offset), ..*end }).collect()
        }
        Start::Time(time) => {
            let found = listed(consumer, args, OffsetSpec::Timestamp(Timestamp::new(time))).await?;
            // No record is that young: begin with the next one that comes.
            let start = |found: &PartitionOffset, end: &Position| Position {
                offset: found.offset.unwrap_or(end.offset),
                ..*end
            };
            found.iter().zip(&ends).map(|(found, end)| start(found, end)).collect()
        }
    };
    let range = |(start, end): (Position, Position)| Range {
        partition: end.partition,
        from: start.offset,
        end: (!args.follow).then_some(end.offset),
    };
    Ok(starts.into_iter().zip(ends).map(range).collect())
}

/// An offset that a partition surely has.
#[derive(Debug, Clone, Copy)]
struct Position {
    partition: PartitionIndex,
    offset: Offset,
}

async fn offsets(consumer: &Consumer, args: &ConsumeArgs, at: OffsetSpec) -> Result<Vec<Position>, CommandError> {
    let position = |listed: PartitionOffset| match listed.offset {
        Some(offset) => Ok(Position { partition: listed.partition, offset }),
        None => {
            let reason = format!("partition {} was listed without an offset", listed.partition);
            Err(CommandError::from(Error::Nonsense(reason)))
        }
    };
    listed(consumer, args, at).await?.into_iter().map(position).collect()
}

/// The offsets of all partitions that are to be read, by partition.
async fn listed(consumer: &Consumer, args: &ConsumeArgs, at: OffsetSpec) -> Result<Vec<PartitionOffset>, Error> {
    match args.partition {
        None => consumer.list_offsets(&args.topic, at).await,
        Some(partition) => {
            consumer.list_offset(&args.topic, PartitionIndex::new(partition), at).await.map(|listed| vec![listed])
        }
    }
}

fn check_offset(topic: &str, offset: i64, starts: &[Position], ends: &[Position]) -> Result<(), CommandError> {
    let outside = |(start, end): &(&Position, &Position)| !(start.offset.get()..=end.offset.get()).contains(&offset);
    match starts.iter().zip(ends).find(outside) {
        None => Ok(()),
        Some((start, end)) => Err(CommandError::OffsetOutOfRange {
            topic: topic.to_owned(),
            partition: start.partition.get(),
            offset,
            start: start.offset.get(),
            end: end.offset.get(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(offsets: &[i64]) -> Vec<Position> {
        let position = |(partition, offset)| Position { partition: PartitionIndex::new(partition), offset };
        (0..).zip(offsets.iter().copied().map(Offset::new)).map(position).collect()
    }

    #[test]
    fn an_offset_must_lie_in_every_partition_that_is_read() {
        let (starts, ends) = (positions(&[0, 5]), positions(&[10, 7]));
        for offset in 5..=7 {
            check_offset("t", offset, &starts, &ends).expect("in both, the end included");
        }
        let error = check_offset("t", 8, &starts, &ends).expect_err("beyond the second").to_string();
        assert!(error.contains("offset 8 of partition 1 of topic `t`") && error.contains("5 to 7"), "{error}");
        let error = check_offset("t", 4, &starts, &ends).expect_err("before the second").to_string();
        assert!(error.contains("partition 1"), "{error}");
    }
}
