//! The `ringmq` binary.
#![forbid(unsafe_code)]

fn main() {}
