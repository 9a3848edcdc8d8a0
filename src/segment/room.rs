//! Making room for the next frame: the first segment, the generation, space in the file, the next segment.
//!
//! Everything here comes before an offset is assigned. Where the disk is full nothing was written and nothing is in
//! doubt (rule 13 of the storage protocol).

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::fs::Dir;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::{fs, random};
use ringmq_wire::Offset;

use crate::frame::{Generation, LogNumber};
use crate::generation::{Fact, LogGenerations, RecordError};
use crate::layout::FileKind;
use crate::producer_snapshots;
use crate::producers::ProducerSnapshot;
use crate::segment::{ActiveSegment, Indexes, OpenSegment, Segment};
use crate::state::LogCore;

/// A segment's file grows by its own length, but at least and at most by so many bytes: an idle log costs little, and
/// a busy one grows seldom.
const GROWTH_BYTES_MIN: u64 = 64 << 10;
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// So many offsets are reserved at a time in a log that shows records before they are durable: after a stop that was not
/// clean, at most so many are skipped. It costs a write of the generation table for every so many records.
const RESERVED_OFFSETS: u64 = 1 << 20;

/// Why there is no room for a frame.
pub(crate) enum NoRoom {
    /// The disk is full. Nothing was written.
    Full(Arc<io::Error>),
    /// Something else is missing, such as a file descriptor. Nothing was written.
    NotReady(Arc<io::Error>),
    /// A flush failed: what is on the disk is not known.
    Broken { action: &'static str, source: io::Error },
}

impl NoRoom {
    /// What the file system says.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            NoRoom::Full(source) | NoRoom::NotReady(source) => io::Error::new(source.kind(), source),
            NoRoom::Broken { source, .. } => source,
        }
    }

    /// Of a failure before anything was written.
    pub(crate) fn before_writing(error: io::Error) -> NoRoom {
        if fs::is_full(&error) { NoRoom::Full(Arc::new(error)) } else { NoRoom::NotReady(Arc::new(error)) }
    }
}

/// Creates the log's first segment. Its name and those of the directories above are durable before the generation
/// table speaks of the log.
pub(crate) async fn begin(log: &LogCore) -> Result<(), NoRoom> {
    fs::create_dir_all(&log.dir).await.map_err(NoRoom::before_writing)?;
    let above = [open_dir(&log.id.topic_dir(&log.root)).await?, open_dir(&log.root).await?];
    let active = create_segment(log, Offset::ZERO).await?;
    // Also where the directories were there: the log that created them may not have come to this yet.
    for dir in &above {
        sync_dir(dir).await?;
    }
    log.state.borrow_mut().active = Some(active);
    Ok(())
}

/// Whatever can be missing for a flush is asked for before anything is changed: what fails then can be tried again.
pub(crate) async fn open_dir(path: &Path) -> Result<Dir, NoRoom> {
    Dir::open(path).await.map_err(NoRoom::before_writing)
}

pub(crate) async fn sync_dir(dir: &Dir) -> Result<(), NoRoom> {
    dir.sync().await.map_err(|source| NoRoom::Broken { action: "flush the directory of", source })
}

/// Makes (generation, start offset) durable before the first frame of this opening (rule 2 of the storage protocol).
pub(crate) async fn raise_generation(log: &LogCore) -> Result<(), NoRoom> {
    if log.state.borrow().active.as_ref().is_some_and(|active| active.taken_over) {
        sync_dir(&open_dir(&log.dir).await?).await?;
    }
    let (mut known, generation, start) = {
        let state = log.state.borrow();
        let start = state.end;
        match &state.generations {
            Some(known) => (LogGenerations::clone(known), known.latest().0.next(), start),
            None => (LogGenerations::new(LogNumber(random::u64()), Generation::FIRST, start), Generation::FIRST, start),
        }
    };
    let opened = Fact::Opened { id: log.id, number: known.number(), generation, start };
    record(log, opened, "raise the generation of").await?;
    known.opened(generation, start);
    let mut state = log.state.borrow_mut();
    state.generations = Some(Rc::new(known));
    state.generation = Some(generation);
    Ok(())
}

