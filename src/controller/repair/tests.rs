//! Metadata logs that rot, lose their end or their files, and what is kept of them.

use std::time::Duration;

use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::{task, time};
use ringmq_wire::ProducerId;
use uuid::Uuid;

use super::*;
use crate::metadata::Command;
use crate::snapshots::tests::{DATA, Life, root, sim, topic};

/// Bytes of a frame with one command.
const FRAME_BYTES: u64 = 4096;

fn id(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(number + 2))
}

/// Each command in a change of its own; a snapshot behind so many, if any. The process is gone.
fn changed(seed: u64, commands: &[Command], snapshot_behind: Option<usize>) -> Sim {
    let sim = sim(seed);
    sim.run(|| async {
        let mut life = Life::begin().await.unwrap();
        for (number, command) in commands.iter().enumerate() {
            life.change(std::slice::from_ref(command)).await;
            if snapshot_behind == Some(number + 1) {
                life.snapshot().await.unwrap();
            }
        }
    });
    sim.kill();
    sim.run(|| time::sleep(Duration::from_secs(1)));
    sim
}

fn log_path(sim: &Sim) -> PathBuf {
    let is_log = |path: &PathBuf| path.starts_with(root()) && path.extension().is_some_and(|kind| kind == "log");
    sim.disk().files().into_iter().find(is_log).expect("a log")
}

fn rot(sim: &Sim, offset: u64) {
    sim.disk().flip_bit(log_path(sim), offset * FRAME_BYTES + 150, 2).unwrap();
}

fn remove_all_but_snapshots(sim: &Sim) {
    let of_log = |path: &PathBuf| path.starts_with(root()) && path.extension().is_some_and(|kind| kind != "snapshot");
    for path in sim.disk().files().into_iter().filter(of_log) {
        sim.disk().remove(path).unwrap();
    }
}

fn latest_snapshot(sim: &Sim) -> PathBuf {
    let is_latest =
        |path: &PathBuf| path.starts_with(root()) && path.extension().is_some_and(|kind| kind == "snapshot");
    sim.disk().files().into_iter().rfind(is_latest).expect("a snapshot")
}

/// Why a start refuses the metadata.
fn refused(sim: &Sim) -> MetadataLogError {
    let refused = sim.run(|| async { Life::begin().await.err().expect("it is damaged") });
    // The directory is given back with the process.
    sim.kill();
    refused
}

async fn plan_now() -> Result<MetadataRepair, MetadataUnrepairable> {
    let directory = DataDirectory::inspect(Path::new(DATA)).await.unwrap();
    let plan = MetadataRepair::plan(&directory).await;
    directory.close().await.unwrap();
    plan
}

async fn repair() -> Result<(), MetadataUnrepairable> {
    let directory = DataDirectory::inspect(Path::new(DATA)).await.unwrap();
    let plan = MetadataRepair::plan(&directory).await?;
    let done = plan.carry_out(&directory).await;
    directory.close().await.unwrap();
    done
}

fn names(image: &Image) -> Vec<String> {
    image.topics_by_name().iter().map(|topic| topic.name.to_string()).collect()
}

/// The topics of the next starts, each of which changes something and is crashed.
fn serves(sim: &Sim, topics: &[&str]) -> Arc<Image> {
    let image = sim.run(|| async {
        let mut life = Life::begin().await.unwrap();
        let image = life.state.image();
        life.change(&[topic(900, "z")]).await;
        image
    });
    assert_eq!(names(&image), topics);
    sim.crash();
    let again = sim.run(|| async {
        let life = Life::begin().await.unwrap();
        let image = life.state.image();
        life.end().await;
        image
    });
    assert_eq!(names(&again), [topics, &["z"]].concat());
    image
}

