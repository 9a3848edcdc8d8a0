//! Many seeds, each a machine that loses power or its process again and again while the metadata is changed and snapshots
//! of it are written, rot and go.
//!
//! To run a seed again that failed: `RINGMQ_SEEDS=42..43 cargo test -p ringmq-controller crash_loop`.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_runtime::{local, random, time};

use super::tests::{Life, on_disk, root, topic};
use super::*;
use crate::metadata::{Command, SettingChoices, SettingKey, State};

/// Without a bug all of them pass; each bug is found among them.
pub(crate) const SEEDS: Range<u64> = 0..400;

/// What must be there: the commands that were acknowledged, those under way, and a snapshot that was written.
#[derive(Default)]
pub(crate) struct Model {
    acknowledged: Vec<Command>,
    pending: Vec<Command>,
    snapshot: Option<Offset>,
    topics: u128,
    /// Changes without an answer that were found done after a restart, and not done.
    landed: usize,
    lost: usize,
    from_snapshot: usize,
}

impl Model {
    /// Compares with what is there after a restart, and learns what became of the change under way.
    fn check(&mut self, life: &Life) -> Result<(), String> {
        let replay = |commands: &[Command]| {
            let mut state = State::new(life.directory.cluster());
            for command in commands {
                state.apply(command.clone()).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(state.image())
        };
        let found = life.state.image();
        let pending = std::mem::take(&mut self.pending);
        let with = [&self.acknowledged[..], &pending].concat();
        if *found == *replay(&with)? {
            self.landed += usize::from(!pending.is_empty());
            self.acknowledged = with;
        } else if *found == *replay(&self.acknowledged)? {
            self.lost += 1;
        } else {
            return Err(format!("found {found:?} after {:?} and perhaps {pending:?}", self.acknowledged));
        }
        let snapshot = life.snapshots.shared.latest.get();
        if snapshot < self.snapshot {
            return Err(format!("began from {snapshot:?}, but {:?} was written", self.snapshot));
        }
        self.snapshot = snapshot;
        self.from_snapshot += usize::from(snapshot.is_some());
        Ok(())
    }

    /// Commands that can follow what is there.
    fn next_change(&mut self, state: &State) -> Vec<Command> {
        let mut after = state.clone();
        let mut commands = Vec::new();
        for _ in 0..=random::u64() % 3 {
            let image = after.image();
            let topics = image.topics_by_name();
            let some = topics.get(usize::try_from(random::u64() % 8).unwrap());
            let command = match (random::u64() % 6, some) {
                (0..=2, _) | (_, None) => {
                    self.topics += 1;
                    topic(self.topics, &format!("t{}", random::u64() % 20))
                }
                (3, Some(topic)) => Command::DeleteTopic(topic.id),
                (4, Some(topic)) => {
                    let mut settings = SettingChoices::default();
                    settings.insert(SettingKey::SegmentAgeMs, random::u64());
                    Command::SetTopicSettings { id: topic.id, settings }
                }
                (_, Some(topic)) => {
                    let (id, partitions) = (topic.id, topic.partitions + 1);
                    Command::AddPartitions { id, partitions, first_slot: image.next_slot() }
                }
            };
            // A name that is taken is one that cannot follow.
            if after.apply(command.clone()).is_ok() {
                commands.push(command);
            }
        }
        commands
    }
}

/// Changes the metadata and writes snapshots of it, for ever.
async fn work(mut life: Life, model: Rc<RefCell<Model>>) {
    loop {
        let commands = model.borrow_mut().next_change(&life.state);
        if commands.is_empty() {
            continue;
        }
        model.borrow_mut().pending.clone_from(&commands);
        life.change(&commands).await;
        let mut model = model.borrow_mut();
        let acknowledged = std::mem::take(&mut model.pending);
        model.acknowledged.extend(acknowledged);
        model.snapshot = model.snapshot.max(life.snapshots.shared.latest.get());
        if random::u64().is_multiple_of(4) && !life.snapshots.shared.writing.get() {
            life.snapshots.write(life.state.image());
        }
    }
}

/// Damages or removes a snapshot now and then, which nothing may depend on.
fn rot(sim: &Sim, model: &RefCell<Model>, dice: u64) {
    let Some(newest) = on_disk(sim).into_iter().max() else { return };
    let path = path_of(&root(), Offset::new(newest));
    match dice % 8 {
        0 => sim.disk().flip_bit(&path, dice % 60, 3).unwrap(),
        1 => sim.disk().remove(&path).unwrap(),
        _ => return,
    }
    model.borrow_mut().snapshot = None;
}

#[test]
fn whatever_was_acknowledged_is_there_with_snapshots_and_crashes_also_of_the_recovery() {
    let seeds = seeds(SEEDS);
    let total = seeds.total();
    let (mut landed, mut lost, mut from_snapshot, mut acknowledged) = (0, 0, 0, 0);
    for seed in seeds {
        let (model, _) = lives(seed, None);
        landed += model.landed;
        lost += model.lost;
        from_snapshot += model.from_snapshot;
        acknowledged += model.acknowledged.len();
    }
    // Else the crashes come at the wrong moments, and the test shows nothing. A few seeds need not come to anything.
    if total >= 400 {
        assert!(acknowledged > 4_000, "only {acknowledged} commands were acknowledged");
        assert!(landed > 20 && lost > 20, "{landed} changes landed, {lost} were lost");
        assert!(from_snapshot > 400, "only {from_snapshot} starts began from a snapshot");
    }
}

#[test]
fn a_seed_replays_to_the_last_event() {
    let trace = |seed| lives(seed, None).1;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

/// One seed, with a program that may have a bug: what it came to, and the hash of its events.
///
/// # Panics
/// When what is found after a crash is not what must be there.
pub(crate) fn lives(seed: u64, seeded_bug: Option<SeededBug>) -> (Model, u64) {
    let sim = Sim::new(SimConfig { seeded_bug, ..SimConfig::with_seed(seed) });
    let model = Rc::new(RefCell::new(Model::default()));
    for life in 0..5_u64 {
        let working = model.clone();
        let failure = sim.run(|| async move {
            let lived = async move {
                let life = Life::begin().await.map_err(|error| error.to_string())?;
                working.borrow_mut().check(&life)?;
                work(life, working).await;
                Ok::<(), String>(())
            };
            let (failed, failure) = local::oneshot();
            task::spawn("life", async move { drop(failed.send(lived.await)) });
            // Every third is so short that it ends in the recovery.
            let longest = if life % 3 == 1 { 6_000 } else { 40_000 };
            let moment = Duration::from_micros(random::u64() % longest);
            time::timeout(moment, failure).await.ok().map(|outcome| outcome.unwrap())
        });
        if let Some(Err(failure)) = failure {
            panic!("seed {seed}, life {life}: {failure}");
        }
        if (seed + life).is_multiple_of(3) {
            sim.kill();
            sim.run(|| time::sleep(Duration::from_secs(1)));
        } else {
            sim.crash();
        }
        rot(&sim, &model, seed.wrapping_mul(0x9E37_79B9).wrapping_add(life * 7));
    }
    let outcome = sim.run(|| async {
        let life = Life::begin().await.map_err(|error| error.to_string())?;
        model.borrow_mut().check(&life)
    });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    (model.take(), sim.trace_hash())
}
