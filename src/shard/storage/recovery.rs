//! What earlier processes left: read once by one shard, handed to all, and given up when every log has its own.
//!
//! The first shard leads. It reads the generation tables and the journals and hands them on; each shard opens its logs,
//! which puts what the journals have of them into frames, and says for which it could not. When all have, the first one
//! keeps aside what could not be placed, removes what nobody uses any more, and releases the others: only then is a ring
//! written to again. Whatever interrupts this, the next start finds the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU16;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_journal::{
    AsideName, BlockNumber, Flushing, FoundAside, FoundBlocks, FoundEntry, FoundJournals, FoundRing, JournalReadError,
    LogEnd, RingName, UnreadFile,
};
use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_runtime::fs;
use ringmq_segment::{
    GenerationHistory, JournalClaim, JournalFile, Journaled, JournaledAppend, LoadError, LogId, Reserve, UnreadJournal,
};
use ringmq_wire::ShardIndex;

use super::{GENERATIONS, JOURNALS, JournalSettings, Storage, reserves};

/// What was found when the process started. It is the same for all shards.
#[derive(Clone, Debug)]
pub(super) struct FoundStorage {
    pub(super) generations: GenerationHistory,
    pub(super) journals: Arc<Journals>,
}

/// What the journals hold, and which log it is of.
#[derive(Debug, Default)]
pub(crate) struct Journals {
    pub(crate) found: FoundJournals,
    /// Files that should be there and are not, with what they had.
    pub(crate) vanished: Vec<JournalFile>,
    /// Files that are not there either, but what is lost of the tables may say that they were removed.
    pub(crate) unaccounted: Vec<JournalFile>,
    /// What the generation tables say.
    history: GenerationHistory,
    /// The same, but their ring still has what was copied to them.
    to_be_copied: Vec<JournalFile>,
    by_log: BTreeMap<LogId, Journaled>,
    /// A file that cannot be read, and may have something of any log.
    unread: Option<Arc<UnreadJournal>>,
    /// Something was lost, of nobody knows which log.
    lost_unknown: bool,
    /// Logs that may have something in them, and that the metadata did not have when the process started.
    kept_for_next_start: BTreeSet<LogId>,
}

/// How a shard takes part in the recovery of what all have in common.
#[derive(Debug)]
pub(crate) enum RecoveryLink {
    /// This shard reads, and decides what may go.
    Lead(Vec<Follower>),
    /// Another one does.
    Follow(Leader),
}

/// A shard as the first one sees it.
#[derive(Debug)]
pub(crate) struct Follower {
    found: OneshotSender<FoundStorage>,
    opened: OneshotReceiver<Offline>,
    released: OneshotSender<RingsKept>,
}

/// The first shard as another one sees it.
#[derive(Debug)]
pub(crate) struct Leader {
    found: OneshotReceiver<FoundStorage>,
    opened: OneshotSender<Offline>,
    released: OneshotReceiver<RingsKept>,
}

/// Rings that stay as they are until the next start.
type RingsKept = BTreeSet<RingName>;

/// Logs that could not be opened, and whether the generation tables settle what became of their ends.
type Offline = BTreeMap<LogId, bool>;

/// Which ring a shard goes on with.
pub(super) enum RingChoice {
    /// One that was found; nothing in it is needed any more.
    Found(FoundRing),
    /// A new one.
    New,
}

