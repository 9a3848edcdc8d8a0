//! A broker in memory: a public port, a port for each shard, topics, and faults that tests order. It knows as much of a
//! broker as those tests need.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_wire::batch::{BatchProducer, set_base_offset, split_batches};
use ringmq_wire::protocol::{
    AlterTopicsRequest, AlterTopicsResponse, AlteredTopic, BrokerInfo, CreateTopicsRequest, CreateTopicsResponse,
    CreatedTopic, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DeletedRecords, DeletedRecordsTopic, DeletedTopic, DescribeClusterResponse,
    DescribeTopicsRequest, DescribeTopicsResponse, DescribedBroker, DescribedPartition, DescribedTopic,
    DiscoverControllerResponse, FetchRequest, FetchResponseHead, FetchTopic, FetchedPartition, FetchedTopic,
    GrantCreditResponse, Hello, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, ListTopicsResponse,
    ListedOffset, ListedOffsetTopic, ListedTopic, MetadataRequest, MetadataResponse, NamedValue, OffsetSpec,
    PartitionMetadata, ProduceHead, ProduceResponse, ProducedPartition, ProducedTopic, RequestType, SectionHead,
    ShardStats, StatsResponse, SubscribeRequest, SubscribedHead, TopicMetadata, UnsubscribeResponse, frame,
};
use ringmq_wire::{
    BrokerId, CorrelationId, Detail, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence, ShardIndex, TopicId, TopicName, WireError,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::peer::{PeerConnection, Received, encode};

/// What a broker does with one request instead of answering it.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Does nothing with it and closes the connection.
    CloseUnread,
    /// Does what was asked, and closes the connection instead of answering.
    CloseAfterDoing,
    /// Refuses the whole request.
    Refuse(WireError),
    /// Refuses every item of the request with this code.
    RefuseItems(ErrorCode),
    /// Flips a bit in the last byte of the answer.
    FlipLastBit,
    /// Never answers.
    Silence,
}

/// The first sequence of a producer's batch, and its offsets.
type SequencedBatch = (Sequence, Offset, Offset);

/// One partition's batches, from offset 0 on.
#[derive(Debug, Default)]
struct Log {
    batches: Vec<(Offset, Bytes)>,
    end: Offset,
    producers: BTreeMap<(ProducerId, ProducerEpoch), Vec<SequencedBatch>>,
    /// Told when records are deleted; reads do not heed it.
    start: Offset,
}

#[derive(Debug)]
struct Topic {
    id: TopicId,
    logs: Vec<Log>,
}

/// What a test may look at and change while the broker runs.
#[derive(Debug)]
pub(crate) struct State {
    topics: BTreeMap<String, Topic>,
    /// The public port, as advertised.
    public: SocketAddr,
    /// Partition p belongs to the shard p modulo their number; `None` advertises no port of its own.
    pub(crate) shard_ports: Vec<Option<u16>>,
    /// Whom it names as the controller; itself by default.
    pub(crate) controller: SocketAddr,
    /// Whether its hello has subscriptions. Each of them ends with its first frame, as a broker's may at any time.
    pub(crate) has_subscriptions: bool,
    /// Whether it does what only the controller may.
    pub(crate) is_controller: bool,
    /// Taken from the front by requests of that type.
    faults: VecDeque<(RequestType, Fault)>,
    /// What all requests on a port meet, unless they take one of those above.
    faulty_ports: BTreeMap<u16, Fault>,
    /// The largest request that it takes, as its hello says.
    pub(crate) request_bytes_max: u32,
    /// How long it lets new connections wait for its hello.
    pub(crate) greeting_takes: Duration,
    /// How long it lets each request to store records wait for its answer, and what follows on the connection.
    pub(crate) produce_takes: Duration,
    /// Every request, with the port on which it came.
    received: Vec<(u16, RequestType)>,
    topics_created: u8,
    /// Ids of producers that were given.
    pub(crate) producers: i64,
    connections: usize,
}

