//! The log of one partition: segments, appends with group commit, reads, recovery.
//!
//! # A log is a sequence of frames
//! What one write puts into a segment file is a log frame: a header, whole record batches, padding
//! (`docs/formats/log-frame.md`). Frames are written once. The *durable offset* is the end of the frames that are
//! durable without a gap; appends are acknowledged when it has passed them, and only what lies below it is ever read.
//!
//! # The walk of an append
//! | step | module |
//! |---|---|
//! | batches are checked, once | `append` |
//! | the append is accepted and waits: **staging** | `staging` |
//! | room is made: segment, generation, space; nothing is written where there is none | `room` |
//! | offsets are assigned, the frame is built and goes to the device: **writing** | `writer`, `frame` |
//! | the durable offset passes it: **acknowledging** | `window`, `state` |
//!
//! The three bold steps know nothing of each other's insides, so that a journal can later stand between the first
//! two.
//!
//! # The rest
//! | what | module |
//! |---|---|
//! | opening: locks, scan, what may be cut and what is corrupt | `recovery`, `scan`, `check`, `lock` |
//! | which life of the log owns which offsets | `generation` |
//! | one segment's file and indexes | `segment`, `layout` |
//! | reads, look-ups by time | `reader`, `read_ahead`, `timestamp`, `cache` |
//! | what is reported | `failure` |
//!
//! What an acknowledgement promises, and what each fault leads to: `docs/durability.md`.
#![forbid(unsafe_code)]

mod append;
mod cache;
mod check;
mod config;
mod failure;
mod frame;
mod generation;
mod layout;
mod lock;
mod log;
mod payload;
mod read_ahead;
mod reader;
mod recovery;
mod room;
mod scan;
#[cfg(test)]
mod scenarios;
mod segment;
mod staging;
mod state;
mod timestamp;
mod window;
mod writer;

pub use append::{Append, AppendError, AppendRejected, Appended, Appending, Validation};
pub use cache::TailCache;
pub use config::{InvalidConfig, LogConfig};
pub use failure::{Corruption, Damage, Poison};
pub use frame::{FRAME_HEADER_BYTES, FrameFault};
pub use generation::{GenerationHistory, Generations, LoadError, RecordError};
pub use layout::LogId;
pub use log::{CloseError, DeleteError, Log, LogDeps, LogOffsets};
pub use payload::{FrameBuf, Payload};
pub use reader::{LogRead, ReadError};
pub use recovery::{OpenError, Recovery};
