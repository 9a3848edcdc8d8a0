//! The production backend: io_uring through glommio 0.9.
//!
//! The numbered traps of glommio that this folder works around are named where they are met.

pub(crate) mod affinity;
pub(crate) mod clock;
mod core;
mod device;
pub(crate) mod doorbell;
pub(crate) mod executor;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod net;
pub(crate) mod probe;
pub(crate) mod sys;

pub(crate) use self::core::Core;
