//! Applying a new version of the metadata: partitions are opened before anyone can see them and deleted after nobody can;
//! those of an altered topic stay open.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_controller::MetadataUpdate;
use ringmq_controller::metadata::{Image, Topic};
use ringmq_runtime::channel;
use ringmq_runtime::local::Semaphore;
use ringmq_runtime::task::Gate;
use ringmq_segment::{CloseError, Log, LogConfig, LogId, Recovery};
use ringmq_wire::batch::BatchLimits;
use ringmq_wire::{PartitionIndex, TopicName};

use crate::compaction::CompactionSettings;
use crate::directory::{Changed, TopicEntry};
use crate::error;
use crate::partition::Partition;
use crate::server::Shard;
use crate::turns::Turns;

/// Logs that are opened, closed or deleted at the same time: enough to keep the disk busy, few enough to leave the core
/// to clients.
const LOGS_AT_ONCE: usize = 16;

/// Applies updates in the order they come, until the controller ends or the shard stops.
pub(crate) async fn follow(shard: Rc<Shard>, mut updates: channel::Receiver<MetadataUpdate>) {
    while let Some(Some(update)) = shard.stop.or_stop(updates.recv()).await {
        apply(&shard, update.image).await;
        // The controller may have ended meanwhile; nobody waits then.
        let _ = update.applied.send(());
    }
}

/// Opens what is new, alters what is there, puts the image in place, deletes what is gone.
pub(crate) async fn apply(shard: &Rc<Shard>, image: Arc<Image>) {
    let difference = shard.directory.borrow().difference(&image);
    for changed in &difference.changed {
        reconfigure(shard, changed).await;
    }
    let changed = open_topics(shard, difference.changed).await;
    shard.directory.borrow_mut().replace(image, changed, &difference.deleted);
    for entry in &difference.deleted {
        delete_topic(shard, entry).await;
    }
}

/// Has the open partitions of an altered topic go by its settings.
async fn reconfigure(shard: &Shard, changed: &Changed) {
    let topic = &changed.topic;
    let Some(before) = changed.before.as_ref().filter(|before| before.topic.settings != topic.settings) else { return };
    let (limits, config) = log_config(shard, topic);
    let mut turns = Turns::default();
    for partition in before.owned() {
        if let Err(cause) = partition.reconfigure(limits, config.clone()) {
            let partition = partition.id().partition;
            tracing::error!(topic = %topic.name, %partition, error = %cause, "a partition goes by its former settings");
        }
        turns.give_way_if_due().await;
    }
}

/// Opens this shard's partitions of new topics, and those that topics have got.
async fn open_topics(shard: &Rc<Shard>, topics: Vec<Changed>) -> Vec<TopicEntry> {
    let with_kept = |changed: Changed| {
        let kept: Vec<_> = changed.before.iter().flat_map(|before| before.owned()).cloned().collect();
        (changed, Rc::new(RefCell::new(kept)))
    };
    let opened: Vec<_> = topics.into_iter().map(with_kept).collect();
    let to_open = opened.iter().flat_map(|(changed, opened)| {
        let partitions = shard.directory.borrow().to_open(changed);
        partitions.into_iter().map(move |partition| (changed.topic.clone(), partition, opened.clone()))
    });
    several_at_a_time("open a partition", to_open, |(topic, partition, opened)| {
        let shard = shard.clone();
        async move {
            let partition = open_partition(&shard, &topic, partition).await;
            opened.borrow_mut().push(Rc::new(partition));
        }
    })
    .await;
    opened.into_iter().map(|(changed, opened)| TopicEntry::new(changed.topic, opened.take())).collect()
}

/// Works on each item, [`LOGS_AT_ONCE`] at the same time, and waits for all of them.
async fn several_at_a_time<T, F>(name: &'static str, items: impl IntoIterator<Item = T>, work: impl Fn(T) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let (gate, room) = (Gate::new(), Semaphore::new(LOGS_AT_ONCE));
    for item in items {
        let permit = room.acquire(1).await;
        let working = work(item);
        // The gate is closed only below.
        let _ = gate.spawn(name, async move {
            working.await;
            drop(permit);
        });
    }
    gate.close().await;
}

