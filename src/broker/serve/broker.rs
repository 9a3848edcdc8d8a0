//! One broker from its first thread to its last: the controller and the shards, each on an executor of its own.
//!
//! The main thread only waits. Everything that happens comes to it as an [`Event`]: a shard is ready, an executor has
//! ended, a signal came.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process;
use std::sync::Arc;
use std::sync::mpsc;

use ringmq_controller::ControllerRequest;
use ringmq_runtime::channel::{self, OneshotSender};
use ringmq_runtime::executor::{self, ExecutorConfig, ExecutorHandle};
use ringmq_runtime::net::Reservation;
use ringmq_runtime::{probe, task};
use ringmq_shard::{Mailboxes, Roster, Shard, Started, Wiring};
use ringmq_wire::ShardIndex;

use super::error::ServeError;
use super::machine::{self, OpenFiles};
use super::plan::Plan;
use super::signals;
use crate::exit::Exit;
use crate::output;

/// Changes of topics that wait for the controller; a connection whose request finds no room waits.
const CONTROLLER_REQUESTS_MAX: usize = 64;

/// What happens to a broker.
#[derive(Debug)]
pub(super) enum Event {
    /// A shard has opened its partitions and bound its ports.
    Started(Started),
    /// An executor has ended.
    Ended(Member, Result<(), ServeError>),
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGUSR1.
    LogStats,
}

/// An executor of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Member {
    /// A shard.
    Shard(ShardIndex),
    /// The controller.
    Controller,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(shard) => write!(f, "shard {shard}"),
            Self::Controller => f.write_str("the controller"),
        }
    }
}

/// Serves until a signal comes and everything has ended cleanly.
///
/// # Errors
/// What keeps the broker from starting, or what made a part of it end by itself.
pub(super) fn serve(plan: Plan) -> Result<(), ServeError> {
    let (sender, events) = mpsc::channel();
    signals::listen(sender.clone())
        .map_err(|source| ServeError::Start { what: "the signal thread".to_owned(), source })?;
    examine(&plan)?;
    if !plan.passed_over.is_empty() {
        let (listen, passed_over) = (plan.listen.ip(), &plan.passed_over);
        tracing::info!(%listen, ?passed_over, "the name to listen on has several addresses: only the first is used");
    }
    let reservation = reserve(plan.listen)?;
    let listen = reservation.address();
    let mut broker = Broker::start(&plan, listen, sender)?;
    let served = broker.start_up(&events).and_then(|running| match running {
        Running::Yes => {
            drop(reservation);
            announce(listen);
            broker.run(&events)
        }
        Running::StoppedBySignal => Ok(()),
    });
    broker.stop(&events, served)
}

/// Looks for what the machine lacks before anything is started, and makes the data directory.
#[allow(clippy::disallowed_methods, reason = "the executors are not there yet")]
fn examine(plan: &Plan) -> Result<(), ServeError> {
    probe::kernel()?;
    probe::io_uring()?;
    probe::locked_memory(plan.executors(), machine::IO_MEMORY_BYTES)?;
    match machine::open_files(plan.executors()) {
        OpenFiles::Enough(limit) => tracing::debug!(limit, "the limit of open files"),
        OpenFiles::Few(problem) => tracing::warn!("{problem}"),
        OpenFiles::TooFew(problem) => return Err(problem.into()),
        OpenFiles::Unknown(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised: few partitions can be open");
        }
    }
    let path = &plan.data_dir;
    std::fs::create_dir_all(path).map_err(|source| ServeError::DataDir { path: path.clone(), source })?;
    probe::prepare_data_dir(path)?;
    if let Err(problem) = probe::outlives_power(path) {
        // Whoever tries or tests a broker may want just that.
        tracing::warn!("{problem}");
    }
    let polling = probe::disk_polling(path)?;
    tracing::debug!(%polling, "the machine has what a broker needs");
    Ok(())
}

fn reserve(address: SocketAddr) -> Result<Reservation, ServeError> {
    Reservation::take(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse { address },
        _ => ServeError::Listen { address, source },
    })
}

