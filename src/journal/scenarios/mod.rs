//! Whole journals on the simulated machine, and a few on a real disk.
//!
//! - `rules`: the histories of the storage protocol that concern the ring, each a test by the name of its rule
//! - `crash_loop`: many seeds of many lives, checked against everything that was acknowledged
//! - `damage`: blocks that rot, and what is told of them
//! - `aside`: what is kept aside, and what interrupts it
//! - `real_disk`: the same code on io_uring

mod aside;
mod crash_loop;
mod damage;
mod real_disk;
mod rules;
mod support;
