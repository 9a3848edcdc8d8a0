//! Offsets of one partition that are to be read, and the sections that bring them.

use std::ops::Range;

use ringmq_client::PartitionIndex;
use ringmq_wire::Offset;

use crate::checker::{CheckError, SectionChecker};
use crate::connection::Connection;
use crate::error::WorkerError;
use crate::stamp::Stamp;
use crate::volume::Volume;

/// Offsets of one partition that are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    partition: PartitionIndex,
    next: Offset,
    until: Offset,
}

impl Span {
    /// `None` for no offset.
    pub(crate) fn new(partition: usize, offsets: Range<i64>) -> Option<Self> {
        let partition = PartitionIndex::new(u32::try_from(partition).ok()?);
        let (next, until) = (Offset::checked(offsets.start)?, Offset::checked(offsets.end)?);
        (next < until).then_some(Self { partition, next, until })
    }

    /// All offsets from one on, without an end.
    pub(crate) fn from(partition: PartitionIndex, next: Offset) -> Self {
        Self { partition, next, until: Offset::MAX }
    }

    pub(crate) fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// The first offset that is still to be read.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Whether all of it has been read.
    pub(crate) fn is_read(&self) -> bool {
        self.next >= self.until
    }

    #[cfg(test)]
    pub(crate) fn offsets(&self) -> Range<i64> {
        self.next.get()..self.until.get()
    }

    /// Takes a record that a client gives: the next one, or one behind those that are to be read. Whether it is to be read.
    pub(crate) fn take_record(&mut self, offset: Offset) -> Result<bool, WorkerError> {
        if self.is_read() {
            return Ok(false);
        }
        let next = offset.checked_add(1).unwrap_or(Offset::MAX);
        if offset != self.next {
            let source = CheckError::Offsets { expected: self.next, base: offset, next };
            return Err(WorkerError::Check { partition: self.partition, source });
        }
        self.next = next;
        Ok(true)
    }

    /// Takes the section of a response that brings the next offsets, and verifies it as it comes. `received` gets the stamp
    /// of each batch, where batches have one behind their header, as soon as the whole batch is there.
    pub(crate) fn take_section(
        &mut self,
        connection: &mut Connection,
        section_bytes: usize,
        stamp_position: Option<usize>,
        mut received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Volume, WorkerError> {
        let partition = self.partition;
        let damaged = |source| WorkerError::Check { partition, source };
        let mut checker = SectionChecker::new(self.next, self.until);
        if let Some(position) = stamp_position {
            checker.collect_stamps(position);
        }
        let mut left = section_bytes;
        while left > 0 {
            if connection.available().is_empty() {
                connection.receive()?;
            }
            let arrived = connection.available();
            let piece = &arrived[..arrived.len().min(left)];
            checker.feed(piece).map_err(damaged)?;
            for stamp in checker.take_stamps() {
                received(partition, stamp)?;
            }
            let taken = piece.len();
            left -= taken;
            connection.consume(taken);
        }
        let (counted, next) = match connection.driver().may_cut_batches() {
            true => checker.finish_cut(),
            false => checker.finish().map_err(damaged)?,
        };
        self.next = next;
        Ok(counted)
    }
}
