//! The client for programs without async: the same shape, and calls that return when the work is done.
//!
//! A client has one thread of its own, which carries its connections; the futures of the async client run on the thread
//! that calls. No runtime of the caller is needed, and none is in the way: the calls work inside a tokio runtime too,
//! where they block the worker that makes them.
//!
//! What the async types say about errors, retries, order and time-outs holds here. A call cannot be cancelled; it ends
//! with its time-out.
//!
//! ```no_run
//! use ringmq_client::blocking::Client;
//! use ringmq_client::{FetchOptions, Record};
//!
//! let client = Client::connect("localhost:9092")?;
//! let delivery = client.producer().send("greetings", Record::value("hello, ring"))?;
//! let fetched =
//!     client.consumer().fetch("greetings", delivery.partition, delivery.offset, FetchOptions::default())?;
//! assert_eq!(fetched.records[0].value.as_deref(), Some(&b"hello, ring"[..]));
//! # Ok::<(), ringmq_client::Error>(())
//! ```

mod admin;
mod client;
mod consumer;
mod producer;
mod runtime_thread;

pub use admin::Admin;
pub use client::{Client, ClientBuilder};
pub use consumer::{Consumer, RecordStream};
pub use producer::{PendingDelivery, Producer};
