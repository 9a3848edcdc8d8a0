//! The 61 bytes in front of a batch's records.

use super::{BatchError, Compression};
use crate::numbers::{LeaderEpoch, Offset, Timestamp};

/// The length of the header, in bytes; the records follow it.
pub const BATCH_HEADER_BYTES: usize = 61;

/// What the length field does not count: base offset and the length itself.
pub const BATCH_LENGTH_PREFIX_BYTES: usize = 12;

/// The version of the layout.
pub const BATCH_MAGIC: i8 = 2;

/// Where the bytes start that the checksum covers: behind itself. Base offset and leader epoch lie before it, so a
/// broker can write them without touching the rest.
pub(super) const CHECKSUMMED_FROM: usize = 21;

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;

/// The least that the length field can say.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the value is 49")]
const LENGTH_MIN: i32 = (BATCH_HEADER_BYTES - BATCH_LENGTH_PREFIX_BYTES) as i32;

/// The header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record; producers send 0, the broker assigns it.
    pub base_offset: Offset,
    /// The size of the batch behind this field, in bytes; at least 49.
    pub batch_length: u32,
    /// The epoch of the leader that appended the batch; producers send none.
    pub partition_leader_epoch: Option<LeaderEpoch>,
    /// CRC32C of everything behind this field.
    pub crc: u32,
    /// Compression and kind.
    pub attributes: Attributes,
    /// The offset of the last record, counted from the base offset.
    pub last_offset_delta: u32,
    /// What the records' timestamps count from; -1 where the producer gave none.
    pub base_timestamp: Timestamp,
    /// The highest timestamp of the records; with append time, the timestamp of all of them.
    pub max_timestamp: Timestamp,
    /// The identity of an idempotent producer, or -1.
    pub producer_id: i64,
    /// The epoch of an idempotent producer, or -1.
    pub producer_epoch: i16,
    /// The sequence number of the first record of an idempotent producer, or -1.
    pub base_sequence: i32,
    /// How many records there are.
    pub record_count: u32,
}

/// The flags of a batch: compression in bits 0 to 2, kind in bits 3 to 6. Unused bits are kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    bits: u16,
    compression: Compression,
}

impl Attributes {
    const COMPRESSION: u16 = 0b111;
    const APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;

    /// A plain batch of this compression.
    pub const fn new(compression: Compression) -> Self {
        Self { bits: compression.to_bits(), compression }
    }

    /// The same, and `base_timestamp` is the time from which compaction may drop tombstones (KIP-534).
    #[must_use]
    pub const fn with_delete_horizon(self) -> Self {
        Self { bits: self.bits | Self::DELETE_HORIZON, ..self }
    }

    /// Takes the bits of a header.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`].
    pub fn from_bits(bits: u16) -> Result<Self, BatchError> {
        let number = bits & Self::COMPRESSION;
        let compression = Compression::from_bits(number).ok_or(BatchError::UnknownCompression { number })?;
        Ok(Self { bits, compression })
    }

    /// The bits of the header.
    pub const fn bits(self) -> u16 {
        self.bits
    }

    /// How the records are compressed.
    pub const fn compression(self) -> Compression {
        self.compression
    }

    /// Whether all records carry the time at which the broker appended them, which is `max_timestamp`.
    pub const fn is_append_time(self) -> bool {
        self.bits & Self::APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.bits & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker of a transaction rather than records.
    pub const fn is_control(self) -> bool {
        self.bits & Self::CONTROL != 0
    }

    /// Whether `base_timestamp` is the time from which compaction may drop tombstones (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.bits & Self::DELETE_HORIZON != 0
    }
}

