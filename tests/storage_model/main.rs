//! The storage protocol as a model that is explored completely: every history, however the kernel orders writes and
//! whatever each crash leaves of them, within bounds that a test names.
//!
//! The protocol is `docs/storage-protocol.md`, rule by rule; its decisions are in `docs/adr/0006-storage-protocol.md`.
//! It covers what the broker does today (log frames, generations, recovery) and what comes next: the journal that makes
//! small appends durable. Two questions are asked of it:
//!
//! - `promises`: with all rules, is there a history in which an acknowledged batch is lost or becomes another, an
//!   offset is given twice, a batch is stored twice or comes back after it was cut, a sound log is taken for a corrupt
//!   one, or the broker gets stuck? There is none.
//! - `dropped`: and with one rule less? For each rule there is one, and the shortest is found. To read it:
//!   `cargo test -p ringmq-tests --test storage_model rule_04 -- --nocapture`
//!
//! # What it is made of
//! | | |
//! |---|---|
//! | `place`, `disk` | what a write fills and what crashes make of it; frames, blocks, generation tables, side files |
//! | `log`, `journal`, `broker` | one life of the broker: staging, frames, checkpoints, the ring |
//! | `recovery` | what the next life makes of the disk |
//! | `requests`, `work`, `machine` | what clients ask for, what the broker does by itself, what it does not decide |
//! | `history` | what clients were told, and the audit |
//! | `rules` | the rules, and how to leave one out |
//! | `model`, `sights`, `telling` | the graph for `stateright`, what must be seen in it, and a history in words |
//!
//! # What it leaves out
//! A frame fills one place and a block another, whatever they hold, and each is there, torn or rotten as a whole:
//! checksums are taken to work. Small files (generations, log start, side file, snapshot, metadata) change in one
//! durable step. Names of segment files, their creation and removal are not followed: `src/segment/scenarios` is there
//! for that. Clean stops, moves between cores and relaxed flushing do not happen. One frame or block rots, and only
//! where something durable tells that it had been acknowledged: rule 15 is about the rest.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what a test prints is the history that it found")]

mod broker;
mod disk;
mod dropped;
mod history;
mod journal;
mod log;
mod machine;
mod model;
mod place;
mod promises;
mod recovery;
mod requests;
mod rules;
mod sights;
mod telling;
mod work;
