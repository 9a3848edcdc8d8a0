//! The blocking client.

use std::sync::Arc;
use std::time::Duration;

use super::runtime_thread::RuntimeThread;
use super::{Admin, Consumer, Producer};
use crate::address::IntoBrokers;
use crate::error::Error;
use crate::options::ClientOptions;

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
        Self::builder().brokers(brokers).connect()
    }

    /// As [`crate::Client::builder`].
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use ringmq_client::blocking::Client;
    /// let client = Client::builder().brokers("localhost:9092").timeout(Duration::from_secs(30)).connect()?;
    /// # Ok::<(), ringmq_client::Error>(())
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects with the options of an async client's builder.
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
    pub fn connect_with(options: crate::ClientBuilder) -> Result<Self, Error> {
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

    /// As [`crate::Client::options`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// println!("operations may take {:?}", client.options().timeout);
    /// # Ok(())
    /// # }
    /// ```
    pub fn options(&self) -> &ClientOptions {
        self.inner.options()
    }
}

/// As [`crate::ClientBuilder`]: options for a [`Client`] that is yet to connect.
///
/// ```no_run
/// use std::time::Duration;
/// use ringmq_client::blocking::Client;
/// let options = Client::builder().brokers(["queue-1:9092", "queue-2:9092"]).timeout(Duration::from_secs(30));
/// let client = options.connect()?;
/// # Ok::<(), ringmq_client::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    inner: crate::ClientBuilder,
}

impl ClientBuilder {
    /// As [`crate::ClientBuilder::brokers`].
    ///
    /// ```
    /// let options = ringmq_client::blocking::Client::builder().brokers("queue-1:9092, queue-2:9092");
    /// ```
    pub fn brokers(self, brokers: impl IntoBrokers) -> Self {
        Self { inner: self.inner.brokers(brokers) }
    }

    /// As [`crate::ClientBuilder::timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::blocking::Client::builder().timeout(Duration::from_secs(30));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { inner: self.inner.timeout(timeout) }
    }

    /// As [`crate::ClientBuilder::connect_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::blocking::Client::builder().connect_timeout(Duration::from_millis(500));
    /// ```
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { inner: self.inner.connect_timeout(timeout) }
    }

    /// As [`crate::ClientBuilder::in_flight_max`].
    ///
    /// ```
    /// let options = ringmq_client::blocking::Client::builder().in_flight_max(8);
    /// ```
    pub fn in_flight_max(self, requests: u32) -> Self {
        Self { inner: self.inner.in_flight_max(requests) }
    }

    /// As [`crate::ClientBuilder::response_bytes_max`].
    ///
    /// ```
    /// let options = ringmq_client::blocking::Client::builder().response_bytes_max(16 << 20);
    /// ```
    pub fn response_bytes_max(self, bytes: u32) -> Self {
        Self { inner: self.inner.response_bytes_max(bytes) }
    }

    /// As [`crate::ClientBuilder::producer_bytes_max`].
    ///
    /// ```
    /// let options = ringmq_client::blocking::Client::builder().producer_bytes_max(256 << 20);
    /// ```
    pub fn producer_bytes_max(self, bytes: u32) -> Self {
        Self { inner: self.inner.producer_bytes_max(bytes) }
    }

    /// As [`crate::ClientBuilder::metadata_age_max`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::blocking::Client::builder().metadata_age_max(Duration::from_secs(60));
    /// ```
    pub fn metadata_age_max(self, age: Duration) -> Self {
        Self { inner: self.inner.metadata_age_max(age) }
    }

    /// As [`crate::ClientBuilder::unreachable_for`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::blocking::Client::builder().unreachable_for(Duration::from_secs(5));
    /// ```
    pub fn unreachable_for(self, pause: Duration) -> Self {
        Self { inner: self.inner.unreachable_for(pause) }
    }

    /// Connects, as [`Client::connect`] describes.
    ///
    /// ```no_run
    /// let client = ringmq_client::blocking::Client::builder().brokers("localhost").connect()?;
    /// # Ok::<(), ringmq_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect(self) -> Result<Client, Error> {
        Client::connect_with(self.inner)
    }
}
