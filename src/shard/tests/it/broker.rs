//! A whole broker without the command around it: shards, controller, and their wiring.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmq_controller::metadata::TopicSettings;
use ringmq_controller::{ControllerConfig, ControllerError};
use ringmq_runtime::channel::{self, OneshotSender};
use ringmq_runtime::executor::{ExecutorConfig, ExecutorHandle, spawn_executor};
use ringmq_runtime::net::Reservation;
use ringmq_runtime::{probe, task};
use ringmq_segment::LogConfig;
use ringmq_shard::{
    Advertise, CompactionSettings, JournalConfig, JournalSettings, Limits, Mailboxes, OpenSegments, Roster,
    ScrubSettings, Shard, ShardConfig, ShardError, StatsSnapshot, Wiring,
};
use ringmq_wire::protocol::RequestType;
use ringmq_wire::{BrokerId, ShardIndex};

use crate::peer::{PATIENCE, Peer};

/// How a test's broker differs from the default one.
pub(crate) struct Options {
    pub(crate) shards: u16,
    pub(crate) limits: Limits,
    pub(crate) advertise: Option<Advertise>,
    /// Port 0 stands for a free one.
    pub(crate) listen: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { shards: 2, limits: Limits::default(), advertise: None, listen }
    }
}

/// A running broker. Dropping it stops it and waits for its end.
pub(crate) struct Broker {
    pub(crate) public: SocketAddr,
    pub(crate) roster: Arc<Roster>,
    pub(crate) mailboxes: Mailboxes,
    running: Option<Running>,
}

struct Running {
    shards: Vec<Stoppable<Result<(), ShardError>>>,
    controller: Stoppable<Result<(), ControllerError>>,
}

/// An executor, and what tells it to stop.
type Stoppable<T> = (OneshotSender<()>, ExecutorHandle<T>);

impl Broker {
    /// Starts a broker on a free port; it serves when this returns.
    pub(crate) fn start(data_dir: &Path, options: Options) -> Self {
        probe::prepare_data_dir(data_dir).expect("the data directory is fit for direct I/O");
        let shard_count = NonZeroU16::new(options.shards).expect("a broker has a shard");
        let (controller_sender, requests) = channel::bounded(64);
        let Wiring { shards, metadata, started, rosters, mailboxes } = Wiring::new(shard_count, &controller_sender);
        drop(controller_sender);
        let reservation = Reservation::take(options.listen).expect("a free port");
        let listen = reservation.address();

        let controller = run_executor("controller", {
            let config = ControllerConfig::new(data_dir);
            |stop| ringmq_controller::run(config, requests, metadata, stop)
        });
        let shards = shards.into_iter().zip(0..).map(|(links, index)| {
            let config = ShardConfig {
                shard: ShardIndex::new(index),
                shard_count,
                cpu: None,
                broker: BrokerId::new(0),
                version: "test".to_owned(),
                data_dir: data_dir.to_owned(),
                listen,
                shard_port: None,
                advertise: options.advertise.clone(),
                log: LogConfig::default(),
                topic_defaults: TopicSettings::default(),
                // Records of tests are as old as time.
                retention_interval: Duration::from_secs(24 * 3600),
                compaction: CompactionSettings::default(),
                scrub: ScrubSettings::default(),
                sealed_open_max: OpenSegments::MAX_DEFAULT,
                journal: JournalSettings {
                    ring: JournalConfig { ring_bytes: 4 << 20, ..JournalConfig::default() },
                    ..JournalSettings::default()
                },
                tail_cache_bytes: 16 << 20,
                limits: options.limits.clone(),
            };
            run_executor("shard", |stop| Shard::run(config, links, stop))
        });
        let shards: Vec<_> = shards.collect();

        let started: Result<Vec<_>, _> = started.into_iter().map(wait).collect();
        let Ok(started) = started else {
            drop(rosters);
            let ended = shards.into_iter().map(|(_, shard)| shard.join());
            panic!("the broker does not start: {:?}, {:?}", ended.collect::<Vec<_>>(), controller.1.join());
        };
        let roster = Arc::new(Roster { shards: started.into_iter().map(|started| started.member).collect() });
        drop(reservation);
        for shard in rosters {
            shard.send(roster.clone()).expect("the shard waits for the others");
        }
        let public = SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port()));
        Self { public, roster, mailboxes, running: Some(Running { shards, controller }) }
    }

    /// A connection through the shared port: to any shard.
    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.public)
    }

    /// A connection to one shard.
    pub(crate) fn connect_to(&self, shard: usize) -> Peer {
        Peer::connect(SocketAddr::new(self.public.ip(), self.roster.shards[shard].port))
    }

    /// What a shard has counted.
    pub(crate) fn stats(&self, shard: u16) -> StatsSnapshot {
        let mailboxes = self.mailboxes.clone();
        wait(async move { mailboxes.stats(ShardIndex::new(shard)).await }).expect("the shard runs")
    }

    /// One of a shard's counters.
    pub(crate) fn counter(&self, shard: u16, name: &str) -> usize {
        let stats = self.stats(shard);
        let count = stats.counters.iter().find(|(counter, _)| *counter == name).expect("a counter of this name").1;
        usize::try_from(count).expect("it fits")
    }

    /// How many requests of a type a shard has read.
    pub(crate) fn requests(&self, shard: u16, request_type: RequestType) -> usize {
        let read = self.stats(shard).requests.into_iter().find(|(read, _)| *read == request_type);
        usize::try_from(read.map_or(0, |(_, count)| count)).expect("it fits")
    }

    /// Stops it as a signal would.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(Running { shards, controller }) = self.running.take() else { return };
        let (stops, handles): (Vec<_>, Vec<_>) = shards.into_iter().unzip();
        stops.into_iter().for_each(|stop| stop.send(()).expect("the shard runs"));
        for handle in handles {
            handle.join().expect("the executor ends").expect("the shard served");
        }
        // It may have ended by itself: nobody can ask it any more.
        let _ = controller.0.send(());
        controller.1.join().expect("the executor ends").expect("the controller served");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// Runs `main` on an executor of its own until it ends; what is sent tells it to.
fn run_executor<T, F>(name: &str, main: impl FnOnce(task::Stop) -> F + Send + 'static) -> Stoppable<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (sender, receiver) = channel::oneshot::<()>();
    let config = ExecutorConfig { name: name.to_owned(), ..ExecutorConfig::default() };
    let handle = spawn_executor(config, || async move {
        let (handle, stop) = task::stop();
        task::spawn("stop", async move {
            if receiver.await.is_ok() {
                handle.stop();
            }
        });
        main(stop).await
    });
    (sender, handle.expect("the executor starts"))
}

/// Waits until something holds, and fails when it does not come to that.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in {PATIENCE:?} it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for an answer on this thread.
pub(crate) fn wait<T: Send + 'static>(answer: impl Future<Output = T> + Send + 'static) -> T {
    let config = ExecutorConfig { name: "wait".to_owned(), ..ExecutorConfig::default() };
    spawn_executor(config, || answer).expect("the executor starts").join().expect("the executor ends")
}

/// A directory on a real disk: direct I/O does not work everywhere else.
pub(crate) fn data_dir() -> tempfile::TempDir {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).expect("a directory for the test")
}
