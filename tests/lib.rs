//! Tests that start a real broker and drive it through the client.
#![forbid(unsafe_code)]