/// The broker. It ends, with its connections, when it is dropped.
pub(crate) struct FakeBroker {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    _listeners: JoinSet<()>,
}

impl FakeBroker {
    /// A broker with so many shards, each with a port of its own.
    pub(crate) async fn start(shards: usize) -> Self {
        let mut bound = Vec::new();
        for _ in 0..=shards {
            bound.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<SocketAddr> = bound.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let state = Arc::new(Mutex::new(State {
            topics: BTreeMap::new(),
            public: addresses[0],
            shard_ports: addresses[1..].iter().map(|address| Some(address.port())).collect(),
            controller: addresses[0],
            has_subscriptions: false,
            is_controller: true,
            faults: VecDeque::new(),
            faulty_ports: BTreeMap::new(),
            request_bytes_max: 8 << 20,
            greeting_takes: Duration::ZERO,
            produce_takes: Duration::ZERO,
            received: Vec::new(),
            topics_created: 0,
            producers: 0,
            connections: 0,
        }));
        let changed = Arc::new(Notify::new());
        let mut listeners = JoinSet::new();
        for listener in bound {
            listeners.spawn(accept(listener, state.clone(), changed.clone()));
        }
        Self { state, changed, _listeners: listeners }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.state().public
    }

    /// The next request of this type meets this fault.
    pub(crate) fn fail_next(&self, request_type: RequestType, fault: Fault) {
        self.state().faults.push_back((request_type, fault));
    }

    /// All requests on the port of this shard meet this fault.
    pub(crate) fn fail_shard(&self, shard: usize, fault: Fault) {
        let mut state = self.state();
        let port = state.shard_ports[shard].unwrap();
        state.faulty_ports.insert(port, fault);
    }

    /// Requests that meet this fault until it is over.
    pub(crate) fn fail_until_over(&self, request_type: RequestType, fault: &Fault) {
        for _ in 0..10_000 {
            self.fail_next(request_type, fault.clone());
        }
    }

    /// What was to fail does not any more.
    pub(crate) fn faults_are_over(&self) {
        self.state().faults.clear();
    }

    /// The ports on which requests of this type came, in order.
    pub(crate) fn ports_of(&self, request_type: RequestType) -> Vec<u16> {
        let received = &self.state().received;
        received.iter().filter(|(_, found)| *found == request_type).map(|(port, _)| *port).collect()
    }

    /// Waits until so many requests of this type have come.
    pub(crate) async fn has_received(&self, request_type: RequestType, count: usize) {
        self.becomes(|| self.ports_of(request_type).len() >= count).await;
    }

    /// Waits until every client has closed its connections.
    pub(crate) async fn is_alone(&self) {
        self.becomes(|| self.state().connections == 0).await;
    }

    async fn becomes(&self, condition: impl Fn() -> bool) {
        loop {
            let mut change = pin!(self.changed.notified());
            change.as_mut().enable();
            if condition() {
                return;
            }
            change.await;
        }
    }

    /// The end of a partition's log.
    pub(crate) fn end(&self, topic: &str, partition: usize) -> i64 {
        self.state().topics[topic].logs[partition].end.get()
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, changed: Arc<Notify>) {
    let port = listener.local_addr().unwrap().port();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        connections.spawn(serve(stream, port, state.clone(), changed.clone()));
    }
}

async fn serve(stream: tokio::net::TcpStream, port: u16, state: Arc<Mutex<State>>, changed: Arc<Notify>) {
    let (hello, greeting_takes) = {
        let state = state.lock().unwrap();
        let mut hello = Hello::current(state.request_bytes_max, 100);
        if !state.has_subscriptions {
            hello.request_types.retain(|known| known.request_type < RequestType::Subscribe.to_u16());
        }
        (hello, state.greeting_takes)
    };
    sleep(greeting_takes).await;
    let Some(mut connection) = PeerConnection::shake_hands(stream, &hello).await else { return };
    let _counted = Counted::new(state.clone(), changed.clone());
    while let Some(request) = connection.receive().await {
        let request_type = request.request_type();
        let fault = {
            let mut state = state.lock().unwrap();
            state.received.push((port, request_type));
            let place = state.faults.iter().position(|(meant, _)| *meant == request_type);
            let ordered = place.and_then(|place| state.faults.remove(place)).map(|(_, fault)| fault);
            ordered.or_else(|| state.faulty_ports.get(&port).cloned())
        };
        changed.notify_waiters();
        match fault {
            Some(Fault::CloseUnread) => return,
            Some(Fault::Silence) => continue,
            Some(Fault::Refuse(error)) => {
                connection.refuse(request.id(), &error).await;
                continue;
            }
            _ => {}
        }
        let refusal = if let Some(Fault::RefuseItems(code)) = fault { code } else { ErrorCode::None };
        let produce_takes = state.lock().unwrap().produce_takes;
        if request_type == RequestType::Produce {
            sleep(produce_takes).await;
        }
        let mut answer = wait_for_answer(&state, &changed, &request, refusal).await;
        changed.notify_waiters();
        match fault {
            Some(Fault::CloseAfterDoing) => return,
            Some(Fault::FlipLastBit) => *answer.last_mut().unwrap() ^= 1,
            _ => {}
        }
        connection.write(&answer).await;
    }
}

/// The answer, which for a fetch or a subscription may take until there is something to read.
async fn wait_for_answer(state: &Mutex<State>, changed: &Notify, request: &Received, refusal: ErrorCode) -> BytesMut {
    let max_wait_ms = match request.request_type() {
        RequestType::Fetch => request.decode::<FetchRequest>().max_wait_ms,
        RequestType::Subscribe => request.decode::<SubscribeRequest>().heartbeat_ms,
        _ => 0,
    };
    let deadline = Instant::now() + Duration::from_millis(max_wait_ms.into());
    loop {
        let mut change = pin!(changed.notified());
        change.as_mut().enable();
        let waited = Instant::now() >= deadline;
        if let Some(answer) = state.lock().unwrap().answer(request, refusal, waited) {
            return answer;
        }
        // Either way it looks again.
        let _ = timeout_at(deadline, change).await;
    }
}

/// One open connection.
struct Counted(Arc<Mutex<State>>, Arc<Notify>);

impl Counted {
    fn new(state: Arc<Mutex<State>>, changed: Arc<Notify>) -> Self {
        state.lock().unwrap().connections += 1;
        Self(state, changed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lock().unwrap().connections -= 1;
        self.1.notify_waiters();
    }
}

impl State {
    /// The response as it stands on the wire; `None` where a fetch waits.
    fn answer(&mut self, request: &Received, refusal: ErrorCode, waited: bool) -> Option<BytesMut> {
        let id = request.id();
        Some(match request.request_type() {
            RequestType::Produce => self.produce(request, refusal),
            RequestType::Fetch => return self.fetch(id, &request.decode(), refusal, waited),
            RequestType::Subscribe => return self.subscribe(id, &request.decode(), refusal, waited),
            RequestType::GrantCredit => encode(id, &GrantCreditResponse {}),
            RequestType::Unsubscribe => encode(id, &UnsubscribeResponse {}),
            RequestType::ListOffsets => encode(id, &self.list_offsets(&request.decode(), refusal)),
            RequestType::Metadata => encode(id, &self.metadata(request.decode())),
            RequestType::DiscoverController => encode(
                id,
                &DiscoverControllerResponse {
                    controller: BrokerId::new(1),
                    host: self.controller.ip().to_string(),
                    port: self.controller.port(),
                    controller_epoch: 7,
                },
            ),
            RequestType::CreateTopics => encode(id, &self.create(request.decode())),
            RequestType::DeleteTopics => encode(id, &self.delete(request.decode())),
            RequestType::AlterTopics => encode(id, &self.alter(request.decode())),
            RequestType::ListTopics => encode(id, &self.list()),
            RequestType::DescribeTopics => encode(id, &self.describe(request.decode())),
            RequestType::InitProducerId => {
                self.producers += 1;
                let (producer_id, producer_epoch) = (ProducerId::new(self.producers), ProducerEpoch::ZERO);
                encode(id, &InitProducerIdResponse { producer_id, producer_epoch })
            }
            RequestType::DeleteRecords => encode(id, &self.delete_records(request.decode(), refusal)),
            RequestType::DescribeCluster => encode(id, &self.describe_cluster()),
            RequestType::Stats => encode(id, &self.stats()),
        })
    }

