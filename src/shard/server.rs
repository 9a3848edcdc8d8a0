//! One core's server from start to stop.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_controller::{ControllerRequest, MetadataUpdate, Reply};
use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_runtime::local::Semaphore;
use ringmq_runtime::net::{ListenOptions, TcpListener};
use ringmq_runtime::task::{self, Gate, Stop};
use ringmq_runtime::time;
use ringmq_segment::LogId;
use ringmq_wire::{ErrorCode, WireError};

use crate::config::ShardConfig;
use crate::connection;
use crate::connections::Connections;
use crate::directory::Directory;
use crate::limits::{DESCRIPTIONS_MAX, LimitsError, READS_BEYOND_ROOM_MAX};
use crate::links::{Roster, RosterEntry, ShardLinks, Started};
use crate::mailbox::{self, Doors, Inbox};
use crate::producer_ids::ProducerIds;
use crate::room::{self, FetchRoom};
use crate::scrub::Scrubber;
use crate::stats::Stats;
use crate::storage::{Opened, RecoveryError, Storage};
use crate::throttle::Throttle;
use crate::{compaction, retention, scrub, topics, upkeep};

/// What one core owns: its partitions, its connections, its doors to the other cores. Lives on one executor.
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) directory: RefCell<Directory>,
    /// What the logs of a core share.
    pub(crate) storage: Rc<Storage>,
    pub(crate) doors: Doors,
    pub(crate) stats: Stats,
    pub(crate) scrubber: Scrubber,
    pub(crate) connections: Connections,
    /// Bytes of requests that are not answered yet, without fetches.
    pub(crate) request_bytes: Semaphore,
    /// Sections of produces that are not answered yet.
    pub(crate) request_parts: Semaphore,
    /// Fetches that are not answered yet.
    pub(crate) fetches: FetchRoom,
    /// Descriptions of many topics that are put together.
    pub(crate) descriptions: Semaphore,
    /// Bytes of answers, records included, that clients have not taken yet.
    pub(crate) response_bytes: Semaphore,
    /// Fetches that may find more than they have room for, while they read.
    pub(crate) reads_beyond_room: Semaphore,
    /// The shard is to stop: no new connection, no new request.
    pub(crate) stop: Stop,
    controller: channel::Sender<ControllerRequest>,
    /// What producers get that ask for an identity.
    pub(crate) producer_ids: ProducerIds,
    /// Work for other shards.
    forwarded: Gate,
}

/// Where the broker is reached, once all of its shards could serve: no connection is accepted before.
pub(crate) struct Endpoints {
    /// The port that all shards share.
    pub(crate) public_port: u16,
    /// The shards, each with the port of its own.
    pub(crate) roster: Arc<Roster>,
}

/// What a shard listens on, with the addresses that were bound.
struct Listeners {
    own: (TcpListener, SocketAddr),
    public: (TcpListener, SocketAddr),
}

/// Why a shard could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// What was found on the disk cannot be used.
    #[error(transparent)]
    Recovery(RecoveryError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; choose another address, or stop who uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The broker gave the start up: another shard, or the controller, could not start. Their own errors say why.
    #[error("the start was given up, because the controller or another shard could not start")]
    GivenUp,
}

impl From<RecoveryError> for ShardError {
    /// Whoever gave up for another shard's sake has nothing to say of its own, wherever it was at that time.
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::GivenUp => Self::GivenUp,
            error @ (RecoveryError::Generations(_) | RecoveryError::Journals(_)) => Self::Recovery(error),
        }
    }
}

