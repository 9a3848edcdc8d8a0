//! One core's server: its partitions, listener, connections, request handlers, and the mailbox to the other cores.
#![forbid(unsafe_code)]