    fn log(&mut self, topic: &str, partition: PartitionIndex) -> Result<&mut Log, ErrorCode> {
        let topic = self.topics.get_mut(topic).ok_or(ErrorCode::UnknownTopic)?;
        topic.logs.get_mut(partition.as_usize()).ok_or(ErrorCode::UnknownPartition)
    }

    fn produce(&mut self, request: &Received, refusal: ErrorCode) -> BytesMut {
        let (head, mut at) = ProduceHead::decode_head(&request.body, request.head.body_bytes).unwrap().unwrap();
        let mut topics = Vec::new();
        for topic in head.topics {
            let mut partitions = Vec::new();
            for wanted in topic.partitions {
                let section = request.body.slice(at..at + wanted.records_bytes as usize);
                at += section.len();
                let appended = match refusal {
                    ErrorCode::None => self.log(&topic.topic, wanted.partition).and_then(|log| log.append(&section)),
                    code => Err(code),
                };
                let (error, (base_offset, next_offset)) = match appended {
                    Ok(offsets) => (ErrorCode::None, offsets),
                    Err(code) => (code, (Offset::ZERO, Offset::ZERO)),
                };
                partitions.push(ProducedPartition {
                    partition: wanted.partition,
                    error,
                    detail: Detail::NONE,
                    base_offset,
                    next_offset,
                    log_start_offset: Offset::ZERO,
                    append_time: None,
                });
            }
            topics.push(ProducedTopic { topic: topic.topic, partitions });
        }
        encode(request.id(), &ProduceResponse { topics })
    }