async fn record(log: &LogCore, fact: Fact, action: &'static str) -> Result<(), NoRoom> {
    log.generations.record(fact).await.map_err(|error| match error {
        RecordError::StorageFull(error) => NoRoom::Full(error),
        RecordError::NotReady(error) => NoRoom::NotReady(error),
        RecordError::Failed(error) => NoRoom::Broken { action, source: io::Error::new(error.kind(), error) },
    })
}

/// Records that offsets up to so many beyond `until` may be shown before they are durable.
pub(crate) async fn reserve(log: &LogCore, until: Offset) -> Result<(), NoRoom> {
    let number = log.state.borrow().generations.as_ref().map(|known| known.number());
    let Some(number) = number else { return Ok(()) };
    let until = until.checked_add(RESERVED_OFFSETS).unwrap_or(Offset::MAX);
    record(log, Fact::Reserved { id: log.id, number, until }, "reserve offsets of").await?;
    if let Some(known) = &mut log.state.borrow_mut().generations {
        Rc::make_mut(known).reserved(until);
    }
    Ok(())
}

/// Reserves more offsets in good time, so that no append waits for it.
pub(crate) fn reserve_ahead(log: &Rc<LogCore>) {
    let end = {
        let mut state = log.state.borrow_mut();
        let ahead = state.end.checked_add(RESERVED_OFFSETS / 2).unwrap_or(Offset::MAX);
        if state.reserving || state.reserved_until() >= ahead {
            return;
        }
        state.reserving = true;
        state.end
    };
    let reserving = {
        let log = log.clone();
        async move {
            if let Err(no_room) = reserve(&log, end).await {
                let error = no_room.into_io();
                tracing::warn!(partition = %log.id, %error, "cannot reserve offsets; tried again when they are needed");
            }
            log.state.borrow_mut().reserving = false;
        }
    };
    // The gate is closed only after the last append.
    let spawned = log.gate.spawn("log-reserve", reserving);
    debug_assert!(spawned.is_ok());
}

/// Gives the active segment's file at least so many bytes.
pub(crate) async fn grow(log: &LogCore, needed: u64) -> Result<(), NoRoom> {
    let (file, room) = {
        let state = log.state.borrow();
        let Some(active) = &state.active else { return Ok(()) };
        (active.open.file.clone(), active.room)
    };
    let room = preallocate(log, &file, room, needed).await?;
    if let Some(active) = &mut log.state.borrow_mut().active {
        active.room = room;
    }
    Ok(())
}

/// Extends the file from `room` bytes to at least `needed`, and in larger steps while the disk allows it. Returns its
/// new length.
async fn preallocate(log: &LogCore, file: &File, room: u64, needed: u64) -> Result<u64, NoRoom> {
    let step = room.clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX);
    let wanted = (room + step).min(log.config().segment_bytes).max(needed);
    match file.preallocate(wanted).await {
        Ok(()) => return Ok(wanted),
        Err(error) if fs::is_full(&error) && wanted > needed => {}
        Err(error) => return Err(NoRoom::before_writing(error)),
    }
    file.preallocate(needed).await.map(|()| needed).map_err(NoRoom::before_writing)
}

/// Seals the active segment and begins the next one where the frames end. The new file exists durably
/// beforehand, and gets its first frame only when the old one is durable to its end (rule 8 of the storage protocol).
pub(crate) async fn roll(log: &Rc<LogCore>) -> Result<(), NoRoom> {
    let base = log.state.borrow().window.written();
    let next = create_segment(log, base).await?;
    if !landed_to_the_end(log).await {
        return Ok(());
    }
    let (sealed, producers) = {
        let mut state = log.state.borrow_mut();
        state.roll_asked = false;
        state.window.begin_segment();
        let sealed = state.active.replace(next);
        if let Some(sealed) = &sealed {
            sealed.segment.set_end_position(sealed.position);
            sealed.segment.set_span(sealed.open.indexes.borrow().span());
        }
        state.sealed.extend(sealed.as_ref().map(|sealed| sealed.segment.clone()));
        (sealed, producer_snapshots::take(log, &mut state))
    };
    if let Some(sealed) = sealed {
        keep_open(log, &sealed.segment);
        // Hints and left-over space: nothing waits for them, and a failure costs a rebuild later.
        let _ = log.gate.spawn_background("log-seal", finish_sealed(log.clone(), sealed, base, producers));
    }
    Ok(())
}

