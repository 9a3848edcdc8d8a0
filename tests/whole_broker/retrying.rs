//! An idempotent producer: it sends again what was not answered, and some of what was, over every end of the broker and of
//! its connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ringmq_runtime::{random, time};
use ringmq_wire::batch::BatchProducer;
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::{
    Acks, InitProducerIdRequest, ProduceHead, ProducePartition, ProduceResponse, ProduceTopic, ProducedPartition,
};
use ringmq_wire::{CorrelationId, ErrorCode, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicName};

use super::broker::ADDRESS;
use super::connection::{Answer, Connection, Lost};
use super::ledger::{BatchId, Place};
use super::producer::draw_value_bytes;
use super::scenario::Stage;

/// Batches of one partition that are under way at the same time.
const IN_FLIGHT_MAX: usize = 4;

/// Produces until the scenario has enough and everything that was sent is answered.
pub(crate) async fn run(stage: Stage) {
    let mut producer = Producer { identity: None, number: stage.ledger.new_sender(), lanes: BTreeMap::new() };
    while !(stage.is_enough() && producer.has_nothing_pending()) {
        let _ = producer.work_on_a_connection(&stage).await;
        time::sleep(Duration::from_micros(100 + random::u64() % 5_000)).await;
    }
}

/// The producer, as it knows itself.
struct Producer {
    identity: Option<(ProducerId, ProducerEpoch)>,
    /// In the ledger.
    number: u64,
    lanes: BTreeMap<Place, Lane>,
}

/// What it sends to one partition.
struct Lane {
    epoch: ProducerEpoch,
    next_sequence: Sequence,
    /// Not answered with success, in order.
    pending: VecDeque<Batch>,
    /// The last one that was, and where it is.
    answered: Option<(Batch, Offset)>,
    /// One of the epoch before this one.
    outdated: Option<Batch>,
}

/// A batch as it was sent, and is sent again.
#[derive(Clone)]
struct Batch {
    id: BatchId,
    bytes: Bytes,
}

impl Producer {
    fn has_nothing_pending(&self) -> bool {
        self.lanes.values().all(|lane| lane.pending.is_empty())
    }

    async fn work_on_a_connection(&mut self, stage: &Stage) -> Result<(), Lost> {
        let mut connection = Connection::open(ADDRESS).await?;
        let (id, epoch) = self.identify(stage, &mut connection).await?;
        while !(stage.is_enough() && self.has_nothing_pending()) {
            let pending = self.lanes.iter().find(|(_, lane)| !lane.pending.is_empty()).map(|(place, _)| place.clone());
            let place = pending.filter(|_| stage.is_enough()).unwrap_or_else(|| stage.draw_place());
            let lane = self.lanes.entry(place.clone()).or_insert_with(|| Lane::new(epoch));
            let sender = Sender { stage, id, number: self.number, place: &place };
            match random::u64() % 8 {
                0 => sender.send_answered(lane, &mut connection).await?,
                1 => sender.leave_a_gap(lane, &mut connection).await?,
                2 => sender.send_outdated(lane, &mut connection).await?,
                3 => sender.begin_epoch(lane),
                _ => sender.send(lane, &mut connection).await?,
            }
            time::sleep(Duration::from_micros(random::u64() % 4_000)).await;
        }
        Ok(())
    }

    /// The identity that the broker gave, once.
    async fn identify(
        &mut self,
        stage: &Stage,
        connection: &mut Connection,
    ) -> Result<(ProducerId, ProducerEpoch), Lost> {
        if let Some(identity) = self.identity {
            return Ok(identity);
        }
        let given = connection.call(&InitProducerIdRequest { timeout_ms: 30_000 }).await?;
        let given = given.map_err(|error| stage.refused(error.code, "a request for an identity"))?;
        stage.ledger.identify(given.producer_id);
        Ok(*self.identity.insert((given.producer_id, given.producer_epoch)))
    }
}

impl Lane {
    fn new(epoch: ProducerEpoch) -> Lane {
        let (next_sequence, pending) = (Sequence::ZERO, VecDeque::new());
        Lane { epoch, next_sequence, pending, answered: None, outdated: None }
    }

    fn begin_epoch(&mut self) {
        self.epoch = self.epoch.next().expect("few");
        (self.next_sequence, self.answered) = (Sequence::ZERO, None);
    }

    /// What was answered last, where the partition knows the producer for certain: it has records of it.
    fn known(&self, sender: &Sender<'_>) -> Option<(Batch, Offset)> {
        let start = sender.stage.ledger.start_asked(sender.place);
        // Retention may take anything, and so may the power where the flush is relaxed.
        let stays = !(sender.place.is_retained() || sender.place.is_relaxed());
        self.answered.clone().filter(|(_, base)| *base >= start && stays)
    }
}

/// One producer that sends to one partition.
struct Sender<'a> {
    stage: &'a Stage,
    id: ProducerId,
    number: u64,
    place: &'a Place,
}

