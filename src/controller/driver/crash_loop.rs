//! Many seeds, each a machine that loses power or its process again and again while a client creates and deletes topics.
//!
//! To run a seed again that failed: `RINGMQ_SEEDS=42..43 cargo test -p ringmq-controller crash_loop`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::local;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::sim::{Sim, SimConfig};

use super::tests::{DATA, Running};
use super::*;
use crate::metadata::Image;

/// Without a bug all of them pass; each bug is found among them.
pub(crate) const SEEDS: Range<u64> = 0..300;

/// What a client knows: which topics there must be, and what it does not know the outcome of.
#[derive(Default)]
pub(crate) struct Client {
    topics: BTreeMap<String, TopicId>,
    deleted: BTreeSet<TopicId>,
    pending: Option<Pending>,
    /// What a shard was told of in this life.
    told: Rc<RefCell<Vec<Arc<Image>>>>,
    acknowledged: usize,
    /// Requests without an answer that were found done after a restart, and not done.
    landed: usize,
    lost: usize,
}

enum Pending {
    Create(Vec<String>),
    Delete(Vec<String>),
}

impl Client {
    /// Compares with what is there after a restart, and learns how the pending request ended.
    fn check(&mut self, image: &Image) -> Result<(), String> {
        if let Some(told) = self.told.take().last().filter(|told| told.applied() > image.applied()) {
            return Err(format!("a shard was told of {} commands, and {} are there", told.applied(), image.applied()));
        }
        let found: BTreeMap<String, TopicId> = image.topics().map(|topic| (topic.name.to_string(), topic.id)).collect();
        for (name, id) in &found {
            if self.deleted.contains(id) {
                return Err(format!("deleted topic {name} is back"));
            }
        }
        let without = std::mem::take(&mut self.topics);
        let with = match self.pending.take() {
            Some(Pending::Create(names)) => {
                let mut with = without.clone();
                // Ids that nobody was told yet; a topic that is not there gets one that no topic has.
                let id = |name: &str| found.get(name).copied().unwrap_or(TopicId::METADATA);
                with.extend(names.into_iter().map(|name| (name.clone(), id(&name))));
                Some(with)
            }
            Some(Pending::Delete(names)) => {
                let mut with = without.clone();
                with.retain(|name, _| !names.contains(name));
                Some(with)
            }
            None => None,
        };
        match with {
            Some(with) if with == found => self.landed += 1,
            Some(_) | None if found != without => return Err(format!("found {found:?}, acknowledged {without:?}")),
            Some(_) => self.lost += 1,
            None => {}
        }
        self.deleted.extend(without.iter().filter(|(name, _)| !found.contains_key(*name)).map(|(_, id)| *id));
        self.topics = found;
        Ok(())
    }
}

/// Creates and deletes random topics, one request after the other, for ever.
async fn work(running: Running, client: Rc<RefCell<Client>>) {
    loop {
        let mut names: Vec<String> = (0..1 + random::u64() % 3).map(|_| format!("t{}", random::u64() % 12)).collect();
        names.sort();
        names.dedup();
        let create = !random::u64().is_multiple_of(3);
        names.retain(|name| client.borrow().topics.contains_key(name) != create);
        if names.is_empty() {
            continue;
        }
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        if create {
            client.borrow_mut().pending = Some(Pending::Create(names.clone()));
            let created = running.create(&texts).await;
            let mut client = client.borrow_mut();
            for topic in created {
                assert_eq!(topic.error, ErrorCode::None, "{}", topic.detail);
                client.topics.insert(topic.name, topic.topic_id.unwrap());
            }
        } else {
            client.borrow_mut().pending = Some(Pending::Delete(names.clone()));
            let deleted = running.delete(&texts).await;
            let mut client = client.borrow_mut();
            for topic in deleted {
                assert_eq!(topic.error, ErrorCode::None, "{}", topic.detail);
                let id = client.topics.remove(&topic.name).unwrap();
                client.deleted.insert(id);
            }
        }
        let mut client = client.borrow_mut();
        client.pending = None;
        client.acknowledged += names.len();
        let shard = running.shards[0].latest();
        let image: BTreeMap<String, TopicId> = shard.topics().map(|topic| (topic.name.to_string(), topic.id)).collect();
        assert_eq!(image, client.topics, "the answer came before the shards knew");
    }
}

#[test]
fn whatever_was_acknowledged_is_there_after_any_crash() {
    let seeds = seeds(SEEDS);
    let (count, mut total, mut with_snapshots) = (seeds.total(), Client::default(), 0);
    for seed in seeds {
        let Lived { client, has_snapshots, .. } = lives(seed, None);
        with_snapshots += usize::from(has_snapshots);
        total.acknowledged += client.acknowledged;
        total.landed += client.landed;
        total.lost += client.lost;
    }
    // Else the crashes come at the wrong moments, and the test shows nothing. A few seeds need not come to anything.
    if count >= 300 {
        assert!(total.acknowledged > 1_000, "only {} changes were acknowledged", total.acknowledged);
        assert!(with_snapshots > 200, "only {with_snapshots} of the {count} had snapshots at their end");
        assert!(total.landed > 20 && total.lost > 20, "{} requests landed, {} were lost", total.landed, total.lost);
    }
}

#[test]
fn a_seed_replays_to_the_last_event() {
    let trace = |seed| lives(seed, None).trace;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

/// What a seed came to.
pub(crate) struct Lived {
    client: Client,
    has_snapshots: bool,
    /// A hash of its events.
    trace: u64,
}

/// One seed, with a program that may have a bug.
///
/// # Panics
/// When what is found after a crash is not what must be there.
pub(crate) fn lives(seed: u64, seeded_bug: Option<SeededBug>) -> Lived {
    let sim = Sim::new(SimConfig { seeded_bug, ..SimConfig::with_seed(seed) });
    let client = Rc::new(RefCell::new(Client::default()));
    for life in 0..4 {
        let working = client.clone();
        let failure = sim.run(|| async move {
            let start = async move {
                let config = ControllerConfig { snapshot_commands_min: 2, ..ControllerConfig::new(DATA) };
                let running = Running::start_with(config, 2).await;
                let Some(first) = running.shards[0].images.borrow().first().cloned() else {
                    return Err(format!("no start: {}", running.ended.await.unwrap().unwrap_err()));
                };
                working.borrow_mut().check(&first)?;
                working.borrow_mut().told = running.shards[0].images.clone();
                work(running, working).await;
                Ok(())
            };
            let (failed, failure) = local::oneshot();
            task::spawn("client", async move { drop(failed.send(start.await)) });
            let moment = Duration::from_micros(random::u64() % 40_000);
            time::timeout(moment, failure).await.ok().map(|outcome| outcome.unwrap())
        });
        if let Some(Err(failure)) = failure {
            panic!("seed {seed}, life {life}: {failure}");
        }
        if loses_power(seed, life) {
            sim.crash();
        } else {
            sim.kill();
            sim.run(|| time::sleep(Duration::from_secs(1)));
        }
    }
    sim.run(|| async {
        let running = Running::start(2).await;
        let image = running.shards[1].images.borrow().first().cloned();
        let image = image.unwrap_or_else(|| panic!("seed {seed}: no start"));
        client.borrow_mut().check(&image).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    });
    let has_snapshots =
        sim.disk().files().into_iter().any(|path| path.extension().is_some_and(|ext| ext == "snapshot"));
    Lived { client: client.take(), has_snapshots, trace: sim.trace_hash() }
}

/// Whether this life ends with the power (or with a kill).
fn loses_power(seed: u64, life: u64) -> bool {
    !(seed + life).is_multiple_of(3)
}
