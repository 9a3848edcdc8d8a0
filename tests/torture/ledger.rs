//! What the clients know, and whether the broker agrees.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringmq_client::{Client, FetchOptions, Offset, OffsetSpec, PartitionIndex};

use crate::TOPIC;
use crate::load::{tag_of, value};

/// What the clients know of all partitions.
pub(crate) struct Ledger {
    partitions: Vec<Mutex<Known>>,
    /// Whether offsets may be left out: on a topic with relaxed flush, by a start after a kill.
    leaves_out: bool,
}

/// What they know of one.
#[derive(Default)]
struct Known {
    /// By offset: the record that stands there, as an acknowledgement or a consumer had it.
    records: BTreeMap<i64, u64>,
    acknowledged: u64,
    /// Records that were there at the last look.
    stored: u64,
}

impl Ledger {
    pub(crate) fn new(partitions: u32, leaves_out: bool) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect(), leaves_out }
    }

    /// Records that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.all().map(|known| known.acknowledged).sum()
    }

    /// Records that there were at the last look.
    pub(crate) fn stored(&self) -> u64 {
        self.all().map(|known| known.stored).sum()
    }

    fn all(&self) -> impl Iterator<Item = MutexGuard<'_, Known>> {
        self.partitions.iter().map(lock)
    }

    fn of(&self, partition: PartitionIndex) -> MutexGuard<'_, Known> {
        lock(&self.partitions[partition.as_usize()])
    }

    /// The broker has acknowledged these records, from that offset on.
    ///
    /// # Errors
    /// When an offset is given a second time.
    pub(crate) fn acknowledge(&self, partition: PartitionIndex, base: Offset, tags: &[u64]) -> Result<(), String> {
        let mut known = self.of(partition);
        for (offset, tag) in (base.get()..).zip(tags) {
            known.see(partition, offset, *tag)?;
        }
        known.acknowledged += tags.len() as u64;
        Ok(())
    }

    /// A consumer was given a record.
    ///
    /// # Errors
    /// When it is another one than it was before, or not what was sent.
    pub(crate) fn read(&self, partition: PartitionIndex, offset: Offset, bytes: &[u8]) -> Result<u64, String> {
        let tag = tag_of(bytes).filter(|tag| value(*tag) == bytes);
        let tag = tag.ok_or_else(|| format!("partition {partition}, offset {offset}: not what was sent"))?;
        self.of(partition).see(partition, offset.get(), tag)?;
        Ok(tag)
    }

    /// Reads everything. All that is known has to be there; nothing may be there twice.
    ///
    /// # Errors
    /// The first thing that is missing, changed, or there twice.
    pub(crate) async fn check(&self, client: &Client) -> Result<(), String> {
        for partition in (0..).map(PartitionIndex::new).take(self.partitions.len()) {
            let fail = |error: ringmq_client::Error| format!("reading partition {partition}: {error}");
            let latest = client.consumer().list_offset(TOPIC, partition, OffsetSpec::Latest).await.map_err(fail)?;
            let end = latest.offset.unwrap_or(Offset::ZERO);
            let (mut offset, mut seen) = (Offset::ZERO, HashSet::new());
            while offset < end {
                let fetched = client.consumer().fetch(TOPIC, partition, offset, FetchOptions::default()).await;
                let fetched = fetched.map_err(fail)?;
                for record in fetched.records {
                    if record.offset != offset && !self.leaves_out {
                        return Err(format!("partition {partition}: offset {} after {offset}", record.offset));
                    }
                    self.miss_none(partition, offset, record.offset)?;
                    let tag = self.read(partition, record.offset, record.value.as_deref().unwrap_or_default())?;
                    if !seen.insert(tag) {
                        return Err(format!(
                            "partition {partition}, offset {}: record {tag} is there twice",
                            record.offset
                        ));
                    }
                    offset = Offset::new(record.offset.get() + 1);
                }
                if fetched.next_offset < offset {
                    return Err(format!(
                        "partition {partition}: a fetch ends at {}, before {offset}",
                        fetched.next_offset
                    ));
                }
                self.miss_none(partition, offset, fetched.next_offset)?;
                offset = fetched.next_offset;
            }
            self.miss_none(partition, end, Offset::MAX)?;
            self.of(partition).stored = seen.len() as u64;
        }
        Ok(())
    }

    /// Nothing is known of these offsets.
    fn miss_none(&self, partition: PartitionIndex, from: Offset, until: Offset) -> Result<(), String> {
        let known = self.of(partition);
        let missing = known.records.range(from.get()..until.get()).count();
        match missing {
            0 => Ok(()),
            _ => Err(format!("partition {partition}: {missing} records from {from} on are lost")),
        }
    }
}

impl Known {
    fn see(&mut self, partition: PartitionIndex, offset: i64, tag: u64) -> Result<(), String> {
        match self.records.insert(offset, tag) {
            Some(before) if before != tag => {
                Err(format!("partition {partition}, offset {offset}: record {before} became record {tag}"))
            }
            _ => Ok(()),
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
