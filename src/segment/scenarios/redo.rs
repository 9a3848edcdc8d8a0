//! What recovery builds on is durable by then, although what it read may have been in the device's cache alone (rule 10 of
//! the storage protocol).

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::sim::Sim;
use ringmq_runtime::{task, time};
use ringmq_wire::Offset;
use ringmq_wire::batch::set_base_offset;

use super::support::*;
use crate::frame::FrameHeader;
use crate::{Journaled, JournaledAppend, Log, OpenError};

/// Where the frame of append 4 stands, and its length.
const FRAME: std::ops::Range<usize> = (48 << 10)..(60 << 10);

/// Three appends in durable frames, one in a frame that nothing has flushed, and one that the journal has. The process is
/// killed, and none of the last two was acknowledged.
fn frame_that_nothing_flushed(seed: u64, journaled_bytes: usize) -> (Sim, Journaled) {
    let sim = sim(seed);
    sim.run(|| async {
        let (log, _) = open_one().await;
        for (tag, value_bytes) in [(1, 16_000), (2, 16_000), (3, 16_000), (4, 9_000)] {
            log.append(copied(tag, 1, value_bytes)).await.expect("acknowledged");
        }
    });
    sim.kill();
    let mut frame = AlignedBuf::zeroed(FRAME.len());
    frame.copy_from_slice(&sim.disk().read(segment_path(0)).expect("a segment")[FRAME]);
    let header = FrameHeader::decode(&frame).expect("a frame");
    sim.disk().overwrite(segment_path(0), FRAME.start as u64, &[0; FRAME.end - FRAME.start]).expect("a file");
    sim.run(|| async {
        let file = File::open(segment_path(0), OpenOptions { write: true, ..OpenOptions::default() }).await;
        let written = file.expect("opened").write_at(&frame.freeze(), FRAME.start as u64, IoClass::Append).await;
        written.expect("in the device's cache");
    });
    sim.kill();
    let (base_offset, next_offset) = (Offset::new(4), Offset::new(5));
    let mut batches = batch(5, 1, journaled_bytes).to_vec();
    set_base_offset(&mut batches, base_offset);
    let (log_number, generation) = (header.log_number.0, header.generation.0);
    let append = JournaledAppend { log_number, generation, base_offset, next_offset, batches: Bytes::from(batches) };
    (sim, Journaled { appends: vec![append], ..Journaled::default() })
}

async fn start_with(journaled: &Journaled) -> Result<Vec<u64>, OpenError> {
    let (log, _) = Log::recover(Path::new(ROOT), log_id(0), small(), &start().await, journaled).await?;
    Ok(tags(&read_all(&log, 1 << 20).await))
}

/// Power goes at some moment of the start that puts what the journal has into a frame, and the next start finds either of
/// both, or none.
fn is_durable_before_anything_follows(journaled_bytes: usize) {
    let (mut lost, mut built_on) = (0, 0);
    for seed in 0..300 {
        let (sim, journaled) = frame_that_nothing_flushed(seed, journaled_bytes);
        let first = journaled.clone();
        sim.run(|| async move {
            task::spawn("start", async move { drop(start_with(&first).await) });
            time::sleep(Duration::from_micros(30 * seed)).await;
        });
        sim.crash();
        // The ring may be written over by then: what is in frames has to do.
        let in_frames = sim.run(|| async { start_with(&Journaled::default()).await.expect("nothing is damaged") });
        assert!(in_frames.starts_with(&[1, 2, 3]), "what was acknowledged stays");
        assert!([1, 2, 3, 4, 5].starts_with(&in_frames), "{in_frames:?}");
        lost += u32::from(in_frames.len() == 3);
        built_on += u32::from(in_frames.len() == 5);
    }
    assert!(lost > 10 && built_on > 10, "crashes came at moments that matter: {lost} before, {built_on} behind");
}

#[test]
fn rule_10_frames_that_were_read_are_flushed_before_a_frame_says_that_they_were_durable() {
    is_durable_before_anything_follows(100);
}

#[test]
fn rule_10_frames_that_were_read_are_flushed_before_what_follows_begins_a_segment() {
    is_durable_before_anything_follows(9_000);
}