/// Why the start is given up.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The generation tables cannot be used.
    #[error(transparent)]
    Generations(#[from] LoadError),
    /// The journals cannot be read.
    #[error(transparent)]
    Journals(#[from] JournalReadError),
    /// Another shard has given up; its own error says why.
    #[error("another shard could not start")]
    GivenUp,
}

/// The links of that many shards, by index.
pub(crate) fn link(shard_count: u16) -> Vec<RecoveryLink> {
    let (followers, leaders): (Vec<_>, Vec<_>) = (1..shard_count)
        .map(|_| {
            let (found, follower_found) = channel::oneshot();
            let (follower_opened, opened) = channel::oneshot();
            let (released, follower_released) = channel::oneshot();
            let leader = Leader { found: follower_found, opened: follower_opened, released: follower_released };
            (Follower { found, opened, released }, RecoveryLink::Follow(leader))
        })
        .unzip();
    std::iter::once(RecoveryLink::Lead(followers)).chain(leaders).collect()
}

/// What remains to be done of the recovery when a shard's logs are open.
pub(crate) enum Opened {
    Lead(Vec<(OneshotReceiver<Offline>, OneshotSender<RingsKept>)>),
    Follow(OneshotSender<Offline>, OneshotReceiver<RingsKept>),
}

impl Storage {
    /// Reads what is there, or gets it from the shard that reads it.
    ///
    /// # Errors
    /// When it cannot be read: without it nobody can tell what was acknowledged.
    pub(crate) async fn open(
        data_dir: &Path,
        shard: ShardIndex,
        cache_bytes: usize,
        settings: JournalSettings,
        link: RecoveryLink,
    ) -> Result<(Rc<Self>, Opened), RecoveryError> {
        let reserve = reserves::reserve_of(data_dir, shard).await;
        let (found, opened) = match link {
            RecoveryLink::Lead(followers) => {
                let found = FoundStorage::read(data_dir, &reserve).await?;
                let hand_on = |follower: Follower| {
                    // A shard that has given up does not need it.
                    let _ = follower.found.send(found.clone());
                    (follower.opened, follower.released)
                };
                let followers = followers.into_iter().map(hand_on).collect();
                (found, Opened::Lead(followers))
            }
            RecoveryLink::Follow(Leader { found, opened, released }) => {
                let found = found.await.map_err(|_| RecoveryError::GivenUp)?;
                (found, Opened::Follow(opened, released))
            }
        };
        Ok((Rc::new(Self::new(data_dir, shard, cache_bytes, settings, reserve, found)), opened))
    }

    /// This shard's logs are open, but for those `offline`. Waits for the other shards, and begins the next life of the
    /// ring. What the journals have of a partition is dropped only where `is_known` says that the metadata tells what
    /// became of it: it lives, or was deleted with its topic.
    ///
    /// # Errors
    /// When another shard gives up.
    pub(crate) async fn finish(
        self: &Rc<Self>,
        opened: Opened,
        offline: BTreeSet<LogId>,
        is_known: impl Fn(LogId) -> bool,
    ) -> Result<(), RecoveryError> {
        let journals = self.found.take();
        let for_next_start = journals.for_next_start(self.logs.generations.logs(), &is_known);
        *self.found.borrow_mut() = Arc::new(for_next_start);
        let settled = |id: LogId| (id, self.logs.generations.is_settled(id));
        let offline: Offline = offline.into_iter().map(settled).collect();
        let kept = match opened {
            Opened::Lead(followers) => self.lead(&journals, followers, offline, is_known).await?,
            Opened::Follow(tell, released) => {
                tell.send(offline).map_err(|_| RecoveryError::GivenUp)?;
                released.await.map_err(|_| RecoveryError::GivenUp)?
            }
        };
        // Before a ring is made, and anything is appended.
        self.keep_reserve().await;
        for flushing in [Flushing::Each, Flushing::Relaxed] {
            let chosen = self.chosen(&journals.found, self.shard, flushing, &kept);
            let choice = chosen.map_or(RingChoice::New, |ring| RingChoice::Found(ring.clone()));
            self.start_journal(flushing, choice).await;
        }
        Ok(())
    }

    async fn lead(
        &self,
        journals: &Journals,
        followers: Vec<(OneshotReceiver<Offline>, OneshotSender<RingsKept>)>,
        mut offline: Offline,
        is_known: impl Fn(LogId) -> bool,
    ) -> Result<RingsKept, RecoveryError> {
        let mut shards = vec![self.shard];
        let mut releases = Vec::new();
        for (index, (opened, released)) in (1..).zip(followers) {
            offline.extend(opened.await.map_err(|_| RecoveryError::GivenUp)?);
            shards.push(ShardIndex::new(index));
            releases.push(released);
        }
        reserves::remove_beyond(&self.data_dir, shard_count(&shards)).await;
        let mut all_recorded = true;
        if journals.lost_unknown {
            all_recorded &= self.suspect_unknown(&mut offline, &is_known).await;
        }
        if !journals.vanished.is_empty() {
            all_recorded &= self.suspect_unsettled(&mut offline).await;
            // Of these nobody knows whether it concerns them.
            all_recorded &= !offline.keys().any(|id| self.logs.generations.is_in_doubt(*id));
        }
        let is_unplaced = |id: LogId| offline.contains_key(&id) || !is_known(id);
        let is_open_question =
            |id: LogId| offline.get(&id) == Some(&false) || !is_known(id) && !self.logs.generations.is_settled(id);
        let any_unsettled = offline.values().any(|settled| !settled);
        // What alone tells of acknowledged records of a log that they are lost (rule 6 of the storage protocol).
        let is_evidence = |blocks: &FoundBlocks| {
            let mut lost = blocks.lost.iter().map(log_of_end);
            blocks.lost_unknown && any_unsettled || lost.any(is_open_question)
        };
        let mut kept = keep_evidence(&journals.found, is_evidence);
        let made = self.keep_aside(&journals.found, is_unplaced, &mut kept).await;
        let found = &journals.found;
        let chosen = |shard: &ShardIndex| {
            [Flushing::Each, Flushing::Relaxed].map(|flushing| self.chosen(found, *shard, flushing, &kept))
        };
        let chosen = shards.iter().flat_map(chosen).flatten().map(|ring| ring.name);
        let stay: BTreeSet<_> = chosen.chain(kept.iter().copied()).collect();
        let is_needed =
            |blocks: &FoundBlocks| blocks.entries.iter().any(|entry| is_unplaced(log_of(entry))) || is_evidence(blocks);
        let is_needed = |aside: &FoundAside| is_needed(&aside.blocks) || made.contains(&aside_file(aside.name));
        self.remove_what_is_placed(found, &is_needed, &stay).await;
        let asides = found.asides.iter().filter(|aside| is_needed(aside)).map(|aside| aside_file(aside.name));
        let unread = found.unread.iter().map(unread_file);
        self.note(asides.chain(kept.iter().copied().map(ring_file)).chain(unread)).await;
        if all_recorded {
            let missing = journals.vanished.iter().chain(&journals.to_be_copied);
            self.forget(missing.filter(|file| !made.contains(file))).await;
        }
        for release in releases {
            // A shard that has given up does not need it.
            let _ = release.send(kept.clone());
        }
        Ok(kept)
    }

    /// The journals lost something, of nobody knows which logs: it may be of those that nobody opens, because the metadata
    /// does not know them. Whether all is recorded.
    async fn suspect_unknown(&self, offline: &mut Offline, is_known: impl Fn(LogId) -> bool) -> bool {
        let unknown: Vec<LogId> = self.logs.generations.logs().filter(|id| !is_known(*id)).collect();
        self.suspect(unknown, offline).await
    }

    /// A file that vanished is held against the logs of now, and no start misses it again: against those that come later it
    /// would be wrong. So it is against those that cannot be judged now. Whether all is recorded.
    async fn suspect_unsettled(&self, offline: &mut Offline) -> bool {
        let unsettled: Vec<LogId> = offline.iter().filter(|(_, settled)| !**settled).map(|(id, _)| *id).collect();
        self.suspect(unsettled, offline).await
    }

    /// Those whose end is not settled are damaged. One that the tables do not know is refused anyway.
    async fn suspect(&self, logs: Vec<LogId>, offline: &mut Offline) -> bool {
        let generations = &self.logs.generations;
        let mut all_recorded = true;
        for id in logs {
            match generations.suspect(id).await {
                Ok(()) => _ = offline.entry(id).and_modify(|settled| *settled = generations.is_settled(id)),
                Err(error) => {
                    tracing::error!(partition = %id, %error, "cannot record that the journal may have lost records");
                    offline.insert(id, false);
                    all_recorded = false;
                }
            }
        }
        all_recorded
    }

    /// The ring that a shard goes on with, of those that were found.
    fn chosen<'a>(
        &self,
        found: &'a FoundJournals,
        shard: ShardIndex,
        flushing: Flushing,
        kept: &RingsKept,
    ) -> Option<&'a FoundRing> {
        let wanted = self.settings.append_bytes_max > 0;
        let fits = |ring: &&FoundRing| {
            (ring.name.shard, ring.name.flushing) == (shard, flushing) && ring.bytes == self.settings.ring.ring_bytes
        };
        found.rings.iter().filter(|ring| wanted && !kept.contains(&ring.name)).find(fits)
    }

    /// Copies the blocks with entries that could not be placed. A ring of which that fails is `kept` as it is. The files that
    /// were made.
    async fn keep_aside(
        &self,
        found: &FoundJournals,
        is_unplaced: impl Fn(LogId) -> bool,
        kept: &mut RingsKept,
    ) -> BTreeSet<JournalFile> {
        let mut made = BTreeSet::new();
        for ring in found.rings.iter() {
            if kept.contains(&ring.name) {
                continue;
            }
            let mut unplaced = ring.blocks.entries.iter().filter(|entry| is_unplaced(log_of(entry)));
            let Some(first) = unplaced.next() else { continue };
            let ring_file = ring.name.file_name();
            let dir = self.journals_dir();
            let copy = async || ringmq_journal::keep_aside(&dir, ring, first.block..ring.next).await;
            let copied = self.logs.reserve.lend("to keep a part of the journal aside", fs::is_full, copy).await;
            let aside = aside_file(AsideName { ring: ring.name.number, first: first.block });
            let kept_aside = match copied {
                Ok(()) => self.logs.generations.journal_file_made(aside).await.map_err(io::Error::other),
                Err(error) => Err(error),
            };
            match kept_aside {
                Ok(()) => {
                    made.insert(aside);
                    tracing::warn!(
                        ring = %ring_file, log = %log_of(first),
                        "the journal has records of a partition that is offline or not in the metadata; they are kept aside"
                    );
                }
                Err(error) => {
                    tracing::error!(
                        ring = %ring_file, log = %log_of(first), %error,
                        "the journal has records of a partition that is offline or not in the metadata, and they cannot be \
                         kept aside: the ring stays as it is, and is read again by the next start"
                    );
                    kept.insert(ring.name);
                }
            }
        }
        made
    }

    /// Removes files of which nothing is needed any more.
    async fn remove_what_is_placed(
        &self,
        found: &FoundJournals,
        is_needed: impl Fn(&FoundAside) -> bool,
        stay: &BTreeSet<RingName>,
    ) {
        let dir = self.journals_dir();
        let told = |name: String, removed: io::Result<()>| {
            if let Err(error) = removed {
                tracing::warn!(file = %name, %error, "cannot remove a journal file that is not needed any more");
            }
        };
        for aside in found.asides.iter().filter(|aside| !is_needed(aside)) {
            let remove = async || ringmq_journal::remove_aside(&dir, aside).await;
            told(aside.name.file_name(), self.forget_and(aside_file(aside.name), remove).await);
        }
        for ring in found.rings.iter().filter(|ring| !stay.contains(&ring.name)) {
            told(ring.name.file_name(), self.remove_ring(ring.name).await);
        }
    }

    /// Removes a ring of which nothing is needed.
    pub(super) async fn remove_ring(&self, name: RingName) -> io::Result<()> {
        let dir = self.journals_dir();
        self.forget_and(ring_file(name), async || ringmq_journal::remove_ring(&dir, name).await).await
    }

    /// Nobody is to miss the file from before it is removed.
    async fn forget_and(&self, file: JournalFile, remove: impl AsyncFnOnce() -> io::Result<()>) -> io::Result<()> {
        self.logs.generations.journal_file_gone(file).await.map_err(io::Error::other)?;
        remove().await
    }

    /// The next start misses these files should they vanish: a broker of before, or one that was interrupted, has not said
    /// that they are there.
    async fn note(&self, files: impl Iterator<Item = JournalFile>) {
        for file in files {
            if let Err(error) = self.logs.generations.journal_file_made(file).await {
                tracing::warn!(%error, "a file of the journals would not be missed if it vanished");
            }
        }
    }

    /// Nobody misses these files any more: all that they could have had records of is judged.
    async fn forget(&self, missing: impl Iterator<Item = &JournalFile>) {
        for file in missing {
            if let Err(error) = self.logs.generations.journal_file_gone(*file).await {
                tracing::error!(
                    %error,
                    "the next start will miss the same file of the journals again, and hold it against partitions that are \
                     in use then: stop the broker cleanly"
                );
            }
        }
    }
}

