//! Records, borrowed from the bytes of their batch.

use std::borrow::Cow;
use std::iter::FusedIterator;

use super::varint::{take_varint, take_varlong};
use super::{BatchError, BatchHeader, RecordProblem};
use crate::numbers::{Offset, Timestamp};

/// The smallest record, in bytes: seven fields of one byte each, without key, value and headers.
pub const RECORD_BYTES_MIN: usize = 7;

/// A header takes a byte for each of its two lengths at least.
const HEADER_BYTES_MIN: usize = 2;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// When it was made, or appended if the batch says so.
    pub timestamp: Timestamp,
    /// Its key, if it has one. An empty key is a key.
    pub key: Option<&'a [u8]>,
    /// Its value. A record without one deletes its key when the topic is compacted.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its headers, in the order in which they were given. A key may be there twice.
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its key: UTF-8 by the format, but a producer may have broken that, and its records can be read all the same.
    pub key: &'a [u8],
    /// Its value, if it has one.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// The key as text; what is not UTF-8 in it shows as U+FFFD.
    pub fn key_text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
}

/// The headers of a record; each was checked when the record was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        take_header(&mut self.rest).ok()
    }
}

impl FusedIterator for Headers<'_> {}

/// One record whose headers were not looked at: enough to tell whether it stays, and to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// When it was made, or appended if the batch says so.
    pub timestamp: Timestamp,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value, if it has one.
    pub value: Option<&'a [u8]>,
    /// Header count and headers, as they stand.
    headers: &'a [u8],
    /// What stands behind the timestamp delta, headers included.
    pub(super) rest: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Begins to look at its headers.
    ///
    /// # Errors
    /// When there cannot be as many as it says.
    #[inline]
    pub fn check_headers(&self) -> Result<HeaderCheck<'a>, RecordProblem> {
        HeaderCheck::new(self.headers)
    }

    /// How many bytes it takes, but for a few: lengths and timestamp.
    #[inline]
    pub const fn len_bytes(&self) -> usize {
        self.rest.len()
    }
}

/// Walks over the records of a batch and leaves out their headers. It ends behind the last one, or behind the first error.
///
/// The count in the batch's header is a claim: nothing is reserved for it.
#[derive(Clone, Debug)]
pub struct RawRecords<'a> {
    rest: &'a [u8],
    index: u32,
    count: u32,
    base_offset: Offset,
    last_offset_delta: u32,
    /// The least that the next record's offset delta may be; compaction leaves gaps, but the order stays.
    offset_delta_min: u32,
    base_timestamp: Timestamp,
    append_time: Option<Timestamp>,
}

impl<'a> RawRecords<'a> {
    pub(super) fn new(header: &BatchHeader, records: &'a [u8]) -> Self {
        Self {
            rest: records,
            index: 0,
            count: header.record_count,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            offset_delta_min: 0,
            base_timestamp: header.base_timestamp,
            append_time: header.attributes.is_append_time().then_some(header.max_timestamp),
        }
    }

    fn take_record(&mut self) -> Result<RawRecord<'a>, RecordProblem> {
        let mut body = take_record_body(&mut self.rest)?;
        // The attributes of a record are unused; readers ignore them.
        take_bytes(&mut body, "attributes", 1)?;
        let timestamp_delta = take_varlong(&mut body).ok_or(RecordProblem::Varint { field: "timestamp delta" })?;
        let rest = body;
        let offset_delta = take_number(&mut body, "offset delta")?;
        let key = take_nullable(&mut body, "key length")?;
        let value = take_nullable(&mut body, "value length")?;
        let (offset, timestamp) = (self.offset(offset_delta)?, self.timestamp(timestamp_delta)?);
        Ok(RawRecord { offset, timestamp, key, value, headers: body, rest })
    }

    fn offset(&mut self, delta: i32) -> Result<Offset, RecordProblem> {
        match u32::try_from(delta) {
            Ok(forward) if (self.offset_delta_min..=self.last_offset_delta).contains(&forward) => {
                self.offset_delta_min = forward + 1;
                self.base_offset.checked_add(forward.into()).ok_or(RecordProblem::OffsetDelta { delta })
            }
            _ => Err(RecordProblem::OffsetDelta { delta }),
        }
    }

    fn timestamp(&self, delta: i64) -> Result<Timestamp, RecordProblem> {
        match self.append_time {
            Some(append_time) => Ok(append_time),
            None => {
                let sum = self.base_timestamp.get().checked_add(delta);
                sum.map(Timestamp::new).ok_or(RecordProblem::TimestampDelta { delta })
            }
        }
    }

    /// As the next item, made into something else by what may find more wrong with it.
    fn next_as<T>(
        &mut self,
        made: impl FnOnce(RawRecord<'a>) -> Result<T, RecordProblem>,
    ) -> Option<Result<T, BatchError>> {
        if self.index == self.count {
            return match self.rest.len() {
                0 => None,
                bytes => self.stop_with(BatchError::LeftOver { bytes }),
            };
        }
        let index = self.index;
        self.index += 1;
        match self.take_record().and_then(made) {
            Ok(record) => Some(Ok(record)),
            Err(problem) => self.stop_with(BatchError::Record { index, problem }),
        }
    }

    fn stop_with<T>(&mut self, error: BatchError) -> Option<Result<T, BatchError>> {
        self.rest = &[];
        self.index = self.count;
        Some(Err(error))
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_as(Ok)
    }
}

