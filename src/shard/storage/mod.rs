//! One core's storage: what its logs share, its journals, and what goes between them.
//!
//! There are two: one whose blocks are durable when they are written, and one with relaxed flush for the topics that
//! chose a flush interval, prepared when the first of these gets an append.
//!
//! | what | module |
//! |---|---|
//! | small appends on their way into journal blocks, and back as durable | `blocks` |
//! | which blocks are needed for which logs; making logs put them into frames | `checkpoints` |
//! | what the journals of an earlier process have, brought to the logs; the ring's next life | `recovery` |
//! | what is kept for a full disk | `reserves` |
//!
//! A log hands its small appends over in a queue and knows nothing of the journal; the journal holds opaque entries and
//! knows nothing of logs (`docs/storage-protocol.md`).

mod blocks;
mod checkpoints;
mod recovery;
mod reserves;
#[cfg(test)]
mod scenarios;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_journal::{Flushing, Journal, JournalConfig, Ring};
use ringmq_runtime::task::{self, Gate, Stop, StopHandle};
use ringmq_runtime::time;
use ringmq_segment::{Generations, JournalQueue, Journaling, LogDeps, LogId, RecordError, Reserve, TailCache};
use ringmq_wire::ShardIndex;

pub use recovery::RecoveryError;
pub(crate) use recovery::{Opened, RecoveryLink, link};

use self::blocks::{Block, Blocks};
pub(crate) use self::recovery::Journals;
use self::recovery::{FoundStorage, RingChoice, ring_file};

/// The directory of the generation tables, within the data directory.
pub(crate) const GENERATIONS: &str = "generations";
/// The directory of the journals, within the data directory.
pub(crate) const JOURNALS: &str = "journals";
/// After this long a ring that could not be prepared is tried again.
const PREPARE_AGAIN: Duration = Duration::from_secs(30);

/// How the journal of one core is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSettings {
    /// Appends of up to so many bytes go by the journal; 0 is: none, and there is no journal. At most a third of
    /// a block. Default: 32 KiB.
    pub append_bytes_max: usize,
    /// The ring.
    pub ring: JournalConfig,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { append_bytes_max: 32 << 10, ring: JournalConfig::default() }
    }
}

/// One core's storage.
pub(crate) struct Storage {
    pub(crate) data_dir: PathBuf,
    /// What logs are opened with.
    pub(crate) logs: LogDeps,
    shard: ShardIndex,
    settings: JournalSettings,
    /// What the journals have that no frame may have, until every log has been given its own.
    found: RefCell<Arc<Journals>>,
    /// Those in use, at most one of each kind.
    journals: RefCell<Vec<Rc<Blocks>>>,
    tasks: Gate,
    stop: (StopHandle, Stop),
}

impl Storage {
    fn new(
        data_dir: &Path,
        shard: ShardIndex,
        cache_bytes: usize,
        settings: JournalSettings,
        reserve: Reserve,
        found: FoundStorage,
    ) -> Self {
        let tables = data_dir.join(GENERATIONS);
        let generations = Generations::with_reserve(&tables, shard, found.generations, reserve.clone());
        Self {
            data_dir: data_dir.to_owned(),
            // The queues are opened when there are journals.
            logs: LogDeps { reserve, ..LogDeps::without_journal(generations, TailCache::new(cache_bytes)) },
            shard,
            settings,
            found: RefCell::new(found.journals),
            journals: RefCell::default(),
            tasks: Gate::new(),
            stop: task::stop(),
        }
    }

    /// Keeps space for a full disk, as far as there is any; says so where there is not.
    pub(crate) async fn keep_reserve(&self) {
        if let Err(error) = self.logs.reserve.fill().await {
            tracing::warn!(
                shard = %self.shard, %error,
                "no space can be kept for deletions and starts on a full disk; until it can, appends get none either"
            );
        }
    }

    fn journals_dir(&self) -> PathBuf {
        self.data_dir.join(JOURNALS)
    }

    /// What the journals have of a log that is opened now.
    pub(crate) fn journaled(&self, id: LogId) -> ringmq_segment::Journaled {
        self.found.borrow().of(id)
    }

    /// The way to one of the journals.
    fn queue(&self, flushing: Flushing) -> &JournalQueue {
        match flushing {
            Flushing::Each => &self.logs.journal,
            Flushing::Relaxed => &self.logs.relaxed_journal,
        }
    }

    /// Takes the ring up again that was found, or prepares one in the background: the relaxed one when it is wanted.
    /// Until there is one, appends go straight to their segments, or by the other one.
    async fn start_journal(self: &Rc<Self>, flushing: Flushing, choice: RingChoice) {
        if self.settings.append_bytes_max == 0 {
            return;
        }
        match self.resume(choice).await {
            Ok(Some(ring)) => match self.begin(ring).await {
                Ok(()) => return,
                Err(error) => self.tell_failure("write to", &error),
            },
            Ok(None) => {}
            Err(error) => self.tell_failure("take up", &error),
        }
        let storage = self.clone();
        // Open until the storage is closed.
        let _ = self.tasks.spawn_background("journal-prepare", async move { storage.prepare(flushing).await });
    }

