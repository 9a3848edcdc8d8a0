//! The blocking client.

use std::sync::Arc;

use super::runtime_thread::RuntimeThread;
use super::{Admin, Consumer, Producer};
use crate::address::IntoBrokers;
use crate::client::ClientBuilder;
use crate::error::Error;

/// As [`crate::Client`], with a thread of its own. Clones, and everything made from them, share it.
///
/// ```no_run
/// let client = ringmq_client::blocking::Client::connect("localhost:9092")?;
/// client.producer().send("orders", "12.50")?;
/// # Ok::<(), ringmq_client::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    inner: crate::Client,
    thread: Arc<RuntimeThread>,
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// ```no_run
    /// let client = ringmq_client::blocking::Client::connect("queue-1:9092, queue-2:9092")?;
    /// # Ok::<(), ringmq_client::Error>(())
    /// ```
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
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let topics = client.admin().list_topics()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn admin(&self) -> Admin {
        Admin::new(self.inner.admin(), self.thread.clone())
    }

    /// Sends records.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// client.producer().send("orders", "12.50")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self) -> Producer {
        Producer::new(self.inner.producer(), self.thread.clone())
    }

    /// Fetches records and subscribes to topics.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::SubscribeOptions;
    /// let stream = client.consumer().stream("orders", SubscribeOptions::default())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self) -> Consumer {
        Consumer::new(self.inner.consumer(), self.thread.clone())
    }
}
