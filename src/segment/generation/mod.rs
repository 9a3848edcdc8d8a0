//! Which life of a log owns which of its offsets (rule 2 of the storage protocol). Files:
//! `docs/formats/generations.md`.
//!
//! - `history`: what is known of one log, and the merging of facts; pure
//! - `block`: the codec of a table's blocks; pure
//! - `lost`: what cannot be read of the tables, and which logs it may have spoken of; pure
//! - `load`: the start of a process: all tables in, one merged table out
//! - `table`: the table that one core writes as it goes

mod block;
mod history;
mod load;
mod lost;
mod table;

pub(crate) use block::Block;
pub use history::JournalFile;
pub(crate) use history::{Fact, LogGenerations};
pub use load::{GenerationHistory, LoadError};
pub use lost::LostTable;
pub use table::{Generations, RecordError};

/// Where block pair `number` begins in a table.
fn pair_position(number: u32) -> u64 {
    u64::from(number) * PAIR_BYTES as u64
}

/// Bytes of a block and its copy.
pub(crate) const PAIR_BYTES: usize = 2 * block::BLOCK_BYTES;
