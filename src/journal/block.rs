//! The codec of the journal's blocks. Layout: `docs/formats/journal.md`.
//!
//! ```text
//! header: magic 4 | version 2 | header length 2 | ring number 8 | number 8 | previous 8 | floor 8 | durable through 8
//!         | units 4 | end count 4 | entry count 4 | entry bytes 4 | previous checksum 4 | checksum 4
//! end:    topic id 16 | partition 4 | generation 8 | next offset 8
//! entry:  topic id 16 | partition 4 | payload length 4 | log number 8 | generation 8 | base offset 8 | next offset 8
//!         | frames' end 8 | payload
//! ```

use ringmq_wire::{Offset, PartitionIndex, TopicId};

use crate::number::{BlockNumber, RingNumber, UNIT_BYTES};

/// Bytes in front of an entry's payload.
pub const ENTRY_HEADER_BYTES: usize = 64;

/// Bytes in front of a block's ends.
pub(crate) const HEADER_BYTES: usize = 72;
/// Bytes of one end.
pub(crate) const END_BYTES: usize = 36;
/// No block is longer, in bytes.
pub(crate) const BLOCK_BYTES_MAX: usize = UNITS_MAX as usize * UNIT_BYTES;

const MAGIC: [u8; 4] = *b"RQJB";
const VERSION: u16 = 1;
#[allow(clippy::cast_possible_truncation)] // 72.
const HEADER_BYTES_FIELD: u16 = HEADER_BYTES as u16;
const UNITS_MAX: u32 = 128;
const CHECKSUM_AT: usize = 68;

/// What an entry says of the append that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// The topic.
    pub topic_id: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The random number that the partition's log got when it began.
    pub log_number: u64,
    /// The generation of the log under which the batches were appended.
    pub generation: u64,
    /// Of the first record.
    pub base_offset: Offset,
    /// One past the last record; greater than the base offset.
    pub next_offset: Offset,
    /// Where the log's contiguous durable frames ended when the block was built: evidence (rule 5 of the storage
    /// protocol).
    pub frames_end: Offset,
}

impl EntryHeader {
    fn end(&self) -> LogEnd {
        let EntryHeader { topic_id, partition, generation, next_offset, .. } = *self;
        LogEnd { topic_id, partition, generation, offset: next_offset }
    }

    fn encode(&self, payload_bytes: u32) -> [u8; ENTRY_HEADER_BYTES] {
        let mut header = [0; ENTRY_HEADER_BYTES];
        let mut fields = &mut header[..];
        put(&mut fields, self.topic_id.as_bytes());
        put(&mut fields, &self.partition.get().to_be_bytes());
        put(&mut fields, &payload_bytes.to_be_bytes());
        put(&mut fields, &self.log_number.to_be_bytes());
        put(&mut fields, &self.generation.to_be_bytes());
        put(&mut fields, &self.base_offset.get().to_be_bytes());
        put(&mut fields, &self.next_offset.get().to_be_bytes());
        put(&mut fields, &self.frames_end.get().to_be_bytes());
        header
    }

    /// The header and the length of the payload behind it.
    fn decode(mut fields: Fields<'_>) -> Option<(EntryHeader, usize)> {
        let topic_id = TopicId::from_bytes(fields.take()?);
        let partition = PartitionIndex::new(fields.u32()?);
        let payload_bytes = usize::try_from(fields.u32()?).ok()?;
        let header = EntryHeader {
            topic_id,
            partition,
            log_number: fields.u64()?,
            generation: fields.u64()?,
            base_offset: fields.offset()?,
            next_offset: fields.offset()?,
            frames_end: fields.offset()?,
        };
        (header.base_offset < header.next_offset).then_some((header, payload_bytes))
    }
}

/// One append, to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What is appended where.
    pub header: EntryHeader,
    /// Whole record batches with their offsets in place; opaque here.
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// Bytes that it takes in a block.
    pub(crate) fn encoded_bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.payload.len()
    }
}

