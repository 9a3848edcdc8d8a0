//! Runnable examples of the client crate: `cargo run --example simple [BROKERS]`.
//!
//! Each takes the brokers' addresses from its first argument, else from `RINGMQ_BROKERS`, else `localhost:9092`; prints
//! what it did; and ends with an exit code other than 0 when something failed.
#![forbid(unsafe_code)]
