//! One producer: a connection, its partitions, and what is in flight.

use std::io::IoSlice;
use std::num::NonZeroU64;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmq_client::{Acks, PartitionIndex};
use ringmq_wire::Sequence;
use ringmq_wire::batch::BatchProducer;
use ringmq_wire::protocol::InitProducerIdResponse;

use crate::connection::{Connection, invalid};
use crate::driver::{Destination, Driver};
use crate::error::{LoadError, WorkerError};
use crate::latency::Latencies;
use crate::pace::{Extent, Schedule};
use crate::payload::{Fill, Marks, Payload, Ready};
use crate::stamp::Stamp;
use crate::topic::{Place, Topic};
use crate::volume::Volume;
use crate::workers::Progress;

/// How a producer sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    /// What is waited for before a batch counts.
    pub(crate) acks: Acks,
    /// Batches that are sent before an answer is waited for.
    pub(crate) in_flight: usize,
    /// Batches carry an identity and sequences.
    pub(crate) idempotent: bool,
    /// When batches are due; `None` for as fast as answers come.
    pub(crate) schedule: Option<Schedule>,
    /// Batches say when they were due.
    pub(crate) stamps: Option<Stamping>,
}

/// What a producer puts into its batches' stamps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamping {
    /// Which producer it is.
    pub(crate) producer: u16,
    /// The moment from which on times count.
    pub(crate) epoch: Instant,
}

/// One thread's connection, partitions and batches.
pub(crate) struct Producer {
    connection: Connection,
    sending: Sending,
    identity: Option<InitProducerIdResponse>,
    routes: Vec<Route>,
    /// How many batches were sent: it chooses the route of the next one.
    sent: u64,
    payload: Payload,
    /// By correlation id, which is the number of the place.
    in_flight: Vec<Option<Request>>,
    free: Vec<usize>,
    latencies: Latencies,
}

/// A partition, and the heads of requests to it with room for the correlation id.
struct Route {
    partition: PartitionIndex,
    full: Bytes,
    rest: Option<Bytes>,
    /// Of the next record, where there is an identity.
    next_sequence: Sequence,
    acknowledged: u64,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    /// When it was sent; in an open loop, when it was due.
    started: Instant,
    route: usize,
    volume: Volume,
}

impl Producer {
    /// Connects to where the first of `places` is, for records to all of them.
    pub(crate) fn connect(
        topic: &Topic,
        places: &[Place],
        payload: Payload,
        sending: Sending,
    ) -> Result<Self, LoadError> {
        let mut routes = Vec::with_capacity(places.len());
        for place in places {
            let to = Destination { topic: &topic.name, partition: place.partition, acks: sending.acks };
            let head = |fill| request_head(topic.driver, &to, payload.volume(fill).bytes);
            let (full, rest) = (head(Fill::Full)?, (payload.rest_records > 0).then(|| head(Fill::Rest)).transpose()?);
            let (partition, next_sequence, acknowledged) = (place.partition, Sequence::ZERO, 0);
            routes.push(Route { partition, full, rest, next_sequence, acknowledged });
        }
        let (Some(home), Some(route)) = (places.first(), routes.first()) else {
            return Err(LoadError::Connect(invalid("a producer has no partition")));
        };
        let mut connection = Connection::open(topic.driver, &home.addresses).map_err(LoadError::Connect)?;
        let max = u64::from(connection.request_bytes_max());
        let bytes = route.full.len() as u64 + payload.volume(Fill::Full).bytes;
        if bytes > max {
            return Err(LoadError::RequestTooLarge { bytes, max });
        }
        let identity = sending.idempotent.then(|| connection.init_producer_id().map_err(LoadError::Connect));
        Ok(Self {
            connection,
            sending,
            identity: identity.transpose()?,
            routes,
            sent: 0,
            payload,
            in_flight: vec![None; sending.in_flight],
            free: (0..sending.in_flight).rev().collect(),
            latencies: Latencies::new()?,
        })
    }

    /// Where its batches have a stamp, behind their header.
    pub(crate) fn stamp_position(&self) -> usize {
        self.payload.stamp_position()
    }

