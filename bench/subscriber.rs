//! A subscription on one connection: frames of several partitions, verified as the bytes come, and credit for more.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringmq_client::{PartitionIndex, TopicName};
use ringmq_wire::protocol::frame::{self, ResponseHead};
use ringmq_wire::protocol::{
    FetchPartition, FetchTopic, GrantCreditRequest, Message, Request, SectionHead, SubscribeRequest, SubscribedHead,
    UnsubscribeRequest,
};
use ringmq_wire::{CorrelationId, WireError};

use crate::connection::{Connection, invalid};
use crate::driver::Fetched;
use crate::error::WorkerError;
use crate::fetcher::Fetching;
use crate::source::Received;
use crate::span::Span;
use crate::stamp::Stamp;
use crate::volume::Volume;

/// A broker that has nothing to send says so this often: then a consumer looks whether there is anything to wait for. The
/// protocol has none that is shorter.
const HEARTBEAT_MS: u32 = 1_000;
/// The pause behind a subscription that the broker ended before it brought anything.
const FRUITLESS_PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Subscriber {
    connection: Connection,
    topic: TopicName,
    /// Bytes that a frame may have, and where batches have their stamps.
    fetching: Fetching,
    /// Bytes that may be on their way: as many as fetches that are all in flight would bring.
    window: u32,
    spans: BTreeMap<PartitionIndex, Span>,
    open: Option<CorrelationId>,
    /// What the open subscription has brought, in bytes.
    brought: u64,
    /// Bytes that have come and were not granted again.
    freed: u32,
    /// Of the frame that is being taken, whose sections stand in front.
    sections: VecDeque<Fetched>,
    last_id: u32,
    /// When the last answer was there.
    answered: Instant,
}

/// What stands before the sections of a frame.
struct FrameHead {
    is_last: bool,
    sections: VecDeque<Fetched>,
}

impl Subscriber {
    pub(crate) fn new(connection: Connection, topic: TopicName, fetching: Fetching) -> Self {
        let window = fetching.bytes.saturating_mul(u32::try_from(fetching.in_flight.max(1)).unwrap_or(u32::MAX));
        let (spans, sections) = (BTreeMap::new(), VecDeque::new());
        let (open, brought, freed, last_id) = (None, 0, 0, 0);
        let answered = Instant::now();
        Self { connection, topic, fetching, window, spans, open, brought, freed, sections, last_id, answered }
    }

    /// Subscribes to these.
    pub(crate) fn begin(&mut self, spans: Vec<Span>) -> Result<(), WorkerError> {
        self.spans = spans.into_iter().map(|span| (span.partition(), span)).collect();
        self.answered = Instant::now();
        self.subscribe()
    }

    /// Subscribes to what is not read yet, from where it is.
    fn subscribe(&mut self) -> Result<(), WorkerError> {
        self.spans.retain(|_, span| !span.is_read());
        let partition_max_bytes = self.fetching.bytes;
        let wanted = self.spans.values().map(|span| FetchPartition {
            partition: span.partition(),
            fetch_offset: span.next(),
            partition_max_bytes,
        });
        let topics = vec![FetchTopic { topic: self.topic.clone(), partitions: wanted.collect() }];
        let request = SubscribeRequest {
            credit_bytes: self.window,
            max_bytes: self.fetching.bytes,
            heartbeat_ms: HEARTBEAT_MS,
            topics,
        };
        (self.brought, self.freed) = (0, 0);
        self.open = Some(self.send(&request)?);
        Ok(())
    }

