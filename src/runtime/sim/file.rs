use std::io;
use std::path::Path;
use std::rc::Rc;

use super::World;
use crate::buffer::IoBuf;
use crate::file::OpenOptions;

/// Positions and lengths come checked for alignment, the device budget is kept and errors get operation and path in
/// the facade. What is read is an `AlignedBuf`, frozen and sliced; what is written is `&buf[..]`.
pub struct File;

impl File {
    pub(crate) async fn open(world: &Rc<World>, path: &Path, options: OpenOptions) -> io::Result<File> {
        unimplemented!()
    }
    pub(crate) async fn read_at(&self, pos: u64, len: usize) -> io::Result<IoBuf> {
        unimplemented!()
    }
    pub(crate) async fn write_at(&self, buf: &IoBuf, pos: u64) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn preallocate(&self, len: u64) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) fn size(&self) -> io::Result<u64> {
        unimplemented!()
    }
    pub(crate) fn try_lock_exclusive(&self) -> io::Result<bool> {
        unimplemented!()
    }
    pub(crate) async fn close(self) -> io::Result<()> {
        unimplemented!()
    }
}
