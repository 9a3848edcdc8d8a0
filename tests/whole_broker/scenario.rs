//! The lives of one broker under one seed.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::{DiskConfig, LatencyConfig, Sim, SimConfig};
use ringmq_runtime::time::Instant;
use ringmq_runtime::{random, task, time};
use ringmq_shard::{JournalConfig, JournalSettings};
use ringmq_wire::ErrorCode;

use super::broker::{ADDRESS, Broker, Shape};
use super::connection::{Connection, Lost};
use super::ledger::{Gone, Ledger, Place};
use super::topics::{COMPACTED, KEPT, RELAXED, RETAINED, TRIMMED};
use super::{churn, consumer, producer, retrying, topics, trim};

/// What the clients of one scenario share: each is on a machine of its own, and this is the test's.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) ledger: Ledger,
    topics: Rc<[(String, u32)]>,
    /// The clients may end.
    enough: Rc<Cell<bool>>,
    /// The broker was asked to stop.
    stopping: Rc<Cell<bool>>,
    /// Clients at work.
    clients: Rc<Cell<usize>>,
    /// How many cores the broker had that was ended violently, until the next one serves.
    left_by: Rc<Cell<Option<NonZeroU16>>>,
    /// Brokers that recovered what one with another number of cores had left.
    moved: Rc<Cell<u64>>,
}

impl Stage {
    fn new(topics: &[(&str, u32)]) -> Stage {
        Stage {
            ledger: Ledger::default(),
            topics: topics.iter().map(|(topic, partitions)| ((*topic).to_owned(), *partitions)).collect(),
            enough: Rc::default(),
            stopping: Rc::default(),
            clients: Rc::default(),
            left_by: Rc::default(),
            moved: Rc::default(),
        }
    }

