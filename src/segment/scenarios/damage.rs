//! Every region of every file, damaged: told from a torn tail, reported with its place, and nothing on the disk
//! touched.

use std::path::{Path, PathBuf};

use ringmq_index::FramePlace;
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::time;
use ringmq_wire::{Offset, Timestamp};

use super::support::*;
use crate::frame::FrameHeader;
use crate::{Corruption, Damage, FrameFault, GenerationHistory, Log, LogConfig, OpenError, ReadError, Recovery};

/// Partition 0 with appends 1 to 13, each a frame of one block but for 4 to 10, which take 16 KiB: segments at 0, 6
/// and 10. Stopped without a clean end; segments 0 and 6 are sealed and have their indexes.
pub(super) fn written() -> Sim {
    let sim = sim(100);
    sim.run(|| async {
        let (log, _) = open_one().await;
        for tag in 1..=13 {
            log.append(copied(tag, 1, if (4..=10).contains(&tag) { 16_000 } else { 100 })).await.expect("acknowledged");
        }
        // The indexes of sealed segments are written behind the appends' backs.
        ringmq_runtime::time::sleep(millis(1000)).await;
    });
    sim.kill();
    assert_eq!(segments(&sim), [0, 6, 10]);
    sim
}

pub(super) fn segments(sim: &Sim) -> Vec<i64> {
    let of = |path: &PathBuf| path.to_str()?.strip_suffix(".log")?.rsplit('/').next()?.parse().ok();
    sim.disk().files().iter().filter_map(of).collect()
}

fn everything(sim: &Sim) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    sim.disk()
        .files()
        .into_iter()
        .filter(|path| !path.starts_with(TABLES))
        .map(|path| (path.clone(), sim.disk().read(&path)))
        .collect()
}

/// Opens the log, which must be refused as corrupt, and checks that nothing changed.
fn refused(sim: &Sim) -> Corruption {
    let before = everything(sim);
    let error = sim.run(|| async { open(&start().await, 0).await.map(|(_, found)| found) }).expect_err("damaged");
    let OpenError::Corrupt(corruption) = error else { panic!("{error}") };
    assert_eq!(everything(sim), before, "nothing on the disk was touched");
    let text = format!("{corruption}. {}", corruption.why_refused());
    for part in [log_id(0).to_string(), corruption.segment.display().to_string(), "othing was cut".to_owned()] {
        assert!(text.contains(&part), "{text}");
    }
    *corruption
}

/// Opens the log without any frame in memory.
async fn open_cold() -> (Log, Recovery) {
    let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
    open(&deps(history, 0), 0).await.expect("a sound log")
}

pub(super) fn flip(sim: &Sim, base: i64, position: u64) {
    sim.disk().flip_bit(segment_path(base), position, 3).expect("a file");
}

#[test]
fn a_flipped_bit_in_any_region_of_an_acknowledged_frame_is_corruption() {
    // Frames of one block: the second one of the last segment, the bytes 4096 to 8192.
    let header = [0, 4, 6, 8, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 108, 112, 116, 120, 124, 127];
    let payload_and_padding = [128, 150, 200, 300, 1000, 4095];
    for at in header.into_iter().chain(payload_and_padding) {
        let sim = written();
        flip(&sim, 10, 4096 + at);
        let corruption = refused(&sim);
        assert_eq!((corruption.position, corruption.expected), (4096, Offset::new(11)), "bit at {at}");
        assert_eq!(corruption.proven_end, Offset::new(12), "the last frame knew");
        assert_eq!(corruption.segment, segment_path(10));
        let expected = match at {
            0..4 => FrameFault::NotAFrame,
            4..8 => FrameFault::NotAFrame,
            8..128 => FrameFault::HeaderChecksum,
            _ => FrameFault::PayloadChecksum,
        };
        assert_eq!(corruption.damage, Damage::Frame(expected), "bit at {at}");
    }
}

