//! Which journal blocks are needed for which logs, and freeing them in time.
//!
//! A block is needed until the frames of all logs that it has entries of have passed them. While less than a quarter of
//! the ring is free, the logs of its oldest eighth are made to write what they have staged, so many at a time. A log that
//! takes no frames any more does not hold up the others: the blocks are kept aside for it (rule 6 of the storage protocol).

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use ringmq_journal::{AsideName, BlockNumber, Journal};
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::task::Stop;
use ringmq_segment::{JournalNeed, Journaling, Log};
use ringmq_wire::Offset;

use super::blocks::{Block, Blocks};
use super::recovery::aside_file;

/// They are asked for in this part of the ring, the oldest.
const ASKED_PART: u64 = 8;
/// Logs that are asked to write frames and have not finished.
const LOGS_AT_ONCE: usize = 64;

/// Up to where the journal is needed for a log.
struct Need {
    log: Log,
    below: Offset,
    /// Whether the log was asked to write frames for it.
    asked: bool,
}

impl Need {
    fn is(&self, need: JournalNeed) -> bool {
        self.log.journal_need(self.below) == need
    }
}

/// The blocks of the journal that may be needed, oldest first.
#[derive(Default)]
pub(super) struct Ledger {
    blocks: VecDeque<Held>,
    /// Logs that were asked to write frames and have not, and up to where they were asked. Each is there once.
    asked: Vec<(Log, Offset)>,
    /// Up to this block all logs were asked.
    asked_through: Option<BlockNumber>,
}

struct Held {
    number: BlockNumber,
    /// Those that were last known to need it. What is found to need it no more is taken out, from the end on.
    needs: Vec<Need>,
}

impl Held {
    /// Whether some log needs the block, as far as it takes to find one.
    fn is_needed(&mut self) -> bool {
        while self.needs.pop_if(|need| need.is(JournalNeed::None)).is_some() {}
        !self.needs.is_empty()
    }
}

impl Ledger {
    pub(super) fn push(&mut self, number: BlockNumber, appends: &[Journaling]) {
        let mut needs: Vec<Need> = Vec::with_capacity(appends.len());
        for append in appends {
            match needs.last_mut().filter(|last| last.log.id() == append.id()) {
                Some(last) => last.below = append.next_offset(),
                None => needs.push(Need { log: append.log(), below: append.next_offset(), asked: false }),
            }
        }
        self.blocks.push_back(Held { number, needs });
    }

    /// Every log that needs anything of the journal puts it into frames.
    pub(super) fn checkpoint_all(&self) {
        let needs = self.blocks.iter().flat_map(|block| &block.needs);
        needs.filter(|need| need.is(JournalNeed::UntilCheckpoint)).for_each(|need| need.log.checkpoint(need.below));
    }

    /// The first block that is needed; all below are not. `None` when none is.
    fn first_needed(&mut self) -> Option<BlockNumber> {
        while self.blocks.pop_front_if(|block| !block.is_needed()).is_some() {}
        self.blocks.front().map(|block| block.number)
    }

    /// Asks the next logs to write frames, of blocks that begin less than so many units behind `first`.
    fn ask(&mut self, first: BlockNumber, units: u64) {
        self.asked.retain(|(log, below)| log.journal_need(*below) == JournalNeed::UntilCheckpoint);
        let Self { blocks, asked, asked_through } = self;
        let from = asked_through.map_or(0, |through| blocks.partition_point(|block| block.number <= through));
        for block in blocks.range_mut(from..).take_while(|block| block.number.get() - first.get() < units) {
            for need in block.needs.iter_mut().filter(|need| !need.asked && need.is(JournalNeed::UntilCheckpoint)) {
                // A log that was asked writes all that the journal has of it, for later blocks too.
                if !asked.iter().any(|(log, _)| log.id() == need.log.id()) {
                    if asked.len() == LOGS_AT_ONCE {
                        return;
                    }
                    asked.push((need.log.clone(), need.below));
                }
                need.log.checkpoint(need.below);
                need.asked = true;
            }
            *asked_through = Some(block.number);
        }
    }

    /// Whether a log that takes no frames any more needs the oldest block, and nobody else does.
    fn waits_for_recovery(&self) -> bool {
        self.blocks.front().is_some_and(|block| !block.needs.iter().any(|need| need.is(JournalNeed::UntilCheckpoint)))
    }

    /// The first block behind all that such logs need, if a block there is.
    fn behind_what_waits(&self) -> Option<BlockNumber> {
        let waits = |held: &Held| held.needs.iter().any(|need| need.is(JournalNeed::UntilRecovery));
        let last = self.blocks.iter().rposition(waits)?;
        self.blocks.get(last + 1).map(|block| block.number)
    }

    /// What such logs need of blocks below `until` is aside.
    fn kept_aside(&mut self, until: BlockNumber) {
        for block in self.blocks.iter_mut().take_while(|block| block.number < until) {
            block.needs.retain(|need| !need.is(JournalNeed::UntilRecovery));
        }
    }
}

/// Frees blocks as frames become durable, and sees to it that they do, until the stop.
pub(super) async fn run(blocks: Rc<Blocks>, journal: Journal<Block>, stop: Stop) {
    loop {
        let changed = blocks.queue.frames_moved().or(journal.moved());
        free(&blocks, &journal);
        if journal.failed().is_some() {
            return;
        }
        if journal.is_filling() {
            if blocks.ledger.borrow().waits_for_recovery()
                && let Err(error) = keep_aside(&blocks, &journal).await
            {
                return blocks.give_up(&error);
            }
            ask_for_frames(&blocks, &journal);
        }
        if stop.or_stop(changed).await.is_none() {
            return;
        }
    }
}

/// Tells the journal which blocks are not needed any more.
pub(super) fn free(blocks: &Blocks, journal: &Journal<Block>) {
    let needed = blocks.ledger.borrow_mut().first_needed();
    let needed = needed.filter(|_| !SeededBug::FreeJournalEarly.is_in());
    journal.free_below(needed.unwrap_or(journal.next_number()));
}

fn ask_for_frames(blocks: &Blocks, journal: &Journal<Block>) {
    let mut ledger = blocks.ledger.borrow_mut();
    let Some(first) = ledger.first_needed() else { return };
    ledger.ask(first, journal.ring_bytes() / ASKED_PART / BLOCK_BYTES as u64);
}

/// Copies the blocks that logs need which take no frames any more, durably.
async fn keep_aside(blocks: &Blocks, journal: &Journal<Block>) -> io::Result<()> {
    let (first, until) = {
        let mut ledger = blocks.ledger.borrow_mut();
        (ledger.first_needed(), ledger.behind_what_waits())
    };
    let until = until.unwrap_or(journal.durable_through()).min(journal.durable_through());
    let Some(first) = first.filter(|first| *first < until) else { return Ok(()) };
    journal.keep_aside(&blocks.dir, first..until).await?;
    // A start misses it from now on, should it vanish: soon no ring has what is in it.
    let aside = aside_file(AsideName { ring: journal.name().number, first });
    blocks.generations.journal_file_made(aside).await.map_err(io::Error::other)?;
    tracing::warn!(
        shard = %blocks.shard, first = %first, until = %until,
        "kept journal blocks aside for a partition that is offline; the next start brings them to it"
    );
    blocks.ledger.borrow_mut().kept_aside(until);
    free(blocks, journal);
    Ok(())
}
