//! The only door to the outside: executors, timers, clocks, randomness, TCP, direct-I/O files, cross-core channels.
#![forbid(unsafe_code)]