#[test]
fn a_torn_last_frame_is_cut_and_said_so() {
    let sim = written();
    flip(&sim, 10, 8192 + 500);
    sim.run(|| async {
        let (log, found) = open_one().await;
        let segment = segment_path(10);
        assert_eq!(found, Recovery::CutTail { end: Offset::new(12), segment, position: 8192, frames: 1 });
        append_tags(&log, [14]).await;
    });
    sim.kill();
    sim.run(|| async {
        let (log, found) = open_one().await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(13) });
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14]);
    });
}

#[test]
fn a_last_frame_with_a_torn_header_is_cut_and_said_so_as_well() {
    let sim = written();
    flip(&sim, 10, 8192 + 50);
    sim.run(|| async {
        let (_, found) = open_one().await;
        let segment = segment_path(10);
        assert_eq!(found, Recovery::CutTail { end: Offset::new(12), segment, position: 8192, frames: 0 });
    });
}

#[test]
fn swapped_blocks_are_told_by_their_place() {
    let sim = written();
    let file = sim.disk().read(segment_path(10)).expect("a segment");
    sim.disk().overwrite(segment_path(10), 0, &file[4096..8192]).expect("a file");
    sim.disk().overwrite(segment_path(10), 4096, &file[..4096]).expect("a file");
    let corruption = refused(&sim);
    let place = FrameFault::OtherPlace { id: log_id(0), segment_base: Offset::new(10), position: 4096 };
    assert_eq!((corruption.position, corruption.damage), (0, Damage::Frame(place)));
}

#[test]
fn frames_of_another_partition_or_segment_are_told_by_their_place() {
    let sim = written();
    sim.run(|| async {
        let (log, _) = open(&start().await, 1).await.expect("an empty log");
        append_tags(&log, 1..=12).await;
    });
    sim.kill();
    let stray = sim.disk().read(file_path(1, "00000000000000000000.log")).expect("a segment");
    sim.disk().overwrite(segment_path(10), 0, &stray[..4096]).expect("a file");
    let Damage::Frame(FrameFault::OtherPlace { id, .. }) = refused(&sim).damage else { panic!("another partition's") };
    assert_eq!(id, log_id(1));

    let sim = written();
    let first = sim.disk().read(segment_path(0)).expect("a segment");
    sim.disk().overwrite(segment_path(10), 0, &first[..4096]).expect("a file");
    let place = FrameFault::OtherPlace { id: log_id(0), segment_base: Offset::ZERO, position: 0 };
    assert_eq!(refused(&sim).damage, Damage::Frame(place));
}

#[test]
fn a_frame_of_a_log_that_was_there_before_is_told_by_the_log_number() {
    let sim = sim(101);
    let first_block = |sim: &Sim| sim.disk().read(segment_path(0)).expect("a segment")[..4096].to_vec();
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, [1, 2]).await;
    });
    let stale = first_block(&sim);
    sim.run(|| async {
        // The old life ends with its files; the next one begins as a new log.
        let deps = start().await;
        Log::remove_files(Path::new(ROOT), log_id(0), &deps.generations).await.expect("removed");
        let (log, found) = open(&deps, 0).await.expect("an empty log");
        assert_eq!(found, Recovery::Empty);
        append_tags(&log, [3, 4]).await;
    });
    sim.kill();
    assert_ne!(first_block(&sim), stale);
    sim.disk().overwrite(segment_path(0), 0, &stale).expect("a file");
    assert_eq!(refused(&sim).damage, Damage::Frame(FrameFault::OtherLogNumber));
}

#[test]
fn zeros_where_acknowledged_frames_were_are_corruption() {
    let sim = written();
    sim.disk().overwrite(segment_path(10), 0, &[0; 4096]).expect("a file");
    let corruption = refused(&sim);
    assert_eq!((corruption.position, corruption.damage), (0, Damage::Frame(FrameFault::Zeros)));
}