    pub(crate) fn is_enough(&self) -> bool {
        self.enough.get()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Every partition of the topics that stay.
    pub(crate) fn places(&self) -> Vec<Place> {
        let partitions = |(topic, partitions): &(String, u32)| {
            let topic = topic.clone();
            (0..*partitions).map(move |partition| Place { topic: topic.clone(), life: 0, partition })
        };
        self.topics.iter().flat_map(partitions).collect()
    }

    pub(crate) fn draw_place(&self) -> Place {
        let mut places = self.places();
        let drawn = draw(0, places.len() as u64 - 1);
        places.swap_remove(usize::try_from(drawn).expect("it is one of them"))
    }

    /// # Panics
    /// For an answer that a broker must not give: there is no fault here but its end.
    pub(crate) fn allow(&self, error: ErrorCode, what: &str) {
        let allowed = error == ErrorCode::ShuttingDown && self.is_stopping();
        assert!(allowed, "{what} was answered with {} by a broker in the best of health", error.name());
    }

    /// As [`Stage::allow`], for who can do nothing more on that connection.
    pub(crate) fn refused(&self, error: ErrorCode, what: &str) -> Lost {
        self.allow(error, what);
        Lost
    }

    /// Runs a client on a machine of its own.
    fn start_client<Fut>(&self, sim: &Sim, name: &str, client: impl FnOnce(Stage) -> Fut + 'static)
    where
        Fut: Future<Output = ()> + 'static,
    {
        let stage = self.clone();
        self.clients.set(self.clients.get() + 1);
        sim.elsewhere(name, move || async move {
            client(stage.clone()).await;
            stage.clients.set(stage.clients.get() - 1);
        });
    }

    async fn start_broker(&self, shape: &Shape) -> Broker {
        let began = Instant::now();
        let broker = Broker::start(shape, self.stopping.clone()).await;
        self.ledger.broker_has_recovered(began);
        let moved = self.left_by.take().is_some_and(|shards| shards != shape.shards);
        self.moved.set(self.moved.get() + u64::from(moved));
        broker
    }

    async fn create_topics(&self) -> Result<(), Lost> {
        let mut connection = Connection::open(ADDRESS).await?;
        for (topic, partitions) in self.topics.iter() {
            assert!(churn::create(self, &mut connection, topic, *partitions).await?, "{topic} can be created");
        }
        Ok(())
    }
}

/// What a seed draws at first.
struct Plan {
    shape: Shape,
    topics: Vec<(&'static str, u32)>,
    producers: u64,
    retrying_producers: u64,
    lives: u64,
}

impl Plan {
    fn draw() -> Plan {
        let tail_cache_bytes = 1 << draw(12, 24);
        Plan {
            shape: Shape { shards: draw_shards(), tail_cache_bytes, journal: draw_journal() },
            topics: [(KEPT, 3), (TRIMMED, 2), (COMPACTED, 2), (RETAINED, 1), (RELAXED, 2)]
                .map(|(topic, partitions_max)| (topic, u32::try_from(draw(1, partitions_max)).expect("small")))
                .into(),
            producers: draw(1, 2),
            retrying_producers: draw(1, 2),
            lives: draw(1, 4),
        }
    }
}

fn draw_shards() -> NonZeroU16 {
    let shards = [1, 2, 2, 2, 3][usize::try_from(draw(0, 4)).expect("small")];
    NonZeroU16::new(shards).expect("not zero")
}

/// Mostly small rings, which fill up; some brokers have none.
fn draw_journal() -> JournalSettings {
    let block_bytes_max = 4096 << draw(2, 4);
    let ring_bytes = block_bytes_max as u64 * draw(8, 16);
    let ring = JournalConfig { block_bytes_max, ring_bytes, ..JournalConfig::default() };
    let append_bytes_max = [0, 1 << 10, ring.entry_bytes_max(), ring.entry_bytes_max()];
    JournalSettings { append_bytes_max: append_bytes_max[usize::try_from(draw(0, 3)).expect("small")], ring }
}

/// How a life ends.
#[derive(Debug)]
enum End {
    Kill,
    PowerLoss,
    CleanStop,
}

impl End {
    fn draw() -> End {
        match draw(0, 7) {
            0..3 => End::Kill,
            3..7 => End::PowerLoss,
            _ => End::CleanStop,
        }
    }
}

/// A number from `from` to `to`.
fn draw(from: u64, to: u64) -> u64 {
    from + random::u64() % (to - from + 1)
}

/// On every fourth disk some writes take so long that they land in the middle of the next life.
fn disk(seed: u64) -> DiskConfig {
    let usual = LatencyConfig::default();
    let write = if seed.is_multiple_of(4) { Duration::ZERO..=Duration::from_millis(5) } else { usual.write.clone() };
    DiskConfig { latency: LatencyConfig { write, ..usual }, ..DiskConfig::default() }
}

/// What a scenario came to.
pub(crate) struct Outcome {
    /// The hash of everything that happened.
    pub(crate) trace: u64,
    /// Records that are gone at the end, as they may.
    pub(crate) gone: Gone,
    /// Batches that were sent again and not stored again.
    pub(crate) sent_again: u64,
    /// Batches that were shown and are lost, as they may be where the flush is relaxed.
    pub(crate) lost: u64,
    /// Brokers that recovered what one with another number of cores had left.
    pub(crate) moved: u64,
}

/// Plays the scenario of a seed.
///
/// # Panics
/// When a promise is broken.
pub(crate) fn run(seed: u64) -> Outcome {
    run_with(seed, None)
}

/// As [`run`], with a broker that may have a bug.
pub(crate) fn run_with(seed: u64, seeded_bug: Option<SeededBug>) -> Outcome {
    let sim = Sim::new(SimConfig { disk: disk(seed), seeded_bug, ..SimConfig::with_seed(seed) });
    let plan = sim.run(|| async { Plan::draw() });
    let stage = Stage::new(&plan.topics);

    // The topics are there before the others begin, so that no client meets one that is missing.
    sim.run(|| async {
        let broker = Broker::start(&plan.shape, stage.stopping.clone()).await;
        stage.create_topics().await.expect("nothing ends the broker");
        broker.stop().await;
    });
    start_clients(&sim, &stage, &plan);
    // Each life has as many cores as it happens to have: what one left on the disk, others recover.
    let next_shape = || sim.run(|| async { Shape { shards: draw_shards(), ..plan.shape.clone() } });
    for _ in 0..plan.lives {
        live(&sim, &stage, &next_shape());
    }
    let gone = last_life(&sim, &stage, &next_shape());
    assert!(stage.ledger.acknowledged_count() > 0, "something was produced");
    let (sent_again, lost) = (stage.ledger.sent_again_count(), stage.ledger.lost_count());
    Outcome { trace: sim.trace_hash(), gone, sent_again, lost, moved: stage.moved.get() }
}

fn start_clients(sim: &Sim, stage: &Stage, plan: &Plan) {
    for _ in 0..plan.producers {
        stage.start_client(sim, "producer", producer::run);
    }
    for _ in 0..plan.retrying_producers {
        stage.start_client(sim, "retrying producer", retrying::run);
    }
    for place in stage.places() {
        stage.start_client(sim, "consumer", |stage| consumer::follow(stage, place));
    }
    stage.start_client(sim, "churn", churn::run);
    stage.start_client(sim, "settings", topics::keep_as_planned);
    stage.start_client(sim, "trim", trim::run);
}

/// One life of the broker, from a start to a violent or a peaceful end; the end may come while it starts.
fn live(sim: &Sim, stage: &Stage, shape: &Shape) {
    let running = Rc::new(RefCell::new(None));
    let (end, at) = sim.run(|| async {
        let (stage, running, shape) = (stage.clone(), running.clone(), shape.clone());
        task::spawn("life", async move {
            let broker = stage.start_broker(&shape).await;
            // Stored before the check, which may take longer than the broker lives.
            *running.borrow_mut() = Some(broker);
            let checked = consumer::check_all(&stage).await;
            assert!(checked.is_ok() || stage.is_stopping(), "a connection was lost that nobody has ended");
        });
        let length_us = if draw(0, 3) == 0 { draw(0, 20_000) } else { draw(0, 200_000) };
        time::sleep(Duration::from_micros(length_us)).await;
        (End::draw(), Instant::now())
    });
    match end {
        End::Kill => {
            sim.kill();
            stage.ledger.broker_was_killed(at);
            stage.left_by.set(Some(shape.shards));
        }
        End::PowerLoss => {
            // The ledger knows what must be there, whatever was kept.
            let _ = sim.crash();
            stage.ledger.power_was_lost(at);
            stage.left_by.set(Some(shape.shards));
        }
        End::CleanStop => {
            sim.run(|| async {
                let broker = loop {
                    if let Some(broker) = running.take() {
                        break broker;
                    }
                    time::sleep(Duration::from_millis(1)).await;
                };
                broker.stop().await;
            });
            // What is left of the process: the check, perhaps.
            sim.kill();
        }
    }
}

/// Lets the clients finish, checks everything, stops and starts once more, and checks again. Returns what is gone.
fn last_life(sim: &Sim, stage: &Stage, shape: &Shape) -> Gone {
    sim.run(|| async {
        let broker = stage.start_broker(shape).await;
        consumer::check_all(stage).await.expect("nothing ends the broker");
        time::sleep(Duration::from_millis(20)).await;
        stage.enough.set(true);
        while stage.clients.get() > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        consumer::check_all(stage).await.expect("nothing ends the broker");
        broker.stop().await;
        let broker = stage.start_broker(shape).await;
        let gone = consumer::check_all(stage).await.expect("nothing ends the broker");
        broker.stop().await;
        gone
    })
}
