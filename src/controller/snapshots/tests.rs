//! Snapshots on a simulated disk that crashes, fails and rots, against the commands that were acknowledged.

use std::cell::RefCell;
use std::time::Duration;

use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_runtime::{local, random, time};
use ringmq_wire::{TopicId, TopicName};
use uuid::Uuid;

use super::*;
use crate::directory::{DataDirectory, METADATA};
use crate::log::{MetadataLog, MetadataLogError, Opened};
use crate::metadata::{Command, SettingChoices, SettingKey, SlotRuns, State, Topic};

pub(crate) const DATA: &str = "/data";

pub(crate) fn root() -> PathBuf {
    Path::new(DATA).join(METADATA)
}

pub(crate) fn topic(number: u128, name: &str) -> Command {
    Command::CreateTopic(Topic {
        id: TopicId::new(Uuid::from_u128(number + 2)),
        name: TopicName::parse(name).unwrap(),
        partitions: 3,
        replicas: 1,
        slots: SlotRuns::new(crate::metadata::Slot::default()),
        settings: SettingChoices::default(),
    })
}

/// A process that has opened the metadata.
pub(crate) struct Life {
    directory: DataDirectory,
    log: MetadataLog,
    pub(crate) state: State,
    snapshots: Snapshots,
}

impl Life {
    pub(crate) async fn begin() -> Result<Life, MetadataLogError> {
        let directory = DataDirectory::open(Path::new(DATA)).await.unwrap();
        let Opened { log, state, snapshot } = MetadataLog::open(&directory).await?;
        let snapshots = Snapshots::new(&root(), snapshot, 1);
        Ok(Life { directory, log, state, snapshots })
    }

    pub(crate) async fn change(&mut self, commands: &[Command]) {
        self.log.append(self.state.applied(), commands).await.unwrap();
        for command in commands {
            self.state.apply(command.clone()).unwrap();
        }
    }

    /// Creates `count` topics, each in a change of its own.
    async fn create(&mut self, count: u128) {
        for _ in 0..count {
            let number = u128::from(self.state.applied().as_u64());
            self.change(&[topic(number, &format!("t{number}"))]).await;
        }
    }

    /// Writes a snapshot of what there is now; whether it was written.
    pub(crate) async fn snapshot(&self) -> io::Result<usize> {
        self.snapshots.shared.write(&self.state.image()).await
    }

    pub(crate) async fn end(self) {
        self.snapshots.close().await;
        self.log.close().await;
        drop(self.log);
        self.directory.close().await.unwrap();
    }
}

pub(crate) fn sim(seed: u64) -> Sim {
    Sim::new(SimConfig::with_seed(seed))
}

/// The offsets of the snapshots on the disk.
fn on_disk(sim: &Sim) -> Vec<i64> {
    let files = sim.disk().files();
    files.iter().filter_map(|path| offset_of(path.file_name()?.to_str()?)).map(Offset::get).collect()
}

/// Opens the metadata: the image, and the snapshot that it began from.
fn reopen(sim: &Sim) -> (Arc<Image>, Option<i64>) {
    sim.run(|| async {
        let life = Life::begin().await.unwrap();
        let (image, snapshot) = (life.state.image(), life.snapshots.shared.latest.get());
        life.end().await;
        (image, snapshot.map(Offset::get))
    })
}

/// A log of nine commands with snapshots at six and at eight.
fn with_two_snapshots(sim: &Sim) -> Arc<Image> {
    sim.run(|| async {
        let mut life = Life::begin().await.unwrap();
        for (topics, snapshot) in [(3, true), (3, true), (2, true), (1, false)] {
            life.create(topics).await;
            if snapshot {
                life.snapshot().await.unwrap();
            }
        }
        let image = life.state.image();
        life.end().await;
        image
    })
}

