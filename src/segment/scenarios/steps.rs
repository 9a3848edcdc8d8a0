//! Every step of making room, failing: each request that the first append, the first append of an opening or a roll
//! makes, in turn; before or after it took effect; once or several times in a row. The log goes on, the process ends
//! in one way or another, and the next one must find everything that was acknowledged, nothing that was refused, and
//! a partition that takes appends.

use std::collections::BTreeSet;
use std::path::Path;

use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::time;

use super::support::*;
use crate::{AppendError, GenerationHistory, Log, Recovery};

/// What the log is about to do when the fault comes.
#[derive(Clone, Copy, Debug)]
enum About {
    FirstAppend,
    FirstAppendOfAnOpening,
    Roll,
}

/// How the process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Kill,
    Crash,
}

/// A fault, still to be told at which step it strikes.
#[derive(Clone, Copy, Debug)]
struct Strike {
    /// `None`: whatever the request is.
    operation: Option<Operation>,
    times: u64,
    errno: i32,
    late: bool,
}

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

impl Strike {
    fn at(self, step: u64) -> Fault {
        let everywhere = "/data/*";
        let fault = match self.operation {
            Some(operation) => Fault::on(operation, everywhere),
            None => Fault::on_any(everywhere),
        };
        let fault = fault.after(step).times(self.times).os_error(self.errno);
        if self.late { fault.late() } else { fault }
    }
}

/// What became of the appends of one life.
#[derive(Debug, Default)]
struct Outcomes {
    acknowledged: BTreeSet<u64>,
    /// Told that nothing was written.
    refused: BTreeSet<u64>,
    /// Told nothing certain: the log was given up.
    unknown: BTreeSet<u64>,
}

impl Outcomes {
    /// Appends one after the other: every third as large as a quarter of a segment.
    async fn append(&mut self, log: &Log, tags: impl IntoIterator<Item = u64>) {
        for tag in tags {
            match log.append(copied(tag, 1, if tag % 3 == 1 { 16_000 } else { 100 })).await {
                Ok(_) => self.acknowledged.insert(tag),
                Err(AppendError::NotReady(_) | AppendError::StorageFull(_)) => self.refused.insert(tag),
                Err(AppendError::Poisoned(_)) => self.unknown.insert(tag),
                Err(error) => panic!("append {tag}: {error}"),
            };
        }
    }

    fn check(&self, seen: &[u64]) {
        assert!(seen.is_sorted(), "the order of the calls: {seen:?}");
        let there: BTreeSet<u64> = seen.iter().copied().collect();
        assert_eq!(there.len(), seen.len(), "nothing twice: {seen:?}");
        assert!(self.acknowledged.is_subset(&there), "acknowledged {:?}, found {seen:?}", self.acknowledged);
        let may_be_there: BTreeSet<u64> = self.acknowledged.union(&self.unknown).copied().collect();
        assert!(there.is_subset(&may_be_there), "refused {:?}, found {seen:?}", self.refused);
    }
}

/// One history with the fault at that step. Returns whether anything came to the step, and whether the log was given
/// up over it.
fn history(about: About, strike: Strike, step: u64, end: End) -> (bool, bool) {
    let sim = sim(step);
    let mut outcomes = Outcomes::default();
    if let About::FirstAppendOfAnOpening = about {
        sim.run(async || outcomes.append(&open_one().await.0, 1..=3).await);
        sim.kill();
    }
    let (struck, poisoned) = sim.run(async || {
        let (log, _) = open_one().await;
        if let About::Roll = about {
            // Of 64 KiB, 60 are taken.
            outcomes.append(&log, [1, 4, 7, 8, 9, 11]).await;
        }
        sim.disk().inject(strike.at(step));
        outcomes.append(&log, 12..=30).await;
        // What goes on in the background comes to an end.
        time::sleep(millis(1000)).await;
        let struck = sim.disk().faults_met() > 0;
        sim.disk().clear_faults();
        let poisoned = log.poisoned().is_some();
        if !poisoned {
            let refused = outcomes.refused.len();
            outcomes.append(&log, 31..=40).await;
            assert_eq!(outcomes.refused.len(), refused, "what was in the way is gone, and appends go on by themselves");
        }
        let online: Vec<u64> = tags(&read_all(&log, 1 << 20).await);
        outcomes.check(&online);
        if let End::Close = end {
            assert_eq!(log.close().await.is_err(), poisoned);
        }
        (struck, poisoned)
    });
    match end {
        End::Close | End::Kill => sim.kill(),
        End::Crash => drop(sim.crash()),
    }
    restart(&sim, outcomes, matches!(end, End::Close) && !poisoned);
    (struck, poisoned)
}

/// Opens the log, which must have everything and go on; and once more.
fn restart(sim: &Sim, mut outcomes: Outcomes, clean: bool) {
    let seen = sim.run(async || {
        let (log, found) = open_one().await;
        assert!(!clean || matches!(found, Recovery::Clean { .. }), "{found:?}");
        outcomes.check(&tags(&read_all(&log, 1 << 20).await));
        outcomes.append(&log, 41..=60).await;
        assert!((41..=60).all(|tag| outcomes.acknowledged.contains(&tag)), "the partition is online: {outcomes:?}");
        tags(&read_all(&log, 1 << 20).await)
    });
    outcomes.check(&seen);
    sim.crash();
    sim.run(async || {
        let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
        let (log, _) = open(&deps(history, 0), 0).await.expect("a sound log");
        assert_eq!(tags(&read_all(&log, 1 << 20).await), seen);
    });
}

