//! The deterministic backend: one simulated machine whose cores, clock, random numbers, disk and network a seed drives.
//!
//! A test makes a [`Sim`], runs code of the crates above in it, injects faults through [`SimDisk`], lets the process
//! die ([`Sim::kill`]) or the power go ([`Sim::crash`]), and runs recovery on what is left. The same seed gives the
//! same run, event by event, which [`Sim::trace_hash`] proves; other seeds give other orders, latencies and losses.
//!
//! # What the model promises
//! **Tasks and cores.** One real thread, and as many simulated cores as the program starts
//! ([`spawn_executor`](crate::executor::spawn_executor)). Which core runs next is drawn from the seed, and which of its
//! ready tasks; now and then a core stands still for a while, as if the kernel had taken its thread off the processor.
//! The clock is one for all. When no task is ready it
//! jumps to the next timer, completion or packet; when there is none either, the run panics and names who waits. A poll
//! takes a little virtual time, so a task that spins cannot stop the clock.
//!
//! **[Channels](crate::channel)** are the real ones: messages of one sender arrive in the order sent, and a receiver that
//! is awake sees them at once, as in the memory that real cores share. To wake one that sleeps takes a time drawn from
//! the seed.
//!
//! **[TCP](crate::net).** Bytes arrive in order, whole or not at all, after a time drawn from the seed; reads and writes
//! move pieces. Each direction holds a bounded number of bytes, drawn for each connection; who writes more waits until
//! the other side has read. To close with bytes unread, or to send to who has closed, resets the connection; bytes that
//! arrived before can still be read. Of several listeners that share a port the seed chooses one for each connection.
//! Every address is reachable from everywhere, and belongs to whoever listens on it.
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
//! **A kill** drops the process, with all cores; its requests land later and keep their files locked until then, and its
//! connections are closed as by close(2). After a crash other machines hear nothing of a connection until the power is
//! back, and of what was sent to them last some never arrives. What runs [elsewhere](Sim::elsewhere) outlives both.
//!
//! # What it leaves out
//! - Shares between foreground and background, stalls of the core, limits of memory.
//! - Bits that rot by themselves, sectors that cannot be read, writes that land in the wrong place: a test injects
//!   them ([`SimDisk::flip_bit`], [`SimDisk::overwrite`], [`Fault`]).
//! - What real file systems do beyond their contract, for example that ext4 makes a new file's name durable with its
//!   fsync, or that the flush of one file empties the cache of the whole drive. A program that needs it loses data
//!   here, as it should.
//! - Two cores at the very same moment: one poll follows the other. A race within a poll shows only on real threads.
//! - Packets that are lost, doubled or overtake each other: TCP hides that. Networks that fall apart, and other machines
//!   that have disks.
//! - Disk space of names, directories and replaced content that is not durable yet.
//! - Threads: whoever wakes a task of a simulation from another thread gives up determinism.

mod bell;
pub(crate) mod clock;
mod config;
mod cores;
mod dice;
mod disk;
pub(crate) mod executor;
pub(crate) mod file;
mod fs;
pub(crate) mod net;
pub mod scenario;
mod simulation;
mod task;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use config::{CoreConfig, DiskConfig, LatencyConfig, NetworkConfig, SimConfig};
pub use disk::control::SimDisk;
pub use disk::fate::CrashReport;
pub use disk::fault::{Fault, Operation};
pub use disk::filesystem::Counters;
pub use simulation::Sim;
pub(crate) use world::World;