impl BatchHeader {
    /// Decodes the header at the start of `bytes`. The batch behind it need not be there, and its checksum is not
    /// looked at.
    ///
    /// # Errors
    /// When the bytes are too few, or a field holds what no batch can.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let batch_length = decode_length(bytes)?;
        let Some(header) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::Truncated { needed: BATCH_HEADER_BYTES, remaining: bytes.len() });
        };
        let base_offset = i64::from_be_bytes(field(header, 0));
        let base_offset = Offset::checked(base_offset).ok_or_else(|| invalid("base offset", base_offset))?;
        let last_offset_delta = not_negative("last offset delta", i32::from_be_bytes(field(header, 23)))?;
        if base_offset.checked_add(u64::from(last_offset_delta) + 1).is_none() {
            return Err(invalid("base offset", base_offset.get()));
        }
        Ok(Self {
            base_offset,
            batch_length,
            partition_leader_epoch: LeaderEpoch::from_wire(i32::from_be_bytes(field(header, LEADER_EPOCH_AT))),
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: Attributes::from_bits(u16::from_be_bytes(field(header, 21)))?,
            last_offset_delta,
            base_timestamp: Timestamp::new(i64::from_be_bytes(field(header, 27))),
            max_timestamp: Timestamp::new(i64::from_be_bytes(field(header, 35))),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            record_count: not_negative("record count", i32::from_be_bytes(field(header, 57)))?,
        })
    }

    /// The header as it stands on the wire.
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut header = [0; BATCH_HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.base_offset.get().to_be_bytes());
        put(LENGTH_AT, &self.batch_length.to_be_bytes());
        put(LEADER_EPOCH_AT, &LeaderEpoch::to_wire(self.partition_leader_epoch).to_be_bytes());
        put(MAGIC_AT, &BATCH_MAGIC.to_be_bytes());
        put(CRC_AT, &self.crc.to_be_bytes());
        put(21, &self.attributes.bits().to_be_bytes());
        put(23, &self.last_offset_delta.to_be_bytes());
        put(27, &self.base_timestamp.get().to_be_bytes());
        put(35, &self.max_timestamp.get().to_be_bytes());
        put(43, &self.producer_id.to_be_bytes());
        put(51, &self.producer_epoch.to_be_bytes());
        put(53, &self.base_sequence.to_be_bytes());
        put(57, &self.record_count.to_be_bytes());
        header
    }

    /// The size of the whole batch, in bytes.
    #[inline]
    pub const fn size_bytes(&self) -> usize {
        BATCH_LENGTH_PREFIX_BYTES + self.batch_length as usize
    }

    /// The offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.checked_add(self.last_offset_delta.into()).unwrap_or(Offset::MAX)
    }

    /// The offset after the last record.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        self.base_offset.checked_add(u64::from(self.last_offset_delta) + 1).unwrap_or(Offset::MAX)
    }

    /// How the records are compressed.
    #[inline]
    pub const fn compression(&self) -> Compression {
        self.attributes.compression()
    }
}

/// Writes the offset of the first record into a batch. The checksum leaves it out.
///
/// # Panics
/// When `batch` is shorter than a header: it must have been validated.
#[inline]
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    batch[..LENGTH_AT].copy_from_slice(&base_offset.get().to_be_bytes());
}

/// Writes the leader's epoch into a batch. The checksum leaves it out.
///
/// # Panics
/// When `batch` is shorter than a header: it must have been validated.
#[inline]
pub fn set_leader_epoch(batch: &mut [u8], epoch: LeaderEpoch) {
    batch[LEADER_EPOCH_AT..MAGIC_AT].copy_from_slice(&epoch.get().to_be_bytes());
}

/// Decodes what must hold before anything else in a batch can be looked at: its length and magic.
#[inline]
pub(super) fn decode_length(bytes: &[u8]) -> Result<u32, BatchError> {
    let Some(start) = bytes.first_chunk::<CRC_AT>() else {
        return Err(BatchError::Truncated { needed: BATCH_HEADER_BYTES, remaining: bytes.len() });
    };
    let magic = i8::from_be_bytes(field(start, MAGIC_AT));
    if magic != BATCH_MAGIC {
        return Err(BatchError::Magic { magic });
    }
    let batch_length = i32::from_be_bytes(field(start, LENGTH_AT));
    match u32::try_from(batch_length) {
        Ok(length) if batch_length >= LENGTH_MIN => Ok(length),
        _ => Err(BatchError::Length { batch_length }),
    }
}

/// The checksum that a whole batch's header carries, and the one that its bytes give.
#[inline]
pub(super) fn checksums(batch: &[u8; BATCH_HEADER_BYTES], covered: &[u8]) -> (u32, u32) {
    (u32::from_be_bytes(field(batch, CRC_AT)), crc_fast::crc32_iscsi(covered))
}

/// A field's bytes; `at + N` must lie within the array, which holds for the constants above.
#[inline]
fn field<const N: usize, const T: usize>(bytes: &[u8; T], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn not_negative(name: &'static str, value: i32) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| invalid(name, value.into()))
}

const fn invalid(field: &'static str, value: i64) -> BatchError {
    BatchError::Field { field, value }
}
