//! The simulated disk. See [`crate::sim`] for what it promises.

pub(crate) mod content;
pub(crate) mod control;
pub(crate) mod device;
pub(crate) mod fate;
pub(crate) mod fault;
pub(crate) mod filesystem;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod requests;
#[cfg(test)]
mod tests;
