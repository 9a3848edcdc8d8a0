//! Fetches on one connection: several under way, each of one partition, verified as the bytes come.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringmq_client::{PartitionIndex, TopicName};
use ringmq_wire::protocol::frame::ResponseHead;
use ringmq_wire::{CorrelationId, Offset};

use crate::checker::SectionChecker;
use crate::connection::{Connection, invalid};
use crate::driver::{Fetch, Fetched};
use crate::error::{LoadError, WorkerError};
use crate::stamp::Stamp;
use crate::topic::{Place, Topic};
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

    /// Whether all of it has been read.
    pub(crate) fn is_read(&self) -> bool {
        self.next >= self.until
    }

    #[cfg(test)]
    pub(crate) fn offsets(&self) -> Range<i64> {
        self.next.get()..self.until.get()
    }
}

/// How a fetcher asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetching {
    /// What one fetch asks for.
    pub(crate) bytes: u32,
    /// Fetches under way.
    pub(crate) in_flight: usize,
    /// How long the broker may wait for records.
    pub(crate) max_wait_ms: u32,
    /// Where batches have a stamp, behind their header.
    pub(crate) stamp_position: Option<usize>,
}

/// What a fetch brought.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What is left of what was to be read.
    pub(crate) span: Span,
    pub(crate) counted: Volume,
    /// From the request to the last byte of the answer.
    pub(crate) took: Duration,
}

/// A fetch that has not been answered.
struct Pending {
    span: Span,
    started: Instant,
}

pub(crate) struct Fetcher {
    connection: Connection,
    topic: TopicName,
    fetching: Fetching,
    /// By correlation id, which is the number of the place.
    in_flight: Vec<Option<Pending>>,
}

impl Fetcher {
    /// Connects to where the first of `places` is.
    pub(crate) fn connect(topic: &Topic, places: &[Place], fetching: Fetching) -> Result<Self, LoadError> {
        let Some(home) = places.first() else {
            return Err(LoadError::Connect(invalid("a consumer has no partition")));
        };
        let connection = Connection::open(topic.driver, &home.addresses).map_err(LoadError::Connect)?;
        let in_flight = (0..fetching.in_flight).map(|_| None).collect();
        Ok(Self { connection, topic: topic.name.clone(), fetching, in_flight })
    }

    /// Sends as many fetches as may be in flight, with one write.
    pub(crate) fn ask(&mut self, idle: &mut VecDeque<Span>) -> Result<(), WorkerError> {
        let driver = self.connection.driver();
        let mut requests = BytesMut::new();
        for (place, slot) in self.in_flight.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let Some(span) = idle.pop_front() else { break };
            let Fetching { bytes, max_wait_ms, .. } = self.fetching;
            let (partition, offset) = (span.partition, span.next);
            let fetch = Fetch { topic: &self.topic, partition, offset, bytes, max_wait_ms };
            let id = CorrelationId::new(u32::try_from(place).map_err(invalid)?);
            driver.encode_fetch(id, &fetch, &mut requests)?;
            *slot = Some(Pending { span, started: Instant::now() });
        }
        self.connection.write(&mut [IoSlice::new(&requests)])?;
        Ok(())
    }

    /// Waits for one answer, whichever comes first, and verifies it as it comes. `received` gets the stamp of each batch
    /// as soon as the whole batch is there.
    pub(crate) fn take_answer(
        &mut self,
        received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Answer, WorkerError> {
        let head = self.connection.wait_for_response_head()?;
        let place = head.correlation_id.get() as usize;
        let Some(Pending { mut span, started }) = self.in_flight.get_mut(place).and_then(Option::take) else {
            return Err(invalid(format!("response {place} answers no fetch")).into());
        };
        let fetched = self.take_head(&head)?;
        if fetched.partition != span.partition {
            return Err(
                invalid(format!("partition {} came where {} was due", fetched.partition, span.partition)).into()
            );
        }
        if let Some(source) = fetched.error {
            return Err(WorkerError::Partition { partition: span.partition, source });
        }
        let counted = self.take_section(&mut span, fetched.records_bytes, received)?;
        Ok(Answer { span, counted, took: started.elapsed() })
    }

    /// What the head of a response says about its one partition.
    fn take_head(&mut self, head: &ResponseHead) -> Result<Fetched, WorkerError> {
        loop {
            let arrived = self.connection.available();
            let body = &arrived[..arrived.len().min(head.body_bytes as usize)];
            match self.connection.driver().fetched(head, body)? {
                Some((fetched, taken)) => {
                    self.connection.consume(taken);
                    return Ok(fetched);
                }
                None => self.connection.receive()?,
            }
        }
    }

    fn take_section(
        &mut self,
        span: &mut Span,
        section_bytes: usize,
        mut received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Volume, WorkerError> {
        let damaged = |source| WorkerError::Check { partition: span.partition, source };
        let mut checker = SectionChecker::new(span.next, span.until);
        if let Some(position) = self.fetching.stamp_position {
            checker.collect_stamps(position);
        }
        let mut left = section_bytes;
        while left > 0 {
            if self.connection.available().is_empty() {
                self.connection.receive()?;
            }
            let arrived = self.connection.available();
            let piece = &arrived[..arrived.len().min(left)];
            checker.feed(piece).map_err(damaged)?;
            for stamp in checker.take_stamps() {
                received(span.partition, stamp)?;
            }
            let taken = piece.len();
            left -= taken;
            self.connection.consume(taken);
        }
        let (counted, next) = match self.connection.driver().may_cut_batches() {
            true => checker.finish_cut(),
            false => checker.finish().map_err(damaged)?,
        };
        span.next = next;
        Ok(counted)
    }
}
