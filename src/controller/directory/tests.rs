//! The data directory on a simulated disk.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_runtime::{random, task, time};

use super::sealed_text::seal;
use super::*;

const DATA: &str = "/var/ringmq";

fn open(sim: &Sim) -> Result<Cluster, DirectoryError> {
    sim.run(|| async {
        let directory = DataDirectory::open(Path::new(DATA)).await?;
        let cluster = directory.cluster();
        directory.close().await.unwrap();
        Ok(cluster)
    })
}

fn sim() -> Sim {
    Sim::new(SimConfig::with_seed(1))
}

/// Writes a file into the data directory, as an administrator would.
fn put(sim: &Sim, name: &str, text: &str) {
    let path = Path::new(DATA).join(name);
    sim.run(|| async {
        fs::create_dir_all(DATA).await.unwrap();
        fs::write_small_atomic(path, text.as_bytes()).await.unwrap();
    });
}

fn contents(sim: &Sim) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    sim.disk().files().into_iter().map(|path| (path.clone(), sim.disk().read(path))).collect()
}

#[test]
fn ids_are_drawn_once_and_stay() {
    let sim = sim();
    let first = open(&sim).unwrap();
    assert_eq!(first.broker, ringmq_wire::BrokerId::new(0));
    assert_eq!(first.id.get_version_num(), 4);
    assert_eq!(open(&sim).unwrap(), first);
    sim.crash();
    assert_eq!(open(&sim).unwrap(), first);

    let other = open(&Sim::new(SimConfig::with_seed(2))).unwrap();
    assert_ne!(other.id, first.id);
}

#[test]
fn a_directory_has_one_owner_at_a_time() {
    let sim = sim();
    sim.run(|| async {
        let path = Path::new(DATA);
        let owner = DataDirectory::open(path).await.unwrap();
        let refused = DataDirectory::open(path).await.unwrap_err();
        assert!(matches!(refused, DirectoryError::InUse { .. }));
        assert!(refused.to_string().contains("/var/ringmq is in use by another running broker"), "{refused}");
        owner.close().await.unwrap();
        DataDirectory::open(path).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn a_newer_format_is_refused_with_the_release_that_reads_it() {
    let sim = sim();
    open(&sim).unwrap();
    put(&sim, FORMAT, &seal(FORMAT, &[("format_version", &7), ("readable_by", &"0.9.0"), ("shape", &"round")]));
    let before = contents(&sim);
    let error = open(&sim).unwrap_err();
    assert!(matches!(&error, DirectoryError::Newer { found: 7, readable_by, .. } if readable_by == "0.9.0"));
    assert!(error.to_string().contains("start it with RingMQ 0.9.0 or newer"), "{error}");
    assert_eq!(contents(&sim), before);
}

#[test]
fn an_older_format_becomes_this_one_before_anything_is_written() {
    let sim = sim();
    let cluster = open(&sim).unwrap();
    put(&sim, FORMAT, &seal(FORMAT, &[("format_version", &1), ("readable_by", &"0.1.0"), ("written_by", &"0.1.0")]));
    assert_eq!(open(&sim).unwrap(), cluster);
    sim.crash();
    let text = String::from_utf8(sim.disk().read(Path::new(DATA).join(FORMAT)).unwrap()).unwrap();
    assert!(text.contains("format_version 2\nreadable_by 0.2.0\n"), "{text}");
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    for name in [FORMAT, IDENTITY] {
        let sim = sim();
        open(&sim).unwrap();
        let path = Path::new(DATA).join(name);
        let length = sim.disk().read(&path).unwrap().len() as u64;
        for position in 0..length {
            sim.disk().flip_bit(&path, position, 0).unwrap();
            let before = contents(&sim);
            let error = open(&sim).unwrap_err();
            assert!(matches!(&error, DirectoryError::Damaged { path: found, .. } if *found == path), "{error}");
            assert_eq!(contents(&sim), before);
            sim.disk().flip_bit(&path, position, 0).unwrap();
        }
        open(&sim).unwrap();
    }
}

#[test]
fn ids_out_of_range_are_damage() {
    let sim = sim();
    open(&sim).unwrap();
    put(&sim, IDENTITY, &seal(IDENTITY, &[("cluster_id", &uuid::Uuid::nil()), ("broker_id", &-1)]));
    assert!(matches!(
        open(&sim),
        Err(DirectoryError::Damaged { cause: SealError::Value { key: "broker_id", .. }, .. })
    ));
    put(&sim, FORMAT, &seal(FORMAT, &[("format_version", &0), ("readable_by", &"0.1.0")]));
    assert!(matches!(open(&sim), Err(DirectoryError::Damaged { cause: SealError::Value { .. }, .. })));
    put(&sim, FORMAT, &"x".repeat(sealed_text::BYTES_MAX + 1));
    assert!(matches!(open(&sim), Err(DirectoryError::Damaged { cause: SealError::TooLong, .. })));
}

#[test]
fn a_file_that_was_lost_is_not_made_anew() {
    let sim = sim();
    let cluster = open(&sim).unwrap();
    let identity = String::from_utf8(sim.disk().read(Path::new(DATA).join(IDENTITY)).unwrap()).unwrap();
    sim.disk().remove(Path::new(DATA).join(IDENTITY)).unwrap();
    assert!(matches!(open(&sim), Err(DirectoryError::Missing { path }) if path.ends_with(IDENTITY)));
    put(&sim, IDENTITY, &identity);
    assert_eq!(open(&sim).unwrap(), cluster);

    sim.run(|| fs::create_dir_all(Path::new(DATA).join(METADATA))).unwrap();
    sim.disk().remove(Path::new(DATA).join(FORMAT)).unwrap();
    assert!(matches!(open(&sim), Err(DirectoryError::FormatLost { .. })));
}

#[test]
fn a_disk_that_fails_is_reported_with_the_file() {
    let sim = sim();
    sim.disk().fail_next_flush("*identity*", io::ErrorKind::Other);
    let error = open(&sim).unwrap_err();
    assert!(matches!(&error, DirectoryError::Io { path, .. } if path.ends_with(IDENTITY)), "{error}");
    open(&sim).unwrap();
}

#[test]
fn a_first_start_that_breaks_off_anywhere_is_completed_by_the_next() {
    let (seeds, mut broke_off) = (seeds(0..300), 0);
    let total = seeds.total();
    for seed in seeds {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let first = Rc::new(Cell::new(None));
        let outcome = first.clone();
        sim.run(|| async move {
            task::spawn("first start", async move {
                outcome.set(Some(DataDirectory::open(Path::new(DATA)).await.unwrap().cluster()));
            });
            time::sleep(Duration::from_micros(random::u64() % 15_000)).await;
        });
        if seed % 2 == 0 {
            sim.crash();
        } else {
            sim.kill();
            // What the killed process still had in the kernel keeps the lock until it has landed.
            sim.run(|| time::sleep(Duration::from_secs(1)));
        }
        let second = open(&sim).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        match first.get() {
            Some(first) => assert_eq!(second, first, "seed {seed}"),
            None => broke_off += 1,
        }
        assert_eq!(open(&sim).unwrap(), second, "seed {seed}");
    }
    assert!(
        total < 300 || (50..250).contains(&broke_off),
        "the crashes are to meet both: {broke_off} of {total} broke off"
    );
}