impl Shard {
    /// Runs one shard on this executor until `stop`: opens its partitions, serves, answers what it has read, closes its
    /// logs.
    ///
    /// # Errors
    /// When it cannot start to serve. A partition that cannot be opened is no reason: it is offline, the others serve.
    pub async fn run(config: ShardConfig, links: ShardLinks, stop: Stop) -> Result<(), ShardError> {
        config.limits.check()?;
        let ShardLinks { inbox, mailboxes, controller, mut metadata, recovery, started, roster } = links;
        // The data directory is the broker's own from the first update on.
        let first = given(&stop, async { metadata.recv().await.ok_or(ShardError::GivenUp) }).await?;
        let opening =
            Storage::open(&config.data_dir, config.shard, config.tail_cache_bytes, config.journal.clone(), recovery);
        let (storage, opened) = opening.await?;
        storage.logs.open_segments.set_max(config.sealed_open_max);
        let shard = Rc::new(Shard {
            directory: RefCell::new(Directory::new(config.shard, config.shard_count)),
            storage,
            doors: Doors::new(&mailboxes, &config.limits),
            stats: Stats::new(),
            scrubber: Scrubber::default(),
            connections: Connections::new(),
            request_bytes: Semaphore::new(config.limits.shard_bytes_max),
            request_parts: Semaphore::new(config.limits.shard_parts_max),
            fetches: FetchRoom::new(config.limits.shard_fetch_bytes_max),
            descriptions: Semaphore::new(DESCRIPTIONS_MAX),
            response_bytes: Semaphore::new(config.limits.shard_response_bytes_max),
            reads_beyond_room: Semaphore::new(READS_BEYOND_ROOM_MAX),
            stop,
            controller,
            producer_ids: ProducerIds::new(),
            forwarded: Gate::new(),
            config,
        });
        drop(mailboxes);
        let served = match shard.recover(first, opened).await {
            Ok(()) => shard.clone().serve(inbox, metadata, started, roster).await,
            Err(error) => Err(error),
        };
        topics::close_all(&shard).await;
        shard.storage.close().await;
        served
    }

    /// Opens the logs that the first image has, each with what the journals have of it, and goes on with a journal.
    async fn recover(self: &Rc<Self>, first: MetadataUpdate, opened: Opened) -> Result<(), ShardError> {
        let image = first.image.clone();
        topics::apply(self, first.image).await;
        let partitions = self.directory.borrow().all_owned();
        let offline = partitions.iter().filter(|partition| partition.log().is_err()).map(|partition| partition.id());
        // That the metadata does not have a topic, or that partition of it, is no record of a deletion.
        let lives = |id: LogId| image.topic_by_id(id.topic_id).is_some_and(|topic| topic.has_partition(id.partition));
        let is_known = |id: LogId| lives(id) || image.deleted().contains(id.topic_id);
        self.storage.finish(opened, offline.collect(), is_known).await?;
        // The controller may have ended meanwhile; nobody waits then.
        let _ = first.applied.send(());
        Ok(())
    }

    /// Serves until it is stopped and everything that it has read is answered.
    async fn serve(
        self: Rc<Self>,
        inbox: Inbox,
        metadata: channel::Receiver<MetadataUpdate>,
        started: OneshotSender<Started>,
        roster: OneshotReceiver<Arc<Roster>>,
    ) -> Result<(), ShardError> {
        let tasks = Gate::new();
        let (end_mailbox, mailbox_ended) = task::stop();
        spawn(&tasks, "mailbox", mailbox::serve(self.clone(), inbox, mailbox_ended));

        let served = async {
            let Listeners { own: (own, own_address), public: (public, public_address) } = self.listen()?;
            // If the start was given up meanwhile, the roster does not come either.
            let _ = started.send(self.report(own_address, public_address));
            let roster = given(&self.stop, async { roster.await.map_err(|_| ShardError::GivenUp) }).await?;
            let endpoints = Rc::new(Endpoints { public_port: public_address.port(), roster });
            for listener in [own, public] {
                spawn(&tasks, "accept", accept(self.clone(), endpoints.clone(), listener));
            }
            spawn(&tasks, "metadata", topics::follow(self.clone(), metadata));
            spawn(&tasks, "upkeep", upkeep::run(self.clone()));
            spawn(&tasks, "retention", retention::run(self.clone()));
            spawn(&tasks, "compaction", compaction::run(self.clone()));
            spawn(&tasks, "scrub", scrub::run(self.clone()));
            self.stop.stopped().await;
            Ok(())
        };
        let served = served.await;
        if served.is_err() {
            end_mailbox.stop();
        }

        let drain_max = self.config.limits.drain_max;
        self.connections.drain(drain_max).await;
        // The others may still ask for what their clients have sent; each says when it will not any more.
        self.doors.say_goodbye(self.config.shard).await;
        // They drain as long as this one may, and a little longer.
        let shard = self.config.shard;
        if time::timeout(2 * drain_max, tasks.close()).await.is_err() {
            tracing::warn!(%shard, "another shard has not said goodbye; its requests are refused now");
            end_mailbox.stop();
        }
        // Whatever still runs then finds its logs closed.
        let ended = async {
            tasks.close().await;
            self.forwarded.close().await;
        };
        if time::timeout(drain_max, ended).await.is_err() {
            let (tasks, forwarded) = (tasks.running(), self.forwarded.running());
            tracing::warn!(%shard, tasks, forwarded, "not everything has ended; closing the logs all the same");
        }
        served
    }

