//! One core's write-ahead journal: one write makes the small appends of all its partitions durable.
//!
//! # A ring of blocks
//! A journal is a file of fixed size, written beforehand, whose blocks are written in a circle
//! (`docs/formats/journal.md`). A block holds entries of any number of partitions; each entry is one append. Blocks in
//! front of the **floor** are free: segments have what they hold. What an entry means for its partition is not known
//! here: payloads are opaque, and nothing is looked up by partition.
//!
//! # The walk of a block
//! | step | module |
//! |---|---|
//! | the caller asks for [`Journal::room`], and hands over entries and a **cargo** that it gets back | `journal` |
//! | the block gets its number, its length and what it says of others | `ledger` |
//! | it is built: one copy, one checksum | `block` |
//! | it goes to the device; what is complete is acknowledged in order, with its cargo | `journal`, `ledger` |
//! | in a relaxed ring, to the page cache: the caller is told at once, and again after the next flush | `flush` |
//! | the caller frees what it no longer needs: [`Journal::free_below`] | `ledger` |
//!
//! # The start of a process
//! [`read_journals`] reads everything that is there, once, for all cores. The caller redoes what it needs as frames,
//! flushes these, and puts aside what it cannot place ([`keep_aside`]). Then each core takes its ring up again
//! ([`Ring::resume`]), or prepares a new one ([`Ring::prepare`]), and [`Journal::start`] frees all that was found.
//!
//! # The rest
//! | what | module |
//! |---|---|
//! | which blocks count, what is missing | `scan`, `chain`, `recovery` |
//! | files, their names, how they are made | `ring`, `name`, `aside` |
//!
//! The rules are those of `docs/storage-protocol.md`: 3, 4 and 5 in `ledger`, 6 in `aside`, 10 in `recovery` and
//! `ring`, 12 in `journal`.
#![forbid(unsafe_code)]

mod aside;
mod block;
mod chain;
mod config;
mod flush;
mod idle;
mod journal;
mod ledger;
mod name;
mod number;
mod recovery;
mod ring;
mod scan;
#[cfg(test)]
mod scenarios;

pub use aside::{keep_aside, remove_aside};
pub use block::{ENTRY_HEADER_BYTES, Entry, EntryHeader, LogEnd};
pub use chain::{FoundBlocks, FoundEntry};
pub use config::{InvalidJournalConfig, JournalConfig};
pub use journal::Journal;
pub use name::{AsideName, Flushing, RingName};
pub use number::{BlockNumber, RingNumber};
pub use recovery::{
    FoundAside, FoundJournals, FoundRing, JournalReadError, UnreadFile, inspect_journal_file, inspect_journals,
    read_journals,
};
pub use ring::{Ring, remove_ring};
pub use scan::decode_ring;
