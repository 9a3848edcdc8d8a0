//! The batches that a producer sends: encoded before the clock starts, sent round robin, and each time made into batches
//! that were never there before.
//!
//! The generator shares the cores with the broker, so what it spends on encoding would be taken for the broker's cost.
//! What it does for each batch is little: it writes a new number into each record, and the checksum over the whole,
//! which brings the batch into the processor's cache right before the kernel copies it from there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchProducer, BuildError, Compression, RecordRef};
use ringmq_wire::{PartitionIndex, Timestamp};

use crate::checker::{CHECKSUM_AT, CHECKSUMMED_FROM};
use crate::keys::{KEY_BYTES, Keys};
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::volume::Volume;

/// What one producer's full batches take up together, about.
const POOL_BYTES: usize = 4 * 1024 * 1024;
/// At least so many full batches are prepared, however large they are, and at most so many, however small.
const POOL_BATCHES: std::ops::RangeInclusive<usize> = 2..=1024;
/// What is read of a payload file.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A record's number takes up so many bytes at the start of its value, or all of a shorter one.
pub(crate) const NUMBER_BYTES_MAX: usize = 8;
/// So long is a value that has room for its number and behind it a batch's stamp.
pub(crate) const STAMPED_VALUE_BYTES_MIN: usize = NUMBER_BYTES_MAX + STAMP_BYTES;
/// Where the producer's id, epoch and base sequence stand (docs/formats/record-batch.md).
const PRODUCER_AT: usize = 43;

/// Where the values of records come from.
#[derive(Debug)]
pub(crate) enum Values {
    /// Random bytes, which no compression makes smaller.
    Random(fastrand::Rng),
    /// The bytes of a file, again from its start when it ends.
    File {
        /// What was read of it; not empty.
        bytes: Bytes,
        /// Where the next value starts.
        at: usize,
    },
}

impl Values {
    /// Random values that differ from those of any other seed.
    pub(crate) fn random(seed: u64) -> Self {
        Self::Random(fastrand::Rng::with_seed(seed))
    }

    /// Reads a payload file, up to 256 MiB of it.
    ///
    /// # Errors
    /// When it cannot be read, or is empty.
    pub(crate) fn read_file(path: &Path) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(bytes.into())
    }

    pub(crate) fn fill(&mut self, value: &mut [u8]) {
        match self {
            Self::Random(random) => random.fill(value),
            Self::File { bytes, at } => {
                let mut rest = value;
                while !rest.is_empty() {
                    let count = rest.len().min(bytes.len() - *at);
                    let (now, later) = rest.split_at_mut(count);
                    now.copy_from_slice(&bytes[*at..*at + count]);
                    *at = (*at + count) % bytes.len();
                    rest = later;
                }
            }
        }
    }
}

/// The numbers that one producer's records get: no two producers of a run give the same, and none gives one twice.
///
/// They are scrambled, so that they compress no better than random bytes, by a permutation that is another in each run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    next: u64,
    step: u64,
    seed: u64,
}

impl Numbers {
    /// The numbers of producer `index` of `producers` in the run with this seed.
    pub(crate) fn new(seed: u64, index: usize, producers: usize) -> Self {
        Self { next: index as u64, step: producers as u64, seed }
    }

    pub(crate) fn write_next(&mut self, place: &mut [u8]) {
        let bits = u32::try_from(8 * place.len()).unwrap_or(u64::BITS);
        let bytes = scramble(self.next, self.seed, bits).to_le_bytes();
        place.copy_from_slice(&bytes[..place.len()]);
        self.next = self.next.wrapping_add(self.step);
    }
}

/// A permutation of the numbers of `bits` bits, 8 to 64: every step can be undone (an odd factor has an inverse modulo a
/// power of two, and a shift to the right by half the bits leaves the upper half to restore the lower one from).
fn scramble(number: u64, seed: u64, bits: u32) -> u64 {
    const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
    let mask = u64::MAX >> (u64::BITS - bits);
    let mut scrambled = (number ^ seed) & mask;
    for factor in FACTORS {
        scrambled = scrambled.wrapping_mul(factor) & mask;
        scrambled ^= scrambled >> (bits / 2);
    }
    scrambled
}

