//! The v2 record batch: the unit on the wire and on disk, byte for byte that of Kafka (KIP-98), never re-encoded.
//!
//! A batch is a header of 61 bytes and its records, which may be compressed as a whole. A broker validates a batch
//! once when it enters ([`validate_batch`]), writes base offset and leader epoch into it, which the checksum leaves
//! out ([`set_base_offset`], [`set_leader_epoch`]), and stores it as it came. `docs/formats/record-batch.md` shows
//! every byte.
//!
//! ```
//! use ringmq_wire::Timestamp;
//! use ringmq_wire::batch::{
//!     BatchBuilder, BatchLimits, Compression, RecordRef, Scratch, split_batches, validate_batch,
//! };
//!
//! let mut builder = BatchBuilder::new(Compression::Lz4);
//! for value in ["first", "second"] {
//!     builder.append(&RecordRef {
//!         timestamp: Timestamp::new(1_700_000_000_000),
//!         key: Some(b"key"),
//!         value: Some(value.as_bytes()),
//!         headers: &[("origin", Some(b"example"))],
//!     })?;
//! }
//! let batch = builder.finish()?;
//! assert_eq!(validate_batch(&batch, &BatchLimits::default())?.record_count, 2);
//!
//! let mut scratch = Scratch::default();
//! for view in split_batches(&batch) {
//!     for record in view?.records(&mut scratch)? {
//!         let record = record?;
//!         println!("{}: {:?}", record.offset, record.value);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod compression;
mod error;
mod header;
mod producer;
mod record;
mod rewrite;
#[cfg(test)]
mod tests;
mod validate;
mod varint;
#[cfg(test)]
mod vectors;
mod view;

pub use builder::{BatchBuilder, BuildError, RecordRef};
pub use compression::{Compression, DecompressLimits, Scratch};
pub use error::{BatchError, RecordProblem};
pub use header::{
    Attributes, BATCH_HEADER_BYTES, BATCH_LENGTH_PREFIX_BYTES, BATCH_MAGIC, BatchHeader, set_base_offset,
    set_leader_epoch,
};
pub use producer::{BatchProducer, set_producer};
pub use record::{Header, HeaderCheck, Headers, RECORD_BYTES_MIN, RawRecord, RawRecords, Record, RecordIter};
pub use rewrite::{BatchRewriter, FinishingBatch, empty_batches};
pub use validate::{BatchLimits, validate_batch};
pub use view::{BatchView, Batches, OpeningBatch, split_batches};