impl Sender<'_> {
    /// A new batch with that sequence.
    fn write(&self, epoch: ProducerEpoch, base_sequence: Sequence) -> Batch {
        let producer = BatchProducer { id: self.id, epoch, base_sequence };
        let value_bytes = draw_value_bytes(self.place);
        let (id, bytes) = self.stage.ledger.write_batch(self.place, self.number, value_bytes, Some(producer));
        Batch { id, bytes }
    }

    /// Sends what is pending and more, some of it twice; and now and then hears no answer.
    async fn send(&self, lane: &mut Lane, connection: &mut Connection) -> Result<(), Lost> {
        // A partition that may not know the producer takes whatever comes first.
        let in_flight_max = if lane.known(self).is_some() { IN_FLIGHT_MAX } else { 1 };
        while lane.pending.len() < in_flight_max && !self.stage.is_enough() && !random::u64().is_multiple_of(4) {
            let batch = self.write(lane.epoch, lane.next_sequence);
            lane.next_sequence = lane.next_sequence.advance(self.stage.ledger.record_count(batch.id));
            lane.pending.push_back(batch);
        }
        let mut under_way = BTreeMap::new();
        for batch in lane.pending.iter().take(in_flight_max) {
            for _ in 0..if random::u64().is_multiple_of(4) { 2 } else { 1 } {
                under_way.insert(self.request(batch, connection).await?, batch.clone());
            }
        }
        if random::u64().is_multiple_of(16) {
            return Err(Lost);
        }
        self.settle(lane, under_way, connection).await
    }

    async fn settle(
        &self,
        lane: &mut Lane,
        mut under_way: BTreeMap<CorrelationId, Batch>,
        connection: &mut Connection,
    ) -> Result<(), Lost> {
        let mut begins_again = false;
        while !under_way.is_empty() {
            let (id, answer) = connection.receive().await?;
            let batch = under_way.remove(&id).expect("each request is answered once");
            let Some(produced) = self.produced(&answer) else { continue };
            match produced.error {
                ErrorCode::None => self.stored(lane, batch, &produced),
                // What came before it went with the power.
                ErrorCode::OutOfOrderSequence if self.place.is_relaxed() => begins_again = true,
                // What came before it was refused, by a broker that stops.
                ErrorCode::OutOfOrderSequence if self.stage.is_stopping() => {}
                error => self.stage.allow(error, "a batch of an idempotent producer"),
            }
        }
        if begins_again {
            lane.pending.clear();
            lane.begin_epoch();
        }
        Ok(())
    }

    fn stored(&self, lane: &mut Lane, batch: Batch, produced: &ProducedPartition) {
        self.stage.ledger.acknowledge(batch.id, produced.base_offset, produced.next_offset);
        lane.pending.retain(|pending| pending.id != batch.id);
        if lane.answered.as_ref().is_none_or(|(answered, _)| answered.id <= batch.id) {
            lane.answered = Some((batch, produced.base_offset));
        }
    }

    /// Sends again what was answered last: it is answered as the first time, which the ledger sees to.
    async fn send_answered(&self, lane: &mut Lane, connection: &mut Connection) -> Result<(), Lost> {
        let Some((batch, _)) = lane.known(self) else { return Ok(()) };
        match self.answer(&batch, connection).await? {
            Some(produced) if produced.error == ErrorCode::None => self.stored(lane, batch, &produced),
            Some(produced) => self.stage.allow(produced.error, "a batch that is stored"),
            None => {}
        }
        Ok(())
    }

    /// Sends what goes on behind something that was never sent.
    async fn leave_a_gap(&self, lane: &Lane, connection: &mut Connection) -> Result<(), Lost> {
        if lane.known(self).is_none() || !lane.pending.is_empty() {
            return Ok(());
        }
        let ahead = 1 + u32::try_from(random::u64() % 100).expect("small");
        let batch = self.write(lane.epoch, lane.next_sequence.advance(ahead));
        self.expect(&batch, ErrorCode::OutOfOrderSequence, connection).await
    }

    /// From now on the batches are of another epoch.
    fn begin_epoch(&self, lane: &mut Lane) {
        if lane.answered.is_none() || !lane.pending.is_empty() {
            return;
        }
        lane.outdated = Some(self.write(lane.epoch, lane.next_sequence));
        lane.begin_epoch();
    }

    /// Sends a batch of the epoch before.
    async fn send_outdated(&self, lane: &mut Lane, connection: &mut Connection) -> Result<(), Lost> {
        if lane.known(self).is_none() {
            return Ok(());
        }
        let Some(batch) = lane.outdated.take() else { return Ok(()) };
        self.expect(&batch, ErrorCode::InvalidProducerEpoch, connection).await
    }

    /// The batch is refused so, and never stored.
    async fn expect(&self, batch: &Batch, refused: ErrorCode, connection: &mut Connection) -> Result<(), Lost> {
        self.stage.ledger.refuse(batch.id);
        if let Some(produced) = self.answer(batch, connection).await?
            && produced.error != refused
        {
            self.stage.allow(produced.error, "a batch out of sequence");
        }
        Ok(())
    }

    async fn answer(&self, batch: &Batch, connection: &mut Connection) -> Result<Option<ProducedPartition>, Lost> {
        let id = self.request(batch, connection).await?;
        let (answered, answer) = connection.receive().await?;
        assert_eq!(answered, id, "one request in flight has one answer");
        Ok(self.produced(&answer))
    }

    async fn request(&self, batch: &Batch, connection: &mut Connection) -> Result<CorrelationId, Lost> {
        let records_bytes = u32::try_from(batch.bytes.len()).expect("small");
        let partition = PartitionIndex::new(self.place.partition);
        let partitions = vec![ProducePartition { partition, records_bytes }];
        let topic = TopicName::parse(&self.place.topic).expect("a valid name");
        let topics = vec![ProduceTopic { topic, partitions }];
        let head = ProduceHead { acks: Acks::All, timeout_ms: 30_000, topics };
        connection.send_produce(&head, std::slice::from_ref(&batch.bytes)).await
    }

    /// What became of the one batch of a request; `None` when the broker refused the request because it stops.
    fn produced(&self, answer: &Answer) -> Option<ProducedPartition> {
        match answer {
            Ok(body) => {
                let response = ProduceResponse::decode_whole(body).expect("it can be decoded");
                let topic = response.topics.into_iter().next().expect("the topic is answered");
                Some(topic.partitions.into_iter().next().expect("the partition is answered"))
            }
            Err(error) => {
                self.stage.allow(error.code, "a produce");
                None
            }
        }
    }
}