/// The sizes that were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// The value of each record.
    pub(crate) record_bytes: usize,
    /// What a batch may take up with its header; one record is in it in any case.
    pub(crate) batch_bytes: usize,
}

/// What differs from batch to batch, beside the numbers of records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// Where the batch goes: keys are drawn from those of that partition.
    pub(crate) partition: PartitionIndex,
    /// Written into the header.
    pub(crate) producer: Option<BatchProducer>,
    /// Written into the first record's value.
    pub(crate) stamp: Option<Stamp>,
}

/// A full batch, or the one with the rest of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    Full,
    Rest,
}

/// One producer's batches.
#[derive(Debug)]
pub(crate) struct Payload {
    /// Full batches, all of one length and one number of records, and behind them the rest, if there is one.
    templates: Vec<BytesMut>,
    /// How many of them are full.
    full: usize,
    /// The full one whose turn it is.
    turn: usize,
    /// Where each record's value stands, in every template.
    value_positions: Vec<usize>,
    number_bytes: usize,
    /// `None` leaves the values as they are.
    numbers: Option<Numbers>,
    /// `None` for records without keys.
    keys: Option<Keys>,
    /// From the start of a record's key to that of its value.
    key_distance: usize,
    /// How many full batches make up the records, without the rest.
    pub(crate) full_count: u64,
    /// How many records do not fill a batch.
    pub(crate) rest_records: u64,
}

/// A batch that is ready to be sent: valid until as many others have been made ready as there are full ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready(usize);

impl Payload {
    /// Batches for so many records in all. With `numbers`, no record is ever sent twice, as long as the values are long
    /// enough to hold as many numbers as there are records.
    ///
    /// # Errors
    /// When a record is larger than the format allows.
    pub(crate) fn prepare(
        shape: Shape,
        records: u64,
        values: &mut Values,
        numbers: Option<Numbers>,
        keys: Option<Keys>,
    ) -> Result<Self, BuildError> {
        let now = Timestamp::from(SystemTime::now());
        let key = keys.as_ref().map(|_| [0; KEY_BYTES]);
        let (first, value_positions) = build(shape, now, u64::MAX, values, key)?;
        let records_per_batch = value_positions.len() as u64;
        let (full_count, rest_records) = (records / records_per_batch, records % records_per_batch);
        let wanted = (POOL_BYTES / first.len()).clamp(*POOL_BATCHES.start(), *POOL_BATCHES.end());
        let full = usize::try_from(full_count.max(1)).map_or(wanted, |count| count.min(wanted));
        let mut templates = vec![first];
        while templates.len() < full {
            templates.push(build(shape, now, records_per_batch, values, key)?.0);
        }
        if rest_records > 0 {
            templates.push(build(shape, now, rest_records, values, key)?.0);
        }
        let number_bytes = shape.record_bytes.min(NUMBER_BYTES_MAX);
        let key_distance = KEY_BYTES + length_field_bytes(shape.record_bytes);
        let turn = 0;
        Ok(Self {
            templates,
            full,
            turn,
            value_positions,
            number_bytes,
            numbers,
            keys,
            key_distance,
            full_count,
            rest_records,
        })
    }

    /// How many batches can be ready at the same time.
    pub(crate) fn ready_max(&self) -> usize {
        self.full
    }

    /// What is in a batch.
    pub(crate) fn volume(&self, fill: Fill) -> Volume {
        let (template, records) = match fill {
            Fill::Full => (self.templates.first(), self.value_positions.len() as u64),
            Fill::Rest => (self.templates.get(self.full), self.rest_records),
        };
        Volume { records, bytes: template.map_or(0, BytesMut::len) as u64 }
    }

    /// Where a stamp stands in a batch, behind its header.
    pub(crate) fn stamp_position(&self) -> usize {
        self.value_positions[0] + self.number_bytes - BATCH_HEADER_BYTES
    }