    /// Whether anyone waits for what requests that are not whole yet take up.
    pub(crate) fn is_crowded(&self) -> bool {
        room::is_waited_for(&self.request_bytes) || room::is_waited_for(&self.request_parts)
    }

    /// Binds the port of its own and the shared one.
    fn listen(&self) -> Result<Listeners, ShardError> {
        let own = SocketAddr::new(self.config.listen.ip(), self.config.shard_port.unwrap_or(0));
        let own = bind(own, ListenOptions::default())?;
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        Ok(Listeners { own, public: bind(self.config.listen, shared)? })
    }

    fn report(&self, own: SocketAddr, public: SocketAddr) -> Started {
        let partitions = self.directory.borrow().all_owned();
        let online = partitions.iter().filter(|partition| partition.usable_log().is_ok()).count();
        Started {
            member: RosterEntry { shard: self.config.shard, port: own.port(), cpu: self.config.cpu },
            public,
            partitions_online: online,
            partitions_offline: partitions.len() - online,
        }
    }

    /// Runs work for another shard. The shard does not close its logs before it has ended.
    pub(crate) fn spawn_forwarded(&self, name: &'static str, work: impl Future<Output = ()> + 'static) {
        // Closed only when no other shard can ask any more.
        let _ = self.forwarded.spawn(name, work);
    }

    /// Asks the controller and waits for its answer, `timeout_ms` and a little at most: it keeps that time itself, and
    /// its own words are better.
    ///
    /// # Errors
    /// What the controller says; `ShuttingDown` when it has ended; `RequestTimedOut`.
    pub(crate) async fn ask_controller<R: Send + 'static>(
        &self,
        timeout_ms: u32,
        request: impl FnOnce(Reply<R>) -> ControllerRequest,
    ) -> Result<R, WireError> {
        const MARGIN: Duration = Duration::from_secs(1);
        let ended = || WireError::new(ErrorCode::ShuttingDown, "the controller has stopped");
        let (reply, answer) = channel::oneshot();
        let asked = async {
            self.controller.send(request(reply)).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        let patience = Duration::from_millis(timeout_ms.into()) + MARGIN;
        time::timeout(patience, asked).await.unwrap_or_else(|_| {
            let detail =
                format!("the controller did not answer within {patience:?}; the change may be made all the same");
            Err(WireError::new(ErrorCode::RequestTimedOut, detail))
        })
    }
}

/// What a future gives, unless the start is given up first.
async fn given<T>(stop: &Stop, future: impl Future<Output = Result<T, ShardError>>) -> Result<T, ShardError> {
    stop.or_stop(future).await.unwrap_or(Err(ShardError::GivenUp))
}

/// A listener, and the address that it got.
fn bind(address: SocketAddr, options: ListenOptions) -> Result<(TcpListener, SocketAddr), ShardError> {
    let bound = TcpListener::bind(address, options).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|cause| ShardError::Listen { address, cause })
}

/// Starts one of the tasks that make up a running shard.
fn spawn(tasks: &Gate, name: &'static str, task: impl Future<Output = ()> + 'static) {
    // The gate is closed only when no more of them are started.
    let _ = tasks.spawn(name, task);
}

/// Accepts connections until the shard stops.
async fn accept(shard: Rc<Shard>, endpoints: Rc<Endpoints>, listener: TcpListener) {
    /// After an error such as too many open files: others may close some.
    const PAUSE: Duration = Duration::from_millis(100);
    let log = Throttle::new(Duration::from_secs(10));
    while let Some(accepted) = shard.stop.or_stop(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                task::spawn("connection", connection::serve(shard.clone(), endpoints.clone(), stream, peer));
            }
            Err(error) => {
                if let Some(held_back) = log.pass() {
                    let shard = shard.config.shard;
                    tracing::warn!(%shard, %error, held_back, "a connection cannot be accepted; trying again");
                }
                let _ = shard.stop.or_stop(time::sleep(PAUSE)).await;
            }
        }
    }
}
