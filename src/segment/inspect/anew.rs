//! A log that begins anew, empty, at an offset that it never had: for one whose content is kept elsewhere, and that cannot be
//! cut.
//!
//! It is a deletion of all records below that offset ([`Fact::Started`]): that entry is what counts, and whatever
//! interrupts this, the log is as before or begins anew.

use std::io;
use std::path::Path;
use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::{fs, random};
use ringmq_wire::Offset;

use super::check::list_segments;
use super::repair::{RepairError, copy_file};
use crate::check::FrameCheck;
use crate::frame::{Generation, LogNumber};
use crate::generation::{Fact, GenerationHistory, Generations};
use crate::layout::{FileKind, LogId, file_name};
use crate::recovery::Files;
use crate::scan::{FrameScanner, next_frame};

/// As [`read_log`](super::read_log), of every frame that counts, whatever is damaged before it. Returns how far the log was
/// written, as far as anything tells.
///
/// # Errors
/// When a file cannot be read; what `each` gives.
pub async fn read_around_damage<E: From<io::Error>>(
    root: &Path,
    id: LogId,
    history: &GenerationHistory,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Offset, E> {
    let Some(known) = history.of(id) else { return Ok(Offset::ZERO) };
    let (dir, generations) = (id.log_dir(root), Rc::new(known));
    let mut told = generations.proven_end();
    for base in list_segments(&dir, generations.log_start()).await? {
        let file = File::open(dir.join(file_name(base, FileKind::Log)), OpenOptions::default()).await?;
        let check = FrameCheck { id, segment_base: base, generations: generations.clone() };
        let mut scanner = FrameScanner::new(&file, check.clone(), FramePlace { offset: base, position: 0 }).await?;
        loop {
            if let Ok((header, frame)) = scanner.next_frame().await? {
                told = told.max(header.next_offset).max(header.durable_offset);
                each(&frame[header.payload_range()])?;
                continue;
            }
            let (behind, limit) = (scanner.position() + BLOCK_BYTES as u64, scanner.file_bytes());
            let next = next_frame(&file, &check, IoClass::Recovery, behind, limit).await?;
            match next.filter(|next| next.offset >= scanner.expected()) {
                Some(next) => scanner.skip_to(next),
                None => break,
            }
        }
        file.close().await?;
    }
    Ok(told)
}

/// Where a log begins anew. Nothing is changed before [`NewBeginning::carry_out`].
#[derive(Debug)]
pub struct NewBeginning {
    id: LogId,
    at: Offset,
    number: LogNumber,
    is_known: bool,
}

impl NewBeginning {
    /// Behind everything that the log ever had, and behind `written`.
    ///
    /// # Errors
    /// When its files cannot be listed.
    pub async fn behind(
        root: &Path,
        id: LogId,
        history: &GenerationHistory,
        written: Offset,
    ) -> io::Result<NewBeginning> {
        let known = history.of(id);
        let files = Files::list(&id.log_dir(root)).await?;
        let told = known.iter().map(|known| known.proven_end().max(known.latest().1));
        let last = files.named.last().copied().into_iter().chain(told).fold(written, Offset::max);
        let at = last.checked_add(1).ok_or_else(|| io::Error::other("the log is full"))?;
        let number = known.as_ref().map_or_else(|| LogNumber(random::u64()), |known| known.number());
        Ok(NewBeginning { id, at, number, is_known: known.is_some() })
    }

    /// The offset.
    #[must_use]
    pub fn at(&self) -> Offset {
        self.at
    }

    /// Has the log begin there. Everything is durable when this returns. What it had before is removed by the next start.
    ///
    /// # Errors
    /// When the disk fails or is full. It can be tried again, with a beginning that is found anew.
    pub async fn carry_out(&self, root: &Path, generations: &Generations) -> Result<(), RepairError> {
        let NewBeginning { id, at, number, is_known } = *self;
        let record = async |fact| generations.record(fact).await.map_err(|source| RepairError::Record { id, source });
        let started = Fact::Started { id, number, start: at };
        if !is_known {
            // Before its segment: a file of a log that the tables do not know is theirs to answer for, and no repair helps then.
            record(Fact::Opened { id, number, generation: Generation::FIRST, start: at }).await?;
            record(started).await?;
        }
        let made = self.make_segment(root).await;
        made.map_err(|source| RepairError::Io { id, action: "make an empty segment", source })?;
        if is_known { record(started).await } else { Ok(()) }
    }

    async fn make_segment(&self, root: &Path) -> io::Result<()> {
        let dir = self.id.log_dir(root);
        fs::create_dir_all(&dir).await?;
        let path = dir.join(file_name(self.at, FileKind::Log));
        File::open(&path, OpenOptions { write: true, create_new: true, dsync: false }).await?.close().await?;
        for dir in dir.ancestors().take_while(|dir| dir.starts_with(root)) {
            fs::sync_dir(dir).await?;
        }
        Ok(())
    }
}

/// Copies a directory with all that is in it, but for what `is_left_out` names, durably. Done again, it replaces the copy.
///
/// # Errors
/// What the file system says.
pub async fn copy_dir(from: &Path, to: &Path, is_left_out: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut open = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = open.pop() {
        fs::create_dir_all(&to).await?;
        for entry in fs::read_dir(&from).await? {
            let (source, copy) = (from.join(&entry.name), to.join(&entry.name));
            if is_left_out(&entry.name) {
                continue;
            }
            if entry.is_dir {
                open.push((source, copy));
                continue;
            }
            fs::remove_file_if_there(&copy).await?;
            copy_file(&source, &copy).await?;
        }
        for dir in to.ancestors().take(4) {
            fs::sync_dir(dir).await?;
        }
    }
    Ok(())
}
