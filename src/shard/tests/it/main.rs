//! A broker's shards on real executors, spoken to over loopback in raw frames.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the peers are ordinary threads with blocking sockets: nothing here runs on a shard"
)]

mod backpressure;
mod broker;
mod data;
mod fairness;
mod hostile;
mod idempotence;
mod lifecycle;
mod peer;
mod subscribe;
mod wrong_shard;
