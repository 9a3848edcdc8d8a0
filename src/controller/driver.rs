//! The controller's run loop: one change at a time from the door to the log, then to every shard.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use ringmq_runtime::channel::{Receiver, Sender};
use ringmq_runtime::local::{Permit, Semaphore};
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::task::{self, Gate, Stop};
use ringmq_runtime::{random, time};
use ringmq_segment::Reserve;
use ringmq_wire::protocol::{
    AlterTopicsRequest, AlterTopicsResponse, AlteredTopic, CreateTopicsRequest, CreateTopicsResponse, CreatedTopic,
    DeleteTopicsRequest, DeleteTopicsResponse, DeletedTopic,
};
use ringmq_wire::{Detail, ErrorCode, Offset, ProducerId, TopicId, WireError};

use crate::directory::{DataDirectory, METADATA, hidden_partitions, remove_orphans};
use crate::error::{AlterTopicError, ChangeError, ControllerError, DeleteTopicError, RequestError};
use crate::log::{MetadataLog, Opened};
use crate::metadata::{Command, Effect, State, TopicSettings, plan_alterations, plan_creates, plan_deletes};
use crate::publisher::Publisher;
use crate::request::{ControllerRequest, MetadataUpdate, Reply};
use crate::snapshots::Snapshots;

/// What a hundred deletions take, with a generation table and a new segment among them.
const RESERVE_BYTES: u64 = 1 << 20;

/// Ids that a shard gets at a time. What it has not handed out when it stops is lost; there are 2⁶³.
const PRODUCER_IDS_AT_A_TIME: u32 = 1_000;

/// What the controller needs to know.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// The data directory of the broker.
    pub data_dir: PathBuf,
    /// What a topic lives by where it chose nothing itself.
    pub defaults: TopicSettings,
    /// The longest that a request may wait for the shards, whatever it asks for. Default 60 s.
    pub apply_timeout_max: Duration,
    /// How many commands come between two snapshots of the metadata, at least 1; more where it has more topics.
    /// Default 1,000.
    pub snapshot_commands_min: u64,
    /// How many requests may wait for the shards at the same time, at least 1; the next ones wait in the channel.
    /// Default 64.
    pub requests_waiting_max: usize,
}

impl ControllerConfig {
    /// A configuration with defaults for everything but the directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> ControllerConfig {
        ControllerConfig {
            data_dir: data_dir.into(),
            defaults: TopicSettings::default(),
            apply_timeout_max: Duration::from_secs(60),
            snapshot_commands_min: 1_000,
            requests_waiting_max: 64,
        }
    }
}

/// Runs the controller on this executor, until `stop` is given or the last sender of `requests` is gone.
///
/// It takes the data directory first and gives it back last. A shard may touch the directory once it has its first
/// [`MetadataUpdate`], and must have closed its logs before the controller is stopped. `shards` are in the order of
/// their indexes; their channels end when the controller does.
///
/// # Errors
/// The controller could not start: the data directory is taken, damaged or newer, or the metadata log is damaged. No
/// shard has seen an image then, and nothing on disk was changed. Errors of single requests go to who asked.
pub async fn run(
    config: ControllerConfig,
    mut requests: Receiver<ControllerRequest>,
    shards: Vec<Sender<MetadataUpdate>>,
    stop: Stop,
) -> Result<(), ControllerError> {
    config.defaults.check()?;
    let directory = DataDirectory::open(&config.data_dir).await?;
    let served = serve(config, &directory, &mut requests, shards, &stop).await;
    refuse_waiting(&mut requests);
    if let Err(error) = directory.close().await {
        tracing::warn!(%error, "closing the data directory's lock file failed; it is unlocked all the same");
    }
    served
}

