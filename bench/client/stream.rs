//! Spans that are read by way of a client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringmq_client::PartitionIndex;

use super::{Endpoint, Receiver};
use crate::connection::invalid;
use crate::error::{LoadError, WorkerError};
use crate::payload::NUMBER_BYTES_MAX;
use crate::source::Received;
use crate::span::Span;
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::topic::{Place, Topic};
use crate::volume::Volume;

/// How long nothing may come until a consumer looks whether there is anything to wait for.
const WAIT: Duration = Duration::from_millis(500);

pub(crate) struct Stream {
    receiver: Box<dyn Receiver>,
    spans: BTreeMap<PartitionIndex, Span>,
    has_stamps: bool,
    /// When the last record was there.
    answered: Instant,
}

impl Stream {
    /// Connects a client that receives about so many bytes at once, of records with stamps or without.
    pub(crate) fn connect(topic: &Topic, place: &Place, bytes: u32, has_stamps: bool) -> Result<Self, LoadError> {
        let Some(client) = topic.driver.client() else { return Err(LoadError::NoClient) };
        let at = Endpoint { brokers: &place.addresses, topic: topic.name.as_str() };
        let (receiver, spans) = (client.receiver(&at, bytes)?, BTreeMap::new());
        Ok(Self { receiver, spans, has_stamps, answered: Instant::now() })
    }

    /// Receives these from now on.
    pub(crate) fn begin(&mut self, spans: impl Iterator<Item = Span>) -> Result<(), WorkerError> {
        self.spans = spans.map(|span| (span.partition(), span)).collect();
        self.answered = Instant::now();
        let from: Vec<_> = self.spans.values().map(|span| (span.partition(), span.next())).collect();
        self.receiver.begin(&from)
    }

    /// Receives nothing any more.
    pub(crate) fn end(&mut self) -> Result<(), WorkerError> {
        self.begin(std::iter::empty())
    }

    /// Waits for records, or gives none after a while. `received` gets the stamp of each.
    pub(crate) fn next(
        &mut self,
        mut received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Received, WorkerError> {
        let (mut counted, mut partition, mut ends_span) = (Volume::default(), None, false);
        let (spans, has_stamps) = (&mut self.spans, self.has_stamps);
        self.receiver.receive(WAIT, &mut |of, offset, value| {
            let Some(span) = spans.get_mut(&of) else {
                return Err(invalid(format!("a record of partition {of} came, which was not asked for")).into());
            };
            if span.take_record(offset)? {
                if has_stamps {
                    received(of, stamp(value)?)?;
                }
                counted = counted.plus(Volume { records: 1, bytes: value.len() as u64 });
                (partition, ends_span) = (Some(of), span.is_read());
            }
            Ok(())
        })?;
        let took = self.answered.elapsed();
        if counted.records > 0 {
            self.answered = Instant::now();
        }
        Ok(Received { partition, counted, took, ends_span })
    }
}

fn stamp(value: &[u8]) -> Result<Stamp, WorkerError> {
    let bytes = value.get(NUMBER_BYTES_MAX..).and_then(|behind| behind.first_chunk::<STAMP_BYTES>());
    match bytes {
        Some(bytes) => Ok(Stamp::decode(*bytes)),
        None => Err(invalid("a record came that is too short for its time; use a topic of its own").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Each;
    use ringmq_wire::Offset;

    /// Gives one (partition, offset) after the other, with values of that many bytes.
    struct Given(Vec<(u32, i64)>, usize);

    impl Receiver for Given {
        fn begin(&mut self, _: &[(PartitionIndex, Offset)]) -> Result<(), WorkerError> {
            Ok(())
        }

        fn receive(&mut self, _: Duration, each: &mut Each<'_>) -> Result<(), WorkerError> {
            let value = vec![0; self.1];
            self.0
                .drain(..)
                .try_for_each(|(partition, offset)| each(PartitionIndex::new(partition), Offset::new(offset), &value))
        }
    }

    /// What comes of reading offsets 5 to 8 of partition 1, with stamps.
    fn read(given: &[(u32, i64)], value_bytes: usize) -> (Result<Received, WorkerError>, usize) {
        let receiver = Box::new(Given(given.to_vec(), value_bytes));
        let mut stream = Stream { receiver, spans: BTreeMap::new(), has_stamps: true, answered: Instant::now() };
        stream.begin(Span::new(1, 5..8).into_iter()).unwrap();
        let mut stamps = 0;
        let received = stream.next(|_, _| {
            stamps += 1;
            Ok(())
        });
        (received, stamps)
    }

    #[test]
    fn records_are_counted_up_to_where_they_are_to_be_read() {
        let (received, stamps) = read(&[(1, 5), (1, 6)], 30);
        let received = received.unwrap();
        assert_eq!((received.counted, received.ends_span, stamps), (Volume { records: 2, bytes: 60 }, false, 2));
        let (received, stamps) = read(&[(1, 5), (1, 6), (1, 7), (1, 8)], 30);
        let received = received.unwrap();
        assert_eq!((received.counted, received.ends_span, stamps), (Volume { records: 3, bytes: 90 }, true, 3));
        let (received, _) = read(&[], 30);
        assert_eq!(received.unwrap().partition, None);
    }

    #[test]
    fn what_is_missing_or_of_others_is_an_error() {
        for given in [[(1, 6)], [(1, 4)]] {
            assert!(matches!(read(&given, 30).0, Err(WorkerError::Check { .. })), "{given:?}");
        }
        for (given, value_bytes) in [([(0, 5)], 30), ([(1, 5)], 23)] {
            assert!(matches!(read(&given, value_bytes).0, Err(WorkerError::Connection(_))), "{given:?}");
        }
    }
}
