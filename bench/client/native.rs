//! RingMQ's client crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmq_client::{
    AckedBy, Client as Connected, Consumer, Error, FetchOptions, PartitionIndex, Producer, Record, RecordStream,
    SubscribeOptions,
};
use ringmq_wire::Offset;
use tokio::runtime::Runtime;

use super::{Client, ClientError, Each, Endpoint, Heard, Outcome, Receiver, Records, Sender, Sending, runtime};
use crate::arguments::AcksArgument;
use crate::connection::invalid;
use crate::error::{LoadError, WorkerError};

/// The client crate.
#[derive(Debug)]
pub(crate) struct Native;

fn connect(at: &Endpoint<'_>) -> Result<Connected, LoadError> {
    runtime()?.block_on(Connected::connect(at.brokers.to_vec())).map_err(LoadError::from)
}

impl Client for Native {
    fn sender(&self, to: &Sending<'_>, heard: Arc<Heard>) -> Result<Arc<dyn Sender>, LoadError> {
        let Sending { at, load } = to;
        if load.in_flight.is_some() {
            return Err(LoadError::NotByClient { flag: "--in-flight", by: "RingMQ's client" });
        }
        let acked_by = if load.acks == AcksArgument::Leader { AckedBy::Leader } else { AckedBy::All };
        let producer = connect(at)?.producer().batch_bytes_max(load.batch_bytes as usize);
        let producer = producer.acked_by(acked_by).idempotent(load.idempotent);
        let producer = match load.linger {
            Some(linger) => producer.linger(linger),
            None => producer,
        };
        Ok(Arc::new(NativeSender { producer, topic: at.topic.into(), heard }))
    }

    fn receiver(&self, at: &Endpoint<'_>, bytes: u32) -> Result<Box<dyn Receiver>, LoadError> {
        let consumer = connect(at)?.consumer();
        Ok(Box::new(NativeReceiver { consumer, topic: at.topic.into(), bytes, stream: None, runtime: runtime()? }))
    }
}

struct NativeSender {
    producer: Producer,
    topic: Arc<str>,
    heard: Arc<Heard>,
}

impl NativeSender {
    async fn send_each(&self, records: Records) -> Result<(), (u64, Error)> {
        let Records { mut values, value_bytes, partition, timed } = records;
        let mut number = 0;
        while !values.is_empty() {
            let mut record = Record::value(values.split_to(value_bytes));
            if let Some(partition) = partition {
                record = record.to_partition(partition);
            }
            let handed = match timed.started(number) {
                Some(started) => {
                    let heard = self.heard.clone();
                    let told = move |stored: Result<ringmq_client::Delivery, Error>| {
                        if let Ok(stored) = stored {
                            heard.of(started, stored.partition);
                        }
                    };
                    self.producer.enqueue_with(&self.topic, record, told).await
                }
                None => self.producer.enqueue(&self.topic, record).await.map(drop),
            };
            handed.map_err(|error| (number as u64, error))?;
            number += 1;
        }
        Ok(())
    }
}

impl Sender for NativeSender {
    fn send(&self, records: Records) -> Outcome<'_> {
        Box::pin(async move {
            let count = (records.values.len() / records.value_bytes) as u64;
            match self.send_each(records).await {
                Ok(()) => (count, None),
                Err((taken, error)) => (taken, Some(error.into())),
            }
        })
    }

    fn flush(&self) -> Outcome<'_> {
        Box::pin(async move {
            match self.producer.flush().await {
                Ok(()) => (0, None),
                Err(error) => {
                    let given_up = if let Error::Undelivered { records, .. } = &error { *records } else { 0 };
                    (given_up, Some(error.into()))
                }
            }
        })
    }
}

struct NativeReceiver {
    consumer: Consumer,
    topic: Arc<str>,
    /// Of one partition at once.
    bytes: u32,
    stream: Option<RecordStream>,
    runtime: &'static Runtime,
}

impl Receiver for NativeReceiver {
    fn begin(&mut self, from: &[(PartitionIndex, Offset)]) -> Result<(), WorkerError> {
        self.stream = None;
        if from.is_empty() {
            return Ok(());
        }
        let positions: BTreeMap<PartitionIndex, Offset> = from.iter().copied().collect();
        let options = SubscribeOptions {
            partitions: Some(positions.keys().copied().collect()),
            positions,
            fetch: FetchOptions { partition_max_bytes: self.bytes, ..FetchOptions::default() },
            ..SubscribeOptions::default()
        };
        let stream = self.runtime.block_on(self.consumer.stream(&self.topic, options));
        self.stream = Some(stream.map_err(ClientError::from)?);
        Ok(())
    }

    fn receive(&mut self, wait: Duration, each: &mut Each<'_>) -> Result<(), WorkerError> {
        let Some(stream) = &mut self.stream else { return Err(invalid("nothing is subscribed to").into()) };
        let came = self.runtime.block_on(async { tokio::time::timeout(wait, stream.next_batch()).await });
        // Nothing in that time.
        let Ok(came) = came else { return Ok(()) };
        let Some(records) = came.map_err(ClientError::from)? else {
            return Err(invalid("the subscription is over, although more may come").into());
        };
        records
            .iter()
            .try_for_each(|record| each(record.partition, record.offset, record.value.as_deref().unwrap_or(&[])))
    }
}