async fn serve(
    config: ControllerConfig,
    directory: &DataDirectory,
    requests: &mut Receiver<ControllerRequest>,
    shards: Vec<Sender<MetadataUpdate>>,
    stop: &Stop,
) -> Result<(), ControllerError> {
    let Opened { log, state, snapshot } = MetadataLog::open(directory).await?;
    let image = state.image();
    let orphans = remove_orphans(directory.path(), &image).await?;
    if image.applied() == Offset::ZERO && !orphans.unknown.is_empty() {
        log.close().await;
        let (path, directories) = (directory.path().to_owned(), orphans.unknown.len());
        return Err(ControllerError::MetadataLost { path, directories });
    }
    if log.begins_anew() {
        for hidden in hidden_partitions(directory.path(), &image).await {
            tracing::error!("{hidden}");
        }
    }
    tracing::info!(
        cluster_id = %image.cluster_id(), commands = %image.applied(), topics = image.topics().len(),
        partitions = image.partition_count(), "the metadata is complete"
    );

    let root = directory.path().join(METADATA);
    let snapshots = Snapshots::new(&root, snapshot, config.snapshot_commands_min);
    // A log that has grown without any, under an earlier release perhaps.
    snapshots.write_if_due(&image);
    let reserve = Reserve::new(&root.join("reserve"), RESERVE_BYTES);
    if let Err(error) = reserve.fill().await {
        tracing::warn!(%error, "no space can be kept for deletions; no topic can be created until it can");
    }
    let publisher = Publisher::start(shards, image);
    let waiting = Semaphore::new(config.requests_waiting_max.max(1));
    let mut controller = Controller { config, state, log, snapshots, reserve, publisher, replies: Gate::new() };
    loop {
        // A request is taken only when there is room to wait for its shards; until then it stays in the channel.
        let Some(room) = stop.or_stop(waiting.acquire(1)).await else { break };
        let Some(Some(request)) = stop.or_stop(requests.recv()).await else { break };
        controller.handle(request, room).await;
    }
    controller.close().await;
    Ok(())
}

/// Answers what nobody will look at any more.
fn refuse_waiting(requests: &mut Receiver<ControllerRequest>) {
    while let Some(request) = requests.try_recv() {
        let refusal = WireError::from(RequestError::Stopping);
        // Who asked may be gone; then there is nobody to tell.
        match request {
            ControllerRequest::CreateTopics { reply, .. } => drop(reply.send(Err(refusal))),
            ControllerRequest::DeleteTopics { reply, .. } => drop(reply.send(Err(refusal))),
            ControllerRequest::AlterTopics { reply, .. } => drop(reply.send(Err(refusal))),
            ControllerRequest::AllocateProducerIds { reply } => drop(reply.send(Err(refusal))),
            ControllerRequest::LogStalls => log_stalls(),
        }
    }
}

/// The controller has little to do, so what it did for long says more of the machine than of itself.
fn log_stalls() {
    let stalls: Vec<String> = task::stalls().iter().map(ToString::to_string).collect();
    tracing::info!(stats = stalls.join(" "), "statistics of the controller");
}

struct Controller {
    config: ControllerConfig,
    state: State,
    log: MetadataLog,
    snapshots: Snapshots,
    reserve: Reserve,
    publisher: Publisher,
    replies: Gate,
}

impl Controller {
    /// Makes the change durable and visible; the answer follows from a task of its own once every shard has applied it,
    /// so that a slow shard does not hold up the next change.
    async fn handle(&mut self, request: ControllerRequest, room: Permit) {
        match request {
            ControllerRequest::CreateTopics { request, reply } => self.create_topics(request, reply, room).await,
            ControllerRequest::DeleteTopics { request, reply } => self.delete_topics(request, reply, room).await,
            ControllerRequest::AlterTopics { request, reply } => self.alter_topics(request, reply, room).await,
            ControllerRequest::AllocateProducerIds { reply } => self.allocate_producer_ids(reply).await,
            ControllerRequest::LogStalls => log_stalls(),
        }
    }

    async fn create_topics(&mut self, request: CreateTopicsRequest, reply: Reply<CreateTopicsResponse>, room: Permit) {
        let planned = plan_creates(&self.state.image(), &self.config.defaults, &request.topics, draw_topic_id);
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => return drop(reply.send(Err(error.into()))),
        };
        let names = request.topics.into_iter().map(|topic| topic.name);
        let planned = names.zip(plan.outcomes.into_iter().map(|outcome| outcome.map_err(WireError::from)));
        let planned: Vec<(String, Result<TopicId, WireError>)> = planned.collect();

