//! The test's hands on the simulated disk.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::fault::{Fault, Operation};
use super::filesystem::Counters;
use super::path::Names;
use crate::sim::world::World;

/// The simulated disk, from outside the program: faults to inject, bytes to damage, images and counters to look at.
/// Everything here happens at once and takes no virtual time. Clones mean the same disk; inside and outside of
/// [`Sim::run`](crate::sim::Sim::run) alike.
///
/// In patterns `*` stands for any text, also across directories; a leading `/` does not matter.
#[derive(Clone)]
pub struct SimDisk {
    world: Rc<World>,
}

impl SimDisk {
    pub(in crate::sim) fn new(world: Rc<World>) -> SimDisk {
        SimDisk { world }
    }

    // ---- faults ----

    /// Arms a fault. It stays armed over kills and crashes until it has been met.
    pub fn inject(&self, fault: Fault) {
        self.world.disk.borrow_mut().faults.inject(fault);
    }

    /// The next write to a path that fits fails; what the program meant to write may be there in parts.
    pub fn fail_next_write(&self, pattern: &str, error: io::ErrorKind) {
        self.inject(Fault::on(Operation::Write, pattern).error(error));
    }

    /// The next flush of a file that fits fails; what it would have made durable is not, and no later flush makes up
    /// for it.
    pub fn fail_next_flush(&self, pattern: &str, error: io::ErrorKind) {
        self.inject(Fault::on(Operation::Flush, pattern).error(error));
    }

    /// How many requests have failed for an injected fault so far.
    pub fn faults_met(&self) -> u64 {
        self.world.disk.borrow().faults.met()
    }

    /// Takes back every fault that has not been met.
    pub fn clear_faults(&self) {
        self.world.disk.borrow_mut().faults.clear();
    }

    /// No request to a path that fits completes for that long, those under way included.
    pub fn stall(&self, pattern: &str, duration: Duration) {
        let until = self.world.monotonic() + duration;
        self.world.disk.borrow_mut().stall(pattern, until);
    }

    /// Changes how much content fits, in bytes; less than is used already means full.
    pub fn set_capacity(&self, bytes: u64) {
        self.world.disk.borrow_mut().files.set_capacity(bytes);
    }

    // ---- damage ----

    /// Turns one bit of a file over (`bit` 0 is the lowest), wherever the byte is stored.
    ///
    /// # Errors
    /// When there is no such file, or it ends before `position`.
    pub fn flip_bit(&self, path: impl AsRef<Path>, position: u64, bit: u8) -> io::Result<()> {
        let names = Names::parse(path.as_ref())?;
        self.world.disk.borrow_mut().files.flip_bit(&names, position, bit)
    }

    /// Replaces bytes of a file, durably.
    ///
    /// # Errors
    /// When there is no such file or no space.
    pub fn overwrite(&self, path: impl AsRef<Path>, position: u64, bytes: &[u8]) -> io::Result<()> {
        let names = Names::parse(path.as_ref())?;
        self.world.disk.borrow_mut().files.overwrite(&names, position, bytes)
    }

    /// Removes a file or an empty directory, durably.
    ///
    /// # Errors
    /// When there is no such file, or the directory is not empty.
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let names = Names::parse(path.as_ref())?;
        self.world.disk.borrow_mut().files.remove_durably(&names)
    }

    // ---- images and counters ----

    /// Every file that there is now, by its absolute path, ascending.
    pub fn files(&self) -> Vec<PathBuf> {
        self.paths(false)
    }

    /// Every file that is there after any crash from now on.
    pub fn durable_files(&self) -> Vec<PathBuf> {
        self.paths(true)
    }

    fn paths(&self, durable: bool) -> Vec<PathBuf> {
        let files = self.world.disk.borrow().files.names().files(durable);
        files.into_iter().map(|(path, _)| PathBuf::from(path.as_ref())).collect()
    }

    /// What a read of the whole file gives now; `None` when there is no such file.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let names = Names::parse(path.as_ref()).ok()?;
        self.world.disk.borrow().files.live_bytes(&names)
    }

    /// What is left of the file after a crash that keeps nothing but what it must; `None` when not even the name is.
    pub fn read_durable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let names = Names::parse(path.as_ref()).ok()?;
        self.world.disk.borrow().files.durable_bytes(&names)
    }

    /// What was asked of a file or directory since it was made; zeros when there is no such path.
    pub fn counters(&self, path: impl AsRef<Path>) -> Counters {
        let counters = Names::parse(path.as_ref()).ok().and_then(|names| {
            let disk = self.world.disk.borrow();
            disk.files.counters(&names)
        });
        counters.unwrap_or_default()
    }

    /// Space for content that is left, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.world.disk.borrow().files.free_bytes()
    }

    /// Requests that the simulated kernel has and has not completed.
    pub fn requests_in_flight(&self) -> usize {
        self.world.disk.borrow().requests.len()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("files", &self.files().len()).finish_non_exhaustive()
    }
}
