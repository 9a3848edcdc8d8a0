//! Where errors of storage become codes of the wire.

use std::error::Error;
use std::fmt;

use ringmq_segment::{
    AppendError, AppendRejected, DeleteRecordsError, OpenError, OutOfSequence, Poison, ReadError, RecordError,
};
use ringmq_wire::{Detail, ErrorCode, PartitionIndex, TopicName, WireError};

use crate::limits::DETAILS_MAX;
use crate::stats::{Counter, Stats};

/// Why batches were not staged.
pub(crate) fn rejected(rejected: &AppendRejected) -> WireError {
    let code = match rejected {
        AppendRejected::Batch { source, .. } => source.code(),
        AppendRejected::Empty | AppendRejected::TooManyRecords | AppendRejected::Producer { .. } => {
            ErrorCode::InvalidBatch
        }
    };
    WireError::new(code, rejected.to_string())
}

/// Why an append was not acknowledged; `None` when its log was closed, which only the partition can explain.
pub(crate) fn append_failed(cause: &AppendError) -> Option<WireError> {
    let code = match cause {
        AppendError::StorageFull(_) => ErrorCode::StorageFull,
        AppendError::NotReady(_) => ErrorCode::StorageNotReady,
        AppendError::Poisoned(_) => ErrorCode::StorageFailed,
        AppendError::Overloaded { .. } => ErrorCode::Overloaded,
        AppendError::TooLarge { .. } => ErrorCode::BatchTooLarge,
        AppendError::OutOfSequence(OutOfSequence::Gap { .. }) => ErrorCode::OutOfOrderSequence,
        AppendError::OutOfSequence(OutOfSequence::Before { .. }) => ErrorCode::DuplicateSequence,
        AppendError::OutOfSequence(OutOfSequence::OldEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendError::Closed => return None,
    };
    Some(WireError::new(code, cause.to_string()))
}

/// Why a read failed; `None` when its log was closed.
pub(crate) fn read_failed(cause: &ReadError) -> Option<WireError> {
    let code = match cause {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt(_) => ErrorCode::PartitionOffline,
        ReadError::Io { .. } => ErrorCode::StorageFailed,
        ReadError::Closed => return None,
    };
    Some(WireError::new(code, cause.to_string()))
}

/// Why records were not deleted; `None` when their log was closed.
pub(crate) fn delete_records_failed(cause: &DeleteRecordsError) -> Option<WireError> {
    let code = match cause {
        DeleteRecordsError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        DeleteRecordsError::Poisoned(_) => ErrorCode::PartitionOffline,
        DeleteRecordsError::Record { source: RecordError::StorageFull(_), .. } => ErrorCode::StorageFull,
        DeleteRecordsError::Record { source: RecordError::NotReady(_), .. } => ErrorCode::StorageNotReady,
        DeleteRecordsError::Record { source: RecordError::Failed(_), .. } => ErrorCode::StorageFailed,
        DeleteRecordsError::Closed => return None,
    };
    Some(WireError::new(code, cause.to_string()))
}

/// Why a partition cannot be opened, for everyone who asks for it.
pub(crate) fn open_failed(topic: &TopicName, partition: PartitionIndex, cause: &OpenError) -> WireError {
    let detail = format!("partition {partition} of topic {topic:?} is offline: {}", chain(cause));
    WireError::new(ErrorCode::PartitionOffline, detail)
}

/// Why a log whose storage failed takes no more appends.
pub(crate) fn poisoned(poison: &Poison) -> WireError {
    WireError::new(ErrorCode::PartitionOffline, poison.to_string())
}

/// The errors of the parts of one response. All are counted; of the first few the details are told, so that a response is
/// not many times as long as what asked for it.
pub(crate) struct Details<'s> {
    left: usize,
    stats: &'s Stats,
}

impl<'s> Details<'s> {
    pub(crate) fn new(stats: &'s Stats) -> Self {
        Self { left: DETAILS_MAX, stats }
    }

    /// The code, and the detail while there is room for it.
    pub(crate) fn of(&mut self, error: WireError) -> (ErrorCode, Detail) {
        self.stats.add(Counter::Errors, 1);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                (error.code, error.detail)
            }
            None => (error.code, Detail::NONE),
        }
    }
}

/// An error with its causes, each behind a colon unless the one before has said it.
pub(crate) fn chain(error: &dyn Error) -> impl fmt::Display {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = source.source();
    }
    text
}
