//! The controller on a simulated machine, with shards that only note what they are told.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::local::{self, Event};
use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_runtime::task::StopHandle;
use ringmq_runtime::{channel, fs, task};
use ringmq_segment::OpenError;
use ringmq_wire::protocol::{NewTopic, Setting, TopicAlteration};

use super::*;
use crate::directory::DirectoryError;
use crate::log::{MetadataLogError, ReplayError};
use crate::metadata::Image;

pub(super) const DATA: &str = "/data";

/// A shard that applies each image at once, unless it is held.
#[derive(Clone, Default)]
pub(super) struct FakeShard {
    pub(super) images: Rc<RefCell<Vec<Arc<Image>>>>,
    held: Rc<Cell<bool>>,
    ended: Rc<Cell<bool>>,
    changed: Event,
}

impl FakeShard {
    fn start(&self) -> Sender<MetadataUpdate> {
        let (sender, mut updates) = channel::bounded::<MetadataUpdate>(1);
        let shard = self.clone();
        task::spawn("fake shard", async move {
            while let Some(update) = updates.recv().await {
                shard.images.borrow_mut().push(update.image);
                shard.changed.notify_all();
                shard.wait_until(|shard| !shard.held.get()).await;
                if shard.ended.get() {
                    return;
                }
                // A controller that stops does not wait for it.
                let _ = update.applied.send(());
            }
            shard.ended.set(true);
            shard.changed.notify_all();
        });
        sender
    }

