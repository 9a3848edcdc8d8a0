//! The simulated kernel's side of files: open descriptors, locks, space, and what each request does when it lands.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::content::{Content, Sequence};
use super::fate::{CrashReport, Fates};
use super::fault::Failure;
use super::names::{InodeId, Namespace, os_error};
use super::path::Names;
use crate::buffer::BLOCK_BYTES;
use crate::file::OpenOptions;
use crate::sim::dice::Dice;

/// An open file description; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HandleId(u64);

/// A simulated process. A kill begins a new one; requests of the old one may still land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessId(u64);

/// How a request ends.
#[derive(Debug)]
pub(crate) enum Landing {
    /// It does what it is meant to do.
    Completed,
    /// It fails with this error.
    Failed(io::Error),
    /// It does what it is meant to do, and fails with this error.
    FailedLate(io::Error),
    /// The power goes while it is under way, and it was near enough its end to leave something behind.
    PowerLost,
}

impl Landing {
    pub(crate) fn failed(Failure { error, late }: Failure) -> Landing {
        if late { Landing::FailedLate(error) } else { Landing::Failed(error) }
    }
}

/// Which way a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Past the page cache, to what the disk has.
    Direct,
    /// From the page cache.
    Cached,
}

/// What has been asked of a file or directory since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads completed without error.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed without error.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Those of the writes that were durable when they completed (`O_DSYNC`).
    pub dsync_writes: u64,
    /// Flushes completed without error (fdatasync, or fsync of a directory).
    pub flushes: u64,
}

#[derive(Debug, Default)]
struct FileNode {
    content: Content,
    /// Open file descriptions, also those that only wait for their last request.
    opened: u32,
    lock: Option<HandleId>,
    /// Blocks counted against the capacity: those of a file that has a name or is open.
    charged_blocks: u64,
}

#[derive(Debug)]
struct Handle {
    inode: InodeId,
    options: OpenOptions,
    path: Rc<str>,
    in_flight: u32,
    closed: bool,
}

/// Files, directories and descriptors.
#[derive(Debug)]
pub(crate) struct FileSystem {
    names: Namespace,
    files: BTreeMap<InodeId, FileNode>,
    handles: BTreeMap<HandleId, Handle>,
    handles_made: u64,
    counters: BTreeMap<InodeId, Counters>,
    sequence: Sequence,
    process: ProcessId,
    capacity_blocks: u64,
    used_blocks: u64,
    tear: bool,
    dice: Dice,
}

impl FileSystem {
    pub(crate) fn new(capacity_bytes: u64, tear: bool, dice: Dice) -> FileSystem {
        FileSystem {
            names: Namespace::new(),
            files: BTreeMap::new(),
            handles: BTreeMap::new(),
            handles_made: 0,
            counters: BTreeMap::new(),
            sequence: Sequence(0),
            process: ProcessId(0),
            capacity_blocks: capacity_bytes / BLOCK_BYTES as u64,
            used_blocks: 0,
            tear,
            dice,
        }
    }

    /// The newest change that completed: what a flush submitted now covers.
    pub(crate) fn completed(&self) -> Sequence {
        self.sequence
    }

    pub(crate) fn process(&self) -> ProcessId {
        self.process
    }

    pub(crate) fn names(&self) -> &Namespace {
        &self.names
    }

    fn next_sequence(&mut self) -> Sequence {
        self.sequence.0 += 1;
        self.sequence
    }

    // ---- descriptors ----

    pub(crate) fn open(&mut self, names: &Names, options: OpenOptions, process: ProcessId) -> io::Result<HandleId> {
        let inode = if options.create_new {
            let sequence = self.next_sequence();
            let inode = self.names.create_file(sequence, names)?;
            self.files.insert(inode, FileNode::default());
            inode
        } else {
            self.names.lookup(names)?
        };
        let file = self.files.get_mut(&inode).ok_or_else(|| os_error(libc::EISDIR))?;
        self.handles_made += 1;
        let id = HandleId(self.handles_made);
        // A process that was killed meanwhile gets no descriptor, though its file may be there.
        if process == self.process {
            file.opened += 1;
            let handle = Handle { inode, options, path: names.text(), in_flight: 0, closed: false };
            self.handles.insert(id, handle);
        }
        Ok(id)
    }

