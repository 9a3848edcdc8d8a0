//! The log of one partition: segments, appends with group commit, reads, recovery.
#![forbid(unsafe_code)]
