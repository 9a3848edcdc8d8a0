//! Whole logs on the simulated machine, and a few on a real disk.
//!
//! - `rules`: the histories of the storage protocol, each a test by the name of its rule
//! - `crash_loop`: many seeds of many lives, checked against everything that was acknowledged and read
//! - `retries`: producers of the crash loop that send again what was not answered
//! - `producers`: snapshots of producers, damaged and missing
//! - `model`: appends and reads against a vector
//! - `damage`: every region of every file, damaged
//! - `compaction`: what stays of keyed logs, and at which steps it may be interrupted
//! - `compaction_cost`: what compaction reads and writes, and how it shares a core
//! - `hostile_batches`: batches that compaction would make much longer, or cannot read
//! - `inspect`: what is told of damaged logs, and their repair
//! - `redo`: what a start builds on what it read, and loses power meanwhile
//! - `steps`: every step of making room, failing
//! - `journaling`: what goes to the journals, and comes back from them
//! - `log_start`: records deleted up to an offset, by age and by size
//! - `full_disk`: what frees space, on a disk that has none
//! - `limits`: full disks, failed writes, rolling, closing, deleting
//! - `real_disk`: the same code on io_uring

mod compaction;
mod compaction_cost;
mod crash_loop;
mod damage;
mod full_disk;
mod hostile_batches;
mod inspect;
mod journaling;
mod limits;
mod log_start;
mod model;
mod producers;
mod real_disk;
mod redo;
mod retries;
mod rules;
mod steps;
mod support;