#[test]
fn a_missing_segment_is_corruption_wherever_it_was() {
    for (base, expected, damage) in
        [(0, Offset::ZERO, Damage::SegmentMissing), (6, Offset::new(6), Damage::SegmentMissing)]
    {
        let sim = written();
        sim.disk().remove(segment_path(base)).expect("a file");
        let corruption = refused(&sim);
        assert_eq!((corruption.expected, corruption.damage), (expected, damage), "segment {base}");
    }
    // It is not missed the less when the index that tells of it cannot be read.
    let sim = written();
    sim.disk().remove(segment_path(6)).expect("a file");
    sim.disk().inject(Fault::on(Operation::Open, "*00000000000000000000.index").os_error(24));
    assert_eq!(refused(&sim).damage, Damage::SegmentMissing);
    assert_eq!(sim.disk().faults_met(), 1);

    // Without the last one, no frame says that there was more; the next opening's generation does.
    let sim = written();
    sim.run(|| async { append_tags(&open_one().await.0, [14]).await });
    sim.kill();
    sim.disk().remove(segment_path(10)).expect("a file");
    let corruption = refused(&sim);
    assert_eq!((corruption.expected, corruption.proven_end), (Offset::new(10), Offset::new(13)));

    let sim = written();
    for base in [0, 6, 10] {
        sim.disk().remove(segment_path(base)).expect("a file");
    }
    let error = sim.run(|| async { open(&start().await, 0).await.map(|(_, found)| found) }).expect_err("damaged");
    let OpenError::Corrupt(corruption) = error else { panic!("{error}") };
    assert_eq!(corruption.damage, Damage::FilesMissing);
}

#[test]
fn damage_in_a_sealed_segment_is_found_when_it_is_read_and_the_rest_can_be_read() {
    let sim = written();
    // The fifth frame of segment 0, in its payload: offset 4.
    let file = sim.disk().read(segment_path(0)).expect("a segment");
    let position = 3 * 4096 + u64::from(FrameHeader::decode(&file[3 * 4096..]).expect("a frame").frame_bytes);
    flip(&sim, 0, position + 1000);
    sim.run(|| async {
        let (log, found) = open_cold().await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(13) });
        let error = log.read(Offset::new(4), 1 << 20).await.expect_err("damaged");
        let ReadError::Corrupt(corruption) = error else { panic!("{error}") };
        assert_eq!((corruption.position, corruption.expected), (position, Offset::new(4)));
        assert_eq!(corruption.damage, Damage::Frame(FrameFault::PayloadChecksum));
        let before = log.read(Offset::ZERO, 1 << 20).await.expect("what lies before the damage");
        assert_eq!(before.next_offset, Offset::new(4));
        assert_eq!(tags(&read_from(&log, 5, 1 << 20).await), [6, 7, 8, 9, 10, 11, 12, 13]);
    });
}

#[test]
fn indexes_that_are_missing_zero_garbage_or_cut_are_built_again() {
    type Spoil = fn(&Sim, PathBuf);
    let ways: [(&str, Spoil); 4] = [
        ("missing", |sim, path| sim.disk().remove(path).expect("a file")),
        ("zeros", |sim, path| {
            let len = sim.disk().read(&path).expect("a file").len();
            sim.disk().overwrite(path, 0, &vec![0; len]).expect("a file");
        }),
        ("garbage", |sim, path| sim.disk().overwrite(path, 0, &[0xA5; 300]).expect("a file")),
        ("a flipped bit", |sim, path| sim.disk().flip_bit(path, 75, 1).expect("a file")),
    ];
    for (way, spoil) in ways {
        for kind in ["index", "timeindex"] {
            let sim = written();
            spoil(&sim, file_path(0, &format!("00000000000000000006.{kind}")));
            spoil(&sim, file_path(0, &format!("00000000000000000000.{kind}")));
            sim.run(|| async {
                let (log, _) = open_cold().await;
                assert_eq!(tags(&read_from(&log, 7, 100).await), [8, 9, 10, 11, 12, 13], "{kind}: {way}");
                let found = log.find_timestamp(ringmq_wire::Timestamp::new(8)).await.expect("readable");
                assert_eq!(found.map(|(offset, _)| offset.get()), Some(7), "{kind}: {way}");
                assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=13).collect::<Vec<_>>(), "{kind}: {way}");
            });
        }
    }
}

