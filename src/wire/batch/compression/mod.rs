//! Compression of a batch's records as a whole. `docs/formats/record-batch.md` has the stream that each scheme writes.
//!
//! Both ways go in steps, so that who must not compute for long in one go need not: a step looks at no more than some
//! thousand compressed bytes and gives no more than [`STEP_BYTES`]. What is decompressed is bounded by the reader's limit,
//! never by what the bytes claim.

mod compressor;
mod decompressor;
mod gzip;
mod lz4;
mod scheme;
mod snappy;
#[cfg(test)]
mod tests;
mod zstd;

pub(super) use compressor::Compressor;
pub use decompressor::{DecompressLimits, Scratch};
pub(super) use decompressor::{Decompressor, STEP_BYTES};
pub use scheme::Compression;
