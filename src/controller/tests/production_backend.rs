//! The controller and two shards, each on an executor of its own, on a real disk.
#![allow(clippy::unwrap_used, reason = "these functions are a test's")]

use std::path::{Path, PathBuf};

use futures_lite::future::block_on;
use ringmq_controller::{ControllerConfig, ControllerError, ControllerRequest, MetadataUpdate, run};
use ringmq_runtime::channel::{self, Receiver, Sender};
use ringmq_runtime::executor::{ExecutorConfig, ExecutorHandle, spawn_executor};
use ringmq_runtime::task;
use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::{CreateTopicsRequest, CreatedTopic, DeleteTopicsRequest, NewTopic};

fn executor(name: &str) -> ExecutorConfig {
    // Small rings: the tests of a workspace share the machine's limit on locked memory.
    ExecutorConfig { name: name.to_owned(), io_memory_bytes: 1 << 20, ..ExecutorConfig::default() }
}

/// A shard that tells the names of every image's topics.
fn spawn_shard(mut updates: Receiver<MetadataUpdate>, seen: Sender<Vec<String>>) -> ExecutorHandle<()> {
    let follow = async move || {
        while let Some(update) = updates.recv().await {
            let topics = update.image.topics_by_name();
            seen.send(topics.iter().map(|topic| topic.name.to_string()).collect()).await.expect("the test listens");
            let _ = update.applied.send(());
        }
    };
    spawn_executor(executor("shard"), follow).expect("an executor starts")
}

/// A whole broker's controller side; ends when the requests' sender is dropped.
struct Broker {
    requests: Sender<ControllerRequest>,
    seen: Vec<Receiver<Vec<String>>>,
    controller: ExecutorHandle<Result<(), ControllerError>>,
    shards: Vec<ExecutorHandle<()>>,
}

impl Broker {
    fn start(data_dir: &Path) -> Broker {
        let (requests, receiver) = channel::bounded(4);
        let (mut links, mut seen, mut shards) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let (link, updates) = channel::bounded(1);
            let (tell, told) = channel::bounded(16);
            links.push(link);
            seen.push(told);
            shards.push(spawn_shard(updates, tell));
        }
        let config = ControllerConfig::new(PathBuf::from(data_dir));
        let controller = spawn_executor(executor("controller"), move || {
            let (_never, stop) = task::stop();
            run(config, receiver, links, stop)
        });
        Broker { requests, seen, controller: controller.expect("an executor starts"), shards }
    }

    fn create(&self, names: &[&str]) -> Vec<CreatedTopic> {
        let topic = |name: &&str| NewTopic { name: (*name).into(), partitions: 4, replicas: 1, settings: Vec::new() };
        let topics = names.iter().map(topic).collect();
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
        let (reply, answer) = channel::oneshot();
        self.requests.send_blocking(ControllerRequest::CreateTopics { request, reply }).unwrap();
        block_on(answer).unwrap().unwrap().topics
    }

    fn delete(&self, name: &str) -> ErrorCode {
        let request = DeleteTopicsRequest { topics: vec![name.to_owned()], timeout_ms: 30_000 };
        let (reply, answer) = channel::oneshot();
        self.requests.send_blocking(ControllerRequest::DeleteTopics { request, reply }).unwrap();
        block_on(answer).unwrap().unwrap().topics[0].error
    }

    /// The next image's topics, which must be the same on both shards.
    fn next_topics(&mut self) -> Vec<String> {
        let told: Vec<_> = self.seen.iter_mut().map(|seen| seen.recv_blocking().unwrap()).collect();
        assert_eq!(told[0], told[1]);
        told.into_iter().next().unwrap()
    }

    fn stop(self) -> Result<(), ControllerError> {
        drop(self.requests);
        let ended = self.controller.join().unwrap();
        for shard in self.shards {
            shard.join().unwrap();
        }
        ended
    }
}

#[test]
fn topics_are_created_across_threads_and_survive_a_restart() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut broker = Broker::start(directory.path());
    assert!(broker.next_topics().is_empty());
    let created = broker.create(&["b", "a", "../x"]);
    assert_eq!(
        created.iter().map(|topic| topic.error).collect::<Vec<_>>(),
        [ErrorCode::None, ErrorCode::None, ErrorCode::InvalidTopicName]
    );
    assert_eq!(broker.next_topics(), ["a", "b"]);
    assert_eq!(broker.delete("a"), ErrorCode::None);
    assert_eq!(broker.next_topics(), ["b"]);

    // The directory has an owner now.
    let second = Broker::start(directory.path());
    let refused = second.stop().unwrap_err();
    assert!(refused.to_string().contains("in use by another running broker"), "{refused}");

    broker.stop().unwrap();
    let mut again = Broker::start(directory.path());
    assert_eq!(again.next_topics(), ["b"]);
    again.stop().unwrap();
}