#[test]
fn an_index_that_lies_is_found_out() {
    use ringmq_index::{Coverage, FramePlace, OffsetIndex};
    let sim = written();
    let path = file_path(0, "00000000000000000006.index");
    let (coverage, _): (Coverage, OffsetIndex) =
        OffsetIndex::decode(&sim.disk().read(&path).expect("an index"), 8 << 10).expect("a sound index");
    let mut lie = OffsetIndex::new(Offset::new(6), 4096);
    lie.push(FramePlace { offset: Offset::new(6), position: 4096 });
    lie.push(FramePlace { offset: Offset::new(8), position: 8192 });
    sim.disk().overwrite(&path, 0, &lie.encode(&coverage)).expect("a file");
    sim.run(|| async {
        let (log, _) = open_cold().await;
        assert_eq!(tags(&read_from(&log, 7, 1 << 20).await), [8, 9, 10, 11, 12, 13]);
    });
}

#[test]
fn an_index_of_a_checkpoint_that_lies_costs_a_scan() {
    use ringmq_index::{Coverage, FramePlace, OffsetIndex};
    let sim = sim(102);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, 1..=8).await;
        log.close().await.expect("a clean stop");
    });
    sim.crash();
    let path = file_path(0, "00000000000000000000.index");
    let (coverage, _): (Coverage, OffsetIndex) =
        OffsetIndex::decode(&sim.disk().read(&path).expect("an index"), 8 << 10).expect("a sound index");
    let mut lie = OffsetIndex::new(Offset::ZERO, 4096);
    lie.push(FramePlace { offset: Offset::new(2), position: 4096 });
    sim.disk().overwrite(&path, 0, &lie.encode(&coverage)).expect("a file");
    sim.run(|| async {
        let (log, found) = open_cold().await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(8) });
        assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=8).collect::<Vec<_>>());
    });
}

#[test]
fn a_clean_stop_is_opened_without_reading_the_whole_segment() {
    let sim = sim(103);
    sim.run(|| async {
        let (log, _) = open_one().await;
        for tag in 1..=3 {
            log.append(copied(tag, 1, 16_000)).await.expect("acknowledged");
        }
        append_tags(&log, [4]).await;
        log.close().await.expect("a clean stop");
    });
    sim.crash();
    let before = sim.disk().counters(segment_path(0)).read_bytes;
    sim.run(|| async {
        let (log, found) = open_cold().await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(4) });
        let read = sim.disk().counters(segment_path(0)).read_bytes - before;
        assert!(read <= 20 << 10, "{read} bytes of 52 KiB");
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [1, 2, 3, 4]);
        append_tags(&log, [5]).await;
    });
}

/// A log with an index on disk that is not of its end, killed.
fn killed_with_hints(sim: &Sim) -> Vec<FramePlace> {
    sim.run(|| async {
        let config = LogConfig { index_hint_bytes: 16 << 10, index_interval_bytes: 4 << 10, ..small() };
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config, &start().await).await.expect("a sound log");
        for tag in 1..=14 {
            log.append(copied(tag, 1, 3_000)).await.expect("acknowledged");
            // What happens in the background comes to its end.
            time::sleep(millis(5)).await;
        }
    });
    sim.kill();
    let index = sim.disk().read(file_path(0, "00000000000000000000.index")).expect("an index");
    let (coverage, offsets) = ringmq_index::OffsetIndex::decode(&index, 4 << 10).expect("a sound index");
    assert!(coverage.end == Offset::new(12), "{coverage:?}");
    offsets.entries().collect()
}