        let commands = if request.validate_only { Vec::new() } else { plan.commands };
        let change = self.change_with_reserve(&commands).await;
        self.answer(change, request.timeout_ms, room, move |changed| {
            let outcome = |(name, planned): (String, Result<TopicId, WireError>)| {
                let (outcome, topic_id) = match (planned, changed) {
                    (Err(refused), _) => (Err(refused), None),
                    (Ok(_), Ok(())) if request.validate_only => (Ok(()), None),
                    (Ok(id), Ok(())) => (Ok(()), Some(id)),
                    // Durable: whoever learns that it is not visible yet may need its id.
                    (Ok(id), Err(error)) => (Err(WireError::from(error)), error.is_durable().then_some(id)),
                };
                let (error, detail) = code_and_detail(outcome);
                CreatedTopic { name, error, detail, topic_id }
            };
            drop(reply.send(Ok(CreateTopicsResponse { topics: planned.into_iter().map(outcome).collect() })));
        });
    }

    async fn delete_topics(&mut self, request: DeleteTopicsRequest, reply: Reply<DeleteTopicsResponse>, room: Permit) {
        let plan = match plan_deletes(&self.state.image(), &request.topics) {
            Ok(plan) => plan,
            Err(error) => return drop(reply.send(Err(error.into()))),
        };
        let change = self.change_from_reserve(&plan.commands).await;
        self.answer(change, request.timeout_ms, room, move |changed| {
            let outcome = |(name, planned): (String, Result<(), DeleteTopicError>)| {
                let outcome = planned.map_err(WireError::from).and_then(|()| changed.map_err(WireError::from));
                let (error, detail) = code_and_detail(outcome);
                DeletedTopic { name, error, detail }
            };
            let topics = request.topics.into_iter().zip(plan.outcomes).map(outcome).collect();
            drop(reply.send(Ok(DeleteTopicsResponse { topics })));
        });
    }

    async fn alter_topics(&mut self, request: AlterTopicsRequest, reply: Reply<AlterTopicsResponse>, room: Permit) {
        let plan = match plan_alterations(&self.state.image(), &self.config.defaults, &request.topics) {
            Ok(plan) => plan,
            Err(error) => return drop(reply.send(Err(error.into()))),
        };
        let commands = if request.validate_only { Vec::new() } else { plan.commands };
        let adds_partitions = commands.iter().any(|command| matches!(command, Command::AddPartitions { .. }));
        let change = if adds_partitions {
            self.change_with_reserve(&commands).await
        } else {
            // Settings may be what frees space.
            self.change_from_reserve(&commands).await
        };
        self.answer(change, request.timeout_ms, room, move |changed| {
            let outcome = |(name, planned): (String, Result<(), AlterTopicError>)| {
                let outcome = planned.map_err(WireError::from).and_then(|()| changed.map_err(WireError::from));
                let (error, detail) = code_and_detail(outcome);
                AlteredTopic { name, error, detail }
            };
            let names = request.topics.into_iter().map(|topic| topic.name);
            drop(reply.send(Ok(AlterTopicsResponse { topics: names.zip(plan.outcomes).map(outcome).collect() })));
        });
    }

    /// Answered as soon as it is durable: the shards have nothing to apply.
    async fn allocate_producer_ids(&mut self, reply: Reply<Range<ProducerId>>) {
        let first = self.state.image().next_producer_id();
        let allocation = Command::AllocateProducerIds { first, count: PRODUCER_IDS_AT_A_TIME };
        let changed = self.change(&[allocation]).await;
        let allocated = changed.map(|_| first..self.state.image().next_producer_id());
        drop(reply.send(allocated.map_err(|error| WireError::from(&error))));
    }

    /// Changes only while space is kept for deletions, so that what is created can be deleted again.
    async fn change_with_reserve(&mut self, commands: &[Command]) -> Result<Option<Offset>, ChangeError> {
        if !commands.is_empty() {
            self.reserve.fill().await.map_err(ChangeError::Reserve)?;
        }
        self.change(commands).await
    }

    /// Changes also on a full disk, with the space kept for that.
    async fn change_from_reserve(&mut self, commands: &[Command]) -> Result<Option<Offset>, ChangeError> {
        loop {
            match self.change(commands).await {
                Err(error)
                    if error.code() == ErrorCode::StorageFull
                        && self.reserve.give_up("to delete or alter topics").await => {}
                changed => return changed,
            }
        }
    }

    /// Logs the commands durably, applies them and publishes the new image: the version to wait for, or `None` when
    /// there is nothing to do.
    async fn change(&mut self, commands: &[Command]) -> Result<Option<Offset>, ChangeError> {
        if commands.is_empty() {
            return Ok(None);
        }
        // Applied to a copy first: a command that could not be replayed must never reach the log.
        let mut changed = self.state.clone();
        let effects = commands.iter().map(|command| changed.apply(command.clone())).collect::<Result<Vec<_>, _>>()?;
        if SeededBug::PublishBeforeLog.is_in() {
            self.publisher.publish(changed.image());
        }
        if SeededBug::SnapshotBeforeLog.is_in() {
            self.snapshots.write_if_due(&changed.image());
        }
        self.log.append(self.state.applied(), commands).await?;
        self.state = changed;
        let version = self.state.applied();
        self.publisher.publish(self.state.image());
        self.snapshots.write_if_due(&self.state.image());
        report(&effects);
        Ok(Some(version))
    }

    /// Calls `reply` with the outcome, once every shard has applied the change or the time is over.
    fn answer(
        &self,
        change: Result<Option<Offset>, ChangeError>,
        timeout_ms: u32,
        room: Permit,
        reply: impl FnOnce(Result<(), &ChangeError>) + 'static,
    ) {
        let version = match change {
            Ok(Some(version)) => version,
            Ok(None) => return reply(Ok(())),
            Err(error) => return reply(Err(&error)),
        };
        let publisher = self.publisher.clone();
        let patience = Duration::from_millis(timeout_ms.into()).min(self.config.apply_timeout_max);
        let wait = async move {
            let applied = wait_for_shards(&publisher, version, patience).await;
            reply(applied.as_ref().copied());
            drop(room);
        };
        self.replies.spawn("controller: answer", wait).expect("the gate closes only after the last request");
    }

    /// Answers what is under way, ends the shards' channels, finishes the snapshot and closes the log.
    async fn close(self) {
        // Ends the publishing first: who waits for a shard learns at once that it will not come.
        self.publisher.close().await;
        self.replies.close().await;
        self.snapshots.close().await;
        self.log.close().await;
    }
}