/// How far the entries of a block took a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// The topic.
    pub topic_id: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The generation of the last entry.
    pub generation: u64,
    /// One past the last record.
    pub offset: Offset,
}

impl LogEnd {
    fn is_of(&self, entry: &EntryHeader) -> bool {
        self.topic_id == entry.topic_id && self.partition == entry.partition
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.topic_id.as_bytes());
        out.extend_from_slice(&self.partition.get().to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.offset.get().to_be_bytes());
    }

    fn decode(mut fields: Fields<'_>) -> Option<LogEnd> {
        Some(LogEnd {
            topic_id: TopicId::from_bytes(fields.take()?),
            partition: PartitionIndex::new(fields.u32()?),
            generation: fields.u64()?,
            offset: fields.offset()?,
        })
    }
}

/// The ends of one block, encoded as the next one repeats them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    bytes: Vec<u8>,
}

impl Ends {
    /// Makes these the ends of `entries`. Entries of one log that follow each other share an end; no log is looked up.
    pub(crate) fn replace(&mut self, entries: &[Entry<'_>]) {
        self.bytes.clear();
        let mut open: Option<LogEnd> = None;
        for Entry { header, .. } in entries {
            if let Some(done) = open.filter(|end| !end.is_of(header)) {
                done.encode(&mut self.bytes);
            }
            open = Some(header.end());
        }
        if let Some(last) = open {
            last.encode(&mut self.bytes);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that they take in the next block.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What a block says of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) ring: RingNumber,
    pub(crate) number: BlockNumber,
    /// The block before; its own number, if it is the first of a life.
    pub(crate) previous: BlockNumber,
    /// The checksum of the block before; zero, if it is the first of a life.
    pub(crate) previous_checksum: u32,
    /// Blocks below are free.
    pub(crate) floor: BlockNumber,
    /// Blocks below were durable when it was built.
    pub(crate) durable_through: BlockNumber,
    pub(crate) units: u32,
}

impl BlockHeader {
    /// The number of the next block.
    pub(crate) fn end(&self) -> BlockNumber {
        self.number.plus(self.units.into())
    }

    pub(crate) fn block_bytes(&self) -> usize {
        self.units as usize * UNIT_BYTES
    }

    /// Fills `block`, which is the block's length: the one copy that a payload makes on its way to the journal. Gives
    /// the checksum.
    ///
    /// # Panics
    /// When it does not fit.
    pub(crate) fn encode(&self, ends_before: &Ends, entries: &[Entry<'_>], block: &mut [u8]) -> u32 {
        assert_eq!(block.len(), self.block_bytes(), "a buffer of the block's length");
        let mut rest = &mut block[HEADER_BYTES..];
        put(&mut rest, &ends_before.bytes);
        let ends_to_entries = rest.len();
        for entry in entries {
            put(&mut rest, &entry.header.encode(field(entry.payload.len())));
            put(&mut rest, entry.payload);
        }
        let entry_bytes = ends_to_entries - rest.len();
        rest.fill(0);
        let counts = [ends_before.bytes.len() / END_BYTES, entries.len(), entry_bytes].map(field);
        self.put_fields(counts, block);
        let checksum = checksum(block);
        block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_be_bytes());
        checksum
    }

    fn put_fields(&self, counts: [u32; 3], block: &mut [u8]) {
        let mut fields = &mut block[..CHECKSUM_AT];
        put(&mut fields, &MAGIC);
        put(&mut fields, &VERSION.to_be_bytes());
        put(&mut fields, &HEADER_BYTES_FIELD.to_be_bytes());
        for number in [self.ring.0, self.number.0, self.previous.0, self.floor.0, self.durable_through.0] {
            put(&mut fields, &number.to_be_bytes());
        }
        put(&mut fields, &self.units.to_be_bytes());
        for count in counts {
            put(&mut fields, &count.to_be_bytes());
        }
        put(&mut fields, &self.previous_checksum.to_be_bytes());
        debug_assert!(fields.is_empty());
    }

    fn is_consistent(&self) -> bool {
        (1..=UNITS_MAX).contains(&self.units)
            && self.previous <= self.number
            && self.floor <= self.number
            && self.durable_through <= self.number
    }
}

/// A sound block in the bytes that it was read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockView<'a> {
    pub(crate) header: BlockHeader,
    pub(crate) checksum: u32,
    ends: &'a [u8],
    entry_count: usize,
    entries: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// The block of the ring `ring` at the beginning of `bytes`; `None` when there is none, or it is torn or damaged.
    pub(crate) fn decode(bytes: &'a [u8], ring: RingNumber) -> Option<BlockView<'a>> {
        let mut fields = Fields(bytes.get(..HEADER_BYTES)?);
        let is_block = fields.take()? == MAGIC && fields.u16()? == VERSION && fields.u16()? == HEADER_BYTES_FIELD;
        if !is_block || fields.u64()? != ring.0 {
            return None;
        }
        let mut header = BlockHeader {
            ring,
            number: BlockNumber(fields.u64()?),
            previous: BlockNumber(fields.u64()?),
            previous_checksum: 0,
            floor: BlockNumber(fields.u64()?),
            durable_through: BlockNumber(fields.u64()?),
            units: fields.u32()?,
        };
        let end_count = usize::try_from(fields.u32()?).ok()?;
        let entry_count = usize::try_from(fields.u32()?).ok()?;
        let entry_bytes = usize::try_from(fields.u32()?).ok()?;
        header.previous_checksum = fields.u32()?;
        let stored = fields.u32()?;
        if !header.is_consistent() {
            return None;
        }
        let block = bytes.get(..header.block_bytes())?;
        if checksum(block) != stored {
            return None;
        }
        let (ends, rest) = block[HEADER_BYTES..].split_at_checked(end_count.checked_mul(END_BYTES)?)?;
        let view = BlockView { header, checksum: stored, ends, entry_count, entries: rest.get(..entry_bytes)? };
        view.is_whole().then_some(view)
    }

    /// Whether all of its ends and entries can be read, and nothing is left.
    fn is_whole(&self) -> bool {
        let ends = self.ends().count() * END_BYTES == self.ends.len();
        let mut entries = self.entries();
        let entry_count = entries.by_ref().count();
        ends && entry_count == self.entry_count && entries.rest.is_empty()
    }

    /// The ends of the block before.
    pub(crate) fn ends(&self) -> impl Iterator<Item = LogEnd> + 'a {
        self.ends.chunks_exact(END_BYTES).map_while(|end| LogEnd::decode(Fields(end)))
    }

    /// Its entries, in order.
    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries::new(self.entries)
    }