#[test]
fn after_a_kill_only_what_stands_behind_the_index_is_read() {
    let sim = sim(30);
    let entries = killed_with_hints(&sim);
    let last = entries[entries.len() - 1];
    sim.disk().overwrite(segment_path(0), 200, &[0xee]).expect("a file");
    sim.run(|| async {
        let (log, found) = open_one().await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(14) }, "as with sealed segments, nobody looked");
        assert!(matches!(log.read(Offset::ZERO, 1).await, Err(ReadError::Corrupt(_))), "until someone reads it");
        assert_eq!(tags(&read_from(&log, 1, 1 << 20).await), (2..=14).collect::<Vec<_>>());
        append_tags(&log, [15]).await;
    });
    sim.kill();
    // Behind the last entry it is found, and acknowledged.
    sim.disk().overwrite(segment_path(0), last.position + 200, &[0xee]).expect("a file");
    sim.run(|| async {
        let error = open(&start().await, 0).await.map(drop).expect_err("acknowledged records are damaged");
        assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
    });
}

#[test]
fn an_index_of_another_life_is_not_begun_with() {
    for generation in [0_u8, 9] {
        let sim = sim(31);
        killed_with_hints(&sim);
        for name in ["00000000000000000000.index", "00000000000000000000.timeindex"] {
            let mut index = sim.disk().read(file_path(0, name)).expect("an index");
            index[64..68].copy_from_slice(&[0, 0, 0, generation]);
            let checksum = crc32fast::hash(&index[..68]);
            index[68..72].copy_from_slice(&checksum.to_be_bytes());
            sim.disk().overwrite(file_path(0, name), 0, &index).expect("a file");
        }
        sim.disk().overwrite(segment_path(0), 200, &[0xee]).expect("a file");
        sim.run(|| async {
            let error = open(&start().await, 0).await.map(drop).expect_err("all of it is read");
            assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
        });
    }
}

#[test]
fn lost_generation_tables_are_corruption_and_no_empty_log() {
    let sim = written();
    for table in sim.disk().files().into_iter().filter(|path| path.starts_with(TABLES)) {
        sim.disk().remove(table).expect("a file");
    }
    assert_eq!(refused(&sim).damage, Damage::GenerationsMissing);
}

#[test]
fn a_table_that_lost_the_newest_generation_is_found_out_by_the_frames() {
    let sim = sim(104);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, [1, 2]).await;
        log.close().await.expect("a clean stop");
    });
    sim.kill();
    sim.run(|| async { append_tags(&open_one().await.0, [3]).await });
    sim.kill();
    let newest = sim.disk().files().into_iter().rfind(|path| path.to_string_lossy().ends_with("-00000.table"));
    sim.disk().remove(newest.expect("this life's table")).expect("a file");
    let corruption = refused(&sim);
    assert_eq!(corruption.damage, Damage::Frame(FrameFault::UnknownGeneration(2)));
    assert_eq!(corruption.expected, Offset::new(2));
}

#[test]
fn a_rotten_block_of_a_table_is_read_from_its_copy_and_both_keep_its_logs_offline() {
    let table = |sim: &Sim| {
        let of_core = |path: &PathBuf| path.to_string_lossy().contains("-00000.table");
        sim.disk().files().into_iter().find(of_core).expect("this life's table")
    };
    let two_blocks = || {
        let sim = sim(105);
        sim.run(|| async {
            let deps = start().await;
            append_tags(&open(&deps, 0).await.expect("empty").0, [1]).await;
            append_tags(&open(&deps, 1).await.expect("empty").0, [1]).await;
        });
        sim.kill();
        sim
    };
    for copy in [0, 4096] {
        let sim = two_blocks();
        sim.disk().flip_bit(table(&sim), copy + 70, 0).expect("a table");
        sim.run(|| async { assert_eq!(tags(&read_all(&open_one().await.0, 1 << 20).await), [1]) });
    }
    let sim = two_blocks();
    for copy in [0, 4096] {
        sim.disk().flip_bit(table(&sim), copy + 70, 0).expect("a table");
    }
    let (table, before) = (table(&sim), sim.disk().files());
    sim.run(|| async move {
        let history = GenerationHistory::load(Path::new(TABLES)).await.expect("the rest can be used");
        let lost: Vec<_> = history.lost().map(|lost| (lost.path.clone(), lost.block)).collect();
        assert_eq!(lost, [(table, Some(0))]);
        let deps = start().await;
        for partition in 0..2 {
            let error = open(&deps, partition).await.map(drop).expect_err("what it said nobody knows");
            assert!(matches!(error, OpenError::TableLost { .. }), "{error}");
        }
        assert_eq!(open(&deps, 2).await.expect("there is nothing of it").1, Recovery::Empty);
    });
    assert!(before.iter().all(|file| sim.disk().files().contains(file)), "nothing is merged or removed");
}

