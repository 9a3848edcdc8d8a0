//! A broker on the simulated machine, wired as `ringmq serve` does it.

use std::cell::Cell;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_controller::ControllerConfig;
use ringmq_controller::metadata::TopicSettings;
use ringmq_runtime::channel::{self, OneshotSender};
use ringmq_runtime::executor::{ExecutorConfig, spawn_executor};
use ringmq_runtime::task::{self, Gate, Stop};
use ringmq_runtime::time;
use ringmq_shard::{
    CompactionSettings, JournalSettings, Limits, LogConfig, OpenSegments, Roster, ScrubSettings, Shard, ShardConfig,
    ShardError, Wiring,
};
use ringmq_wire::{BrokerId, ShardIndex};

/// Where clients reach it.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 9092);

/// What brokers of one scenario have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) shards: NonZeroU16,
    /// Small ones make fetches read the disk.
    pub(crate) tail_cache_bytes: usize,
    /// Small rings fill up.
    pub(crate) journal: JournalSettings,
}

/// A broker that serves.
pub(crate) struct Broker {
    /// Dropping one stops its executor; the controller's is the last.
    stops: Vec<OneshotSender<()>>,
    shards: Gate,
    controller: Gate,
    stopping: Rc<Cell<bool>>,
}

impl Broker {
    /// Starts every executor of a broker on the calling core's machine and waits until clients are served. `stopping`
    /// says whether the broker is asked to end.
    ///
    /// # Panics
    /// Here or later, when a part of it ends that nobody has stopped.
    pub(crate) async fn start(shape: &Shape, stopping: Rc<Cell<bool>>) -> Broker {
        stopping.set(false);
        let (requests, requests_receiver) = channel::bounded(64);
        let Wiring { shards, metadata, started, rosters, mailboxes: _ } = Wiring::new(shape.shards, &requests);
        drop(requests);
        let mut broker = Broker { stops: Vec::new(), shards: Gate::new(), controller: Gate::new(), stopping };
        for (links, index) in shards.into_iter().zip(0..) {
            let config = shard_config(shape, ShardIndex::new(index));
            let shards = broker.shards.clone();
            broker.launch(&shards, format!("shard-{index}"), move |stop| async move {
                match Shard::run(config, links, stop).await {
                    // Stopped so early that it had not heard of the others yet; or the one that failed says more.
                    Err(ShardError::GivenUp) => Ok(()),
                    ended => ended,
                }
            });
        }
        let controller = broker.controller.clone();
        let config = ControllerConfig::new(DATA_DIR);
        broker.launch(&controller, "controller".to_owned(), move |stop| {
            ringmq_controller::run(config, requests_receiver, metadata, stop)
        });
        let mut members = Vec::new();
        for started in started {
            let Ok(started) = started.await else { fail_after_the_cause("a shard gave the start up").await };
            assert_eq!(started.partitions_offline, 0, "every partition can be opened");
            members.push(started.member);
        }
        let roster = Arc::new(Roster { shards: members });
        for shard in rosters {
            drop(shard.send(roster.clone()));
        }
        broker
    }

    fn launch<Fut, E>(&mut self, gate: &Gate, name: String, run: impl FnOnce(Stop) -> Fut + Send + 'static)
    where
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Display + 'static,
    {
        let (stop, stopped) = channel::oneshot::<()>();
        let (end, ended) = channel::oneshot();
        let executor = ExecutorConfig { name: name.clone(), ..ExecutorConfig::default() };
        let main = move || async move {
            let (handle, stop) = task::stop();
            task::spawn("broker: stop", async move {
                let _ = stopped.await;
                handle.stop();
            });
            run(stop).await.unwrap_or_else(|error| panic!("{name} failed: {error}"));
            let _ = end.send(());
        };
        spawn_executor(executor, main).expect("the simulation has room for another core");
        self.stops.push(stop);
        let stopping = self.stopping.clone();
        let watched = gate.spawn("broker: watch", async move {
            ended.await.expect("an executor ends by its main future");
            if !stopping.get() {
                fail_after_the_cause("an executor ended that nobody has stopped").await;
            }
        });
        watched.expect("the gate is open");
    }

    /// Stops it as a signal would: the shards first, which still need the controller.
    pub(crate) async fn stop(mut self) {
        self.stopping.set(true);
        self.stops.drain(..self.stops.len() - 1);
        self.shards.close().await;
        self.stops.clear();
        self.controller.close().await;
    }
}

/// One cause makes others end, some of them before it can tell: it gets the time to.
async fn fail_after_the_cause(consequence: &str) -> ! {
    time::sleep(Duration::from_secs(1)).await;
    panic!("{consequence}, and none has failed");
}

const DATA_DIR: &str = "/data";

fn shard_config(shape: &Shape, shard: ShardIndex) -> ShardConfig {
    ShardConfig {
        shard,
        shard_count: shape.shards,
        cpu: None,
        broker: BrokerId::new(0),
        version: "simulated".to_owned(),
        data_dir: DATA_DIR.into(),
        journal: shape.journal.clone(),
        listen: ADDRESS,
        shard_port: None,
        advertise: None,
        log: LogConfig::default(),
        topic_defaults: topic_defaults(),
        retention_interval: Duration::from_millis(10),
        compaction: CompactionSettings { interval: Duration::from_millis(10), ..CompactionSettings::default() },
        scrub: ScrubSettings::default(),
        sealed_open_max: OpenSegments::MAX_DEFAULT,
        tail_cache_bytes: shape.tail_cache_bytes,
        limits: Limits::DEFAULT,
    }
}

/// Segments that are full soon, and just hold the largest batch. They are smaller than a user may have them.
fn topic_defaults() -> TopicSettings {
    // Records of tests are as old as time.
    TopicSettings { segment_bytes: 160 << 10, batch_bytes_max: 128 << 10, retention_ms: 0, ..TopicSettings::default() }
}
