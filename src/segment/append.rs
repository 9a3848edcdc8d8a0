//! An append as its caller sees it: what goes in, what comes back, and why it may not.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ringmq_runtime::local::Receiver;
use ringmq_wire::batch::{BatchError, BatchHeader, BatchLimits, validate_batch};
use ringmq_wire::{Offset, Timestamp};

use crate::failure::Poison;
use crate::payload::Payload;
use crate::producers::{OutOfSequence, Sequenced};

/// Record batches that passed every check: the only thing that a log takes.
#[derive(Debug)]
pub struct Append {
    payload: Payload,
    record_count: u32,
    max_timestamp: Timestamp,
    /// `None` for a producer without an identity.
    sequenced: Option<Sequenced>,
}

/// Why a payload is not one or more whole, sound record batches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRejected {
    /// There is no batch in it.
    #[error("there is no record batch to append")]
    Empty,
    /// A batch is not sound; none of the payload is taken.
    #[error("record batch {index} (at byte {position}): {source}")]
    Batch {
        /// Which batch, from 0.
        index: usize,
        /// Where it begins in the payload.
        position: usize,
        /// What is wrong with it; has the code for the wire.
        source: BatchError,
    },
    /// A batch does not go on where the one before it ends: the batches of an append are all of one producer, in the
    /// order of their sequences, or all of producers without an identity.
    #[error(
        "record batch {index} is not what its producer sent next after the one before it; send the batches of different \
         producers, and those that do not follow each other, in requests of their own"
    )]
    Producer {
        /// Which batch, from 0.
        index: usize,
    },
    /// All batches together hold more records than one append can.
    #[error("the record batches hold more than {} records together", u32::MAX)]
    TooManyRecords,
}

/// The check of a payload, batch by batch: how long one batch takes is bounded, and between two of them the caller can
/// let the core do something else.
#[derive(Debug)]
pub struct Validation {
    append: Append,
    position: usize,
    batches: usize,
}

impl Validation {
    /// Nothing of the payload is checked yet.
    #[must_use]
    pub fn of(payload: Payload) -> Validation {
        let max_timestamp = Timestamp::new(i64::MIN);
        let append = Append { payload, record_count: 0, max_timestamp, sequenced: None };
        Validation { append, position: 0, batches: 0 }
    }

    /// Checks the next batch, its checksum included; its bytes, or `None` when there is none left.
    ///
    /// # Errors
    /// When it is not a whole, sound batch within `limits`.
    pub fn next_batch(&mut self, limits: &BatchLimits) -> Result<Option<usize>, AppendRejected> {
        let (index, position) = (self.batches, self.position);
        let rest = &self.append.payload.bytes()[position..];
        if rest.is_empty() {
            return Ok(None);
        }
        let header =
            validate_batch(rest, limits).map_err(|source| AppendRejected::Batch { index, position, source })?;
        let append = &mut self.append;
        append.sequenced = sequenced_with(append.sequenced, index, &header)?;
        append.record_count =
            append.record_count.checked_add(header.record_count).ok_or(AppendRejected::TooManyRecords)?;
        append.max_timestamp = append.max_timestamp.max(header.max_timestamp);
        self.position += header.size_bytes();
        self.batches += 1;
        Ok(Some(header.size_bytes()))
    }

    /// The append, once every batch is checked.
    ///
    /// # Errors
    /// When a batch is not sound, as [`Self::next_batch`], or there is none at all.
    pub fn finish(mut self, limits: &BatchLimits) -> Result<Append, AppendRejected> {
        while self.next_batch(limits)?.is_some() {}
        if self.batches == 0 { Err(AppendRejected::Empty) } else { Ok(self.append) }
    }
}

/// The sequences of an append with one more batch.
fn sequenced_with(
    before: Option<Sequenced>,
    index: usize,
    batch: &BatchHeader,
) -> Result<Option<Sequenced>, AppendRejected> {
    let rejected = AppendRejected::Producer { index };
    let record_count = batch.record_count;
    match (before, batch.producer().map_err(|_| rejected.clone())?) {
        (None, None) => Ok(None),
        (None, Some(producer)) if index == 0 => Ok(Some(Sequenced { producer, record_count })),
        (Some(before), Some(producer)) => before.with(producer, record_count).map(Some).ok_or(rejected),
        (None, Some(_)) | (Some(_), None) => Err(rejected),
    }
}

impl Append {
    /// Checks every batch of the payload in one go. Where a payload can be much longer than one batch, [`Validation`]
    /// lets others work in between.
    ///
    /// # Errors
    /// When the payload is not made of whole, sound batches within `limits`.
    pub fn validated(payload: Payload, limits: &BatchLimits) -> Result<Append, AppendRejected> {
        Validation::of(payload).finish(limits)
    }

    /// Records in all batches.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The latest of the batches' max timestamps.
    #[must_use]
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// Bytes of the batches.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.bytes().len()
    }

    pub(crate) fn sequenced(&self) -> Option<Sequenced> {
        self.sequenced
    }

    pub(crate) fn into_payload(self) -> Payload {
        self.payload
    }
}

/// Where an append stands in the log. It is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// One past the offset of its last record.
    pub next_offset: Offset,
}

/// Why an append was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room on the disk. Nothing was written and no offset used; appends succeed again when there is
    /// room.
    #[error("the disk is full: {0}. Free some space, trim or delete a topic; the service goes on by itself")]
    StorageFull(#[source] Arc<io::Error>),
    /// A file could not be made ready. Nothing was written and no offset used; a later append may succeed.
    #[error(
        "the partition's segment could not be made ready: {0}. Nothing was written; mend what that names (often the \
         limit of open files) and send again"
    )]
    NotReady(#[source] Arc<io::Error>),
    /// Too much is staged already. Nothing was written; try again when some of it is acknowledged.
    #[error("{staged_bytes} bytes wait to be written, with {staged_bytes_max} allowed; try again in a moment")]
    Overloaded {
        /// What waits.
        staged_bytes: usize,
        /// What may wait.
        staged_bytes_max: usize,
    },
    /// It does not fit a segment.
    #[error(
        "{bytes} bytes for one partition do not fit a segment, which has room for {bytes_max}; send the batches in several requests, or raise the topic's segment_bytes"
    )]
    TooLarge {
        /// Bytes of the batches.
        bytes: usize,
        /// What one append can have.
        bytes_max: usize,
    },
    /// An idempotent producer sent it out of its sequence. Nothing was written and no offset used, and what is known of
    /// the producer is as it was.
    #[error(transparent)]
    OutOfSequence(#[from] OutOfSequence),
    /// A write or flush of this log failed, now or before. Whether this append is durable is not known.
    #[error(transparent)]
    Poisoned(#[from] Arc<Poison>),
    /// The log was closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// The future of [`crate::Log::append`]: done when the append is durable, or will not be. Dropping it does not take
/// the append back.
#[derive(Debug)]
#[must_use = "an append is acknowledged only when this is done"]
pub struct Appending(State);

#[derive(Debug)]
enum State {
    Refused(Option<AppendError>),
    Staged(Receiver<Result<Appended, AppendError>>),
}

impl Appending {
    pub(crate) fn refused(error: AppendError) -> Appending {
        Appending(State::Refused(Some(error)))
    }

    pub(crate) fn staged(outcome: Receiver<Result<Appended, AppendError>>) -> Appending {
        Appending(State::Staged(outcome))
    }
}

impl Future for Appending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(AppendError::Closed))),
            State::Staged(outcome) => {
                Pin::new(outcome).poll(cx).map(|outcome| outcome.unwrap_or(Err(AppendError::Closed)))
            }
        }
    }
}