    /// The bytes of its entries.
    pub(crate) fn entry_bytes(&self) -> &'a [u8] {
        self.entries
    }
}

/// The entries of a block, one after the other.
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Those in [`BlockView::entry_bytes`], or a copy of it.
    pub(crate) fn new(entry_bytes: &'a [u8]) -> Entries<'a> {
        Entries { rest: entry_bytes }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (header, behind) = self.rest.split_at_checked(ENTRY_HEADER_BYTES)?;
        let (header, payload_bytes) = EntryHeader::decode(Fields(header))?;
        let (payload, rest) = behind.split_at_checked(payload_bytes)?;
        self.rest = rest;
        Some(Entry { header, payload })
    }
}

/// Of the whole block, but for the place where it stands.
fn checksum(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..CHECKSUM_AT]);
    hasher.update(&block[HEADER_BYTES..]);
    hasher.finalize()
}

/// A count or length in a block.
fn field(value: usize) -> u32 {
    u32::try_from(value).expect("a block is less than 512 KiB, and what does not fit into it was refused before")
}

fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let (field, behind) = std::mem::take(rest).split_at_mut(bytes.len());
    field.copy_from_slice(bytes);
    *rest = behind;
}

/// Fields of a fixed layout, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn offset(&mut self) -> Option<Offset> {
        self.take().map(i64::from_be_bytes).and_then(Offset::checked)
    }
}

#[cfg(test)]
mod tests;