    /// How many records of each of its partitions were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (PartitionIndex, u64)> {
        self.routes.iter().map(|route| (route.partition, route.acknowledged))
    }

    /// Of every request since the last [`Producer::forget_latencies`].
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    pub(crate) fn forget_latencies(&mut self) -> Result<(), LoadError> {
        self.latencies = Latencies::new()?;
        Ok(())
    }

    /// Everything that was prepared, or full batches for so long.
    pub(crate) fn plan(&self, extent: Extent) -> Plan {
        let (full, rest) = (self.payload.full_count, self.payload.rest_records > 0);
        match extent {
            Extent::Records(_) => Plan { full, rest, until: None, taken: 0 },
            Extent::Time(until) => Plan { full: u64::MAX, rest: false, until: Some(until), taken: 0 },
        }
    }

    /// Besides what was prepared, so many records, rounded up to full batches, or batches for so long.
    pub(crate) fn warm_up_plan(&self, extent: Extent) -> Plan {
        match extent {
            Extent::Records(records) => {
                let full = records.div_ceil(self.payload.volume(Fill::Full).records);
                Plan { full, rest: false, until: None, taken: 0 }
            }
            Extent::Time(_) => self.plan(extent),
        }
    }

    /// Sends what the plan says, and waits until it is acknowledged or something fails. Gives what was acknowledged.
    pub(crate) fn produce(&mut self, mut plan: Plan, progress: &Progress) -> (Volume, Option<WorkerError>) {
        let mut acknowledged = Volume::default();
        let failure = self.produce_all(&mut plan, progress, &mut acknowledged).err();
        (acknowledged, failure)
    }

    fn produce_all(
        &mut self,
        plan: &mut Plan,
        progress: &Progress,
        acknowledged: &mut Volume,
    ) -> Result<(), WorkerError> {
        if self.sending.schedule.is_some() {
            // The kernel may end a wait up to 50 µs late otherwise, which would show in the latencies.
            rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(std::io::Error::from)?;
        }
        loop {
            let now = progress.started().elapsed();
            let before = *acknowledged;
            match plan.next_due(self.sending.schedule.as_ref(), now) {
                Some(due) if due <= now && !self.free.is_empty() => self.send(plan, progress, acknowledged)?,
                Some(due) if !self.free.is_empty() => {
                    if self.connection.wait_readable(progress.started() + due)? {
                        self.take_answers(acknowledged)?;
                    }
                }
                None if self.free.len() == self.in_flight.len() => return Ok(()),
                _ => self.take_answers(acknowledged)?,
            }
            let (records, bytes) = (acknowledged.records - before.records, acknowledged.bytes - before.bytes);
            if records > 0 {
                progress.add(Volume { records, bytes }, self.latencies.take_longest());
            }
        }
    }

    /// Sends as many of the batches that are due as may be in flight and can be ready at the same time, with one write.
    fn send(&mut self, plan: &mut Plan, progress: &Progress, acknowledged: &mut Volume) -> Result<(), WorkerError> {
        let now = progress.started().elapsed();
        let id_at = self.connection.driver().correlation_id_at();
        let mut heads = Vec::new();
        let mut queued: Vec<(usize, Range<usize>, Ready)> = Vec::new();
        while queued.len() < self.payload.ready_max()
            && let Some(&place) = self.free.last()
            && let Some(due) = plan.next_due(self.sending.schedule.as_ref(), now).filter(|due| *due <= now)
        {
            let fill = plan.take();
            let started = match self.sending.schedule {
                Some(_) => progress.started() + due,
                None => Instant::now(),
            };
            let (route, ready) = self.make_ready(fill, started);
            let head = match fill {
                Fill::Full => &self.routes[route].full,
                Fill::Rest => self.routes[route].rest.as_ref().unwrap_or(&self.routes[route].full),
            };
            let start = heads.len();
            heads.extend_from_slice(head);
            let id = u32::try_from(place).unwrap_or(u32::MAX).to_be_bytes();
            heads[start + id_at..][..id.len()].copy_from_slice(&id);
            self.free.pop();
            self.in_flight[place] = Some(Request { started, route, volume: self.payload.volume(fill) });
            queued.push((place, start..heads.len(), ready));
        }
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(2 * queued.len());
        for (_, head, batch) in &queued {
            pieces.extend([IoSlice::new(&heads[head.clone()]), IoSlice::new(self.payload.bytes(*batch))]);
        }
        self.connection.write(&mut pieces)?;
        if self.sending.acks == Acks::None {
            for (place, ..) in queued {
                self.end(place, acknowledged);
            }
        }
        Ok(())
    }

    /// Makes a batch ready for the partition whose turn it is.
    fn make_ready(&mut self, fill: Fill, due: Instant) -> (usize, Ready) {
        let index = usize::try_from(self.sent % self.routes.len() as u64).unwrap_or(0);
        let route = &mut self.routes[index];
        let producer = self.identity.as_ref().map(|identity| {
            let (id, epoch, base_sequence) = (identity.producer_id, identity.producer_epoch, route.next_sequence);
            // A batch has no more records than a sequence has numbers.
            let records = u32::try_from(self.payload.volume(fill).records).unwrap_or(u32::MAX);
            route.next_sequence = base_sequence.advance(records);
            BatchProducer { id, epoch, base_sequence }
        });
        let stamp = self.sending.stamps.map(|Stamping { producer, epoch }| Stamp {
            producer,
            number: self.sent,
            due: due.saturating_duration_since(epoch),
        });
        self.sent += 1;
        (index, self.payload.make_ready(fill, &Marks { partition: route.partition, producer, stamp }))
    }

    /// Waits for an answer, and takes all that have come with it.
    fn take_answers(&mut self, acknowledged: &mut Volume) -> Result<(), WorkerError> {
        self.connection.receive()?;
        while let Some(head) = self.connection.take_response_head()? {
            let driver = self.connection.driver();
            let body = self.connection.wait_for(head.body_bytes as usize)?;
            let place = head.correlation_id.get() as usize;
            let Some(Some(request)) = self.in_flight.get(place) else {
                return Err(invalid(format!("response {place} answers no request")).into());
            };
            let count = driver.acknowledged(&head, body, request.volume.records)?;
            if count != request.volume.records {
                return Err(WorkerError::Count { acknowledged: count, sent: request.volume.records });
            }
            self.connection.consume(head.body_bytes as usize);
            self.end(place, acknowledged);
        }
        Ok(())
    }

    /// The request in `place` is done.
    fn end(&mut self, place: usize, acknowledged: &mut Volume) {
        if let Some(Request { started, route, volume }) = self.in_flight[place].take() {
            self.latencies.record(started.elapsed());
            self.routes[route].acknowledged += volume.records;
            *acknowledged = acknowledged.plus(volume);
            self.free.push(place);
        }
    }
}

