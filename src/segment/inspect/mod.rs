//! Looking into the files of logs whose broker is stopped.
//!
//! Nothing here opens a file for writing but [`RepairPlan::carry_out`], [`NewBeginning::carry_out`] and [`copy_dir`]. Files
//! are locked while they are read (rule 10 of the storage protocol), so nothing that is looked at is still being written.
//!
//! - [`check_log`]: all of a log, and what recovery would make of it; [`read_log`]: what it holds
//! - [`scan_bytes`]: the same scan without a file
//! - [`FrameReader`], [`read_index`], [`read_generation_table`], [`read_producer_snapshot`]: one file, as it stands
//! - [`read_around_damage`], [`NewBeginning`]: the same for a log that cannot be cut
//! - [`RepairPlan`]: what can be kept of a log that recovery refuses, and how it is made to serve again
//!
//! The format is judged by the scanner, the frame check and the recovery that a broker uses.

mod anew;
mod bytes;
mod check;
mod frames;
mod producers;
mod repair;
mod tables;

pub use ringmq_index::{Coverage, FramePlace};

pub use anew::{NewBeginning, copy_dir, read_around_damage};
pub use bytes::{ScannedBytes, SegmentPlace, scan_bytes};
pub use check::{DamagedPlace, LogCheck, NextStart, Part, SegmentCheck, check_log, read_log};
pub use frames::{FrameInfo, FrameReader, Stretch};
pub use producers::{SnapshotCheck, SnapshotDamage, read_producer_snapshot};
pub use repair::{RepairError, RepairPlan, Unrepairable};
pub use tables::{IndexFile, TableFact, TableFactKind, read_generation_table, read_index};