/// Waits until nothing is in flight; `false` when the log was given up meanwhile.
async fn landed_to_the_end(log: &LogCore) -> bool {
    loop {
        let moved = log.writer_moved.listen();
        {
            let state = log.state.borrow();
            if state.poison.is_some() {
                return false;
            }
            if state.window.in_flight() == 0 {
                return true;
            }
        }
        moved.await;
    }
}

async fn finish_sealed(log: Rc<LogCore>, sealed: ActiveSegment, end: Offset, producers: Option<ProducerSnapshot>) {
    let Some(known) = log.state.borrow().generations.clone() else { return };
    let _alone = log.indexing.acquire(1).await;
    let indexes = sealed.open.indexes.borrow().clone();
    let stored = sealed.segment.store_indexes(&indexes, &known, end, sealed.position).await;
    let cut = sealed.open.file.truncate(sealed.position).await;
    if let Err(error) = stored.and(cut) {
        let segment = sealed.segment.base;
        tracing::warn!(partition = %log.id, %segment, %error, "could not finish a sealed segment");
    }
    if let Some(snapshot) = producers {
        producer_snapshots::store(&log, &snapshot).await;
    }
}

/// Remembers that a sealed segment is open; beyond the bound of the core, the one that was used least recently is closed.
pub(crate) fn keep_open(log: &LogCore, segment: &Rc<Segment>) {
    if segment.is_pinned() || segment.is_retired() {
        return;
    }
    log.open_segments.used(segment);
}

/// A new segment without any space yet, whose name is durable.
async fn create_segment(log: &LogCore, base: Offset) -> Result<ActiveSegment, NoRoom> {
    let dir = open_dir(&log.dir).await?;
    remove_left_over(log).await.map_err(NoRoom::before_writing)?;
    let segment = Rc::new(Segment::new(&log.dir, base));
    log.state.borrow_mut().left_over = Some(segment.clone());
    let file = match create_file(&segment, &dir).await {
        Ok(file) => file,
        Err(no_room) => {
            if let Err(error) = remove_left_over(log).await {
                tracing::warn!(
                    partition = %log.id, segment = %base, %error,
                    "a segment that could not be made ready stays, empty; it is removed before the next one is made"
                );
            }
            return Err(no_room);
        }
    };
    log.state.borrow_mut().left_over = None;
    let indexes = Indexes::new(base, log.config().index_interval_bytes);
    let open = Rc::new(OpenSegment { file, indexes: indexes.into(), from_files: false });
    segment.set_opened(Some(open.clone()));
    Ok(ActiveSegment { segment, open, position: 0, room: 0, taken_over: false, indexed: 0 })
}

/// Removes what an attempt to create a segment left behind. The log may go on in the segment before, beyond the offset
/// in that file's name, and recovery knows empty files for what they are only behind all others: so this comes before
/// the next one is created.
async fn remove_left_over(log: &LogCore) -> io::Result<()> {
    let left_over = log.state.borrow().left_over.clone();
    if let Some(segment) = left_over {
        segment.remove_files().await?;
        log.state.borrow_mut().left_over = None;
    }
    Ok(())
}

async fn create_file(segment: &Segment, dir: &Dir) -> Result<File, NoRoom> {
    let file = open_new(segment).await.map_err(NoRoom::before_writing)?;
    sync_dir(dir).await?;
    Ok(file)
}

async fn open_new(segment: &Segment) -> io::Result<File> {
    let path = segment.path(FileKind::Log);
    let dsync = !SeededBug::AcknowledgeBeforeFlush.is_in();
    let options = OpenOptions { write: true, create_new: true, dsync };
    let file = match File::open_sparing(&path, options).await {
        // A process that was killed had this request under way. Nothing was written to the file: that comes later.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            segment.remove_files().await?;
            File::open_sparing(&path, options).await?
        }
        opened => opened?,
    };
    if file.try_lock_exclusive()? {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("another process has locked {}", path.display())))
    }
}
