//! The log of one partition: segments, appends with group commit, reads, recovery.
//!
//! # A log is a sequence of frames
//! What one write puts into a segment file is a log frame: a header, whole record batches, padding
//! (`docs/formats/log-frame.md`). Frames are written once. The *frames' end* is the end of those that are durable without
//! a gap; the *durable offset* goes on from there with what the journal of the core has. Appends are acknowledged when it
//! has passed them, and only what lies below it is ever read.
//!
//! # The walk of an append
//! | step | module |
//! |---|---|
//! | batches are checked, once | `append` |
//! | the append is accepted and queued | `log`, `staging` |
//! | room is made: segment, generation, space; nothing is written where there is none | `room` |
//! | offsets are assigned, the append is staged, its way is chosen | `writer` |
//! | a small one goes to the journal of the core, which says when it is durable | `journal_queue` |
//! | a frame is built and goes to the device: at once for a large one, later for what the journal has | `writer`, `frame` |
//! | the durable offset passes it, and it is acknowledged | `window`, `journaled`, `state` |
//!
//! # The rest
//! | what | module |
//! |---|---|
//! | opening: locks, scan, what may be cut and what is corrupt | `recovery`, `scan`, `check` |
//! | what the journals have that no frame has | `redo` |
//! | what idempotent producers have stored | `producers`, `producer_snapshots`, `producer_recovery` |
//! | which life of the log owns which offsets | `generation` |
//! | of each key the latest record stays | `compaction` |
//! | deleting the oldest records: up to an offset, by age, by size | `log_start`, `retention` |
//! | space kept for that, and for starts, on a full disk | `reserve` |
//! | one segment's file and indexes | `segment`, `layout` |
//! | reads, look-ups by time | `reader`, `read_ahead`, `timestamp`, `cache` |
//! | sealed segments read in the background | `scrub` |
//! | what is reported | `failure` |
//! | looking into the files of a stopped broker; repair | [`inspect`] |
//!
//! What an acknowledgement promises, and what each fault leads to: `docs/durability.md`.
#![forbid(unsafe_code)]

mod append;
mod cache;
mod check;
mod compaction;
mod config;
mod failure;
mod frame;
mod generation;
mod index_hints;
pub mod inspect;
mod journal_queue;
mod journaled;
mod layout;
mod log;
mod log_start;
mod open_segments;
mod payload;
mod producer_budget;
mod producer_recovery;
mod producer_snapshots;
mod producers;
mod read_ahead;
mod reader;
mod recovery;
mod redo;
mod reserve;
mod retention;
mod room;
mod scan;
#[cfg(test)]
mod scenarios;
mod scrub;
mod segment;
mod staging;
mod state;
mod timestamp;
mod window;
mod writer;

pub use append::{Append, AppendError, AppendRejected, Appended, Appending, Validation};
pub use cache::TailCache;
pub use compaction::{CompactError, Compacted, CompactionBudget, CompactionPolicy};
pub use config::{InvalidConfig, LogConfig};
pub use failure::{Corruption, Damage, Poison};
pub use frame::{FRAME_HEADER_BYTES, FrameFault};
pub use generation::{GenerationHistory, Generations, JournalFile, LoadError, LostTable, RecordError};
pub use journal_queue::{JournalQueue, Journaling};
pub use layout::LogId;
pub use log::{CloseError, DeleteError, JournalNeed, Log, LogDeps, LogOffsets};
pub use log_start::DeleteRecordsError;
pub use open_segments::OpenSegments;
pub use payload::{FrameBuf, Payload};
pub use producer_budget::ProducerBudget;
pub use producers::{OutOfSequence, ProducerSnapshot, ProducerSnapshotError, SnapshotProducer};
pub use reader::{LogRead, ReadError};
pub use recovery::{OpenError, Recovery};
pub use redo::{JournalClaim, Journaled, JournaledAppend, UnreadJournal};
pub use reserve::Reserve;
pub use retention::RetainError;
pub use scrub::Scrubbed;