/// Opens the log of one partition. One that cannot be opened is offline; the others serve.
async fn open_partition(shard: &Shard, topic: &Topic, partition: PartitionIndex) -> Partition {
    let id = LogId { topic_id: topic.id, partition };
    let (limits, config) = log_config(shard, topic);
    let (storage, journaled) = (&shard.storage, shard.storage.journaled(id));
    match Log::recover(&storage.data_dir, id, config, &storage.logs, &journaled).await {
        Ok((log, recovery)) => {
            report(&topic.name, partition, &recovery);
            Partition::online(id, topic.name.clone(), limits, log)
        }
        Err(cause) => {
            tracing::error!(
                topic = %topic.name, %partition, topic_id = %topic.id, error = %error::chain(&cause),
                "a partition cannot be opened and is offline; the others serve"
            );
            let reason = error::open_failed(&topic.name, partition, &cause);
            Partition::offline(id, topic.name.clone(), limits, reason)
        }
    }
}

/// How a topic's settings have its logs kept, and what batches they take.
fn log_config(shard: &Shard, topic: &Topic) -> (BatchLimits, LogConfig) {
    let settings = topic.settings.resolve(&shard.config.topic_defaults);
    let limits = BatchLimits { batch_bytes_max: settings.batch_bytes_max, ..BatchLimits::default() };
    let deletes = settings.cleanup.deletes();
    let config = LogConfig {
        segment_bytes: settings.segment_bytes,
        segment_age: Duration::from_millis(settings.segment_age_ms),
        compaction: settings.cleanup.compacts().then(|| CompactionSettings::policy(&settings)),
        retention_age: Some(settings.retention_ms).filter(|age| deletes && *age > 0).map(Duration::from_millis),
        flush_interval: Some(settings.flush_interval_ms).filter(|interval| *interval > 0).map(Duration::from_millis),
        retention_bytes: Some(settings.retention_bytes).filter(|bytes| deletes && *bytes > 0),
        // What waits is bounded over all logs, where its memory is: by the bytes that requests may have in flight.
        staged_bytes_max: usize::MAX,
        ..shard.config.log.clone()
    };
    (limits, config.with_room_for(settings.batch_bytes_max))
}

/// Frees what a deleted topic had here. Nobody finds the topic any more; whoever still waits for it is told.
async fn delete_topic(shard: &Rc<Shard>, entry: &TopicEntry) {
    let partitions: Vec<Rc<Partition>> = entry.owned().cloned().collect();
    several_at_a_time("delete a partition", partitions, |partition| {
        let shard = shard.clone();
        async move {
            let id = partition.id();
            let deleted = match partition.delete() {
                Some(log) => log.delete().await,
                None => Log::remove_files(&shard.storage.data_dir, id, &shard.storage.logs.generations).await,
            };
            if let Err(cause) = deleted {
                tracing::error!(
                    topic_id = %id.topic_id, partition = %id.partition, error = %error::chain(&cause),
                    "not all files of a deleted partition are freed; the next start tries again"
                );
            }
        }
    })
    .await;
}

/// Closes every log: all that is staged is written, and the ends are recorded as clean.
pub(crate) async fn close_all(shard: &Shard) {
    let partitions = shard.directory.borrow().all_owned();
    let logs: Vec<Log> = partitions.iter().filter_map(|partition| partition.log().ok()).collect();
    several_at_a_time("close a partition", logs, |log| async move {
        // A log that went offline has said so.
        if let Err(cause @ CloseError::Record { .. }) = log.close().await {
            let error = error::chain(&cause);
            tracing::error!(partition = %log.id(), %error, "a log did not end cleanly; the next start recovers it");
        }
    })
    .await;
}

/// Says what opening a log found, if it is out of the ordinary.
fn report(topic: &TopicName, partition: PartitionIndex, found: &Recovery) {
    match found {
        Recovery::Empty | Recovery::Clean { .. } => {}
        Recovery::CutTail { end, segment, position, frames } => tracing::warn!(
            %topic, %partition, %end, segment = %segment.display(), position, frames,
            "the broker had not stopped cleanly: what was written and never acknowledged is cut off"
        ),
    }
}
