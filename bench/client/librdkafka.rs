//! Kafka's client for all that is not Java: librdkafka, by way of the crate `rdkafka`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset as At, TopicPartitionList};
use ringmq_client::{BrokerAddress, PartitionIndex};
use ringmq_wire::Offset;

use super::{Client, ClientError, Each, Endpoint, Heard, Outcome, Receiver, Records, Sender, Sending};
use crate::connection::invalid;
use crate::error::{LoadError, WorkerError};

/// How long it may take to find the topic.
const METADATA_MAX: Duration = Duration::from_secs(10);
/// As long as RingMQ's client by default; librdkafka itself would try for five minutes.
const DELIVERY_MS_MAX: &str = "30000";
/// How long the broker may wait for records before it answers with none; librdkafka's own.
const FETCH_WAIT_MAX: Duration = Duration::from_millis(500);
/// The pause where its queue is full, or not empty yet.
const PAUSE: Duration = Duration::from_millis(1);
/// How many records are taken at once, where they are there.
const RECORDS_AT_ONCE: usize = 1_000;

/// librdkafka.
#[derive(Debug)]
pub(crate) struct Librdkafka;

impl Client for Librdkafka {
    fn sender(&self, to: &Sending<'_>, heard: Arc<Heard>) -> Result<Arc<dyn Sender>, LoadError> {
        let reports = Reports { epoch: Instant::now(), heard, given_up: AtomicU64::new(0), first: Mutex::default() };
        let producer: ThreadedProducer<Reports> =
            producer_config(to).create_with_context(reports).map_err(client_error)?;
        producer.client().fetch_metadata(Some(to.at.topic), METADATA_MAX).map_err(client_error)?;
        Ok(Arc::new(LibrdkafkaSender { producer, topic: to.at.topic.to_owned() }))
    }

    fn receiver(&self, at: &Endpoint<'_>, bytes: u32) -> Result<Box<dyn Receiver>, LoadError> {
        let consumer: BaseConsumer = consumer_config(at, bytes).create().map_err(client_error)?;
        consumer.fetch_metadata(Some(at.topic), METADATA_MAX).map_err(client_error)?;
        Ok(Box::new(LibrdkafkaReceiver { consumer, topic: at.topic.to_owned(), held: None }))
    }
}

fn client_error(error: KafkaError) -> LoadError {
    LoadError::Client(error.into())
}

fn common_config(brokers: &[BrokerAddress]) -> ClientConfig {
    let brokers: Vec<String> = brokers.iter().map(BrokerAddress::to_string).collect();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(",")).set("client.id", "ringmq-bench");
    config
}

/// What the command line does not name is librdkafka's own, but for what would cut its batches below `--batch-bytes`.
fn producer_config(to: &Sending<'_>) -> ClientConfig {
    /// The highest that is valid: bytes are what bounds a batch.
    const BATCH_RECORDS_MAX: &str = "1000000";
    /// What a request may have beside its records.
    const AROUND_RECORDS_BYTES: u32 = 4096;
    let load = to.load;
    let request_bytes = load.batch_bytes.max(load.record_bytes).saturating_add(AROUND_RECORDS_BYTES);
    let mut config = common_config(to.at.brokers);
    config
        .set("acks", if load.acks == crate::AcksArgument::Leader { "1" } else { "all" })
        .set("batch.size", load.batch_bytes.to_string())
        .set("batch.num.messages", BATCH_RECORDS_MAX)
        .set("message.max.bytes", request_bytes.min(1_000_000_000).to_string())
        .set("message.timeout.ms", DELIVERY_MS_MAX)
        .set("enable.idempotence", load.idempotent.to_string());
    if let Some(linger) = load.linger {
        config.set("linger.ms", linger.as_millis().to_string());
    }
    if let Some(in_flight) = load.in_flight {
        config.set("max.in.flight.requests.per.connection", in_flight.to_string());
    }
    config
}

