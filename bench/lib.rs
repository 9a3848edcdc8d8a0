//! Load generators and the machine-limit probe.
#![forbid(unsafe_code)]

pub mod limits;
