//! Whole journals on the simulated machine, and a few on a real disk.