    fn fetch(
        &mut self,
        id: CorrelationId,
        wanted: &FetchRequest,
        refusal: ErrorCode,
        waited: bool,
    ) -> Option<BytesMut> {
        let (topics, sections) = self.read(&wanted.topics, wanted.max_bytes, refusal);
        if is_idle(&topics) && !waited && wanted.max_wait_ms > 0 {
            return None;
        }
        Some(encode_with_sections(id, &FetchResponseHead { topics }, &sections))
    }

    /// One frame, the last, with what there is.
    fn subscribe(
        &mut self,
        id: CorrelationId,
        wanted: &SubscribeRequest,
        refusal: ErrorCode,
        waited: bool,
    ) -> Option<BytesMut> {
        let bytes_max = wanted.max_bytes.min(wanted.credit_bytes);
        let (mut topics, sections) = self.read(&wanted.topics, bytes_max, refusal);
        if is_idle(&topics) && !waited {
            return None;
        }
        for topic in &mut topics {
            topic.partitions.retain(|found| found.records_bytes > 0 || !found.error.is_none());
        }
        Some(encode_with_sections(id, &SubscribedHead { is_last: true, topics }, &sections))
    }

    /// What there is of each partition.
    fn read(&mut self, wanted: &[FetchTopic], bytes_max: u32, refusal: ErrorCode) -> (Vec<FetchedTopic>, BytesMut) {
        let (mut topics, mut sections) = (Vec::new(), BytesMut::new());
        for topic in wanted {
            let mut partitions = Vec::new();
            for fetch in &topic.partitions {
                let room = (bytes_max as usize).saturating_sub(sections.len());
                let read = match refusal {
                    ErrorCode::None => self.log(&topic.topic, fetch.partition),
                    code => Err(code),
                };
                let read = read.and_then(|log| log.read(fetch.fetch_offset, fetch.partition_max_bytes as usize, room));
                let (error, (section, high_watermark)) = match read {
                    Ok(read) => (ErrorCode::None, read),
                    Err(code) => (code, (Vec::new(), Offset::ZERO)),
                };
                partitions.push(FetchedPartition {
                    partition: fetch.partition,
                    error,
                    detail: Detail::NONE,
                    log_start_offset: Offset::ZERO,
                    high_watermark,
                    records_bytes: u32::try_from(section.len()).unwrap(),
                });
                sections.extend_from_slice(&section);
            }
            topics.push(FetchedTopic { topic: topic.topic.clone(), partitions });
        }
        (topics, sections)
    }

