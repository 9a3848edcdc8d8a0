//! The values of records that are handed over one by one.

use bytes::BytesMut;

use crate::payload::{NUMBER_BYTES_MAX, Numbers, Values};

/// Random values, which get new numbers each time, so that none is sent twice.
pub(crate) struct Block {
    template: Vec<u8>,
    value_bytes: usize,
}

impl Block {
    /// So many values, of so many bytes each.
    pub(crate) fn new(values: &mut Values, value_bytes: usize, count: usize) -> Self {
        let mut template = vec![0; value_bytes * count];
        values.fill(&mut template);
        Self { template, value_bytes }
    }

    pub(crate) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// So many of the values, one after the other.
    pub(crate) fn next(&self, count: usize, numbers: &mut Numbers) -> BytesMut {
        let mut block = BytesMut::from(&self.template[..count * self.value_bytes]);
        for value in block.chunks_mut(self.value_bytes) {
            let number_bytes = value.len().min(NUMBER_BYTES_MAX);
            numbers.write_next(&mut value[..number_bytes]);
        }
        block
    }
}