fn report(effects: &[Effect]) {
    for effect in effects {
        let (topic, what) = match effect {
            Effect::Created(topic) => (topic, "created a topic"),
            Effect::Deleted(topic) => (topic, "deleted a topic"),
            Effect::Altered(topic) => (topic, "altered a topic"),
            Effect::ProducerIdsAllocated(ids) => {
                tracing::debug!(first = %ids.start, behind = %ids.end, "gave ids of producers to a shard");
                continue;
            }
        };
        tracing::info!(name = %topic.name, id = %topic.id, partitions = topic.partitions, "{what}");
    }
}

async fn wait_for_shards(publisher: &Publisher, version: Offset, patience: Duration) -> Result<(), ChangeError> {
    match time::timeout(patience, publisher.applied(version)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_ended)) => Err(ChangeError::Stopping),
        Err(_elapsed) => {
            let shards = publisher.lagging(version);
            tracing::warn!(%version, ?shards, ?patience, "shards have not applied a change in time");
            Err(ChangeError::NotApplied { shards, waited: patience })
        }
    }
}

fn draw_topic_id() -> TopicId {
    let mut bytes = [0; 16];
    random::fill(&mut bytes);
    TopicId::from_random_bytes(bytes)
}

fn code_and_detail(outcome: Result<(), WireError>) -> (ErrorCode, Detail) {
    match outcome {
        Ok(()) => (ErrorCode::None, Detail::NONE),
        Err(error) => (error.code, error.detail),
    }
}

#[cfg(test)]
pub(crate) mod crash_loop;
#[cfg(test)]
mod tests;