/// Rings that stay as they are, because of what they tell of logs that could not be judged.
fn keep_evidence(found: &FoundJournals, is_evidence: impl Fn(&FoundBlocks) -> bool) -> RingsKept {
    let tell = |ring: &FoundRing| {
        tracing::error!(
            ring = %ring.name.file_name(),
            "blocks of the journal are damaged that had acknowledged records of a partition which cannot be judged now: the \
             ring stays as it is, and is read again by the next start"
        );
        ring.name
    };
    found.rings.iter().filter(|ring| is_evidence(&ring.blocks)).map(tell).collect()
}

fn shard_count(shards: &[ShardIndex]) -> NonZeroU16 {
    u16::try_from(shards.len()).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MAX)
}

impl FoundStorage {
    async fn read(data_dir: &Path, reserve: &Reserve) -> Result<Self, RecoveryError> {
        let tables = data_dir.join(GENERATIONS);
        let generations = GenerationHistory::load_with_reserve(&tables, reserve).await?;
        let found = ringmq_journal::read_journals(&data_dir.join(JOURNALS)).await?;
        let journals = Journals::new(found, generations.clone());
        generations.note_missing(&tables, &journals.unaccounted).await?;
        Ok(Self { generations, journals: Arc::new(journals) })
    }
}

impl Journals {
    /// What was found of those files that should be there, as far as the tables tell.
    pub(crate) fn new(found: FoundJournals, history: GenerationHistory) -> Self {
        let rings = found.rings.iter().map(|ring| ring_file(ring.name));
        let there: BTreeSet<_> = rings.chain(found.asides.iter().map(|aside| aside_file(aside.name))).collect();
        let ring_has = |file: &JournalFile| {
            let has = |first: u64, ring: &FoundRing| ring.name.number.get() == file.ring && ring.floor.get() <= first;
            file.aside.is_some_and(|first| found.rings.iter().any(|ring| has(first, ring)))
        };
        // Whether such a file is needed is known when its ring can be read.
        let is_unread = |file: &JournalFile| {
            found.unread.iter().any(|unread| {
                unread.ring.get() == file.ring && (unread.aside.is_none() || unread_file(unread) == *file)
            })
        };
        let missing = history.journal_files().filter(|file| !there.contains(file) && !is_unread(file));
        let (to_be_copied, missing): (Vec<_>, Vec<_>) = missing.partition(ring_has);
        // What is lost of the tables may say that they were removed: no verdict, and they are missed again.
        let (unaccounted, vanished) =
            if history.lost_of_cores().is_some() { (missing, Vec::new()) } else { (Vec::new(), missing) };
        for file in &unaccounted {
            tracing::error!(
                %file,
                "this file of the journals is missing, and what is lost of the generation tables may say that it was removed: \
                 partitions that were in use then, and not stopped cleanly, stay offline until the tables are restored"
            );
        }
        for UnreadFile { path, why, .. } in &found.unread {
            tracing::error!(
                file = %path.display(), %why,
                "a file of the journals cannot be read, and nobody knows whose records are in it: partitions that were not \
                 stopped cleanly stay offline. It stays as it is, and is read again by the next start"
            );
        }
        for file in &vanished {
            tracing::error!(
                %file,
                "this file is missing in the directory of the journals; acknowledged records may have been there alone"
            );
        }
        let (mut by_log, mut lost_unknown) = (BTreeMap::<LogId, Journaled>::new(), false);
        let asides = found.asides.iter().map(|aside| &aside.blocks);
        for blocks in asides.chain(found.rings.iter().map(|ring| &ring.blocks)) {
            let FoundBlocks { entries, missing: _, lost, lost_unknown: unknown, frames_ends } = blocks;
            for entry in entries {
                by_log.entry(log_of(entry)).or_default().appends.push(append(entry));
            }
            for end in lost {
                by_log.entry(log_of_end(end)).or_default().lost_ends.push(claim(end));
            }
            for end in frames_ends {
                by_log.entry(log_of_end(end)).or_default().frames_ends.push(claim(end));
            }
            lost_unknown |= unknown;
        }
        for journaled in by_log.values_mut() {
            // What was kept aside is older than what is in a ring, and another core may have had the log since.
            journaled.appends.sort_by_key(|append| append.base_offset);
        }
        lost_unknown |= !vanished.is_empty();
        if lost_unknown {
            tracing::error!(
                "acknowledged blocks of the journal are damaged or gone, and what would tell whose records they had is as well: \
                 partitions that were not stopped cleanly stay offline"
            );
        }
        let unread = found.unread.first().map(|unread| UnreadJournal::Unreadable { path: unread.path.clone() });
        let (unread, kept_for_next_start) = (unread.map(Arc::new), BTreeSet::new());
        Self { found, vanished, unaccounted, history, to_be_copied, by_log, unread, lost_unknown, kept_for_next_start }
    }

