//! The client: one set of connections, from which producers, consumers and admins are made.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::accumulator::{Accumulator, StartLane};
use crate::address::{AddressError, BrokerAddress, DEFAULT_PORT, IntoBrokers};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::lane::Lane;
use crate::options::{self, ClientOptions};
use crate::plain_lane::PlainLane;
use crate::producer::Producer;

/// A client of one cluster. Clones, and everything made from them, share its connections and what it has learnt.
///
/// It lives on the tokio runtime that it was connected on, and needs its I/O and time drivers.
///
/// ```no_run
/// # async fn example() -> Result<(), ringmq_client::Error> {
/// let client = ringmq_client::Client::connect("localhost:9092").await?;
/// let (producer, consumer, admin) = (client.producer(), client.consumer(), client.admin());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
    /// What its producers share. Not a part of the cluster's: its tasks hold that, and end when no producer is left.
    accumulator: Arc<Accumulator>,
}

impl Client {
    /// Connects to the cluster that one or several addresses belong to, with default options.
    ///
    /// One broker that answers is enough; the others are found through it. Tries each address once and does not wait
    /// for a broker to come up; the operations on the client do.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::Client;
    /// let client = Client::connect("localhost:9092").await?;
    /// let cluster = Client::connect(["queue-1.example:9092", "queue-2.example:9092"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future closes what was opened.
    ///
    /// # Errors
    /// [`Error::Address`] for text that is not an address, [`Error::Unreachable`] when no broker answers.
    pub async fn connect(brokers: impl IntoBrokers) -> Result<Self, Error> {
        Self::builder().brokers(brokers).connect().await
    }

    /// Sets options before connecting.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringmq_client::Error> {
    /// use std::time::Duration;
    /// use ringmq_client::Client;
    /// let client = Client::builder().brokers("localhost:9092").timeout(Duration::from_secs(30)).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Creates, alters, trims, deletes, lists and describes topics; tells a broker's statistics; finds the controller.
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// let topics = client.admin().list_topics().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn admin(&self) -> Admin {
        Admin::new(self.cluster.clone())
    }

    /// Sends records. All of a client's producers are one to the brokers.
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// client.producer().send("orders", "12.50").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self) -> Producer {
        Producer::new(self.cluster.clone(), self.accumulator.clone())
    }

    /// Fetches records and subscribes to topics.
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::SubscribeOptions;
    /// let stream = client.consumer().stream("orders", SubscribeOptions::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self) -> Consumer {
        Consumer::new(self.cluster.clone())
    }

    /// The options it was built with.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// println!("operations may take {:?}", client.options().timeout);
    /// # Ok(())
    /// # }
    /// ```
    pub fn options(&self) -> &ClientOptions {
        &self.cluster.options
    }
}

/// Options for a [`Client`] that is yet to connect.
///
/// ```no_run
/// # async fn example() -> Result<(), ringmq_client::Error> {
/// use std::time::Duration;
/// use ringmq_client::Client;
/// let options = Client::builder().brokers(["queue-1:9092", "queue-2:9092"]).timeout(Duration::from_secs(30));
/// let client = options.connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    brokers: Result<Vec<BrokerAddress>, AddressError>,
    options: ClientOptions,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self { brokers: Ok(vec![BrokerAddress::new("localhost", DEFAULT_PORT)]), options: ClientOptions::default() }
    }
}

impl ClientBuilder {
    /// The addresses to start from, in the order in which to try them. Default `localhost:9092`.
    ///
    /// ```
    /// let options = ringmq_client::Client::builder().brokers("queue-1:9092, queue-2:9092");
    /// ```
    pub fn brokers(mut self, brokers: impl IntoBrokers) -> Self {
        self.brokers = brokers.into_brokers();
        self
    }

    /// Sets [`ClientOptions::timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::Client::builder().timeout(Duration::from_secs(30));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = options::bounded(timeout);
        self
    }

    /// Sets [`ClientOptions::connect_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::Client::builder().connect_timeout(Duration::from_millis(500));
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = options::bounded(timeout);
        self
    }

    /// Sets [`ClientOptions::in_flight_max`].
    ///
    /// ```
    /// let options = ringmq_client::Client::builder().in_flight_max(8);
    /// ```
    pub fn in_flight_max(mut self, requests: u32) -> Self {
        self.options.in_flight_max = requests;
        self
    }

    /// Sets [`ClientOptions::response_bytes_max`].
    ///
    /// ```
    /// let options = ringmq_client::Client::builder().response_bytes_max(16 << 20);
    /// ```
    pub fn response_bytes_max(mut self, bytes: u32) -> Self {
        self.options.response_bytes_max = bytes;
        self
    }

    /// Sets [`ClientOptions::producer_bytes_max`].
    ///
    /// ```
    /// let options = ringmq_client::Client::builder().producer_bytes_max(256 << 20);
    /// ```
    pub fn producer_bytes_max(mut self, bytes: u32) -> Self {
        self.options.producer_bytes_max = bytes;
        self
    }

    /// Sets [`ClientOptions::metadata_age_max`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::Client::builder().metadata_age_max(Duration::from_secs(60));
    /// ```
    pub fn metadata_age_max(mut self, age: Duration) -> Self {
        self.options.metadata_age_max = age;
        self
    }

    /// Sets [`ClientOptions::unreachable_for`].
    ///
    /// ```
    /// use std::time::Duration;
    /// let options = ringmq_client::Client::builder().unreachable_for(Duration::from_secs(5));
    /// ```
    pub fn unreachable_for(mut self, pause: Duration) -> Self {
        self.options.unreachable_for = pause;
        self
    }

    /// Connects, as [`Client::connect`] describes.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), ringmq_client::Error> {
    /// let client = ringmq_client::Client::builder().brokers("localhost").connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Client::connect`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(self) -> Result<Client, Error> {
        let brokers = self.brokers?;
        if brokers.is_empty() {
            return Err(AddressError::Empty.into());
        }
        let cluster = Cluster::new(brokers, self.options);
        cluster.any_broker(Instant::now() + cluster.options.timeout).await?;
        let cluster = Arc::new(cluster);
        let accumulator = Accumulator::new(cluster.options.producer_bytes_max, start_lanes(cluster.clone()));
        Ok(Client { accumulator: Arc::new(accumulator), cluster })
    }
}

/// On the runtime that this is called in.
fn start_lanes(cluster: Arc<Cluster>) -> StartLane {
    let runtime = Handle::current();
    Box::new(move |queue, has_identity| {
        // Made before it runs: on a runtime that has ended it is dropped at once, and tells so.
        if has_identity {
            runtime.spawn(Lane::new(cluster.clone(), queue).run());
        } else {
            runtime.spawn(PlainLane::new(cluster.clone(), queue).run());
        }
    })
}
