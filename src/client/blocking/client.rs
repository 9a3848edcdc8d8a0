//! The blocking client.

use std::sync::Arc;

use super::runtime_thread::RuntimeThread;
use super::{Admin, Consumer, Producer};
use crate::address::IntoBrokers;
use crate::client::ClientBuilder;
use crate::error::Error;

/// As [`crate::Client`], with a thread of its own. Clones, and everything made from them, share it.
#[derive(Debug, Clone)]
pub struct Client {
    inner: crate::Client,
    thread: Arc<RuntimeThread>,
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As [`crate::Client::connect`]; [`Error::Runtime`] when no thread can be started.
    pub fn connect(brokers: impl IntoBrokers) -> Result<Self, Error> {
        Self::connect_with(crate::Client::builder().brokers(brokers))
    }

    /// Connects with options.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use ringmq_client::blocking;
    /// let options = ringmq_client::Client::builder().brokers("localhost:9092").timeout(Duration::from_secs(30));
    /// let client = blocking::Client::connect_with(options)?;
    /// # Ok::<(), ringmq_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(options: ClientBuilder) -> Result<Self, Error> {
        let thread = Arc::new(RuntimeThread::start()?);
        let inner = thread.wait(options.connect())?;
        Ok(Self { inner, thread })
    }

    /// Creates, alters, trims, deletes, lists and describes topics; tells a broker's statistics; finds the controller.
    pub fn admin(&self) -> Admin {
        Admin::new(self.inner.admin(), self.thread.clone())
    }

    /// Sends records.
    pub fn producer(&self) -> Producer {
        Producer::new(self.inner.producer(), self.thread.clone())
    }

    /// Fetches records and subscribes to topics.
    pub fn consumer(&self) -> Consumer {
        Consumer::new(self.inner.consumer(), self.thread.clone())
    }
}