#[test]
fn what_stands_behind_the_damage_counts_and_what_is_lost_is_named() {
    let commands = [topic(1, "a"), topic(2, "b"), topic(3, "c"), Command::DeleteTopic(id(1)), topic(4, "d")];
    let sim = changed(1, &commands, None);
    rot(&sim, 1);
    let before = sim.disk().read(log_path(&sim));
    let error = refused(&sim).to_string();
    let path = log_path(&sim).display().to_string();
    for part in [&*path, "position 4096", "ringmq log repair DIR --metadata"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let files = sim.disk().files();
    let plan = sim.run(|| async { plan_now().await.unwrap() });
    assert_eq!(sim.disk().files(), files, "nothing is changed");
    assert_eq!(plan.lost, [Offset::new(1)..Offset::new(2)]);
    let kept: Vec<_> = plan.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    assert_eq!(kept, [("c", 3), ("d", 3)]);
    assert_eq!(plan.without_files, ["c", "d"]);

    sim.run(|| async { repair().await.unwrap() });
    sim.crash();
    let image = serves(&sim, &["c", "d"]);
    assert!(image.deleted().contains(id(1)), "a deletion behind the damage counts");
    let kept = sim.disk().files().into_iter().filter(|file| file.starts_with(Path::new(DATA).join(DAMAGED)));
    assert!(kept.map(|file| sim.disk().read(file)).any(|content| content == before), "a copy is kept");
    assert!(matches!(sim.run(|| async { repair().await }), Err(MetadataUnrepairable::Sound)));
}

#[test]
fn a_snapshot_has_what_is_damaged_before_it() {
    let commands = [topic(1, "a"), topic(2, "b"), topic(3, "c"), topic(4, "d")];
    let sim = changed(2, &commands, Some(3));
    rot(&sim, 1);
    refused(&sim);
    let plan = sim.run(|| async { plan_now().await.unwrap() });
    assert_eq!((&plan.lost, plan.snapshot), (&vec![], Some(Offset::new(3))));
    sim.run(|| async { repair().await.unwrap() });
    serves(&sim, &["a", "b", "c", "d"]);

    // What it began anew with rots: the snapshot before that and what came behind it are left.
    sim.disk().flip_bit(latest_snapshot(&sim), 60, 0).unwrap();
    assert!(refused(&sim).to_string().contains("log repair DIR --metadata"));
    let again = sim.run(|| async { plan_now().await.unwrap() });
    assert_eq!((again.lost, again.snapshot), (vec![Offset::new(3)..plan.begins_at()], Some(Offset::new(3))));
    sim.run(|| async { repair().await.unwrap() });
    let image = sim.run(|| async { Life::begin().await.unwrap().state.image() });
    assert_eq!(names(&image), ["a", "b", "c", "z"]);
}

#[test]
fn what_follows_from_later_changes_is_not_lost() {
    let ids = |first: i64| Command::AllocateProducerIds { first: ProducerId::new(first), count: 10 };
    let commands = [
        topic(1, "a"),
        Command::DeleteTopic(id(1)),
        ids(0),
        // The same name again, so the first one was deleted; and so were the ids before given away.
        topic(2, "a"),
        ids(10),
        Command::DeleteTopic(id(7)),
        Command::AddPartitions { id: id(8), partitions: 9, first_slot: crate::metadata::Slot::default() },
    ];
    // The last two speak of topics whose creation is lost.
    let sim = changed(3, &commands[..5], None);
    rot(&sim, 1);
    rot(&sim, 2);
    let plan = sim.run(|| async { plan_now().await.unwrap() });
    assert_eq!(plan.lost, [Offset::new(1)..Offset::new(3)]);
    assert_eq!(plan.image.topic("a").map(|topic| topic.id), Some(id(2)));
    assert!(plan.image.deleted().contains(id(1)));
    assert!(plan.image.next_producer_id() >= ProducerId::new(20));

    let mut salvage =
        Salvage { state: State::restored(Image::clone(&plan.image)), lost: plan.lost, left_out: Vec::new() };
    for command in &commands[5..] {
        let offset = salvage.state.applied();
        if let Err(why) = salvage.state.apply_behind_gap(command.clone()) {
            salvage.left_out.push((offset, why));
        }
        assert_eq!(salvage.state.applied().get(), offset.get() + 1);
    }
    assert!(salvage.state.image().deleted().contains(id(7)), "its files may go");
    assert!(matches!(salvage.left_out[..], [(_, ApplyError::NoSuchTopic { .. })]), "{:?}", salvage.left_out);
}

#[test]
fn partitions_whose_addition_is_lost_are_named() {
    let added = Command::AddPartitions { id: id(1), partitions: 6, first_slot: crate::metadata::Slot::default() };
    let sim = changed(7, &[topic(1, "a"), added, topic(2, "b")], None);
    sim.run(|| async {
        for (topic, partition) in [(1, "0"), (1, "5"), (1, "07"), (2, "2")] {
            fs::create_dir_all(Path::new(DATA).join(id(topic).to_string()).join(partition)).await.unwrap();
        }
    });
    let hidden = |sim: &Sim| {
        sim.run(|| async {
            let directory = DataDirectory::inspect(Path::new(DATA)).await.unwrap();
            let image = inspect_metadata(&directory).await.unwrap().image;
            let hidden = hidden_partitions(directory.path(), &image).await;
            directory.close().await.unwrap();
            hidden
        })
    };
    assert_eq!(hidden(&sim), []);
    rot(&sim, 1);
    let plan = sim.run(|| async { plan_now().await.unwrap() });
    let of_a = Path::new(DATA).join(id(1).to_string()).display().to_string();
    sim.disk().inject(Fault::on(Operation::ReadDir, of_a));
    let unlisted = sim.run(|| async { plan_now().await.unwrap() });
    assert!(unlisted.hidden.is_empty(), "what cannot be listed does not keep anything from being repaired");
    assert_eq!(plan.hidden, [HiddenPartitions { topic: "a".to_owned(), partitions: 3, had: 6 }]);
    sim.run(|| async { repair().await.unwrap() });
    assert_eq!(hidden(&sim), plan.hidden, "a check tells, too");
}

#[test]
fn a_log_that_ends_before_its_snapshot_goes_on_behind_it() {
    let commands = [topic(1, "a"), topic(2, "b"), Command::DeleteTopic(id(1))];
    let sim = changed(4, &commands, Some(3));
    remove_all_but_snapshots(&sim);
    let error = refused(&sim).to_string();
    for part in ["00000000000000000003.snapshot", "ends at 0", "ringmq log repair DIR --metadata"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let plan = sim.run(|| async { plan_now().await.unwrap() });
    assert!(plan.end_is_unknown && plan.lost.is_empty());
    sim.run(|| async { repair().await.unwrap() });
    sim.crash();
    let image = serves(&sim, &["b"]);
    assert!(image.deleted().contains(id(1)));
    assert!(image.next_producer_id() > ProducerId::new(1_000_000), "any may have been given away since");
}

#[test]
fn where_nothing_is_left_or_the_tables_are_what_is_lost_it_is_refused() {
    let sim = changed(5, &[topic(1, "a"), topic(2, "b")], None);
    sim.run(|| async { fs::create_dir_all(Path::new(DATA).join(id(1).to_string())).await.unwrap() });
    rot(&sim, 0);
    // Its header tells of the one before.
    rot(&sim, 1);
    let refused = sim.run(|| async { plan_now().await.err() });
    assert!(matches!(refused, Some(MetadataUnrepairable::NothingLeft { topics: 1, .. })), "{refused:?}");

    let sim = changed(6, &[topic(1, "a")], None);
    for path in sim.disk().files().into_iter().filter(|path| path.starts_with(root().join(GENERATIONS))) {
        sim.disk().remove(path).unwrap();
    }
    let refused = sim.run(|| async { plan_now().await.expect_err("refused").to_string() });
    assert!(refused.contains("generation tables") && !refused.contains("--metadata"), "{refused}");
}

/// Damaged in its middle; behind its snapshot, its tables gone with it; begun anew, with a rotten snapshot.
fn damaged_in_kind(kind: u64, seed: u64) -> Sim {
    let commands = [topic(1, "a"), topic(2, "b"), topic(3, "c"), Command::DeleteTopic(id(1))];
    let sim = changed(seed, &commands, (kind != 0).then_some(if kind == 1 { 4 } else { 3 }));
    match kind {
        0 => rot(&sim, 1),
        1 => remove_all_but_snapshots(&sim),
        _ => {
            rot(&sim, 1);
            sim.run(|| async { repair().await.unwrap() });
            sim.disk().flip_bit(latest_snapshot(&sim), 60, 0).unwrap();
        }
    }
    sim
}

#[test]
fn a_repair_that_breaks_off_anywhere_is_refused_as_before_or_repaired() {
    for (kind, topics) in [&["c"][..], &["b", "c"], &["a", "b", "c"]].into_iter().enumerate() {
        let seeds = seeds(0..150);
        let (total, mut before, mut after) = (seeds.total(), 0, 0);
        for seed in seeds {
            let sim = damaged_in_kind(kind as u64, seed);
            let first = sim.run(|| async { plan_now().await.unwrap() });
            sim.run(|| async move {
                task::spawn("repair", async { drop(repair().await) });
                time::sleep(Duration::from_micros(500 * seed)).await;
            });
            if seed % 2 == 0 {
                sim.crash();
            } else {
                sim.kill();
                sim.run(|| time::sleep(Duration::from_secs(1)));
            }
            match sim.run(|| async { plan_now().await }) {
                Ok(second) => {
                    before += 1;
                    let what = format!("kind {kind} seed {seed}: {}", second.damage);
                    assert_eq!(second.lost, first.lost, "{what}");
                    assert_eq!(second.end_is_unknown, first.end_is_unknown, "{what}");
                    assert_eq!(second.topics, first.topics, "{what}");
                    sim.run(|| async { repair().await.unwrap() });
                }
                Err(MetadataUnrepairable::Sound) => after += 1,
                Err(error) => panic!("kind {kind} seed {seed}: {error}"),
            }
            serves(&sim, topics);
            let is_mark =
                |path: &PathBuf| path.starts_with(root()) && path.extension().is_some_and(|kind| kind == "repairing");
            assert!(!sim.disk().files().iter().any(is_mark), "the start takes the marks away");
        }
        assert!(
            total < 150 || before > 20 && after > 20,
            "kind {kind}: {before} broke off before it counted, {after} after"
        );
    }
}