    /// What is left of them when every log of the metadata has its own. A partition that the metadata lacks, and gets again
    /// in this life, would begin anew without what the next start gives it (rule 6 of the storage protocol).
    fn for_next_start(&self, in_tables: impl Iterator<Item = LogId>, is_known: impl Fn(LogId) -> bool) -> Self {
        let may_be_anyones = self.lost_unknown || self.unread.is_some() || !self.unaccounted.is_empty();
        let concerned = self.by_log.keys().copied().chain(in_tables.filter(|_| may_be_anyones));
        Self { kept_for_next_start: concerned.filter(|id| !is_known(*id)).collect(), ..Self::default() }
    }

    /// A file that may have been lost, and may have something of the log.
    fn missing_of(&self, id: LogId) -> Option<Arc<UnreadJournal>> {
        let file = *self.unaccounted.iter().find(|file| !self.history.went_on_without(**file, id))?;
        let lost = self.history.lost_of_cores()?.clone();
        Some(Arc::new(UnreadJournal::Missing { file, lost }))
    }

    /// What they have of a log.
    pub(crate) fn of(&self, id: LogId) -> Journaled {
        let journaled = self.by_log.get(&id).cloned().unwrap_or_default();
        Journaled {
            lost_unknown: self.lost_unknown,
            unread: self.unread.clone().or_else(|| self.missing_of(id)),
            kept_for_next_start: self.kept_for_next_start.contains(&id),
            ..journaled
        }
    }
}

/// A ring, as the generation tables speak of it.
pub(super) fn ring_file(name: RingName) -> JournalFile {
    JournalFile { ring: name.number.get(), aside: None }
}

fn unread_file(unread: &UnreadFile) -> JournalFile {
    JournalFile { ring: unread.ring.get(), aside: unread.aside.map(BlockNumber::get) }
}

pub(super) fn aside_file(name: AsideName) -> JournalFile {
    JournalFile { ring: name.ring.get(), aside: Some(name.first.get()) }
}

fn log_of(entry: &FoundEntry) -> LogId {
    LogId { topic_id: entry.header.topic_id, partition: entry.header.partition }
}

fn log_of_end(end: &LogEnd) -> LogId {
    LogId { topic_id: end.topic_id, partition: end.partition }
}

fn claim(end: &LogEnd) -> JournalClaim {
    JournalClaim { generation: end.generation, offset: end.offset }
}

fn append(entry: &FoundEntry) -> JournaledAppend {
    JournaledAppend {
        log_number: entry.header.log_number,
        generation: entry.header.generation,
        base_offset: entry.header.base_offset,
        next_offset: entry.header.next_offset,
        batches: entry.payload.clone(),
    }
}