    async fn wait_until(&self, condition: impl Fn(&FakeShard) -> bool) {
        loop {
            let changed = self.changed.listen();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    fn hold(&self) {
        self.held.set(true);
    }

    fn release(&self) {
        self.held.set(false);
        self.changed.notify_all();
    }

    pub(super) fn latest(&self) -> Arc<Image> {
        self.images.borrow().last().unwrap().clone()
    }

    fn topics(&self) -> Vec<String> {
        self.latest().topics_by_name().iter().map(|topic| topic.name.to_string()).collect()
    }
}

/// A running controller with its shards.
pub(super) struct Running {
    requests: Sender<ControllerRequest>,
    pub(super) shards: Vec<FakeShard>,
    stop: StopHandle,
    pub(super) ended: local::Receiver<Result<(), ControllerError>>,
}

impl Running {
    /// Starts a controller and waits until every shard has an image or it ends.
    pub(super) async fn start(shard_count: usize) -> Running {
        Running::start_with(ControllerConfig::new(DATA), shard_count).await
    }

    pub(super) async fn start_with(config: ControllerConfig, shard_count: usize) -> Running {
        let (requests, receiver) = channel::bounded(4);
        let shards: Vec<FakeShard> = (0..shard_count).map(|_| FakeShard::default()).collect();
        let links = shards.iter().map(FakeShard::start).collect();
        let (stop, stopped) = task::stop();
        let (outcome, ended) = local::oneshot();
        task::spawn("controller", async move {
            let _ = outcome.send(run(config, receiver, links, stopped).await);
        });
        for shard in &shards {
            shard.wait_until(|shard| shard.ended.get() || !shard.images.borrow().is_empty()).await;
        }
        Running { requests, shards, stop, ended }
    }

    async fn create_request(&self, request: CreateTopicsRequest) -> Result<CreateTopicsResponse, WireError> {
        let (reply, answer) = channel::oneshot();
        self.requests.send(ControllerRequest::CreateTopics { request, reply }).await.unwrap();
        answer.await.unwrap()
    }

    pub(super) async fn create(&self, names: &[&str]) -> Vec<CreatedTopic> {
        self.create_request(creation(names)).await.unwrap().topics
    }

    pub(super) async fn delete(&self, names: &[&str]) -> Vec<DeletedTopic> {
        let request = deletion(names);
        let (reply, answer) = channel::oneshot();
        self.requests.send(ControllerRequest::DeleteTopics { request, reply }).await.unwrap();
        answer.await.unwrap().unwrap().topics
    }

    async fn alter(&self, topics: Vec<TopicAlteration>, validate_only: bool) -> Vec<ErrorCode> {
        let request = AlterTopicsRequest { topics, timeout_ms: 5_000, validate_only };
        let (reply, answer) = channel::oneshot();
        self.requests.send(ControllerRequest::AlterTopics { request, reply }).await.unwrap();
        answer.await.unwrap().unwrap().topics.iter().map(|topic| topic.error).collect()
    }

    async fn producer_ids(&self) -> Range<i64> {
        let (reply, answer) = channel::oneshot();
        self.requests.send(ControllerRequest::AllocateProducerIds { reply }).await.unwrap();
        let ids = answer.await.unwrap().unwrap();
        ids.start.get()..ids.end.get()
    }

    async fn stop(self) -> Result<(), ControllerError> {
        self.stop.stop();
        self.ended.await.unwrap()
    }
}

fn creation(names: &[&str]) -> CreateTopicsRequest {
    let topic = |name: &&str| NewTopic { name: (*name).into(), partitions: 3, replicas: 1, settings: Vec::new() };
    CreateTopicsRequest { topics: names.iter().map(topic).collect(), timeout_ms: 5_000, validate_only: false }
}

fn deletion(names: &[&str]) -> DeleteTopicsRequest {
    DeleteTopicsRequest { topics: names.iter().map(|name| (*name).into()).collect(), timeout_ms: 5_000 }
}

fn alteration(name: &str, segment_age_ms: u32, partitions: Option<u32>) -> TopicAlteration {
    let set = vec![Setting { key: "segment_age_ms".into(), value: segment_age_ms.to_string() }];
    TopicAlteration { name: name.into(), set, unset: Vec::new(), partitions }
}

fn codes(created: &[CreatedTopic]) -> Vec<ErrorCode> {
    created.iter().map(|topic| topic.error).collect()
}

fn sim() -> Sim {
    Sim::new(SimConfig::with_seed(1))
}

#[test]
fn a_topic_is_on_every_shard_before_its_creator_hears_of_it() {
    sim().run(|| async {
        let running = Running::start(3).await;
        let created = running.create(&["a", "b", "../x"]).await;
        assert_eq!(codes(&created), [ErrorCode::None, ErrorCode::None, ErrorCode::InvalidTopicName]);
        for shard in &running.shards {
            assert_eq!(shard.topics(), ["a", "b"]);
            assert_eq!(shard.images.borrow().len(), 2, "the first image, and one for the request");
            assert_eq!(Some(shard.latest().topic("a").unwrap().id), created[0].topic_id);
        }
        assert_eq!(created[2].topic_id, None);
        running.stop().await.unwrap();
    });
}

#[test]
fn a_topic_deleted_and_created_again_has_another_id() {
    sim().run(|| async {
        let running = Running::start(2).await;
        let first = running.create(&["a"]).await;
        let deleted = running.delete(&["a", "nobody"]).await;
        assert_eq!(
            deleted.iter().map(|topic| topic.error).collect::<Vec<_>>(),
            [ErrorCode::None, ErrorCode::UnknownTopic]
        );
        assert!(running.shards.iter().all(|shard| shard.topics().is_empty()));
        let second = running.create(&["a"]).await;
        assert_eq!(codes(&second), [ErrorCode::None]);
        assert_ne!(first[0].topic_id, second[0].topic_id);
        running.stop().await.unwrap();
    });
}

#[test]
fn an_alteration_is_on_every_shard_before_its_answer_and_lasts() {
    let sim = sim();
    sim.run(|| async {
        let running = Running::start(3).await;
        running.create(&["a", "b"]).await;
        assert_eq!(running.alter(vec![alteration("a", 5_000, Some(4))], true).await, [ErrorCode::None]);
        let images = running.shards[0].images.borrow().len();
        assert_eq!(running.shards[0].latest().topic("a").unwrap().partitions, 3, "a check changes nothing");

        let asked =
            || vec![alteration("a", 5_000, Some(4)), alteration("b", 5_000, Some(2)), alteration("c", 5_000, None)];
        let expected = [ErrorCode::None, ErrorCode::InvalidPartitionCount, ErrorCode::UnknownTopic];
        assert_eq!(running.alter(asked(), false).await, expected);
        for shard in &running.shards {
            let image = shard.latest();
            assert_eq!((image.topic("a").unwrap().partitions, image.topic("b").unwrap().partitions), (4, 3));
            assert_eq!(shard.images.borrow().len(), images + 1, "both commands come together");
        }
        assert_eq!(running.alter(asked(), false).await, expected);
        assert_eq!(running.shards[0].images.borrow().len(), images + 1, "what is so already is no change");
    });
    sim.crash();
    sim.run(|| async {
        let running = Running::start(1).await;
        let image = running.shards[0].latest();
        let topic = image.topic("a").unwrap();
        assert_eq!((topic.partitions, topic.settings.iter().map(|(_, value)| value).collect()), (4, vec![5_000]));
        assert_eq!(image.applied(), Offset::new(4));
    });
}

#[test]
fn producer_ids_are_never_given_twice() {
    let sim = sim();
    let mut next = 0;
    for _ in 0..4 {
        next = sim.run(|| async move {
            let running = Running::start(2).await;
            for _ in 0..3 {
                let ids = running.producer_ids().await;
                assert!(ids.start >= next && ids.start < ids.end, "{ids:?} behind {next}");
                next = ids.end;
            }
            next
        });
        sim.crash();
    }
    assert_eq!(next, 4 * 3 * i64::from(PRODUCER_IDS_AT_A_TIME), "what was durable is not lost either");
}

#[test]
fn topics_survive_stops_and_crashes() {
    let sim = sim();
    let created = sim.run(|| async {
        let running = Running::start(1).await;
        let created = running.create(&["a", "b", "c"]).await;
        running.delete(&["b"]).await;
        running.stop().await.unwrap();
        created
    });
    for _ in 0..3 {
        sim.run(|| async {
            let running = Running::start(1).await;
            assert_eq!(running.shards[0].topics(), ["a", "c"]);
            let image = running.shards[0].latest();
            assert_eq!(Some(image.topic("c").unwrap().id), created[2].topic_id);
            assert_eq!(image.applied(), Offset::new(4));
            assert_eq!(image.deleted().iter().collect::<Vec<_>>(), [created[1].topic_id.unwrap()]);
        });
        sim.crash();
    }
}

#[test]
fn a_check_changes_nothing() {
    let sim = sim();
    sim.run(|| async {
        let running = Running::start(1).await;
        let check = CreateTopicsRequest { validate_only: true, ..creation(&["a", ""]) };
        let checked = running.create_request(check).await.unwrap().topics;
        assert_eq!(codes(&checked), [ErrorCode::None, ErrorCode::InvalidTopicName]);
        assert_eq!(checked[0].topic_id, None);
        assert_eq!(running.shards[0].images.borrow().len(), 1);
        running.stop().await.unwrap();
    });
    let logs = sim.disk().files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")).count();
    assert_eq!(logs, 0, "nothing was appended");
}

#[test]
fn a_slow_shard_delays_its_caller_only_and_catches_up() {
    sim().run(|| async {
        let running = Running::start(2).await;
        let slow = &running.shards[1];
        slow.hold();
        let short = CreateTopicsRequest { timeout_ms: 100, ..creation(&["a"]) };
        let created = running.create_request(short).await.unwrap().topics;
        assert_eq!(codes(&created), [ErrorCode::RequestTimedOut]);
        assert!(created[0].topic_id.is_some(), "it was created all the same");
        assert!(created[0].detail.contains("shard 1 had not applied it after 100ms"), "{}", created[0].detail);
        assert_eq!(running.shards[0].topics(), ["a"]);

        // The controller goes on meanwhile: what comes later reaches the other shard.
        let later = ["b", "c", "d"].map(|name| CreateTopicsRequest { timeout_ms: 100, ..creation(&[name]) });
        for request in later {
            assert_eq!(codes(&running.create_request(request).await.unwrap().topics), [ErrorCode::RequestTimedOut]);
        }
        assert_eq!(running.shards[0].topics(), ["a", "b", "c", "d"]);
        assert_eq!(slow.topics(), ["a"], "the one that it was sent before it was held up");

        slow.release();
        slow.wait_until(|shard| shard.topics() == ["a", "b", "c", "d"]).await;
        assert_eq!(slow.images.borrow().len(), 3, "the images in between were skipped");
        assert_eq!(codes(&running.create(&["e"]).await), [ErrorCode::None]);
        running.stop().await.unwrap();
    });
}

#[test]
fn when_a_shard_ends_its_callers_learn_that_the_broker_stops() {
    sim().run(|| async {
        let running = Running::start(2).await;
        running.shards[1].ended.set(true);
        let created = running.create(&["a"]).await;
        assert_eq!(codes(&created), [ErrorCode::ShuttingDown]);
        assert!(created[0].detail.contains("durable"), "{}", created[0].detail);
        running.stop().await.unwrap();
    });
}

#[test]
fn a_stop_answers_everyone_and_is_clean() {
    let sim = sim();
    sim.run(|| async {
        let config = ControllerConfig { requests_waiting_max: 1, ..ControllerConfig::new(DATA) };
        let running = Running::start_with(config, 1).await;
        running.shards[0].hold();
        // The first waits for the shard, and the others wait behind it in the channel.
        let answers: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let (reply, answer) = channel::oneshot();
                let request = ControllerRequest::CreateTopics { request: creation(&[name]), reply };
                running.requests.try_send(request).unwrap();
                answer
            })
            .into();
        running.shards[0].wait_until(|shard| shard.images.borrow().len() == 2).await;
        running.stop.stop();
        let mut outcomes = Vec::new();
        for answer in answers {
            outcomes.push(answer.await.unwrap());
        }
        let first = outcomes.remove(0).unwrap();
        assert_eq!(codes(&first.topics), [ErrorCode::ShuttingDown]);
        for refused in outcomes {
            assert_eq!(refused.unwrap_err().code, ErrorCode::ShuttingDown);
        }
        running.shards[0].release();
        running.ended.await.unwrap().unwrap();
        running
            .requests
            .send(ControllerRequest::DeleteTopics { request: deletion(&[]), reply: channel::oneshot().0 })
            .await
            .unwrap_err();
    });
    sim.run(|| async {
        let running = Running::start(1).await;
        assert_eq!(running.shards[0].topics(), ["a"], "what was logged is there, what was refused is not");
    });
}