/// The line that scripts wait for.
fn announce(address: SocketAddr) {
    tracing::info!(%address, "ready");
    if let Err(error) = output::print(&format!("ringmq ready {address}")) {
        tracing::warn!(%error, "nobody reads standard output, where the ready line goes");
    }
}

/// Whether the start was completed.
enum Running {
    Yes,
    StoppedBySignal,
}

/// The running executors, and the ways to reach them.
struct Broker {
    /// Sending, or dropping, stops the executor.
    stops: BTreeMap<Member, OneshotSender<()>>,
    /// Those that have not ended.
    running: Vec<Member>,
    rosters: Vec<OneshotSender<Arc<Roster>>>,
    mailboxes: Mailboxes,
    controller: channel::Sender<ControllerRequest>,
}

impl Broker {
    /// Starts every executor.
    fn start(plan: &Plan, listen: SocketAddr, events: mpsc::Sender<Event>) -> Result<Self, ServeError> {
        let (requests, requests_receiver) = channel::bounded(CONTROLLER_REQUESTS_MAX);
        let Wiring { shards, metadata, started, rosters, mailboxes } = Wiring::new(plan.shard_count, &requests);
        let (stops, running) = (BTreeMap::new(), Vec::new());
        let mut broker = Self { stops, running, rosters, mailboxes, controller: requests };

        let config = plan.controller();
        let run = |stop| ringmq_controller::run(config, requests_receiver, metadata, stop);
        let as_error = |error| ServeError::Controller(Box::new(error));
        broker.launch(Member::Controller, plan.controller_executor(), &events, run, as_error)?;

        for ((executor, config), (links, started)) in
            plan.shards(listen).into_iter().zip(shards.into_iter().zip(started))
        {
            let shard = config.shard;
            let started_events = events.clone();
            let run = move |stop| {
                task::spawn("broker: started", async move {
                    if let Ok(started) = started.await {
                        // The main thread is gone only when the process ends.
                        let _ = started_events.send(Event::Started(started));
                    }
                });
                Shard::run(config, links, stop)
            };
            let as_error = move |source| ServeError::Shard { shard: shard.get(), source: Box::new(source) };
            broker.launch(Member::Shard(shard), executor, &events, run, as_error)?;
        }
        Ok(broker)
    }

    /// Starts one executor, the way to stop it, and a thread that tells when it has ended.
    fn launch<Fut, E>(
        &mut self,
        member: Member,
        config: ExecutorConfig,
        events: &mpsc::Sender<Event>,
        run: impl FnOnce(task::Stop) -> Fut + Send + 'static,
        as_error: impl FnOnce(E) -> ServeError + Send + 'static,
    ) -> Result<(), ServeError>
    where
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Send + 'static,
    {
        let (stop, stopped) = channel::oneshot::<()>();
        let main = move || async move {
            let (handle, stop) = task::stop();
            task::spawn("broker: stop", async move {
                // Dropped means the same: whoever could stop it is gone.
                let _ = stopped.await;
                handle.stop();
            });
            run(stop).await
        };
        let cannot_start = |source| ServeError::Start { what: member.to_string(), source };
        let handle = executor::spawn_executor(config, main).map_err(cannot_start)?;
        self.stops.insert(member, stop);
        self.running.push(member);
        watch(member, handle, events.clone(), as_error).map_err(cannot_start)
    }

    /// Waits until every shard could serve, then lets them.
    fn start_up(&mut self, events: &mpsc::Receiver<Event>) -> Result<Running, ServeError> {
        let mut members = BTreeMap::new();
        while members.len() < self.rosters.len() {
            match next(events) {
                Event::Started(started) => {
                    let Started { member, public, partitions_online, partitions_offline } = started;
                    tracing::debug!(shard = %member.shard, port = member.port, %public, "a shard could serve");
                    if partitions_offline > 0 {
                        tracing::warn!(
                            shard = %member.shard, partitions_offline, partitions_online,
                            "partitions are offline: the errors above say why; the others serve"
                        );
                    }
                    members.insert(member.shard, member);
                }
                Event::Ended(member, ended) => return Err(self.ended_early(member, ended)),
                Event::Terminate => return Ok(Running::StoppedBySignal),
                Event::LogStats => self.log_stats(),
            }
        }
        let roster = Arc::new(Roster { shards: members.into_values().collect() });
        for shard in self.rosters.drain(..) {
            // A shard that has ended meanwhile is told by its own event.
            let _ = shard.send(roster.clone());
        }
        Ok(Running::Yes)
    }

