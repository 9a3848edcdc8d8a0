//! `ringmq serve`: from the configuration to a broker that serves, and back to a clean stop.
//!
//! `run` reads flags and file; `machine` says what the machine gives; `plan` turns both into the settings of every
//! executor; `broker` starts the controller and the shards, and `signals` end them.

mod broker;
mod error;
pub(crate) mod machine;
mod plan;
mod run;
mod signals;

pub(crate) use run::run;