/// How much content there is on the disk.
fn used_bytes(sim: &Sim) -> u64 {
    (64 << 30) - sim.disk().free_bytes()
}

#[test]
fn a_full_disk_refuses_creations_whole_until_there_is_room() {
    let sim = sim();
    let running = sim.run(|| Running::start(1));
    let many: Vec<String> = (0..2_000).map(|n| format!("{n:0>200}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    sim.run(|| running.create(&["a"]));
    sim.disk().set_capacity(used_bytes(&sim));
    let refused = sim.run(|| running.create(&many));
    assert!(refused.iter().all(|topic| topic.error == ErrorCode::StorageFull && topic.topic_id.is_none()));
    assert_eq!(running.shards[0].topics(), ["a"]);
    sim.disk().set_capacity(64 << 30);
    let created = sim.run(|| running.create(&many));
    assert!(created.iter().all(|topic| topic.error == ErrorCode::None), "what was refused can be asked for again");
}

#[test]
fn topics_can_be_deleted_on_a_full_disk_even_after_a_restart() {
    let sim = sim();
    let names: Vec<String> = (0..40).map(|n| format!("t{n:0>2}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sim.run(|| async {
        let running = Running::start(1).await;
        running.create(&names).await;
        running.stop().await.unwrap();
    });
    // Not a byte is left, and the first append of a process needs a generation table as well.
    sim.disk().set_capacity(used_bytes(&sim));
    sim.run(|| async {
        let running = Running::start(1).await;
        assert_eq!(codes(&running.create(&["one-more"]).await), [ErrorCode::StorageFull]);
        for name in &names[1..] {
            assert_eq!(running.delete(&[*name]).await[0].error, ErrorCode::None, "{name}");
        }
        assert_eq!(running.shards[0].topics(), ["t00"]);
        assert_eq!(running.alter(vec![alteration("t00", 5_000, None)], false).await, [ErrorCode::None]);
        assert_eq!(running.alter(vec![alteration("t00", 5_000, Some(5))], false).await, [ErrorCode::StorageFull]);
        let refused = running.create(&["one-more"]).await;
        assert_eq!(codes(&refused), [ErrorCode::StorageFull]);
        assert!(refused[0].detail.contains("kept for deleting topics"), "{}", refused[0].detail);
        running.stop().await.unwrap();
    });
    sim.disk().set_capacity(64 << 30);
    sim.run(|| async {
        let running = Running::start(1).await;
        assert_eq!(running.shards[0].topics(), ["t00"]);
        assert_eq!(codes(&running.create(&["one-more"]).await), [ErrorCode::None]);
    });
}

#[test]
fn a_failed_flush_ends_changes_until_a_restart_and_loses_nothing() {
    let sim = sim();
    sim.run(|| async {
        let running = Running::start(1).await;
        assert_eq!(codes(&running.create(&["a"]).await), [ErrorCode::None]);
        running
    });
    let running = {
        sim.crash();
        sim.run(|| Running::start(1))
    };
    assert_eq!(codes(&sim.run(|| running.create(&["b"]))), [ErrorCode::None]);
    sim.disk().fail_next_flush("*.log", std::io::ErrorKind::Other);
    sim.disk().fail_next_write("*.log", std::io::ErrorKind::Other);
    assert_eq!(codes(&sim.run(|| running.create(&["c"]))), [ErrorCode::StorageFailed]);
    sim.disk().clear_faults();
    assert_eq!(codes(&sim.run(|| running.create(&["d"]))), [ErrorCode::StorageFailed]);
    assert_eq!(running.shards[0].topics(), ["a", "b"]);
    sim.crash();
    sim.run(|| async {
        let running = Running::start(1).await;
        let topics = running.shards[0].topics();
        assert!(topics == ["a", "b"] || topics == ["a", "b", "c"], "{topics:?}");
        assert_eq!(codes(&running.create(&["d"]).await), [ErrorCode::None]);
    });
}

#[test]
fn a_second_controller_on_the_same_directory_is_refused() {
    sim().run(|| async {
        let first = Running::start(1).await;
        let second = Running::start(1).await;
        assert!(second.shards[0].images.borrow().is_empty());
        let error = second.ended.await.unwrap().unwrap_err();
        assert!(matches!(error, ControllerError::Directory(DirectoryError::InUse { .. })), "{error}");
        assert_eq!(codes(&first.create(&["a"]).await), [ErrorCode::None]);
        first.stop().await.unwrap();
    });
}

#[test]
fn a_damaged_byte_anywhere_in_the_log_refuses_the_start_with_a_report() {
    let sim = sim();
    sim.run(|| async {
        let running = Running::start(1).await;
        running.create(&["a"]).await;
        running.create(&["b"]).await;
        running.stop().await.unwrap();
    });
    let log = sim.disk().files().into_iter().find(|path| path.extension().is_some_and(|ext| ext == "log")).unwrap();
    let file = sim.disk().read(&log).unwrap();
    let frames_end = file.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(4096);
    assert_eq!(frames_end, 2 * 4096, "one frame a change");
    for (position, bit) in (0..frames_end as u64).zip((0..8).cycle()) {
        sim.disk().flip_bit(&log, position, bit).unwrap();
        let before = sim.disk().read(&log);
        sim.run(|| async {
            let running = Running::start(1).await;
            assert!(running.shards[0].images.borrow().is_empty(), "no shard may see half of the metadata");
            let error = running.ended.await.unwrap().unwrap_err();
            // The first frame has the second one to prove it; the second one the clean stop.
            let is_damage = matches!(
                &error,
                ControllerError::Log(MetadataLogError::Open(OpenError::Corrupt(_)))
                    | ControllerError::Log(MetadataLogError::Replay(ReplayError::Damaged { .. }))
            );
            assert!(is_damage, "byte {position}: {error}");
            assert!(error.to_string().contains(log.file_name().unwrap().to_str().unwrap()), "{error}");
        });
        assert_eq!(sim.disk().read(&log), before, "byte {position}");
        sim.disk().flip_bit(&log, position, bit).unwrap();
    }
    sim.run(|| async {
        let running = Running::start(1).await;
        assert_eq!(running.shards[0].topics(), ["a", "b"]);
    });
}

#[test]
fn directories_of_deleted_topics_go_at_the_next_start_and_unknown_ones_stay() {
    let sim = sim();
    let unknown = "6fa459ea-ee8a-4ca4-894e-db77e160355e";
    let [dead, living] = sim.run(|| async {
        let running = Running::start(1).await;
        let ids = running.create(&["dead", "living"]).await;
        let ids = [ids[0].topic_id.unwrap().to_string(), ids[1].topic_id.unwrap().to_string()];
        running.delete(&["dead"]).await;
        running.stop().await.unwrap();
        for directory in [&*ids[0], &*ids[1], unknown, "lost+found"] {
            fs::create_dir_all(Path::new(DATA).join(directory).join("0")).await.unwrap();
        }
        ids
    });
    sim.run(|| async {
        let running = Running::start(1).await;
        let exists = |name: &str| fs::exists(Path::new(DATA).join(name));
        assert!(!exists(&dead).await.unwrap());
        for kept in [&*living, unknown, "lost+found"] {
            assert!(exists(kept).await.unwrap(), "{kept}");
        }
        running.stop().await.unwrap();
    });
}

#[test]
fn topics_without_any_metadata_refuse_the_start() {
    let sim = sim();
    sim.run(|| async {
        let running = Running::start(1).await;
        running.stop().await.unwrap();
        fs::create_dir_all(Path::new(DATA).join("6fa459ea-ee8a-4ca4-894e-db77e160355e")).await.unwrap();
        let running = Running::start(1).await;
        let error = running.ended.await.unwrap().unwrap_err();
        assert!(matches!(error, ControllerError::MetadataLost { directories: 1, .. }), "{error}");
    });
}

#[test]
fn a_request_that_is_too_large_is_refused_whole() {
    sim().run(|| async {
        let running = Running::start(1).await;
        let names: Vec<String> = (0..2_001).map(|n| format!("t{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let refused = running.create_request(creation(&names)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RequestTooLarge);
        let created = running.create(&names[1..]).await;
        assert!(created.iter().all(|topic| topic.error == ErrorCode::None));
        running.stop().await.unwrap();
    });
}