#[test]
fn an_unused_segment_is_no_log_and_data_in_it_is_corruption() {
    // The process dies between creating the first segment and the first entry in the table.
    let unused = || {
        let sim = sim(106);
        sim.run(|| async {
            let (log, _) = open_one().await;
            sim.disk().stall("*.table", millis(1000));
            let _unanswered = log.append(copied(1, 1, 100));
            ringmq_runtime::time::sleep(millis(50)).await;
        });
        sim.kill();
        for table in sim.disk().files().into_iter().filter(|path| path.starts_with(TABLES)) {
            sim.disk().remove(table).expect("a file");
        }
        assert!(sim.disk().read(segment_path(0)).is_some());
        sim
    };
    let sim = unused();
    sim.run(|| async {
        let (log, found) = open_one().await;
        assert_eq!(found, Recovery::Empty);
        append_tags(&log, [2]).await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [2]);
    });
    let sim = unused();
    sim.disk().overwrite(segment_path(0), 5000, b"data").expect("a file");
    assert_eq!(refused(&sim).damage, Damage::GenerationsMissing);
}

/// Creates a file of that length under the name of a segment, with `content` somewhere in it.
fn stray_segment(sim: &Sim, base: i64, len: u64, content: &[u8]) {
    sim.run(|| async {
        let options = ringmq_runtime::file::OpenOptions { write: true, create_new: true, dsync: true };
        let stray = ringmq_runtime::file::File::open(segment_path(base), options).await.expect("a new file");
        stray.preallocate(len).await.expect("room");
    });
    sim.kill();
    if !content.is_empty() {
        sim.disk().overwrite(segment_path(base), 4096, content).expect("a file");
    }
}

#[test]
fn a_segment_that_reaches_into_the_next_one_is_corruption() {
    let sim = written();
    stray_segment(&sim, 11, 64 << 10, b"something was written here");
    assert_eq!(refused(&sim).damage, Damage::SegmentsOverlap);
}

#[test]
fn segments_that_were_created_and_never_written_to_are_removed_wherever_they_begin() {
    for unused in [vec![(11, 0)], vec![(12, 64 << 10)], vec![(11, 4096), (12, 0), (13, 0)], vec![(20, 0), (30, 4096)]] {
        let sim = written();
        for (base, len) in &unused {
            stray_segment(&sim, *base, *len, b"");
        }
        sim.run(|| async {
            let (log, found) = open_one().await;
            assert_eq!(found, Recovery::Clean { end: Offset::new(13) }, "{unused:?}");
            append_tags(&log, [14]).await;
            assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=14).collect::<Vec<_>>(), "{unused:?}");
        });
        sim.crash();
        // The one that begins where the log ended is the next segment.
        let expected = if unused.iter().any(|(base, _)| *base == 13) { vec![0, 6, 10, 13] } else { vec![0, 6, 10] };
        assert_eq!(segments(&sim), expected, "{unused:?}");
        sim.run(|| async {
            let (log, _) = open_cold().await;
            assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=14).collect::<Vec<_>>(), "{unused:?}");
        });
    }
}

