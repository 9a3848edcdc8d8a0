//! Fetches on one connection: several under way, each of one partition, verified as the bytes come.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringmq_client::{PartitionIndex, TopicName};
use ringmq_wire::CorrelationId;
use ringmq_wire::protocol::frame::ResponseHead;

use crate::connection::{Connection, invalid};
use crate::driver::{Fetch, Fetched};
use crate::error::WorkerError;
use crate::span::Span;
use crate::stamp::Stamp;
use crate::volume::Volume;

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
    pub(crate) fn new(connection: Connection, topic: TopicName, fetching: Fetching) -> Self {
        let in_flight = (0..fetching.in_flight).map(|_| None).collect();
        Self { connection, topic, fetching, in_flight }
    }

    /// Sends as many fetches as may be in flight, with one write.
    pub(crate) fn ask(&mut self, idle: &mut VecDeque<Span>) -> Result<(), WorkerError> {
        let driver = self.connection.driver();
        let mut requests = BytesMut::new();
        for (place, slot) in self.in_flight.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let Some(span) = idle.pop_front() else { break };
            let Fetching { bytes, max_wait_ms, .. } = self.fetching;
            let (partition, offset) = (span.partition(), span.next());
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
        let partition = span.partition();
        if fetched.partition != partition {
            return Err(invalid(format!("partition {} came where {partition} was due", fetched.partition)).into());
        }
        if let Some(source) = fetched.error {
            return Err(WorkerError::Partition { partition, source });
        }
        let (bytes, position) = (fetched.records_bytes, self.fetching.stamp_position);
        let counted = span.take_section(&mut self.connection, bytes, position, received)?;
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
}
