//! A real broker process for tests: started in a directory of its own, driven through the client, stopped or killed.
#![forbid(unsafe_code)]

mod broker;
mod process;

pub use broker::{Broker, BrokerOptions, Exit};
pub use process::{CommandOutput, run_bench, run_ringmq, target_binary};