    fn list_offsets(&mut self, request: &ListOffsetsRequest, refusal: ErrorCode) -> ListOffsetsResponse {
        let mut topics = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for wanted in &topic.partitions {
                let found = match refusal {
                    ErrorCode::None => self.log(&topic.topic, wanted.partition).map(|log| log.find(wanted.at)),
                    code => Err(code),
                };
                let error = found.err().unwrap_or(ErrorCode::None);
                let (partition, offset) = (wanted.partition, found.ok().flatten());
                partitions.push(ListedOffset { partition, error, detail: Detail::NONE, offset, timestamp: None });
            }
            topics.push(ListedOffsetTopic { topic: topic.topic.clone(), partitions });
        }
        ListOffsetsResponse { topics }
    }

    fn delete_records(&mut self, request: DeleteRecordsRequest, refusal: ErrorCode) -> DeleteRecordsResponse {
        let mut topics = Vec::new();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for DeleteRecordsPartition { partition, before } in topic.partitions {
                let deleted = match refusal {
                    ErrorCode::None => self.log(&topic.topic, partition).and_then(|log| log.delete_records(before)),
                    code => Err(code),
                };
                let error = deleted.err().unwrap_or(ErrorCode::None);
                let log_start_offset = deleted.unwrap_or(Offset::ZERO);
                partitions.push(DeletedRecords { partition, error, detail: Detail::NONE, log_start_offset });
            }
            topics.push(DeletedRecordsTopic { topic: topic.topic, partitions });
        }
        DeleteRecordsResponse { topics }
    }

    /// The controller, and itself beside that.
    fn describe_cluster(&self) -> DescribeClusterResponse {
        let mut addresses = vec![self.controller, self.public];
        addresses.dedup();
        let broker = |(id, address): (i32, SocketAddr)| DescribedBroker {
            id: BrokerId::new(id),
            host: address.ip().to_string(),
            port: address.port(),
            version: String::new(),
            shards: Vec::new(),
        };
        let brokers = (1..).zip(addresses).map(broker).collect();
        DescribeClusterResponse { cluster_id: Default::default(), controller: BrokerId::new(1), brokers }
    }

    /// One shard, which tells its broker's port.
    fn stats(&self) -> StatsResponse {
        let port = NamedValue { name: "port".to_owned(), value: self.public.port().into() };
        let shard = ShardStats {
            shard: ShardIndex::new(0),
            requests: Vec::new(),
            counters: Vec::new(),
            gauges: vec![port],
            stages: Vec::new(),
            device: Vec::new(),
            stalls: Vec::new(),
        };
        StatsResponse { shards: vec![shard] }
    }

