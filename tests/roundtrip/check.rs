//! Reads everything back and compares it with what was acknowledged.

use std::collections::BTreeMap;

use ringmq_client::{Client, FetchOptions, Offset, OffsetSpec, PartitionIndex};
use sha2::{Digest, Sha256};

use crate::corpus::Corpus;
use crate::send::{Acknowledged, Sent};
use crate::{PARTITIONS, TOPIC};

/// Reads all partitions to their ends; gives the number of records.
///
/// # Errors
/// The first thing that is missing, changed, out of order, or there without reason.
pub(crate) async fn read_and_check(client: &Client, corpus: &Corpus, sent: &Sent) -> Result<u64, String> {
    let mut by_partition: BTreeMap<PartitionIndex, Vec<&Acknowledged>> = BTreeMap::new();
    for batch in &sent.batches {
        by_partition.entry(batch.partition).or_default().push(batch);
    }
    let mut records = 0;
    let mut files = Files::new(corpus);
    for partition in (0..PARTITIONS).map(PartitionIndex::new) {
        let batches = by_partition.remove(&partition).unwrap_or_default();
        read_partition(client, partition, &batches, &mut files, &mut records).await?;
    }
    files.compare()?;
    Ok(records)
}

async fn read_partition(
    client: &Client,
    partition: PartitionIndex,
    acknowledged: &[&Acknowledged],
    files: &mut Files<'_>,
    records: &mut u64,
) -> Result<(), String> {
    let fail = |error: ringmq_client::Error| format!("reading partition {partition}: {error}");
    let latest = client.consumer().list_offset(TOPIC, partition, OffsetSpec::Latest).await.map_err(fail)?;
    let end = latest.offset.unwrap_or(Offset::ZERO);
    let mut batches = acknowledged.iter().copied().peekable();
    let mut offset = Offset::ZERO;
    while offset < end {
        let fetched = client.consumer().fetch(TOPIC, partition, offset, FetchOptions::default()).await.map_err(fail)?;
        for record in &fetched.records {
            if record.offset != offset {
                return Err(format!("partition {partition}: offset {} after {offset}", record.offset));
            }
            let key = record.key.as_deref().unwrap_or_default();
            let value = record.value.as_deref().unwrap_or_default();
            match batches.peek() {
                Some(batch) if offset.get() >= batch.base_offset => {
                    let line =
                        batch.first_line + usize::try_from(offset.get() - batch.base_offset).unwrap_or(usize::MAX);
                    files.take(batch.file, line, key, value)?;
                    if line + 1 == batch.first_line + batch.lines {
                        batches.next();
                    }
                }
                _ => return Err(format!("partition {partition}: nobody was told of what is at offset {offset}")),
            }
            *records += 1;
            offset = Offset::new(offset.get() + 1);
        }
        if fetched.records.is_empty() {
            return Err(format!("partition {partition}: nothing at {offset}, but the end is {end}"));
        }
    }
    match batches.next() {
        None => Ok(()),
        Some(batch) => Err(format!(
            "partition {partition} ends at {end}, but {} lines were acknowledged at {}",
            batch.lines, batch.base_offset
        )),
    }
}

/// The digests of the files as they are read back.
struct Files<'a> {
    corpus: &'a Corpus,
    next_line: Vec<usize>,
    digests: Vec<Sha256>,
}

impl<'a> Files<'a> {
    fn new(corpus: &'a Corpus) -> Self {
        let count = corpus.files().len();
        Self { corpus, next_line: vec![0; count], digests: vec![Sha256::new(); count] }
    }

    /// The next line of a file, which must be of its key and follow the one before.
    fn take(&mut self, file: usize, line: usize, key: &[u8], value: &[u8]) -> Result<(), String> {
        let name = &self.corpus.files()[file].key;
        if key != name {
            return Err(format!("a record of {} where one of {} belongs", key.escape_ascii(), name.escape_ascii()));
        }
        if line != self.next_line[file] {
            return Err(format!("{}: line {line} after {} lines", name.escape_ascii(), self.next_line[file]));
        }
        self.next_line[file] += 1;
        self.digests[file].update(value);
        self.digests[file].update(b"\n");
        Ok(())
    }

    /// Every file's digest as read back against the digest of its text.
    fn compare(self) -> Result<(), String> {
        for ((file, digest), lines) in self.corpus.files().iter().zip(self.digests).zip(self.next_line) {
            let mut expected = Sha256::new();
            expected.update(&file.text);
            if !file.text.ends_with(b"\n") {
                expected.update(b"\n");
            }
            if digest.finalize() != expected.finalize() {
                return Err(format!("{}: {lines} lines with another SHA-256", file.key.escape_ascii()));
            }
        }
        Ok(())
    }
}
