//! Small appends on their way into journal blocks, and the end of a journal that fails.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringmq_journal::{Entry, EntryHeader, Flushing, Journal};
use ringmq_runtime::task::{Gate, Stop};
use ringmq_segment::{Generations, JournalQueue, Journaling};
use ringmq_wire::ShardIndex;

use super::checkpoints::{self, Ledger};

/// What a block holds, until it is durable.
pub(super) type Block = Rc<[Journaling]>;

/// The journal of one core as its logs use it.
pub(super) struct Blocks {
    pub(super) shard: ShardIndex,
    pub(super) flushing: Flushing,
    pub(super) dir: PathBuf,
    pub(super) queue: JournalQueue,
    pub(super) generations: Generations,
    journal: RefCell<Option<Journal<Block>>>,
    pub(super) ledger: RefCell<Ledger>,
}

impl Blocks {
    pub(super) fn new(
        shard: ShardIndex,
        flushing: Flushing,
        dir: PathBuf,
        queue: JournalQueue,
        generations: Generations,
    ) -> Rc<Self> {
        let (journal, ledger) = (RefCell::default(), RefCell::default());
        Rc::new(Self { shard, flushing, dir, queue, generations, journal, ledger })
    }

    /// Bytes in use, and of the whole ring; `None` while there is none.
    pub(super) fn ring_use(&self) -> Option<(u64, u64)> {
        let journal = self.journal.borrow();
        journal.as_ref().map(|journal| (journal.used_bytes(), journal.ring_bytes()))
    }

    /// Writes what comes, and frees what is not needed any more, until the stop.
    pub(super) fn run(self: &Rc<Self>, journal: Journal<Block>, tasks: &Gate, stop: &Stop) {
        *self.journal.borrow_mut() = Some(journal.clone());
        // Open until the storage is closed.
        let _ = tasks.spawn("journal-blocks", write(self.clone(), journal.clone(), stop.clone()));
        let _ = tasks.spawn("journal-checkpoints", checkpoints::run(self.clone(), journal, stop.clone()));
    }

    /// The journal failed, with these appends in flight: it keeps what it has, and gets no more. Everything that is
    /// staged goes into frames (rule 12 of the storage protocol).
    pub(super) fn fail(&self, error: &io::Error, in_flight: Vec<Block>) {
        let shard = self.shard;
        tracing::error!(
            %shard, %error,
            "the journal failed; appends go straight to their segments until the broker is started again"
        );
        self.queue.close();
        in_flight.iter().flat_map(|block| block.iter()).for_each(Journaling::go_straight);
        self.ledger.borrow().checkpoint_all();
    }

    /// Gives the journal up, as it is, for want of something that it needs.
    pub(super) fn give_up(&self, error: &io::Error) {
        self.fail(error, Vec::new());
    }

    pub(super) async fn close(&self) {
        let journal = self.journal.borrow_mut().take();
        let Some(journal) = journal else { return };
        checkpoints::free(self, &journal);
        if let Err(error) = journal.close().await {
            tracing::warn!(shard = %self.shard, %error, "the journal did not end cleanly; the next start reads it");
        }
    }
}

/// Writes a block whenever there is something to write and the journal has room.
async fn write(blocks: Rc<Blocks>, journal: Journal<Block>, stop: Stop) {
    loop {
        let changed = blocks.queue.arrived().or(journal.moved());
        while let Some(room) = journal.room() {
            let appends = gather(&blocks.queue, room);
            if appends.is_empty() {
                break;
            }
            write_block(&blocks, &journal, appends);
        }
        if stop.or_stop(changed).await.is_none() {
            return;
        }
    }
}

/// The appends of the next block, in order: as many as fit.
fn gather(queue: &JournalQueue, room: usize) -> Vec<Journaling> {
    let mut appends = Vec::new();
    let mut left = room;
    let mut fits = |payload_bytes: usize| {
        let rest = left.checked_sub(Journal::<Block>::entry_bytes(payload_bytes));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    while let Some(append) = queue.take_if(&mut fits) {
        appends.push(append);
    }
    appends
}

fn write_block(blocks: &Blocks, journal: &Journal<Block>, appends: Vec<Journaling>) {
    let appends: Block = appends.into();
    let entries: Vec<Entry<'_>> = appends.iter().map(entry).collect();
    if blocks.flushing == Flushing::Relaxed {
        journal.flush_within(appends.iter().map(Journaling::flush_within).min().unwrap_or_default());
    }
    let number = journal.write(&entries, appends.clone());
    blocks.ledger.borrow_mut().push(number, &appends);
}

fn entry(append: &Journaling) -> Entry<'_> {
    let header = EntryHeader {
        topic_id: append.id().topic_id,
        partition: append.id().partition,
        log_number: append.log_number(),
        generation: append.generation(),
        base_offset: append.base_offset(),
        next_offset: append.next_offset(),
        frames_end: append.frames_end(),
    };
    Entry { header, payload: append.batches() }
}
