//! The deterministic backend. (Being written: the shapes that the facade calls are here.)
#![allow(missing_docs, unused_variables, dead_code, clippy::unused_async, clippy::unimplemented)]

pub mod clock;
pub mod disk;
pub mod executor;
pub mod file;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::fs::DirEntry;
use crate::task::Queue;

/// One simulated machine. The facade holds it as `Rc<World>` in `Backend::Sim`; `World` enters the thread with
/// `backend::enter(Rc::new(Context { backend: Backend::Sim(world), device: DeviceBudget::new(..), stalls: StallLog::default() }))`
/// and `buffer::install(..)` (a fresh pool, so that what a buffer holds at first replays).
pub struct World;

impl World {
    pub(crate) fn spawn(self: &Rc<World>, queue: Queue, name: &'static str, future: Pin<Box<dyn Future<Output = ()>>>) {
        unimplemented!()
    }
    pub(crate) fn monotonic(&self) -> Duration {
        unimplemented!()
    }
    pub(crate) fn wall_clock_ms(&self) -> i64 {
        unimplemented!()
    }
    pub(crate) fn random_u64(&self) -> u64 {
        unimplemented!()
    }
    pub(crate) fn sleep(self: &Rc<World>, duration: Duration) -> clock::Sleep {
        unimplemented!()
    }
    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    /// In any order: the facade sorts.
    pub(crate) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        unimplemented!()
    }
    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn exists(&self, path: &Path) -> io::Result<bool> {
        unimplemented!()
    }
    pub(crate) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        unimplemented!()
    }
    pub(crate) async fn read_small(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        unimplemented!()
    }
    pub(crate) async fn write_small_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        unimplemented!()
    }
}