#[test]
fn whatever_was_written_to_a_segment_proves_the_one_before_it() {
    // The last frame of segment 10, which nothing but the next segment speaks of.
    for content in [&b"anything"[..], &[0, 0, 1]] {
        let sim = written();
        flip(&sim, 10, 8192 + 500);
        stray_segment(&sim, 13, 8192, content);
        let corruption = refused(&sim);
        assert_eq!(corruption.damage, Damage::Frame(FrameFault::PayloadChecksum));
        assert_eq!((corruption.segment.clone(), corruption.position), (segment_path(10), 8192));
        assert_eq!((corruption.expected, corruption.proven_end), (Offset::new(12), Offset::new(13)));
    }
    // A good end, and in the next segment a first frame that never became whole: it alone is cut.
    let sim = written();
    stray_segment(&sim, 13, 8192, b"torn");
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, [14]).await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=14).collect::<Vec<_>>());
    });
    assert_eq!(segments(&sim), [0, 6, 10, 13]);
}

#[test]
fn a_damaged_end_before_a_segment_in_use_is_never_cut() {
    // Segment 6 ends with offset 9, and segment 10 goes on. The indexes are gone: the frames alone speak.
    for index in ["index", "timeindex"] {
        for damaged_too in [None, Some(50), Some(500)] {
            let sim = written();
            let file = sim.disk().read(segment_path(6)).expect("a segment");
            let last = file.len() as u64 - 4096;
            flip(&sim, 6, last);
            sim.disk().remove(file_path(0, &format!("00000000000000000006.{index}"))).expect("a file");
            if let Some(at) = damaged_too {
                // Nothing good is left in the last segment.
                for frame in 0..3 {
                    flip(&sim, 10, frame * 4096 + at);
                }
            }
            if damaged_too.is_some() {
                let corruption = refused(&sim);
                assert_eq!(corruption.segment, segment_path(6));
                assert_eq!((corruption.expected, corruption.proven_end.get() >= 10), (Offset::new(9), true));
                continue;
            }
            sim.run(|| async {
                let (log, _) = open_cold().await;
                assert_eq!(log.offsets().end, Offset::new(13));
                let error = log.read(Offset::new(9), 1 << 20).await.expect_err("damaged");
                assert!(matches!(error, ReadError::Corrupt(_)), "{error}");
                assert_eq!(tags(&read_from(&log, 10, 1 << 20).await), [11, 12, 13]);
            });
        }
    }
}

#[test]
fn what_stands_close_behind_damage_can_be_read() {
    // Sixty frames of one block in one segment, with an index entry for the first alone, and no frame in memory.
    let config = LogConfig { segment_bytes: 1 << 20, index_interval_bytes: 1 << 20, ..small() };
    for (sealed, at) in [(false, 10), (false, 300), (true, 10), (true, 300)] {
        let sim = sim(107);
        sim.run(|| async {
            let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
            let log = Log::open(Path::new(ROOT), log_id(0), config.clone(), &deps(history, 0)).await;
            let (log, _) = log.expect("an empty log");
            append_tags(&log, 1..=60).await;
            if sealed {
                log.roll_if_due(Timestamp::new(i64::MAX));
                append_tags(&log, [61]).await;
            }
            // Two side by side, and one alone.
            for frame in [7, 8, 20] {
                flip(&sim, 0, frame * 4096 + at);
            }
            for offset in 0..60_u32 {
                let read = log.read(Offset::new(offset.into()), 100).await;
                if [7, 8, 20].contains(&offset) {
                    let Err(ReadError::Corrupt(corruption)) = read else { panic!("offset {offset}: {read:?}") };
                    // Without a header nothing tells the second of two damaged frames from the first.
                    let place = if offset == 8 && at == 10 { 7 } else { offset };
                    assert_eq!(corruption.position, u64::from(place) * 4096);
                } else {
                    assert_eq!(read.expect("sound").next_offset, Offset::new(i64::from(offset) + 1));
                }
            }
            assert_eq!(tags(&read_from(&log, 21, 1 << 20).await), (22..=60 + u64::from(sealed)).collect::<Vec<_>>());
        });
    }
}
