//! The only door to the outside: executors, timers, clocks, randomness, TCP, direct-I/O files, cross-core channels.
//!
//! # One executor a thread
//! [`executor::spawn_executor`] starts an operating-system thread with an executor of its own. Everything else in
//! this crate is a free function or a concrete type that finds the executor of the calling thread by itself, so the
//! code above is plain asynchronous Rust: no type parameters for the backend, no handles to pass.
//!
//! # Two backends behind concrete types
//! Production runs on [glommio](https://docs.rs/glommio): io_uring, direct I/O, one ring set a core. With the
//! feature `sim` there is a second backend, deterministic and seeded, that keeps files, clock, randomness and tasks
//! in memory and injects faults. The choice is a closed enum: without the feature it has one variant and costs
//! nothing.
//!
//! # What it holds, by module
//! | module | what |
//! |---|---|
//! | [`executor`] | threads with executors, pinned or not |
//! | [`task`] | spawning, counting and stopping tasks; who held the core |
//! | [`local`] | oneshot, event, semaphore within one executor |
//! | [`channel`] | bounded channels and oneshots between executors and threads |
//! | [`time`], [`random`] | clocks, timers; random numbers and hash maps that replay |
//! | [`buffer`] | block-aligned memory from the executor's pool |
//! | [`mod@file`], [`fs`], [`device`] | direct-I/O files, directories, and who may use the device when |
//! | [`net`] | TCP listeners and streams |
//! | [`probe`] | what the machine lacks and how to mend it |
//! | [`seeded_bug`] | bugs that tests put in to see that they are found |
//!
//! # Rules for the code above
//! - A task is never cancelled by dropping it: it is stopped by a signal that it awaits beside its work
//!   ([`task::Stop`]). The future of a write or a flush is awaited to its end.
//! - Work that computes for longer than 200 µs is cut into slices ([`task::yield_to_io`]): glommio looks at its rings
//!   only when the run queues are empty.
//! - No `RefCell` borrow lives across an await: io_uring completes in any order.

mod backend;
pub mod buffer;
pub mod channel;
pub mod device;
pub mod executor;
pub mod file;
pub mod fs;
mod glommio;
pub mod local;
pub mod net;
pub mod probe;
pub mod random;
pub mod seeded_bug;
#[cfg(feature = "sim")]
pub mod sim;
mod stall;
pub mod task;
#[cfg(test)]
mod testing;
pub mod time;