    /// The file behind a descriptor.
    pub(crate) fn inode(&self, handle: HandleId) -> io::Result<InodeId> {
        self.handle(handle).map(|handle| handle.inode)
    }

    fn handle(&self, handle: HandleId) -> io::Result<&Handle> {
        self.handles.get(&handle).filter(|handle| !handle.closed).ok_or_else(|| os_error(libc::EBADF))
    }

    /// As [`FileSystem::handle`], for what changes the file.
    pub(crate) fn check_writable(&self, handle: HandleId) -> io::Result<()> {
        if self.handle(handle)?.options.write { Ok(()) } else { Err(os_error(libc::EBADF)) }
    }

    pub(crate) fn is_dsync(&self, handle: HandleId) -> bool {
        self.handles.get(&handle).is_some_and(|handle| handle.options.dsync)
    }

    /// Where the file is now, or where it was opened when it has no name any more.
    pub(crate) fn handle_path(&self, handle: HandleId) -> Rc<str> {
        let Some(handle) = self.handles.get(&handle) else { return Rc::from("") };
        self.names.path_of(handle.inode).unwrap_or_else(|| handle.path.clone())
    }

    /// A request of the descriptor is in the kernel, and keeps the file open.
    pub(crate) fn begin_request(&mut self, handle: HandleId) {
        if let Some(handle) = self.handles.get_mut(&handle) {
            handle.in_flight += 1;
        }
    }

    pub(crate) fn end_request(&mut self, handle: HandleId) {
        if let Some(handle) = self.handles.get_mut(&handle) {
            handle.in_flight -= 1;
        }
        self.release_if_done(handle);
    }

    pub(crate) fn close(&mut self, handle: HandleId) {
        if let Some(handle) = self.handles.get_mut(&handle) {
            handle.closed = true;
        }
        self.release_if_done(handle);
    }

    /// The process died: its descriptors close, each as soon as the kernel has done its last request.
    pub(crate) fn close_all(&mut self) {
        self.process.0 += 1;
        let handles: Vec<HandleId> = self.handles.keys().copied().collect();
        for handle in handles {
            self.close(handle);
        }
    }

    fn release_if_done(&mut self, id: HandleId) {
        if self.handles.get(&id).is_none_or(|handle| !handle.closed || handle.in_flight > 0) {
            return;
        }
        let Some(handle) = self.handles.remove(&id) else { return };
        let Some(file) = self.files.get_mut(&handle.inode) else { return };
        file.opened -= 1;
        if file.lock == Some(id) {
            file.lock = None;
        }
        self.settle_space(handle.inode);
    }

    pub(crate) fn try_lock(&mut self, id: HandleId) -> io::Result<bool> {
        let inode = self.inode(id)?;
        let file = self.files.get_mut(&inode).ok_or_else(|| os_error(libc::EBADF))?;
        Ok(*file.lock.get_or_insert(id) == id)
    }

    pub(crate) fn size(&self, handle: HandleId) -> io::Result<u64> {
        let inode = self.inode(handle)?;
        Ok(self.files.get(&inode).map_or(0, |file| file.content.size()))
    }

    // ---- content ----

    /// The file of a request that was submitted with an open descriptor: it is there until the request ends.
    fn file(&mut self, inode: InodeId) -> io::Result<&mut FileNode> {
        self.files.get_mut(&inode).ok_or_else(|| os_error(libc::EBADF))
    }

    pub(crate) fn read(&mut self, inode: InodeId, position: u64, len: usize, reads: Reads) -> io::Result<Vec<u8>> {
        let content = &self.file(inode)?.content;
        let bytes = match reads {
            Reads::Direct => content.read_past_cache(position, len),
            Reads::Cached => content.read(position, len),
        };
        let counters = self.counters.entry(inode).or_default();
        counters.reads += 1;
        counters.read_bytes += bytes.len() as u64;
        Ok(bytes)
    }

