//! An open subscription on a connection: frames come under one correlation id, within the credit that was granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::protocol::{GrantCreditRequest, SectionHead, SubscribedHead};
use ringmq_wire::{CorrelationId, WireError};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::Connection;
use super::error::{ConnectionError, RequestError};

/// One frame of a subscription: the head, and behind it the sections as they arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) head: SubscribedHead,
    /// All sections in the head's order. Their checksums have not been verified.
    pub(crate) sections: Bytes,
}

/// The place of one subscription among those that a connection may have.
#[derive(Debug)]
pub(crate) struct SubscriptionSlot {
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What both ends of a subscription within the client know of it.
#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes of batches that may still come. Below zero more came than that, as the last frame may bring.
    credit: AtomicI64,
    /// A frame came that told nothing else.
    heartbeat: Notify,
    is_answered: AtomicBool,
}

impl Flow {
    pub(super) fn new(credit_bytes: u32) -> Self {
        let (credit, is_answered) = (AtomicI64::new(credit_bytes.into()), AtomicBool::new(false));
        Self { credit, heartbeat: Notify::new(), is_answered }
    }
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct Frames {
    sender: mpsc::UnboundedSender<Result<Frame, RequestError>>,
    flow: Arc<Flow>,
    /// Partitions that were asked for.
    partitions: usize,
    /// Those of them that have not been told of as lost.
    partitions_left: usize,
    /// Whether the broker has been asked to end it.
    pub(super) is_withdrawn: bool,
    _slot: SubscriptionSlot,
}

impl Frames {
    pub(super) fn new(
        sender: mpsc::UnboundedSender<Result<Frame, RequestError>>,
        flow: Arc<Flow>,
        partitions: usize,
        slot: SubscriptionSlot,
    ) -> Self {
        Self { sender, flow, partitions, partitions_left: partitions, is_withdrawn: false, _slot: slot }
    }

    /// Whether nobody wants its frames.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Passes on what came, and tells whether more may come. What waits for the reader is bounded by the credit.
    ///
    /// # Errors
    /// When it breaks the protocol.
    pub(super) fn take(&mut self, outcome: Result<Bytes, WireError>) -> Result<bool, ConnectionError> {
        let body = match outcome {
            Ok(body) => body,
            Err(refusal) => {
                self.end(RequestError::Refused(refusal));
                return Ok(false);
            }
        };
        let frame = Frame::decode(body)?;
        let is_last = frame.head.is_last;
        self.flow.is_answered.store(true, Ordering::Relaxed);
        if self.account(&frame)? || is_last {
            // A reader that left does not want to know.
            let _ = self.sender.send(Ok(frame));
        } else {
            self.flow.heartbeat.notify_one();
        }
        Ok(!is_last)
    }

    /// Tells the reader why nothing comes any more.
    pub(super) fn end(&self, error: RequestError) {
        let _ = self.sender.send(Err(error));
    }

    /// Takes the credit that a frame uses up. Whether the frame tells anything at all.
    fn account(&mut self, frame: &Frame) -> Result<bool, ConnectionError> {
        let (mut told, mut lost) = (0, 0);
        for partition in frame.head.topics.iter().flat_map(|topic| &topic.partitions) {
            told += 1;
            lost += usize::from(!partition.error.is_none());
        }
        if told > self.partitions || lost > self.partitions_left {
            let reason = "a subscription's frame tells of more partitions than were asked for";
            return Err(ConnectionError::Malformed(reason.to_owned()));
        }
        self.partitions_left -= lost;
        let bytes = i64::try_from(frame.sections.len()).unwrap_or(i64::MAX);
        let credit = self.flow.credit.fetch_sub(bytes, Ordering::AcqRel);
        if bytes > 0 && credit <= 0 {
            return Err(ConnectionError::BeyondCredit { bytes: frame.sections.len() });
        }
        Ok(bytes > 0 || lost > 0)
    }
}

impl Frame {
    fn decode(mut body: Bytes) -> Result<Self, ConnectionError> {
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let malformed = |reason: String| ConnectionError::Malformed(reason);
        let decoded = SubscribedHead::decode_head(&body, body_bytes).map_err(|error| malformed(error.to_string()))?;
        let cut_short = || malformed("the head of a subscription's frame is cut short".to_owned());
        let (head, sections_at) = decoded.ok_or_else(cut_short)?;
        Ok(Self { head, sections: body.split_off(sections_at) })
    }
}

/// The reader's end. Dropping it ends the subscription at the broker too.
#[derive(Debug)]
pub(crate) struct Subscription {
    connection: Connection,
    id: CorrelationId,
    frames: mpsc::UnboundedReceiver<Result<Frame, RequestError>>,
    flow: Arc<Flow>,
    is_over: bool,
}

impl Subscription {
    pub(super) fn new(
        connection: Connection,
        id: CorrelationId,
        frames: mpsc::UnboundedReceiver<Result<Frame, RequestError>>,
        flow: Arc<Flow>,
    ) -> Self {
        Self { connection, id, frames, flow, is_over: false }
    }

    /// The next frame that tells something; `None` behind the last one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`RequestError`]: refused by the broker, the connection broke, or not even a sign of life came for `patience`.
    /// The subscription is over then.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Option<Frame>, RequestError> {
        while !self.is_over {
            let since = Instant::now();
            let heard = async {
                tokio::select! {
                    biased;
                    frame = self.frames.recv() => Some(frame),
                    () = self.flow.heartbeat.notified() => None,
                }
            };
            let found = match timeout(patience, heard).await {
                Ok(Some(Some(found))) => found,
                Ok(None) => continue,
                // The task is gone and cannot say why.
                Ok(Some(None)) => Err(RequestError::unanswered(self.connection.ended_by())),
                Err(_) => {
                    self.connection.shared.status.give_up_if_silent_since(since);
                    Err(RequestError::unanswered(ConnectionError::AnswerTimedOut(patience)))
                }
            };
            self.is_over = found.as_ref().map_or(true, |frame| frame.head.is_last);
            return found.map(Some);
        }
        Ok(None)
    }

    /// Whether the broker has sent any frame, if only a sign of life.
    pub(crate) fn is_answered(&self) -> bool {
        self.flow.is_answered.load(Ordering::Relaxed)
    }

    /// What lets more come, while frames are waited for.
    pub(crate) fn grants(&self) -> Grants {
        Grants { connection: self.connection.clone(), id: self.id, flow: self.flow.clone() }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.frames.close();
        // A connection that has ended has no subscriptions.
        let _ = self.connection.shared.left.send(self.id);
    }
}

/// Lets more bytes of a subscription come.
#[derive(Debug)]
pub(crate) struct Grants {
    connection: Connection,
    id: CorrelationId,
    flow: Arc<Flow>,
}

impl Grants {
    /// Grants so many bytes more. After a refusal they are not granted.
    ///
    /// Dropping the future leaves open whether they were.
    ///
    /// # Errors
    /// [`RequestError`]: refused by the broker, or no response until `deadline`.
    pub(crate) async fn grant(&self, credit_bytes: u32, deadline: Instant) -> Result<(), RequestError> {
        // Before the broker can know of it: what comes on it must not seem to be too much.
        self.flow.credit.fetch_add(credit_bytes.into(), Ordering::AcqRel);
        let request = GrantCreditRequest { subscription: self.id.get(), credit_bytes };
        let granted = self.connection.call(&request, deadline).await.map(|_| ());
        if let Err(RequestError::Refused(_)) = granted {
            self.flow.credit.fetch_sub(credit_bytes.into(), Ordering::AcqRel);
        }
        granted
    }
}

#[cfg(test)]
mod tests;
