//! Wiring and the `ringmq` command: config, start-up, shutdown, sub-commands.
#![forbid(unsafe_code)]
