//! A real broker process for tests: started in a directory of its own, driven through the client or by hand, stopped or
//! killed.
#![forbid(unsafe_code)]

mod batches;
mod broker;
mod lines;
mod process;
mod raw;
pub mod sample;

pub use batches::{batch, name, produce_head};
pub use broker::{Broker, BrokerOptions, Exit, data_dir, new_directory};
pub use lines::Lines;
pub use process::{CommandOutput, not_examined, ringmq, run_bench, run_ringmq, send_signal, target_binary};
pub use raw::RawConnection;
