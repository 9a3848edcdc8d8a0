//! The deterministic backend: one simulated machine whose tasks, clock, random numbers and disk a seed drives.
//!
//! A test makes a [`Sim`], runs code of the crates above in it, injects faults through [`SimDisk`], lets the process
//! die ([`Sim::kill`]) or the power go ([`Sim::crash`]), and runs recovery on what is left. The same seed gives the
//! same run, event by event, which [`Sim::trace_hash`] proves; other seeds give other orders, latencies and losses.
//!
//! # What the model promises
//! **Tasks.** One thread. Which of the ready tasks runs next is drawn from the seed. When none is ready the clock
//! jumps to the next timer or completion; when there is none either, the run panics and names who waits. A poll takes
//! a little virtual time, so a task that spins cannot stop the clock.
//!
//! **Requests.** Nothing about files completes at once, except flock, fstat and closing by drop. Every request takes a
//! latency drawn from the seed, so requests complete in any order, and what they do they do at that moment. A dropped
//! future changes nothing for its request.
//!
//! **The disk** keeps two images: the *live* one, which reads see, and the *durable* one, which no crash can change.
//! - A completed write is live. It is durable after a later fdatasync of the file that was *submitted* after the write
//!   *completed*. With O_DSYNC it is durable when it completes, with the size and the allocation needed to read it.
//! - Size and preallocation are durable after such an fdatasync, too; a later change of them never without the
//!   earlier ones.
//! - A name created, renamed or removed is durable after a [`sync_dir`](crate::fs::sync_dir) of its directory that
//!   was submitted after the change completed; one moved between directories after both. An fdatasync of the file
//!   does nothing for its name.
//! - A flush that fails leaves what it covered without promise for ever: a later flush does not make up for it.
//!   A write that fails may be live in parts.
//! - Reads and writes that are not of whole blocks fail with EINVAL. Reads at the end of the file are short.
//!   Preallocated space reads as zeros.
//! - A lock belongs to one open descriptor and is free once that is closed and has no request under way.
//! - Preallocating and writing into holes fail with ENOSPC when the capacity is used up. What nobody has a name for
//!   and nobody has open is free.
//!
//! **A crash** keeps of each write that is not durable all, nothing, a beginning, some 4 KiB blocks or some 512-byte
//! sectors, whatever became of other writes, earlier ones and those to other files included. Names and sizes are kept
//! or dropped likewise, but never by halves: a file has one name or none, and a change that builds on another (the
//! same name, the same file) is not kept without it. What was in flight may land before that. One crash in eight keeps
//! nothing that it need not, one in eight keeps all.
//!
//! **A kill** drops the process; its requests land later and keep their files locked until then.
//!
//! # What it leaves out
//! - TCP and [`spawn_executor`](crate::executor::spawn_executor): they fail and say so. [Channels](crate::channel) work
//!   between tasks of one simulation.
//! - Shares between foreground and background, stalls of the core, limits of memory.
//! - Bits that rot by themselves, sectors that cannot be read, writes that land in the wrong place: a test injects
//!   them ([`SimDisk::flip_bit`], [`SimDisk::overwrite`], [`Fault`]).
//! - What real file systems do beyond their contract, for example that ext4 makes a new file's name durable with its
//!   fsync, or that the flush of one file empties the cache of the whole drive. A program that needs it loses data
//!   here, as it should.
//! - Disk space of names, directories and replaced content that is not durable yet.
//! - Threads: whoever wakes a task of a simulation from another thread gives up determinism.

pub(crate) mod clock;
mod config;
mod dice;
mod disk;
pub(crate) mod file;
mod fs;
mod simulation;
mod task;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use config::{DiskConfig, LatencyConfig, SimConfig};
pub use disk::control::SimDisk;
pub use disk::fate::CrashReport;
pub use disk::fault::{Fault, Operation};
pub use disk::filesystem::Counters;
pub use simulation::Sim;
pub(crate) use world::World;
