//! The controller shard: cluster metadata as a sans-io state machine, and one thin driver.
#![forbid(unsafe_code)]