    /// Waits for the next section, or for the broker to say that there is none.
    pub(crate) fn next(
        &mut self,
        received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Received, WorkerError> {
        if self.open.is_none() && self.sections.is_empty() {
            // The broker may end one at any time.
            if self.brought == 0 {
                std::thread::sleep(FRUITLESS_PAUSE);
            }
            self.subscribe()?;
        }
        while self.sections.is_empty() {
            self.grant()?;
            if self.take_frame_head()? && self.sections.is_empty() {
                let (counted, took) = (Volume::default(), self.took());
                return Ok(Received { partition: None, counted, took, ends_span: false });
            }
        }
        self.take_section(received)
    }

    /// Ends the subscription, if one is open, and takes what is still on its way.
    pub(crate) fn end(&mut self) -> Result<(), WorkerError> {
        if let Some(open) = self.open {
            self.send(&UnsubscribeRequest { subscription: open.get() })?;
        }
        while self.open.is_some() || !self.sections.is_empty() {
            match self.sections.is_empty() {
                true => drop(self.take_frame_head()?),
                false => drop(self.take_section(|_, _| Ok(()))?),
            }
        }
        Ok(())
    }

    /// Grants again what has come, once it is half of the window: fewer grants are as good.
    fn grant(&mut self) -> Result<(), WorkerError> {
        let Some(open) = self.open.filter(|_| self.freed >= self.window.div_ceil(2)) else { return Ok(()) };
        let credit_bytes = std::mem::take(&mut self.freed);
        self.send(&GrantCreditRequest { subscription: open.get(), credit_bytes })?;
        Ok(())
    }

    fn send<Q: Request + Message>(&mut self, request: &Q) -> Result<CorrelationId, WorkerError> {
        self.last_id = self.last_id.wrapping_add(1);
        let id = CorrelationId::new(self.last_id);
        let mut out = BytesMut::new();
        frame::encode_request(id, request, &mut out).map_err(invalid)?;
        self.connection.write(&mut [IoSlice::new(&out)])?;
        Ok(id)
    }

    /// Takes what stands before the sections of the next frame; `false` where the next response is no frame.
    fn take_frame_head(&mut self) -> Result<bool, WorkerError> {
        let head = self.connection.wait_for_response_head()?;
        let body_bytes = head.body_bytes as usize;
        if !head.error.is_none() {
            let body = self.connection.wait_for(body_bytes)?;
            return Err(WorkerError::Request(frame::decode_error_body(head.error, body).map_err(invalid)?));
        }
        if Some(head.correlation_id) != self.open {
            // A grant or an end was heard; there is nothing in it.
            self.connection.wait_for(body_bytes)?;
            self.connection.consume(body_bytes);
            return Ok(false);
        }
        let FrameHead { is_last, sections } = self.take_head(&head)?;
        self.sections = sections;
        if is_last {
            self.open = None;
        }
        Ok(true)
    }

    fn take_head(&mut self, head: &ResponseHead) -> io::Result<FrameHead> {
        loop {
            let arrived = self.connection.available();
            let body = &arrived[..arrived.len().min(head.body_bytes as usize)];
            let decoded = SubscribedHead::decode_head(body, head.body_bytes).map_err(invalid)?;
            let Some((decoded, head_bytes)) = decoded else {
                self.connection.receive()?;
                continue;
            };
            self.connection.consume(head_bytes);
            let partitions = decoded.topics.into_iter().flat_map(|topic| topic.partitions);
            let sections = partitions.map(|found| Fetched {
                partition: found.partition,
                error: (!found.error.is_none()).then_some(WireError { code: found.error, detail: found.detail }),
                records_bytes: found.records_bytes as usize,
            });
            return Ok(FrameHead { is_last: decoded.is_last, sections: sections.collect() });
        }
    }

    fn take_section(
        &mut self,
        received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Received, WorkerError> {
        let Some(Fetched { partition, error, records_bytes }) = self.sections.pop_front() else {
            return Err(invalid("there is no section to be taken").into());
        };
        let Some(span) = self.spans.get_mut(&partition) else {
            return Err(invalid(format!("partition {partition} came unasked")).into());
        };
        if let Some(source) = error {
            return Err(WorkerError::Partition { partition, source });
        }
        let was_read = span.is_read();
        let position = self.fetching.stamp_position;
        let counted = span.take_section(&mut self.connection, records_bytes, position, received)?;
        let ends_span = span.is_read() && !was_read;
        self.brought += records_bytes as u64;
        self.freed = self.freed.saturating_add(u32::try_from(records_bytes).unwrap_or(u32::MAX));
        Ok(Received { partition: Some(partition), counted, took: self.took(), ends_span })
    }

    /// Since the last answer was there.
    fn took(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.answered, Instant::now());
        self.answered - before
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ringmq_wire::codec::Codec;
    use ringmq_wire::protocol::{
        FetchedPartition, FetchedTopic, GrantCreditResponse, RequestType, UnsubscribeResponse,
    };
    use ringmq_wire::{Detail, ErrorCode, Offset};

    use super::*;
    use crate::checker::tests::batch;
    use crate::source::{By, Source};
    use crate::testing::{self, Peer};

    /// A frame with these sections.
    fn frame_of(id: CorrelationId, is_last: bool, sections: &[(u32, Vec<u8>)], error: ErrorCode) -> BytesMut {
        let part = |(partition, section): &(u32, Vec<u8>)| FetchedPartition {
            partition: PartitionIndex::new(*partition),
            error,
            detail: Detail::NONE,
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::new(1000),
            records_bytes: u32::try_from(section.len()).unwrap(),
        };
        let topic = TopicName::parse("t").unwrap();
        let topics = vec![FetchedTopic { topic, partitions: sections.iter().map(part).collect() }];
        let mut out = BytesMut::new();
        frame::encode_response_head(id, &SubscribedHead { is_last, topics }, &mut out).unwrap();
        sections.iter().for_each(|(_, section)| out.extend_from_slice(section));
        out
    }

    /// What the peer was asked, in order: subscriptions with their offsets and credit, grants, and ends.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Asked {
        Subscribe(Vec<(u32, i64)>, u32),
        Grant(u32),
        Unsubscribe,
    }

    /// A source whose peer answers each subscription with what `frames` makes of its number and id.
    fn source(
        bytes: u32,
        mut frames: impl FnMut(usize, CorrelationId) -> BytesMut + Send + 'static,
    ) -> (Source, Arc<Mutex<Vec<Asked>>>) {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (noted, mut subscriptions) = (asked.clone(), 0);
        let peer = Peer::answering(move |head, body| {
            let mut out = BytesMut::new();
            let request = match RequestType::from_u16(head.request_type).unwrap() {
                RequestType::Subscribe => {
                    let request = SubscribeRequest::decode_whole(&body).unwrap();
                    let wanted = request.topics[0].partitions.iter();
                    let wanted = wanted.map(|wanted| (wanted.partition.get(), wanted.fetch_offset.get()));
                    out = frames(subscriptions, head.correlation_id);
                    subscriptions += 1;
                    Asked::Subscribe(wanted.collect(), request.credit_bytes)
                }
                RequestType::GrantCredit => {
                    frame::encode_response(head.correlation_id, &GrantCreditResponse {}, &mut out).unwrap();
                    Asked::Grant(GrantCreditRequest::decode_whole(&body).unwrap().credit_bytes)
                }
                RequestType::Unsubscribe => {
                    let open = UnsubscribeRequest::decode_whole(&body).unwrap().subscription;
                    frame::encode_response(head.correlation_id, &UnsubscribeResponse {}, &mut out).unwrap();
                    out.extend_from_slice(&frame_of(CorrelationId::new(open), true, &[], ErrorCode::None));
                    Asked::Unsubscribe
                }
                other => panic!("{other:?}"),
            };
            noted.lock().unwrap().push(request);
            Some(out)
        });
        let fetching = Fetching { bytes, in_flight: 2, max_wait_ms: 0, stamp_position: None };
        let topic = testing::topic(&peer.place);
        (Source::connect(&topic, std::slice::from_ref(&peer.place), Some(By::Subscribe), fetching).unwrap(), asked)
    }

    fn span(partition: usize, offsets: std::ops::Range<i64>) -> Span {
        Span::new(partition, offsets).unwrap()
    }

    #[test]
    fn spans_are_read_to_their_ends_and_credit_is_granted_again() {
        let length = u32::try_from(batch(0, 5).len()).unwrap();
        // One frame of two partitions, a heartbeat, a frame that reaches beyond an end.
        let (mut source, asked) = source(length, |_, id| {
            let mut out = frame_of(id, false, &[(0, batch(0, 5)), (1, batch(10, 5))], ErrorCode::None);
            out.extend_from_slice(&frame_of(id, false, &[], ErrorCode::None));
            out.extend_from_slice(&frame_of(id, false, &[(0, batch(5, 5))], ErrorCode::None));
            out
        });
        source.begin([span(0, 0..7), span(1, 10..15)]).unwrap();
        let came: Vec<_> = (0..4).map(|_| source.next(|_, _| Ok(())).unwrap()).collect();
        let told: Vec<_> =
            came.iter().map(|one| (one.partition.map(PartitionIndex::get), one.counted.records)).collect();
        assert_eq!(told, [(Some(0), 5), (Some(1), 5), (None, 0), (Some(0), 2)]);
        assert_eq!(came.iter().map(|one| one.ends_span).collect::<Vec<_>>(), [false, true, false, true]);
        source.rest().unwrap();
        source.rest().unwrap();
        let expected =
            [Asked::Subscribe(vec![(0, 0), (1, 10)], 2 * length), Asked::Grant(2 * length), Asked::Unsubscribe];
        assert_eq!(*asked.lock().unwrap(), expected);
    }

    #[test]
    fn a_subscription_that_the_broker_ends_is_opened_anew_from_where_it_was() {
        let (mut source, asked) = source(1 << 20, |number, id| match number {
            0 => frame_of(id, true, &[(0, batch(0, 5)), (1, batch(0, 3))], ErrorCode::None),
            _ => frame_of(id, false, &[(0, batch(5, 5))], ErrorCode::None),
        });
        source.begin([span(0, 0..10), span(1, 0..3)]).unwrap();
        let records: Vec<_> = (0..3).map(|_| source.next(|_, _| Ok(())).unwrap().counted.records).collect();
        assert_eq!(records, [5, 3, 5]);
        let expected = [Asked::Subscribe(vec![(0, 0), (1, 0)], 2 << 20), Asked::Subscribe(vec![(0, 5)], 2 << 20)];
        assert_eq!(*asked.lock().unwrap(), expected);
    }

    #[test]
    fn damage_refusals_and_strangers_are_told() {
        let next = |frames: fn(CorrelationId) -> BytesMut| {
            let (mut source, _) = source(1 << 20, move |_, id| frames(id));
            source.begin([span(0, 0..10)]).unwrap();
            source.next(|_, _| Ok(())).unwrap_err()
        };
        let damaged = next(|id| {
            let mut section = batch(0, 5);
            *section.last_mut().unwrap() ^= 1;
            frame_of(id, false, &[(0, section)], ErrorCode::None)
        });
        assert!(matches!(damaged, WorkerError::Check { .. }), "{damaged:?}");
        let refused = next(|id| frame_of(id, false, &[(0, Vec::new())], ErrorCode::PartitionOffline));
        assert!(matches!(refused, WorkerError::Partition { .. }), "{refused:?}");
        let stranger = next(|id| frame_of(id, false, &[(7, batch(0, 5))], ErrorCode::None));
        assert!(stranger.to_string().contains("partition 7 came unasked"), "{stranger}");
        let gap = next(|id| frame_of(id, false, &[(0, batch(3, 5))], ErrorCode::None));
        assert!(matches!(gap, WorkerError::Check { .. }), "{gap:?}");
    }
}