impl FusedIterator for RawRecords<'_> {}

/// Walks over the records of a batch. It ends behind the last one, or behind the first error.
///
/// The count in the batch's header is a claim: nothing is reserved for it.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    raw: RawRecords<'a>,
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(header: &BatchHeader, records: &'a [u8]) -> Self {
        Self { raw: RawRecords::new(header, records) }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.raw.next_as(|RawRecord { offset, timestamp, key, value, headers, rest: _ }| {
            let headers = take_headers(headers)?;
            Ok(Record { offset, timestamp, key, value, headers })
        })
    }
}

impl FusedIterator for RecordIter<'_> {}

/// Takes one record off, without its length and without a look inside.
#[inline]
pub(super) fn take_record_body<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], RecordProblem> {
    let length = take_number(bytes, "length")?;
    take_bytes(bytes, "length", length)
}

/// Looks whether the headers of a record are as they should be, in steps: a record may have millions.
#[derive(Clone, Debug)]
pub struct HeaderCheck<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> HeaderCheck<'a> {
    /// Headers that one step looks at, at most: some microseconds.
    pub const STEP_HEADERS: usize = 1024;

    /// Of what stands behind the value.
    fn new(bytes: &'a [u8]) -> Result<Self, RecordProblem> {
        let mut rest = bytes;
        let value = take_number(&mut rest, "header count")?;
        match usize::try_from(value) {
            Ok(left) if left <= rest.len() / HEADER_BYTES_MIN => Ok(Self { rest, left }),
            _ => Err(RecordProblem::Length { field: "header count", value, remaining: rest.len() }),
        }
    }

    /// Goes on; `true` when that was the end, and all is as it should be.
    ///
    /// # Errors
    /// What is wrong with the next one, or behind the last.
    #[inline]
    pub fn step(&mut self) -> Result<bool, RecordProblem> {
        for _ in 0..self.left.min(Self::STEP_HEADERS) {
            take_header(&mut self.rest)?;
            self.left -= 1;
        }
        match (self.left, self.rest.len()) {
            (0, 0) => Ok(true),
            (0, bytes) => Err(RecordProblem::LeftOver { bytes }),
            _ => Ok(false),
        }
    }
}

fn take_headers(bytes: &[u8]) -> Result<Headers<'_>, RecordProblem> {
    let mut check = HeaderCheck::new(bytes)?;
    let headers = Headers { rest: check.rest };
    while !check.step()? {}
    Ok(headers)
}

#[inline]
fn take_header<'a>(bytes: &mut &'a [u8]) -> Result<Header<'a>, RecordProblem> {
    let key_length = take_number(bytes, "header key length")?;
    let key = take_bytes(bytes, "header key length", key_length)?;
    let value = take_nullable(bytes, "header value length")?;
    Ok(Header { key, value })
}

#[inline]
fn take_number(bytes: &mut &[u8], field: &'static str) -> Result<i32, RecordProblem> {
    take_varint(bytes).ok_or(RecordProblem::Varint { field })
}

/// Takes bytes behind their length, where -1 stands for none at all.
#[inline]
fn take_nullable<'a>(bytes: &mut &'a [u8], field: &'static str) -> Result<Option<&'a [u8]>, RecordProblem> {
    match take_number(bytes, field)? {
        -1 => Ok(None),
        length => take_bytes(bytes, field, length).map(Some),
    }
}

#[inline]
fn take_bytes<'a>(bytes: &mut &'a [u8], field: &'static str, length: i32) -> Result<&'a [u8], RecordProblem> {
    let taken = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let Some((taken, rest)) = taken else {
        return Err(RecordProblem::Length { field, value: length, remaining: bytes.len() });
    };
    *bytes = rest;
    Ok(taken)
}