#[test]
fn a_start_begins_from_the_latest_snapshot_and_two_are_kept() {
    let sim = sim(1);
    let image = with_two_snapshots(&sim);
    assert_eq!(on_disk(&sim), [6, 8]);
    assert_eq!(reopen(&sim), (image.clone(), Some(8)));
    sim.crash();
    assert_eq!(reopen(&sim), (image, Some(8)));
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before_and_then_for_the_log() {
    let sim = sim(2);
    let image = with_two_snapshots(&sim);
    let [six, eight] = [6, 8].map(|offset| path_of(&root(), Offset::new(offset)));
    let length = sim.disk().read(&eight).unwrap().len() as u64;
    for position in 0..length {
        sim.disk().flip_bit(&eight, position, u8::try_from(position % 8).unwrap()).unwrap();
        assert_eq!(reopen(&sim), (image.clone(), Some(6)), "byte {position}");
        sim.disk().flip_bit(&eight, position, u8::try_from(position % 8).unwrap()).unwrap();
    }
    sim.disk().flip_bit(&eight, 60, 0).unwrap();
    sim.disk().flip_bit(&six, 60, 0).unwrap();
    assert_eq!(reopen(&sim), (image.clone(), None));
    assert_eq!(on_disk(&sim), [6, 8], "what is damaged is left to be looked at");

    // The next one is the only one that is known to be good.
    sim.run(|| async {
        let mut life = Life::begin().await.unwrap();
        life.create(1).await;
        life.snapshot().await.unwrap();
        life.end().await;
    });
    assert_eq!(on_disk(&sim), [10]);
}

#[test]
fn a_snapshot_under_another_name_or_of_another_cluster_is_passed_over() {
    let sim = sim(3);
    let image = with_two_snapshots(&sim);
    let bytes = sim.disk().read(path_of(&root(), Offset::new(8))).unwrap();
    let put = |offset, bytes: Vec<u8>| {
        sim.run(|| async move { fs::write_small_atomic(path_of(&root(), Offset::new(offset)), &bytes).await.unwrap() });
    };
    put(9, bytes);
    put(7, Vec::new());
    assert_eq!(reopen(&sim), (image.clone(), Some(8)));

    let other = self::sim(4);
    with_two_snapshots(&other);
    put(9, other.disk().read(path_of(&root(), Offset::new(8))).unwrap());
    assert_eq!(reopen(&sim), (image, Some(8)));
    for name in ["8.snapshot", "+0000000000000000008.snapshot", "99999999999999999999.snapshot", "0.snapshot.tmp"] {
        assert_eq!(offset_of(name), None, "{name}");
    }
}

#[test]
fn a_log_that_ends_before_its_snapshot_refuses_the_start() {
    let sim = sim(5);
    with_two_snapshots(&sim);
    let log = sim.disk().files().into_iter().find(|path| path.extension().is_some_and(|ext| ext == "log")).unwrap();
    let tables: Vec<PathBuf> =
        sim.disk().files().into_iter().filter(|path| path.starts_with(root().join("generations"))).collect();
    for path in tables.iter().chain([&log]) {
        sim.disk().remove(path).unwrap();
    }
    let before = sim.disk().files();
    let refused = sim.run(|| async { Life::begin().await.err().unwrap() });
    assert!(matches!(refused, MetadataLogError::BehindSnapshot { .. }), "{refused}");
    assert!(refused.to_string().contains("below offset 8, but the metadata log ends at 0"), "{refused}");
    assert_eq!(sim.disk().files(), before);
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing_and_harms_nobody() {
    for fault in 0..3 {
        let sim = sim(10 + fault);
        sim.run(|| async {
            let mut life = Life::begin().await.unwrap();
            life.create(3).await;
            life.snapshot().await.unwrap();
            life.create(3).await;
            match fault {
                0 => sim.disk().fail_next_write("*.snapshot.tmp", io::ErrorKind::Other),
                1 => sim.disk().fail_next_flush("*.snapshot.tmp", io::ErrorKind::Other),
                _ => sim.disk().set_capacity(0),
            }
            life.snapshot().await.unwrap_err();
            assert!(!sim.disk().files().iter().any(|path| path.extension().is_some_and(|ext| ext == "tmp")));
            sim.disk().set_capacity(64 << 30);
            life.create(1).await;
            let due = life.snapshots.shared.is_due(&life.state.image());
            assert!(!due, "it is not tried again with every command");
            life.end().await;
        });
        assert_eq!(on_disk(&sim), [3]);
        let (image, snapshot) = reopen(&sim);
        assert_eq!((image.topics().len(), snapshot), (7, Some(3)));
    }
}

#[test]
fn one_is_due_after_as_many_commands_as_it_has_entries() {
    let sim = sim(20);
    let written = sim.run(|| async {
        let mut life = Life::begin().await.unwrap();
        let mut written = Vec::new();
        for _ in 0..40 {
            life.create(1).await;
            life.snapshots.write_if_due(&life.state.image());
            while life.snapshots.shared.writing.get() {
                time::sleep(Duration::from_millis(1)).await;
            }
            written.extend(life.snapshots.shared.latest.get().map(Offset::get));
        }
        written.dedup();
        life.end().await;
        written
    });
    assert_eq!(written, [1], "each command adds a topic: as many commands as entries come only once");

    let written = sim.run(|| async {
        let mut life = Life::begin().await.unwrap();
        let id = life.state.image().topics().next().unwrap().id;
        let mut written = Vec::new();
        for age in 0..90 {
            let mut settings = SettingChoices::default();
            settings.insert(SettingKey::SegmentAgeMs, 1_000 + age);
            life.change(&[Command::SetTopicSettings { id, settings }]).await;
            life.snapshots.write_if_due(&life.state.image());
            while life.snapshots.shared.writing.get() {
                time::sleep(Duration::from_millis(1)).await;
            }
            written.extend(life.snapshots.shared.latest.get().map(Offset::get));
        }
        written.dedup();
        life.end().await;
        written
    });
    assert_eq!(written, [41, 81, 121]);
}

#[test]
fn a_crash_at_any_moment_of_writing_leaves_the_one_before_or_the_new_one() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..400 {
        let sim = sim(seed);
        let image = sim.run(|| async {
            let mut life = Life::begin().await.unwrap();
            life.create(4).await;
            life.snapshot().await.unwrap();
            life.create(4).await;
            life.snapshots.write(life.state.image());
            time::sleep(Duration::from_micros(12 * seed)).await;
            life.state.image()
        });
        let written = sim.run(|| async { on_disk(&sim) });
        if seed % 3 == 0 {
            sim.kill();
            sim.run(|| time::sleep(Duration::from_secs(1)));
        } else {
            sim.crash();
        }
        let (found, snapshot) = reopen(&sim);
        assert_eq!(found, image, "seed {seed}");
        match snapshot {
            Some(4) => before += 1,
            Some(8) => after += 1,
            other => panic!("seed {seed}: {other:?}, with {written:?} on the disk before"),
        }
    }
    assert!(before > 50 && after > 50, "{before} crashes came before, {after} after");
}

/// What must be there: the commands that were acknowledged, those under way, and a snapshot that was written.
#[derive(Default)]
struct Model {
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
    let (mut landed, mut lost, mut from_snapshot, mut acknowledged) = (0, 0, 0, 0);
    for seed in 0..400 {
        let sim = sim(seed);
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
            if (seed + life) % 3 == 0 {
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
        let model = model.borrow();
        landed += model.landed;
        lost += model.lost;
        from_snapshot += model.from_snapshot;
        acknowledged += model.acknowledged.len();
    }
    // Else the crashes come at the wrong moments, and the test shows nothing.
    assert!(acknowledged > 4_000, "only {acknowledged} commands were acknowledged");
    assert!(landed > 20 && lost > 20, "{landed} changes landed, {lost} were lost");
    assert!(from_snapshot > 400, "only {from_snapshot} starts began from a snapshot");
}