    fn metadata(&self, request: MetadataRequest) -> MetadataResponse {
        let all = || self.topics.keys().map(|name| TopicName::parse(name).unwrap()).collect();
        let describe = |name: TopicName| {
            let found = self.topics.get(&*name);
            TopicMetadata {
                error: if found.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopic },
                detail: Detail::NONE,
                name,
                topic_id: found.map(|topic| topic.id),
                partitions: found.map(|topic| self.partitions(topic)).unwrap_or_default(),
            }
        };
        MetadataResponse {
            cluster_id: TopicId::METADATA.get(),
            controller: BrokerId::new(1),
            brokers: vec![BrokerInfo {
                id: BrokerId::new(1),
                host: self.public.ip().to_string(),
                port: self.public.port(),
            }],
            topics: request.topics.unwrap_or_else(all).into_iter().map(describe).collect(),
        }
    }

    fn partitions(&self, topic: &Topic) -> Vec<PartitionMetadata> {
        let shards = self.shard_ports.len().max(1);
        let partition = |index: usize| PartitionMetadata {
            partition: PartitionIndex::new(u32::try_from(index).unwrap()),
            leader: BrokerId::new(1),
            leader_epoch: LeaderEpoch::ZERO,
            shard: ShardIndex::new(u16::try_from(index % shards).unwrap()),
            shard_port: self.shard_ports.get(index % shards).copied().flatten(),
            replicas: vec![BrokerId::new(1)],
            in_sync: vec![BrokerId::new(1)],
            offline: false,
        };
        (0..topic.logs.len()).map(partition).collect()
    }

    fn create(&mut self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let mut topics = Vec::new();
        for topic in request.topics {
            let error = if !self.is_controller {
                ErrorCode::NotController
            } else if self.topics.contains_key(&topic.name) {
                ErrorCode::TopicAlreadyExists
            } else {
                ErrorCode::None
            };
            let id = TopicId::from_random_bytes([self.topics_created; 16]);
            if error.is_none() && !request.validate_only {
                self.topics_created += 1;
                let logs = (0..topic.partitions).map(|_| Log::default()).collect();
                self.topics.insert(topic.name.clone(), Topic { id, logs });
            }
            let topic_id = error.is_none().then_some(id);
            topics.push(CreatedTopic { name: topic.name, error, detail: Detail::NONE, topic_id });
        }
        CreateTopicsResponse { topics }
    }

    /// Adds partitions; settings are what real brokers have.
    fn alter(&mut self, request: AlterTopicsRequest) -> AlterTopicsResponse {
        let mut topics = Vec::new();
        for alteration in request.topics {
            let error = match self.topics.get_mut(&alteration.name) {
                _ if !self.is_controller => ErrorCode::NotController,
                None => ErrorCode::UnknownTopic,
                Some(_) if request.validate_only => ErrorCode::None,
                Some(topic) => {
                    let count = alteration.partitions.map_or(0, |count| count as usize).max(topic.logs.len());
                    topic.logs.resize_with(count, Log::default);
                    ErrorCode::None
                }
            };
            topics.push(AlteredTopic { name: alteration.name, error, detail: Detail::NONE });
        }
        AlterTopicsResponse { topics }
    }

    fn delete(&mut self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut topics = Vec::new();
        for name in request.topics {
            let removed = self.topics.remove(&name);
            let error = if removed.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopic };
            topics.push(DeletedTopic { name, error, detail: Detail::NONE });
        }
        DeleteTopicsResponse { topics }
    }

    fn list(&self) -> ListTopicsResponse {
        let listed = |(name, topic): (&String, &Topic)| ListedTopic {
            name: TopicName::parse(name).unwrap(),
            topic_id: topic.id,
            partitions: u32::try_from(topic.logs.len()).unwrap(),
            replicas: 1,
        };
        ListTopicsResponse { topics: self.topics.iter().map(listed).collect() }
    }

    fn describe(&self, request: DescribeTopicsRequest) -> DescribeTopicsResponse {
        let mut topics = Vec::new();
        for name in request.topics {
            let found = self.topics.get(&name);
            let partition = |(metadata, log): (PartitionMetadata, &Log)| DescribedPartition {
                metadata,
                log_start_offset: Offset::ZERO,
                log_end_offset: log.end,
                size_bytes: log.batches.iter().map(|(_, batch)| batch.len() as u64).sum(),
            };
            topics.push(DescribedTopic {
                name,
                error: if found.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopic },
                detail: Detail::NONE,
                topic_id: found.map(|topic| topic.id),
                settings: Vec::new(),
                partitions: found
                    .map(|topic| self.partitions(topic).into_iter().zip(&topic.logs).map(partition).collect())
                    .unwrap_or_default(),
            });
        }
        DescribeTopicsResponse { topics }
    }
}