fn consumer_config(at: &Endpoint<'_>, bytes: u32) -> ClientConfig {
    let mut config = common_config(at.brokers);
    config
        // It wants one, although partitions are assigned by us and nothing is committed.
        .set("group.id", "ringmq-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("max.partition.fetch.bytes", bytes.to_string())
        .set("fetch.wait.max.ms", FETCH_WAIT_MAX.as_millis().to_string())
        // It waits a whole second otherwise, once it has fetched far enough ahead.
        .set("fetch.queue.backoff.ms", "10");
    config
}

struct LibrdkafkaSender {
    producer: ThreadedProducer<Reports>,
    topic: String,
}

/// What librdkafka says becomes of records.
struct Reports {
    /// Times are passed through it as nanoseconds from here on; 0 is none.
    epoch: Instant,
    heard: Arc<Heard>,
    /// Since the last flush.
    given_up: AtomicU64,
    /// Why the first of them was.
    first: Mutex<Option<KafkaError>>,
}

impl Reports {
    fn mark(&self, started: Option<Instant>) -> usize {
        let mark = |started: Instant| 1 + started.saturating_duration_since(self.epoch).as_nanos();
        started.map_or(0, |started| usize::try_from(mark(started)).unwrap_or(usize::MAX))
    }

    fn first(&self) -> std::sync::MutexGuard<'_, Option<KafkaError>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        match result {
            Ok(record) => {
                if let Some(nanoseconds) = mark.checked_sub(1) {
                    let started = self.epoch + Duration::from_nanos(nanoseconds as u64);
                    self.heard.of(started, PartitionIndex::new(record.partition().cast_unsigned()));
                }
            }
            Err((error, _)) => {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                self.first().get_or_insert_with(|| error.clone());
            }
        }
    }
}

impl LibrdkafkaSender {
    fn reports(&self) -> &Reports {
        self.producer.client().context()
    }

    /// Hands one record over, when there is room for it.
    async fn send_one(&self, value: &[u8], partition: Option<i32>, mark: usize) -> Result<(), KafkaError> {
        loop {
            let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topic, mark).payload(value);
            record.partition = partition;
            match self.producer.send(record).map_err(|(error, _)| error) {
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {}
                sent => return sent,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Sender for LibrdkafkaSender {
    fn send(&self, records: Records) -> Outcome<'_> {
        Box::pin(async move {
            let Records { values, value_bytes, partition, timed } = records;
            let partition = partition.map(|partition| partition.get().cast_signed());
            let mut taken = 0;
            for (number, value) in values.chunks(value_bytes).enumerate() {
                let mark = self.reports().mark(timed.started(number));
                if let Err(error) = self.send_one(value, partition, mark).await {
                    return (taken, Some(error.into()));
                }
                taken += 1;
            }
            (taken, None)
        })
    }

    fn flush(&self) -> Outcome<'_> {
        Box::pin(async move {
            // With a time-out it would go on for a tenth of a second behind the last report.
            while self.producer.in_flight_count() > 0 {
                // That something is left is told as an error, too.
                let _ = self.producer.flush(Duration::ZERO);
                tokio::time::sleep(PAUSE).await;
            }
            let reports = self.reports();
            let first = reports.first().take();
            (reports.given_up.swap(0, Ordering::Relaxed), first.map(ClientError::from))
        })
    }
}

struct LibrdkafkaReceiver {
    consumer: BaseConsumer,
    topic: String,
    /// Came behind records of another partition.
    held: Option<OwnedMessage>,
}

impl Receiver for LibrdkafkaReceiver {
    fn begin(&mut self, from: &[(PartitionIndex, Offset)]) -> Result<(), WorkerError> {
        let mut wanted = TopicPartitionList::with_capacity(from.len());
        for (partition, offset) in from {
            let at = At::Offset(offset.get());
            wanted.add_partition_offset(&self.topic, partition.get().cast_signed(), at).map_err(ClientError::from)?;
        }
        self.held = None;
        self.consumer.assign(&wanted).map_err(ClientError::from)?;
        if from.is_empty() {
            // A fetch that still waits at the broker would keep the first of what comes next waiting, too.
            std::thread::sleep(FETCH_WAIT_MAX);
        }
        Ok(())
    }

    fn receive(&mut self, wait: Duration, each: &mut Each<'_>) -> Result<(), WorkerError> {
        let (mut partition, mut wait) = (None, wait);
        if let Some(held) = self.held.take() {
            partition = Some(held.partition());
            wait = Duration::ZERO;
            give(&held, each)?;
        }
        for _ in 0..RECORDS_AT_ONCE {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(record)) if partition.is_none_or(|partition| partition == record.partition()) => {
                    partition = Some(record.partition());
                    give(&record, each)?;
                }
                Some(Ok(record)) => {
                    self.held = Some(record.detach());
                    break;
                }
                Some(Err(error)) if is_mended_by_itself(&error) => break,
                Some(Err(error)) => return Err(ClientError::from(error).into()),
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }
}

fn give(record: &impl Message, each: &mut Each<'_>) -> Result<(), WorkerError> {
    let offset = Offset::checked(record.offset()).ok_or_else(|| invalid("a record came with a negative offset"))?;
    let partition = PartitionIndex::new(record.partition().cast_unsigned());
    each(partition, offset, record.payload().unwrap_or_default())
}

/// It tells of connections that cannot be made or break, and makes others. Where that takes too long, nothing comes, and that is
/// seen.
fn is_mended_by_itself(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown))
}

#[cfg(test)]
mod tests;