/// Each step in turn, until there is none left. Returns how many there were and over how many the log was given up.
fn every_step(about: About, strike: Strike) -> (u64, u64) {
    let mut given_up = 0;
    for step in 0.. {
        // Not each step of each strike with each end, but each step with each end.
        let end = match (step + strike.times) % 3 {
            0 => End::Close,
            1 => End::Kill,
            _ => End::Crash,
        };
        let outcome = std::panic::catch_unwind(|| history(about, strike, step, end));
        let (struck, poisoned) = outcome.unwrap_or_else(|panic| {
            eprintln!("{about:?}, {strike:?} at step {step}, then {end:?}");
            std::panic::resume_unwind(panic)
        });
        given_up += u64::from(poisoned);
        if !struck {
            return (step, given_up);
        }
    }
    unreachable!("a history has an end")
}

const ABOUT: [About; 3] = [About::FirstAppend, About::FirstAppendOfAnOpening, About::Roll];
/// How often in a row, and with which error.
const WAYS: [(u64, i32); 3] = [(1, EIO), (2, ENOSPC), (3, EMFILE)];

#[test]
fn a_failure_of_any_step_loses_nothing_and_leaves_a_partition_that_can_be_opened() {
    for about in ABOUT {
        for (times, errno) in WAYS {
            for late in [false, true] {
                let strike = Strike { operation: None, times, errno, late };
                let (steps, given_up) = every_step(about, strike);
                assert!(steps > 50, "{steps} steps of {about:?}");
                assert!(given_up > 10, "writes and flushes were among them: {given_up}");
            }
        }
    }
}

#[test]
fn a_failure_before_anything_is_written_passes_without_a_restart() {
    use Operation::{CreateDir, Open, Preallocate, Remove, Rename, Stat, Truncate};
    for about in ABOUT {
        for operation in [CreateDir, Open, Preallocate, Remove, Rename, Stat, Truncate] {
            for (times, errno) in WAYS {
                for late in [false, true] {
                    let strike = Strike { operation: Some(operation), times, errno, late };
                    let (_, given_up) = every_step(about, strike);
                    assert_eq!(given_up, 0, "{about:?}, {strike:?}");
                }
            }
        }
    }
}

#[test]
fn a_roll_whose_file_cannot_even_be_removed_again_is_in_nobodys_way() {
    for end in [End::Close, End::Kill, End::Crash] {
        let sim = sim(300);
        let mut outcomes = Outcomes::default();
        sim.run(async || {
            let (log, _) = open_one().await;
            // Room for three frames of one block is left.
            outcomes.append(&log, [1, 4, 7, 8]).await;
            sim.disk().inject(Fault::on(Operation::Open, "*.log").late().os_error(EMFILE));
            sim.disk().inject(Fault::on(Operation::Remove, "*").times(u64::MAX));
            outcomes.append(&log, [10, 11, 12]).await;
            assert_eq!(outcomes.refused, BTreeSet::from([10]), "what still fits goes on");
            assert!(sim.disk().files().contains(&segment_path(4)), "the file of the roll that failed");
            outcomes.append(&log, [13]).await;
            assert!(outcomes.refused.contains(&13), "no other segment is created before that one is gone");
            outcomes.append(&log, [14]).await;
            assert_eq!(outcomes.acknowledged, BTreeSet::from([1, 4, 7, 8, 11, 12, 14]));
            if let End::Close = end {
                log.close().await.expect("a clean stop");
            }
        });
        sim.disk().clear_faults();
        match end {
            End::Close | End::Kill => sim.kill(),
            End::Crash => drop(sim.crash()),
        }
        restart(&sim, outcomes, matches!(end, End::Close));
    }
}

#[test]
fn a_segment_that_an_earlier_process_created_gets_a_durable_name_before_its_first_frame() {
    for seed in 0..20 {
        let sim = sim(seed);
        let mut outcomes = Outcomes::default();
        sim.run(async || {
            let (log, _) = open_one().await;
            outcomes.append(&log, [1, 4, 7, 8]).await;
            sim.disk().inject(Fault::on(Operation::Open, "*.log").late());
            sim.disk().inject(Fault::on(Operation::Remove, "*").times(u64::MAX));
            outcomes.append(&log, [10]).await;
            // Keeping the indexes would flush the directory by the way; it is no condition of a clean stop.
            sim.disk().inject(Fault::on(Operation::Rename, "*").times(u64::MAX));
            log.close().await.expect("a clean stop");
            assert!(!sim.disk().durable_files().contains(&segment_path(4)), "the name was never flushed");
        });
        sim.disk().clear_faults();
        sim.kill();
        sim.run(async || {
            let (log, found) = open_one().await;
            assert!(matches!(found, Recovery::Clean { .. }));
            // A snapshot of producers is taken for the segment, which flushes the directory as well.
            time::sleep(millis(20)).await;
            let flushes = sim.disk().counters(segment_path(4).parent().expect("a directory")).flushes;
            outcomes.append(&log, [11, 12]).await;
            assert_eq!(sim.disk().counters(segment_path(4)).writes, 2, "it is the next segment");
            assert_eq!(sim.disk().counters(segment_path(4).parent().expect("a directory")).flushes, flushes + 1);
        });
        sim.crash();
        restart(&sim, outcomes, false);
    }
}