    async fn resume(&self, choice: RingChoice) -> io::Result<Option<Ring>> {
        let RingChoice::Found(found) = choice else { return Ok(None) };
        let ring = Ring::resume(&self.journals_dir(), &found, &self.settings.ring).await?;
        if ring.is_none() {
            self.remove_ring(found.name).await?;
        }
        Ok(ring)
    }

    async fn prepare(self: Rc<Self>, flushing: Flushing) {
        if flushing == Flushing::Relaxed {
            let _ = self.stop.1.or_stop(self.queue(flushing).wanted()).await;
        }
        while !self.stop.1.is_stopped() {
            let prepared = async {
                // A ring is for speed; what the reserve is for goes before it.
                self.logs.reserve.fill().await?;
                let dir = self.journals_dir();
                let ring = Ring::prepare(&dir, self.shard, flushing, &self.settings.ring).await?;
                let name = ring.name();
                let begun = self.begin(ring).await;
                if begun.as_ref().is_err_and(|error| !table_failed(error)) {
                    // Nothing is in it, and the next attempt makes another.
                    let _ = self.remove_ring(name).await;
                }
                begun
            };
            match prepared.await {
                Ok(()) => return,
                Err(error) => {
                    self.tell_failure("prepare", &error);
                    if table_failed(&error) {
                        return;
                    }
                }
            }
            let _ = self.stop.1.or_stop(time::sleep(PREPARE_AGAIN)).await;
        }
    }

    fn tell_failure(&self, what: &str, error: &io::Error) {
        tracing::error!(shard = %self.shard, %error, "cannot {what} the journal; appends go straight to their segments");
    }

    /// The ring's first block frees what was found in it: all of that is in durable frames, or aside.
    async fn begin(self: &Rc<Self>, ring: Ring) -> io::Result<()> {
        // A start misses it from now on, should it vanish.
        self.logs.generations.journal_file_made(ring_file(ring.name())).await.map_err(io::Error::other)?;
        let flushing = ring.name().flushing;
        let queue = self.queue(flushing).clone();
        let generations = self.logs.generations.clone();
        let blocks = Blocks::new(self.shard, flushing, self.journals_dir(), queue.clone(), generations);
        let (durable, failed) = (|_, block: Block| block.iter().for_each(Journaling::journaled), blocks.clone());
        let failed = move |error: Arc<io::Error>, lost| failed.fail(&error, lost);
        let journal = Journal::start(ring, self.settings.ring.clone(), durable, failed).await?;
        if flushing == Flushing::Relaxed {
            journal.tell_written(|block: Block| block.iter().for_each(Journaling::written));
        }
        tracing::info!(shard = %self.shard, ring = %journal.name().file_name(), "the journal is in use");
        blocks.run(journal, &self.tasks, &self.stop.1);
        queue.open(self.settings.append_bytes_max.min(self.settings.ring.entry_bytes_max()));
        self.journals.borrow_mut().push(blocks);
        Ok(())
    }

    /// How full the journals are, and what waits for them, by name.
    pub(crate) fn journal_gauges(&self) -> [(&'static str, u64); 6] {
        let journals = self.journals.borrow();
        let ring_use = |flushing| {
            let blocks = journals.iter().find(|blocks| blocks.flushing == flushing);
            blocks.and_then(|blocks| blocks.ring_use()).unwrap_or_default()
        };
        let waiting = |flushing| self.queue(flushing).len() as u64;
        let ((used, ring), (relaxed_used, relaxed_ring)) = (ring_use(Flushing::Each), ring_use(Flushing::Relaxed));
        [
            ("journal_used_bytes", used),
            ("journal_ring_bytes", ring),
            ("journal_appends_waiting", waiting(Flushing::Each)),
            ("relaxed_journal_used_bytes", relaxed_used),
            ("relaxed_journal_ring_bytes", relaxed_ring),
            ("relaxed_journal_appends_waiting", waiting(Flushing::Relaxed)),
        ]
    }

    /// Closes the journals. All logs are closed, so nothing in them is needed, but for logs that went offline.
    pub(crate) async fn close(&self) {
        self.stop.0.stop();
        self.tasks.close().await;
        let journals = self.journals.take();
        for blocks in journals {
            blocks.close().await;
        }
    }
}

/// Whether the generation table failed: nothing is recorded by this core until the next start, and whether the last entry
/// is in it nobody knows. A file that it may speak of stays where it is.
fn table_failed(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(RecordError::Failed(_)))
}