    /// Makes the next full batch ready, or the one with the rest.
    pub(crate) fn make_ready(&mut self, fill: Fill, marks: &Marks) -> Ready {
        let index = match fill {
            Fill::Rest if self.full < self.templates.len() => self.full,
            _ => {
                let index = self.turn;
                self.turn = (self.turn + 1) % self.full;
                index
            }
        };
        self.renew(index, marks);
        Ready(index)
    }

    /// The bytes of a batch that is ready.
    pub(crate) fn bytes(&self, ready: Ready) -> &[u8] {
        &self.templates[ready.0]
    }

    /// Gives every record of a template a new number and key, the whole its marks, and its checksum.
    fn renew(&mut self, index: usize, marks: &Marks) {
        let batch = &mut self.templates[index];
        // The rest's records lie where the first ones of a full batch do.
        let in_batch = |&&position: &&usize| position < batch.len();
        let records = self.value_positions.iter().take_while(in_batch).count();
        let positions = &self.value_positions[..records];
        if let Some(numbers) = &mut self.numbers {
            for &position in positions {
                numbers.write_next(&mut batch[position..position + self.number_bytes]);
            }
        }
        if let Some(keys) = &mut self.keys {
            for &position in positions {
                batch[position - self.key_distance..][..KEY_BYTES].copy_from_slice(&keys.draw(marks.partition));
            }
        }
        if let Some(stamp) = &marks.stamp {
            batch[self.value_positions[0] + self.number_bytes..][..STAMP_BYTES].copy_from_slice(&stamp.encode());
        }
        if let Some(BatchProducer { id, epoch, base_sequence }) = marks.producer {
            let field = &mut batch[PRODUCER_AT..];
            field[..8].copy_from_slice(&id.get().to_be_bytes());
            field[8..10].copy_from_slice(&epoch.get().to_be_bytes());
            field[10..14].copy_from_slice(&base_sequence.get().to_be_bytes());
        }
        if self.numbers.is_some() || self.keys.is_some() || marks.stamp.is_some() || marks.producer.is_some() {
            let checksum = crc_fast::crc32_iscsi(&batch[CHECKSUMMED_FROM..]);
            batch[CHECKSUM_AT..CHECKSUMMED_FROM].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// How many records a full batch has.
///
/// # Errors
/// When a record is larger than the format allows.
pub(crate) fn records_per_batch(shape: Shape) -> Result<usize, BuildError> {
    let values = &mut Values::random(0);
    Ok(build(shape, Timestamp::from(SystemTime::now()), u64::MAX, values, None)?.1.len())
}

/// One batch of at most `records_max` records, and where the value of each starts.
fn build(
    shape: Shape,
    now: Timestamp,
    records_max: u64,
    values: &mut Values,
    key: Option<[u8; KEY_BYTES]>,
) -> Result<(BytesMut, Vec<usize>), BuildError> {
    /// What a record without headers has behind its value: their number, 0.
    const BEHIND_VALUE_BYTES: usize = 1;
    let mut builder = BatchBuilder::with_capacity(Compression::None, shape.batch_bytes.max(shape.record_bytes));
    let mut value = vec![0; shape.record_bytes];
    let mut positions = Vec::new();
    let key = key.as_ref().map(<[u8; KEY_BYTES]>::as_slice);
    while (positions.len() as u64) < records_max {
        let size = RecordRef { timestamp: now, key, value: Some(&value), headers: &[] };
        if !positions.is_empty() && builder.len_bytes_with(&size) > shape.batch_bytes {
            break;
        }
        values.fill(&mut value);
        builder.append(&RecordRef { timestamp: now, key, value: Some(&value), headers: &[] })?;
        positions.push(builder.len_bytes() - BEHIND_VALUE_BYTES - value.len());
    }
    Ok((BytesMut::from(builder.finish()?), positions))
}

/// How long the field is that says how long a value is: a zigzag varint of 7 bits a byte.
fn length_field_bytes(length: usize) -> usize {
    let bits = usize::BITS - (2 * length).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests;