    /// Serves until a signal comes.
    fn run(&mut self, events: &mpsc::Receiver<Event>) -> Result<(), ServeError> {
        loop {
            match next(events) {
                Event::Terminate => {
                    tracing::info!(
                        "stopping: answering what was read, then closing the logs; a second signal, in half a second or later, ends at once"
                    );
                    return Ok(());
                }
                Event::Ended(member, ended) => return Err(self.ended_early(member, ended)),
                Event::LogStats => self.log_stats(),
                Event::Started(_) => {}
            }
        }
    }

    /// Stops the shards, which still need the controller, and then the controller. Returns the error that counts.
    fn stop(mut self, events: &mpsc::Receiver<Event>, served: Result<(), ServeError>) -> Result<(), ServeError> {
        self.rosters.clear();
        let asked = served.is_ok();
        let mut errors: Vec<_> = served.err().into_iter().collect();
        self.stops.retain(|member, _| *member == Member::Controller);
        while !self.running.is_empty() {
            if self.running == [Member::Controller] {
                self.stops.clear();
            }
            match next(events) {
                Event::Ended(member, ended) => {
                    self.running.retain(|running| *running != member);
                    tracing::debug!(%member, "ended");
                    errors.extend(ended.err());
                }
                Event::Terminate => {
                    tracing::warn!("a second signal: ending at once");
                    process::exit(i32::from(Exit::Interrupted.code()));
                }
                Event::LogStats => self.log_stats(),
                Event::Started(_) => {}
            }
        }
        // One cause makes others stop with errors of their own; so does a signal in the middle of the start.
        match errors.iter().position(|error| !error.is_consequence()) {
            Some(cause) => Err(errors.swap_remove(cause)),
            None if asked => {
                tracing::info!("stopped");
                Ok(())
            }
            None => errors.into_iter().next().map_or(Ok(()), Err),
        }
    }

    /// Makes every executor write its statistics to the log.
    fn log_stats(&self) {
        self.mailboxes.log_stats();
        if self.controller.try_send(ControllerRequest::LogStalls).is_err() {
            tracing::warn!("the controller cannot be asked for its statistics: its door is full or closed");
        }
    }

    fn ended_early(&mut self, member: Member, ended: Result<(), ServeError>) -> ServeError {
        self.running.retain(|running| *running != member);
        ended.err().unwrap_or_else(|| ServeError::Ended { who: member.to_string() })
    }
}

/// Waits for an executor's thread on a thread of its own.
#[allow(clippy::disallowed_types, reason = "a thread that waits for an executor cannot be one")]
fn watch<E: Send + 'static>(
    member: Member,
    handle: ExecutorHandle<Result<(), E>>,
    events: mpsc::Sender<Event>,
    as_error: impl FnOnce(E) -> ServeError + Send + 'static,
) -> io::Result<()> {
    let wait = move || {
        let ended = match handle.join() {
            Ok(result) => result.map_err(as_error),
            Err(source) => Err(ServeError::Crashed { who: member.to_string(), source }),
        };
        // The main thread is gone only when the process ends.
        let _ = events.send(Event::Ended(member, ended));
    };
    std::thread::Builder::new().name(format!("watch {member}")).spawn(wait).map(drop)
}

/// The next event. The signal thread holds a sender for as long as the process lives.
fn next(events: &mpsc::Receiver<Event>) -> Event {
    events.recv().unwrap_or(Event::Terminate)
}
