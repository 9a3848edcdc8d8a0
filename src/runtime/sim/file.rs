//! The simulation's arm of [`crate::file::File`].

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::disk::device::Request;
use super::disk::fault::Operation;
use super::disk::filesystem::{HandleId, Landing, Reads};
use super::disk::names::os_error;
use super::disk::path::Names;
use super::trace::content_hash;
use super::world::{World, name_request};
use crate::buffer::{AlignedBuf, BLOCK_BYTES, IoBuf};
use crate::file::OpenOptions;
use crate::seeded_bug::SeededBug;

/// An open file of the simulated process.
pub(crate) struct File {
    world: Rc<World>,
    handle: HandleId,
}

impl File {
    pub(crate) async fn open(world: &Rc<World>, path: &Path, options: OpenOptions) -> io::Result<File> {
        let names = Names::parse(path)?;
        let process = world.disk.borrow().files.process();
        let request = name_request(Operation::Open, names.text());
        let opened = world.submit_landing(&request, move |files, landing| match landing {
            Landing::Completed | Landing::PowerLost => files.open(&names, options, process),
            Landing::Failed(error) => Err(error),
            // The file is there, and nobody has it open.
            Landing::FailedLate(error) => files.open(&names, options, process).and_then(|handle| {
                files.close(handle);
                Err(error)
            }),
        });
        let handle = opened.await?;
        Ok(File { world: world.clone(), handle })
    }

    pub(crate) async fn read_at(&self, position: u64, len: usize) -> io::Result<IoBuf> {
        check_aligned(position, len)?;
        let reads = if SeededBug::ReadPageCache.is_in() { Reads::Cached } else { Reads::Direct };
        let bytes = self.read(position, len, reads).await?;
        // One block more than is shown: what a read returned must not pass for memory that can be written, here as
        // on the other backend.
        let mut buf = AlignedBuf::with_len(bytes.len() + BLOCK_BYTES);
        buf[..bytes.len()].copy_from_slice(&bytes);
        Ok(buf.freeze().slice(..bytes.len()))
    }

    /// For small files that the other backend reads through the page cache.
    pub(super) async fn read_unaligned(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.read(position, len, Reads::Cached).await
    }

    async fn read(&self, position: u64, len: usize, reads: Reads) -> io::Result<Vec<u8>> {
        let inode = self.world.disk.borrow().files.inode(self.handle)?;
        let request = self.request(Operation::Read, position, len, 0);
        self.world.submit(&request, move |files| files.read(inode, position, len, reads)).await
    }

    pub(crate) async fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        check_aligned(position, buf.len())?;
        self.write_unaligned(buf, position).await
    }

    /// For small files that the other backend writes through the page cache.
    pub(super) async fn write_unaligned(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let (inode, dsync) = {
            let files = &self.world.disk.borrow().files;
            files.check_writable(self.handle)?;
            (files.inode(self.handle)?, files.is_dsync(self.handle))
        };
        let request = self.request(Operation::Write, position, bytes.len(), content_hash(bytes));
        let data = bytes.to_vec();
        let landing = self
            .world
            .submit_landing(&request, move |files, landing| files.write(inode, position, &data, dsync, landing));
        landing.await
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        let (inode, upto) = {
            let files = &self.world.disk.borrow().files;
            (files.inode(self.handle)?, files.completed())
        };
        let request = self.request(Operation::Flush, 0, 0, 0);
        self.world.submit_landing(&request, move |files, landing| files.flush(inode, upto, landing)).await
    }

    pub(crate) async fn preallocate(&self, len: u64) -> io::Result<()> {
        self.world.disk.borrow().files.check_writable(self.handle)?;
        let inode = self.world.disk.borrow().files.inode(self.handle)?;
        let request = self.sized_request(Operation::Preallocate, len);
        self.world.submit(&request, move |files| files.preallocate(inode, len)).await
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.world.disk.borrow().files.check_writable(self.handle)?;
        let inode = self.world.disk.borrow().files.inode(self.handle)?;
        let request = self.sized_request(Operation::Truncate, len);
        self.world.submit(&request, move |files| files.truncate(inode, len)).await
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        self.world.disk.borrow().files.size(self.handle)
    }

    pub(crate) fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.world.disk.borrow_mut().files.try_lock(self.handle)
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        let handle = self.handle;
        self.world.disk.borrow().files.inode(handle)?;
        let request = Request { handle: None, ..self.request(Operation::Close, 0, 0, 0) };
        self.world
            .submit(&request, move |files| {
                files.close(handle);
                Ok(())
            })
            .await
    }

    fn request(&self, operation: Operation, position: u64, len: usize, content: u64) -> Request {
        let path = self.world.disk.borrow().files.handle_path(self.handle);
        Request { operation, path, handle: Some(self.handle), position, length: len as u64, content }
    }

    fn sized_request(&self, operation: Operation, len: u64) -> Request {
        Request { length: len, ..self.request(operation, 0, 0, 0) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.world.disk.borrow_mut().files.close(self.handle);
    }
}

/// What the kernel says to a direct read or write that is not of whole blocks.
fn check_aligned(position: u64, len: usize) -> io::Result<()> {
    if position.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES) {
        return Ok(());
    }
    Err(os_error(libc::EINVAL))
}
