//! Runnable examples of the client crate.
#![forbid(unsafe_code)]