/// Whether there is nothing to tell.
fn is_idle(topics: &[FetchedTopic]) -> bool {
    let mut partitions = topics.iter().flat_map(|topic| &topic.partitions);
    partitions.all(|found| found.records_bytes == 0 && found.error.is_none())
}

fn encode_with_sections(id: CorrelationId, head: &impl SectionHead, sections: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode_response_head(id, head, &mut out).unwrap();
    out.extend_from_slice(sections);
    out
}

impl Log {
    fn delete_records(&mut self, before: Option<Offset>) -> Result<Offset, ErrorCode> {
        let before = before.unwrap_or(self.end);
        if before > self.end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.start = self.start.max(before);
        Ok(self.start)
    }

    fn append(&mut self, section: &[u8]) -> Result<(Offset, Offset), ErrorCode> {
        let base = self.end;
        let first = split_batches(section).next().unwrap().unwrap();
        if let Some(producer) = first.header().producer().unwrap()
            && let Some(known) = self.sequence(producer, first.header().record_count)?
        {
            return Ok(known);
        }
        for batch in split_batches(section) {
            let view = batch.unwrap();
            view.verify_checksum().unwrap();
            let mut bytes = view.bytes().to_vec();
            set_base_offset(&mut bytes, self.end);
            self.end = self.end.checked_add(view.header().record_count.into()).unwrap();
            self.batches.push((self.end, bytes.into()));
        }
        Ok((base, self.end))
    }

    /// Where a batch of a producer is, if it was stored before.
    fn sequence(&mut self, producer: BatchProducer, records: u32) -> Result<Option<(Offset, Offset)>, ErrorCode> {
        let BatchProducer { id, epoch, base_sequence } = producer;
        if self.producers.range((id, epoch)..).any(|((other, later), _)| *other == id && *later > epoch) {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let is_new = !self.producers.contains_key(&(id, epoch));
        let stored = self.producers.entry((id, epoch)).or_default();
        let next = stored.last().map_or(base_sequence, |(sequence, base, end)| {
            sequence.advance(u32::try_from(end.get() - base.get()).unwrap())
        });
        if base_sequence == next || is_new {
            let end = self.end.checked_add(records.into()).unwrap();
            stored.push((base_sequence, self.end, end));
            return Ok(None);
        }
        match stored.iter().find(|(sequence, ..)| *sequence == base_sequence) {
            Some((_, base, end)) => Ok(Some((*base, *end))),
            None => Err(ErrorCode::OutOfOrderSequence),
        }
    }

    /// Whole batches from the one that holds `from` on: one at least if there is any room, then as many as fit.
    fn read(&self, from: Offset, bytes_max: usize, room: usize) -> Result<(Vec<u8>, Offset), ErrorCode> {
        if from > self.end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let mut section: Vec<u8> = Vec::new();
        for (_, batch) in self.batches.iter().filter(|(end, _)| *end > from) {
            let fits = section.len() + batch.len() <= bytes_max.min(room);
            if room == 0 || !(section.is_empty() || fits) {
                break;
            }
            section.extend_from_slice(batch);
        }
        Ok((section, self.end))
    }

    fn find(&self, at: OffsetSpec) -> Option<Offset> {
        match at {
            OffsetSpec::Earliest => Some(Offset::ZERO),
            OffsetSpec::Latest => Some(self.end),
            OffsetSpec::Timestamp(_) => panic!("times are looked up by real brokers"),
        }
    }
}
