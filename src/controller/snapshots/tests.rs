//! Snapshots on a simulated disk that crashes, fails and rots, against the commands that were acknowledged.

use std::time::Duration;

use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_runtime::time;
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
    pub(super) directory: DataDirectory,
    log: MetadataLog,
    pub(crate) state: State,
    pub(super) snapshots: Snapshots,
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
pub(super) fn on_disk(sim: &Sim) -> Vec<i64> {
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
    let seeds = seeds(0..400);
    let (total, mut before, mut after) = (seeds.total(), 0, 0);
    for seed in seeds {
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
    assert!(total < 400 || before > 50 && after > 50, "{before} crashes came before, {after} after");
}
