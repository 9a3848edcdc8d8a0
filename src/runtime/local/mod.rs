//! Waiting for one another within one executor: no atomics, no locks, not `Send`.

mod event;
mod oneshot;
mod semaphore;

pub use event::{Event, Listener};
pub use oneshot::{Dropped, Receiver, Sender, oneshot};
pub use semaphore::{Acquire, Permit, Semaphore};

#[cfg(test)]
mod tests;