/// Batches that are still to be sent.
#[derive(Debug)]
pub(crate) struct Plan {
    full: u64,
    rest: bool,
    /// Nothing is sent that is due then or later, from the start on.
    until: Option<Duration>,
    taken: u64,
}

impl Plan {
    /// When the next batch is due, from the start on; `None` when none is left.
    fn next_due(&self, schedule: Option<&Schedule>, now: Duration) -> Option<Duration> {
        let due = schedule.map_or(now, |schedule| schedule.due(self.taken));
        let is_left = (self.full > 0 || self.rest) && self.until.is_none_or(|until| due < until);
        is_left.then_some(due)
    }

    /// The next one, which is left.
    fn take(&mut self) -> Fill {
        self.taken += 1;
        if self.full > 0 {
            self.full -= 1;
            return Fill::Full;
        }
        self.rest = false;
        Fill::Rest
    }
}

/// All of a request but its one batch.
fn request_head(driver: &dyn Driver, to: &Destination<'_>, batch_bytes: u64) -> Result<Bytes, LoadError> {
    let too_large = LoadError::RequestTooLarge { bytes: batch_bytes, max: u32::MAX.into() };
    let batch_bytes = u32::try_from(batch_bytes).map_err(|_| too_large)?;
    driver.produce_head(to, batch_bytes).map_err(LoadError::Connect)
}

#[cfg(test)]
mod tests;