    pub(crate) fn write(
        &mut self,
        inode: InodeId,
        position: u64,
        data: &[u8],
        dsync: bool,
        landing: Landing,
    ) -> io::Result<()> {
        match landing {
            Landing::Completed => {
                self.write_live(inode, position, data, dsync)?;
                let counters = self.counters.entry(inode).or_default();
                counters.writes += 1;
                counters.write_bytes += data.len() as u64;
                counters.dsync_writes += u64::from(dsync);
                Ok(())
            }
            Landing::PowerLost => {
                let durable = dsync && self.dice.coin();
                self.write_live(inode, position, data, durable)
            }
            Landing::FailedLate(error) => self.write_live(inode, position, data, dsync).and(Err(error)),
            // A write that the device refused may have got through in parts; one that found no room has not begun.
            Landing::Failed(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
            Landing::Failed(error) => {
                for (block, at) in data.chunks(BLOCK_BYTES).zip((position..).step_by(BLOCK_BYTES)) {
                    if self.dice.coin() {
                        self.write_live(inode, at, block, false)?;
                    }
                }
                Err(error)
            }
        }
    }

    fn write_live(&mut self, inode: InodeId, position: u64, data: &[u8], durable: bool) -> io::Result<()> {
        let missing = self.file(inode)?.content.blocks_missing(position, data.len());
        self.check_space(missing)?;
        let sequence = self.next_sequence();
        let content = &mut self.file(inode)?.content;
        content.write(sequence, position, data);
        if durable {
            content.persist_write(sequence, position, data.len());
        }
        self.settle_space(inode);
        Ok(())
    }

    /// `upto` is what had completed when the flush was submitted.
    pub(crate) fn flush(&mut self, inode: InodeId, upto: Sequence, landing: Landing) -> io::Result<()> {
        match landing {
            Landing::Completed | Landing::PowerLost => {
                self.file(inode)?.content.flush(upto);
                self.counters.entry(inode).or_default().flushes += 1;
                Ok(())
            }
            Landing::FailedLate(error) => {
                self.file(inode)?.content.flush(upto);
                Err(error)
            }
            Landing::Failed(error) => {
                let mut fates = Fates::draw(&mut self.dice, self.tear);
                let file = self.files.get_mut(&inode).ok_or_else(|| os_error(libc::EBADF))?;
                file.content.fail_flush(upto, &mut fates);
                Err(error)
            }
        }
    }

    pub(crate) fn preallocate(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        let missing = self.file(inode)?.content.blocks_missing(0, usize::try_from(len).unwrap_or(usize::MAX));
        self.check_space(missing)?;
        let sequence = self.next_sequence();
        self.file(inode)?.content.preallocate(sequence, len);
        self.settle_space(inode);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.file(inode)?.content.truncate(sequence, len);
        self.settle_space(inode);
        Ok(())
    }

    // ---- names ----

    pub(crate) fn create_dir_all(&mut self, names: &Names) -> io::Result<()> {
        for depth in 1..=names.0.len() {
            let names = Names(names.0[..depth].to_vec());
            match self.names.lookup(&names) {
                Ok(inode) if self.names.is_directory(inode) => {}
                Ok(_) => return Err(os_error(libc::ENOTDIR)),
                Err(_) => {
                    let sequence = self.next_sequence();
                    self.names.create_directory(sequence, &names)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Names, to: &Names) -> io::Result<()> {
        let sequence = self.next_sequence();
        if let Some(replaced) = self.names.rename(sequence, from, to)? {
            self.settle_space(replaced);
        }
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, names: &Names) -> io::Result<()> {
        if self.names.is_directory(self.names.lookup(names)?) {
            return Err(os_error(libc::EISDIR));
        }
        let sequence = self.next_sequence();
        let inode = self.names.remove(sequence, names)?;
        self.settle_space(inode);
        Ok(())
    }

    pub(crate) fn remove_dir(&mut self, names: &Names) -> io::Result<()> {
        if !self.names.is_directory(self.names.lookup(names)?) {
            return Err(os_error(libc::ENOTDIR));
        }
        let sequence = self.next_sequence();
        self.names.remove(sequence, names).map(drop)
    }

    pub(crate) fn remove_dir_all(&mut self, names: &Names) -> io::Result<()> {
        for (name, is_directory) in self.names.list(names)? {
            let mut child = names.clone();
            child.0.push(name);
            if is_directory {
                self.remove_dir_all(&child)?;
            } else {
                self.remove_file(&child)?;
            }
        }
        self.remove_dir(names)
    }

    /// `upto` is what had completed when the request was submitted.
    pub(crate) fn sync_dir(&mut self, names: &Names, upto: Sequence) -> io::Result<()> {
        let inode = self.names.lookup(names)?;
        if !self.names.is_directory(inode) {
            return Err(os_error(libc::ENOTDIR));
        }
        if self.names.sync(inode, upto) {
            self.forget_unreachable();
        }
        self.counters.entry(inode).or_default().flushes += 1;
        Ok(())
    }

    /// Drops what no name leads to any more, now or after any crash, and no descriptor holds.
    fn forget_unreachable(&mut self) {
        let reachable = self.names.collect();
        self.files.retain(|inode, file| file.opened > 0 || reachable.contains(inode));
        let FileSystem { names, files, counters, .. } = self;
        counters.retain(|inode, _| files.contains_key(inode) || names.is_directory(*inode));
    }

    // ---- space ----

    pub(crate) fn free_bytes(&self) -> u64 {
        self.capacity_blocks.saturating_sub(self.used_blocks) * BLOCK_BYTES as u64
    }

    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity_blocks = bytes / BLOCK_BYTES as u64;
    }

    fn check_space(&self, blocks: u64) -> io::Result<()> {
        if blocks > 0 && self.used_blocks.saturating_add(blocks) > self.capacity_blocks {
            return Err(os_error(libc::ENOSPC));
        }
        Ok(())
    }

    /// Counts the space of a file anew after it grew, shrank, lost its name or was closed.
    fn settle_space(&mut self, inode: InodeId) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        let is_used = file.opened > 0 || self.names.is_linked(inode);
        let blocks = if is_used { file.content.allocated_blocks() } else { 0 };
        self.used_blocks = self.used_blocks - file.charged_blocks + blocks;
        file.charged_blocks = blocks;
    }

    // ---- what happens to the machine, and what a test does behind the program's back ----

    /// The power went, and came back. Whatever was in flight has landed or not before this is called.
    pub(crate) fn crash(&mut self) -> CrashReport {
        self.process.0 += 1;
        self.handles.clear();
        let mut fates = Fates::draw(&mut self.dice, self.tear);
        self.names.crash(&mut fates);
        for file in self.files.values_mut() {
            file.opened = 0;
            file.lock = None;
            file.content.crash(&mut fates);
        }
        let report = fates.report();
        self.forget_unreachable();
        self.used_blocks = 0;
        for file in self.files.values_mut() {
            file.charged_blocks = file.content.allocated_blocks();
            self.used_blocks += file.charged_blocks;
        }
        report
    }

    pub(crate) fn live_bytes(&self, names: &Names) -> Option<Vec<u8>> {
        let inode = self.names.lookup(names).ok()?;
        self.files.get(&inode).map(|file| file.content.live_bytes())
    }

    pub(crate) fn durable_bytes(&self, names: &Names) -> Option<Vec<u8>> {
        let inode = self.names.lookup_durable(names)?;
        self.files.get(&inode).map(|file| file.content.durable_bytes())
    }

    pub(crate) fn counters(&self, names: &Names) -> Option<Counters> {
        let inode = self.names.lookup(names).ok()?;
        Some(self.counters.get(&inode).copied().unwrap_or_default())
    }

    pub(crate) fn flip_bit(&mut self, names: &Names, position: u64, bit: u8) -> io::Result<()> {
        let inode = self.names.lookup(names)?;
        let flipped = self.file(inode)?.content.flip_bit(position, bit);
        self.settle_space(inode);
        if flipped { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    pub(crate) fn overwrite(&mut self, names: &Names, position: u64, data: &[u8]) -> io::Result<()> {
        let inode = self.names.lookup(names)?;
        self.write_live(inode, position, data, true)
    }

    pub(crate) fn remove_durably(&mut self, names: &Names) -> io::Result<()> {
        let sequence = self.next_sequence();
        let inode = self.names.remove_durably(sequence, names)?;
        self.settle_space(inode);
        self.forget_unreachable();
        Ok(())
    }
}
