//! One TCP connection to a broker: pipelined requests, answered in any order.

mod driver;
mod error;
mod handshake;
mod inbound;
mod outbound;
mod subscription;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringmq_wire::CorrelationId;
use ringmq_wire::codec::{Codec, DecodeError};
use ringmq_wire::protocol::frame::{self, FrameError};
use ringmq_wire::protocol::{
    Acks, FetchRequest, FetchResponseHead, Hello, Message, ProduceHead, ProduceResponse, Request, RequestType,
    SectionHead, SubscribeRequest,
};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use self::driver::{Driver, Recipient, Status, Submission};
pub use self::error::{ConnectionError, RequestError};
use self::inbound::Inbound;
use self::subscription::{Flow, Frames};
pub(crate) use self::subscription::{Frame, Grants, Subscription, SubscriptionSlot};
use crate::address::BrokerAddress;
use crate::options::ClientOptions;

/// A connection to one broker, for programs that manage their own connections; most use
/// [`Client`](crate::Client) instead. Clones share the connection; it closes when the last one is dropped.
///
/// Requests of one task go out in the order in which they are made. At most as many as both sides allow are in flight;
/// further ones wait.
///
/// **Time-outs.** A request whose deadline passes fails alone, unless nothing at all has arrived since it was sent: then
/// the broker is taken for dead, and the connection ends for everyone.
///
/// **Cancelling.** A request whose future is dropped before it was written is not sent. Later, it is: the broker acts on
/// it, and the response is thrown away.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use ringmq_client::{ClientOptions, Connection};
/// use ringmq_wire::protocol::ListTopicsRequest;
/// use tokio::time::Instant;
///
/// let deadline = Instant::now() + Duration::from_secs(5);
/// let connection = Connection::open(&"localhost:9092".parse()?, &ClientOptions::default(), deadline).await?;
/// for topic in connection.call(&ListTopicsRequest {}, deadline).await?.topics {
///     println!("{}", topic.name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Connection {
    submissions: mpsc::Sender<Submission>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: SocketAddr,
    hello: Hello,
    in_flight: Arc<Semaphore>,
    /// Subscriptions that may be open. They are requests in flight, and must leave room for those that end.
    subscriptions: Arc<Semaphore>,
    /// Tells of subscriptions whose readers left; each does so once.
    left: mpsc::UnboundedSender<CorrelationId>,
    status: Arc<Status>,
}

/// The response to a fetch: the head, and behind it the sections as they arrived.
///
/// ```no_run
/// # fn example(response: ringmq_client::FetchResponse) -> Result<(), ringmq_client::Error> {
/// for topic in &response.head.topics {
///     println!("{} partitions of {}", topic.partitions.len(), topic.topic);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FetchResponse {
    /// What was read of each partition, and how long its section is.
    pub head: FetchResponseHead,
    /// All sections in the head's order. Their checksums have not been verified.
    pub sections: Bytes,
}

/// A request that has its place in the order of its connection.
#[derive(Debug)]
struct Pending {
    answered: oneshot::Receiver<Result<Bytes, RequestError>>,
    started: Instant,
    sent: Instant,
    deadline: Instant,
}

/// A produce request that has its place in the order of its connection.
#[derive(Debug)]
pub(crate) struct PendingProduce {
    connection: Connection,
    pending: Pending,
}

impl PendingProduce {
    /// Its response. May be given up and called again.
    pub(crate) async fn wait(&mut self) -> Result<ProduceResponse, RequestError> {
        let body = self.connection.answer(&mut self.pending).await?;
        ProduceResponse::decode_whole(&body).map_err(|error| self.connection.malformed(&error))
    }
}

/// What comes back for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// A response.
    Comes,
    /// Nothing: it was sent without acknowledgement.
    None,
}

impl Connection {
    /// Connects to the first socket address behind `address` that a broker answers on.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use ringmq_client::{ClientOptions, Connection};
    /// let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    /// let connection = Connection::open(&"localhost:9092".parse()?, &ClientOptions::default(), deadline).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future closes what was opened.
    ///
    /// # Errors
    /// [`ConnectionError`] of the address that got furthest; at `deadline` at the latest.
    pub async fn open(
        address: &BrokerAddress,
        options: &ClientOptions,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        let unresolved = |error| ConnectionError::Resolve(Arc::new(error));
        let found = timeout_at(deadline, address.resolve()).await;
        let candidates = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(unresolved)?;

        let mut failure = unresolved(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"));
        for (tried, candidate) in candidates.iter().enumerate() {
            // What is left is shared by what is left to try, so that one silent address does not use it all.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(candidates.len() - tried).unwrap_or(u32::MAX);
            match Self::open_socket(*candidate, options, Instant::now() + share).await {
                Ok(connection) => return Ok(connection),
                // What refused is less telling than what answered and did not fit.
                Err(ConnectionError::Connect { .. }) if tried > 0 => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn open_socket(
        address: SocketAddr,
        options: &ClientOptions,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        let started = Instant::now();
        let opening = async {
            let refused = |error| ConnectionError::Connect { address, source: Arc::new(error) };
            let mut stream = TcpStream::connect(address).await.map_err(refused)?;
            stream.set_nodelay(true)?;
            let (hello, arrived) = handshake::shake_hands(&mut stream, address).await?;
            Ok::<_, ConnectionError>((stream, hello, arrived))
        };
        let timed_out = |_| ConnectionError::OpenTimedOut { address, after: started.elapsed() };
        let (stream, hello, arrived) = timeout_at(deadline, opening).await.map_err(timed_out)??;

        let in_flight_max = options.in_flight_max.min(hello.in_flight_max).max(1) as usize;
        // A permit goes with every submission, so the channel never overflows.
        let (submissions, submitted) = mpsc::channel(in_flight_max);
        let status = Arc::new(Status::new());
        let inbound = Inbound::new(arrived, options.response_bytes_max);
        let (left, leaving) = mpsc::unbounded_channel();
        let driver = Driver::new(stream, submitted, leaving, inbound, status.clone());
        // Of nobody's: it outlives who happens to need it first.
        let span = tracing::info_span!(target: "ringmq_client", parent: None, "connection", %address);
        tokio::spawn(driver.run().instrument(span));
        let in_flight = Arc::new(Semaphore::new(in_flight_max));
        let subscriptions = Arc::new(Semaphore::new(in_flight_max / 2));
        let shared = Shared { peer: address, hello, in_flight, subscriptions, left, status };
        Ok(Self { submissions, shared: Arc::new(shared) })
    }

    /// The socket address at the other end.
    ///
    /// ```no_run
    /// # fn example(connection: ringmq_client::Connection) -> Result<(), ringmq_client::Error> {
    /// println!("connected to {}", connection.peer());
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    /// What the broker said that it speaks and takes.
    ///
    /// ```no_run
    /// # fn example(connection: ringmq_client::Connection) -> Result<(), ringmq_client::Error> {
    /// println!("requests of up to {} bytes", connection.hello().request_bytes_max);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hello(&self) -> &Hello {
        &self.shared.hello
    }

    /// Whether the connection has ended.
    ///
    /// ```no_run
    /// # fn example(connection: ringmq_client::Connection) -> Result<(), ringmq_client::Error> {
    /// if connection.is_closed() {
    ///     println!("open another one");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_closed(&self) -> bool {
        self.submissions.is_closed()
    }

    /// Sends a request that is its whole body, and waits for its response.
    ///
    /// ```no_run
    /// # async fn example(connection: ringmq_client::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use ringmq_wire::protocol::DiscoverControllerRequest;
    /// let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    /// let controller = connection.call(&DiscoverControllerRequest {}, deadline).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future before the request was written has it not sent. Later it is: the broker acts on it, and the response
    /// is thrown away.
    ///
    /// # Errors
    /// [`RequestError`]: refused by the broker, or no response until `deadline`.
    pub async fn call<R>(&self, request: &R, deadline: Instant) -> Result<R::Response, RequestError>
    where
        R: Request<Response: Message> + Message,
    {
        let id = self.next_id();
        let mut frame = BytesMut::with_capacity(256);
        frame::encode_request(id, request, &mut frame).map_err(too_large)?;
        let body = self.round_trip(R::TYPE, id, vec![frame.freeze()], Reply::Comes, deadline).await?;
        R::Response::decode_whole(&body).map_err(|error| self.malformed(&error))
    }

    /// Sends record batches. `sections` are what the head announces, in its order, in as many pieces as they come in;
    /// they are written from where they are.
    ///
    /// `None` without acknowledgement ([`Acks::None`]): the records were handed to the operating system, no more.
    ///
    /// ```no_run
    /// # async fn example(batch: bytes::Bytes, connection: ringmq_client::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use ringmq_client::{Acks, PartitionIndex, TopicName};
    /// use ringmq_wire::protocol::{ProduceHead, ProducePartition, ProduceTopic};
    ///
    /// let (partition, records_bytes) = (PartitionIndex::new(0), batch.len().try_into()?);
    /// let partitions = vec![ProducePartition { partition, records_bytes }];
    /// let topics = vec![ProduceTopic { topic: TopicName::parse("orders")?, partitions }];
    /// let head = ProduceHead { acks: Acks::All, timeout_ms: 5_000, topics };
    /// let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    /// let answer = connection.produce(&head, [batch], deadline).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future before the request was written has it not sent. Later it is: the broker acts on it, and the response
    /// is thrown away.
    ///
    /// # Errors
    /// [`RequestError`]: refused by the broker, or no response until `deadline`.
    pub async fn produce(
        &self,
        head: &ProduceHead,
        sections: impl IntoIterator<Item = Bytes>,
        deadline: Instant,
    ) -> Result<Option<ProduceResponse>, RequestError> {
        let id = self.next_id();
        let mut frame = BytesMut::with_capacity(256);
        frame::encode_request_head(id, head, &mut frame).map_err(too_large)?;
        let pieces = std::iter::once(frame.freeze()).chain(sections).collect();
        let reply = if head.acks == Acks::None { Reply::None } else { Reply::Comes };
        let body = self.round_trip(RequestType::Produce, id, pieces, reply, deadline).await?;
        if reply == Reply::None {
            return Ok(None);
        }
        ProduceResponse::decode_whole(&body).map(Some).map_err(|error| self.malformed(&error))
    }

    /// As [`Connection::produce`], done when the request has its place in the order of the connection. What is sent on it
    /// afterwards comes behind.
    pub(crate) async fn submit_produce(
        &self,
        head: &ProduceHead,
        sections: impl IntoIterator<Item = Bytes>,
        deadline: Instant,
    ) -> Result<PendingProduce, RequestError> {
        let id = self.next_id();
        let mut frame = BytesMut::with_capacity(256);
        frame::encode_request_head(id, head, &mut frame).map_err(too_large)?;
        let pieces = std::iter::once(frame.freeze()).chain(sections).collect();
        let pending = self.submit(RequestType::Produce, id, pieces, Reply::Comes, deadline).await?;
        Ok(PendingProduce { connection: self.clone(), pending })
    }

    /// Asks for record batches. The response is read into one buffer, of which the sections are a slice.
    ///
    /// ```no_run
    /// # async fn example(connection: ringmq_client::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use ringmq_client::{Offset, PartitionIndex, TopicName};
    /// use ringmq_wire::protocol::{FetchPartition, FetchRequest, FetchTopic};
    ///
    /// let (partition, fetch_offset) = (PartitionIndex::new(0), Offset::ZERO);
    /// let partitions = vec![FetchPartition { partition, fetch_offset, partition_max_bytes: 1 << 20 }];
    /// let topics = vec![FetchTopic { topic: TopicName::parse("orders")?, partitions }];
    /// let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes: 8 << 20, topics };
    /// let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    /// let response = connection.fetch(&request, deadline).await?;
    /// println!("{} bytes of batches", response.sections.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future before the request was written has it not sent. Later it is: the broker acts on it, and the response
    /// is thrown away.
    ///
    /// # Errors
    /// [`RequestError`]: refused by the broker, or no response until `deadline`, which must leave room for the
    /// request's `max_wait_ms`.
    pub async fn fetch(&self, request: &FetchRequest, deadline: Instant) -> Result<FetchResponse, RequestError> {
        let id = self.next_id();
        let mut frame = BytesMut::with_capacity(256);
        frame::encode_request(id, request, &mut frame).map_err(too_large)?;
        let mut body = self.round_trip(RequestType::Fetch, id, vec![frame.freeze()], Reply::Comes, deadline).await?;
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let decoded = FetchResponseHead::decode_head(&body, body_bytes).map_err(|error| self.malformed(&error))?;
        let Some((head, sections_at)) = decoded else {
            let cause = ConnectionError::Malformed("the head of a fetch response is cut short".to_owned());
            return Err(RequestError::unanswered(cause));
        };
        Ok(FetchResponse { head, sections: body.split_off(sections_at) })
    }

    /// A place for a subscription; `None` where the broker has none, or as many are open here as may be.
    pub(crate) fn subscription_slot(&self) -> Option<SubscriptionSlot> {
        let types = [RequestType::Subscribe, RequestType::GrantCredit, RequestType::Unsubscribe];
        if !types.into_iter().all(|request| self.offers(request)) {
            return None;
        }
        self.shared.subscriptions.clone().try_acquire_owned().ok().map(|_permit| SubscriptionSlot { _permit })
    }

    /// Opens a subscription. Done when the request has its place in the order of the connection.
    ///
    /// # Errors
    /// [`RequestError`]: it cannot be sent, or could not until `deadline`.
    pub(crate) async fn subscribe(
        &self,
        request: &SubscribeRequest,
        slot: SubscriptionSlot,
        deadline: Instant,
    ) -> Result<Subscription, RequestError> {
        let id = self.shared.status.next_subscription_id();
        let mut frame = BytesMut::with_capacity(256);
        frame::encode_request(id, request, &mut frame).map_err(too_large)?;
        let (sender, frames) = mpsc::unbounded_channel();
        let flow = Arc::new(Flow::new(request.credit_bytes));
        let partitions = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        let recipient = Recipient::Subscription(Frames::new(sender, flow.clone(), partitions, slot));
        self.submit_for(RequestType::Subscribe, id, vec![frame.freeze()], (Reply::Comes, recipient), deadline).await?;
        Ok(Subscription::new(self.clone(), id, frames, flow))
    }

    fn next_id(&self) -> CorrelationId {
        self.shared.status.next_request_id()
    }

    /// Sends the frame that `pieces` make up, and gives the response's body (an empty one where none comes).
    async fn round_trip(
        &self,
        request: RequestType,
        correlation_id: CorrelationId,
        pieces: Vec<Bytes>,
        reply: Reply,
        deadline: Instant,
    ) -> Result<Bytes, RequestError> {
        let mut pending = self.submit(request, correlation_id, pieces, reply, deadline).await?;
        self.answer(&mut pending).await
    }

    /// Gives the frame that `pieces` make up its place in the order of the connection.
    async fn submit(
        &self,
        request: RequestType,
        correlation_id: CorrelationId,
        pieces: Vec<Bytes>,
        reply: Reply,
        deadline: Instant,
    ) -> Result<Pending, RequestError> {
        let started = Instant::now();
        let (answer, answered) = oneshot::channel();
        let recipient = (reply, Recipient::Caller(answer));
        let sent = self.submit_for(request, correlation_id, pieces, recipient, deadline).await?;
        Ok(Pending { answered, started, sent, deadline })
    }

    /// As [`Connection::submit`], for this recipient; tells when it was handed over.
    async fn submit_for(
        &self,
        request: RequestType,
        correlation_id: CorrelationId,
        pieces: Vec<Bytes>,
        (reply, recipient): (Reply, Recipient),
        deadline: Instant,
    ) -> Result<Instant, RequestError> {
        self.check(request, &pieces).map_err(RequestError::unsent)?;
        let started = Instant::now();
        let timed_out = || ConnectionError::AnswerTimedOut(started.elapsed());

        let waiting = timeout_at(deadline, self.shared.in_flight.clone().acquire_owned()).await;
        let permit = match waiting {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(RequestError::unsent(self.ended_by())),
            Err(_) => return Err(RequestError::unsent(timed_out())),
        };
        let sent = Instant::now();
        let has_response = reply == Reply::Comes;
        let submission = Submission { correlation_id, pieces, has_response, recipient, permit };
        if self.submissions.try_send(submission).is_err() {
            return Err(RequestError::unsent(self.ended_by()));
        }
        Ok(sent)
    }

    /// The body of the response (an empty one where none comes).
    async fn answer(&self, pending: &mut Pending) -> Result<Bytes, RequestError> {
        match timeout_at(pending.deadline, &mut pending.answered).await {
            Ok(Ok(outcome)) => outcome,
            // The task is gone and cannot say how far the request got.
            Ok(Err(_)) => Err(RequestError::unanswered(self.ended_by())),
            Err(_) => {
                self.shared.status.give_up_if_silent_since(pending.sent);
                Err(RequestError::unanswered(ConnectionError::AnswerTimedOut(pending.started.elapsed())))
            }
        }
    }

    /// Whether the broker takes such a request at all.
    fn check(&self, request: RequestType, pieces: &[Bytes]) -> Result<(), ConnectionError> {
        if !self.offers(request) {
            return Err(ConnectionError::UnsupportedRequest { request: request.name() });
        }
        // The limit is on what a frame's length says, which leaves itself out.
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>().saturating_sub(4);
        let max = frame::request_length_max(Some(request), self.shared.hello.request_bytes_max);
        if bytes > u64::from(max) {
            return Err(ConnectionError::RequestTooLarge { bytes, max });
        }
        Ok(())
    }

    /// Whether the broker knows the version of such a request that this client speaks.
    fn offers(&self, request: RequestType) -> bool {
        let version = *request.versions().end();
        self.shared.hello.versions(request).is_some_and(|offered| offered.contains(&version))
    }

    fn ended_by(&self) -> ConnectionError {
        self.shared.status.ended_by().cloned().unwrap_or(ConnectionError::RuntimeGone)
    }

    fn malformed(&self, error: &DecodeError) -> RequestError {
        RequestError::unanswered(ConnectionError::Malformed(error.to_string()))
    }
}

fn too_large(error: FrameError) -> RequestError {
    RequestError::unsent(match error {
        FrameError::TooLong { length: bytes, length_max: max, .. } => ConnectionError::RequestTooLarge { bytes, max },
        FrameError::TooShort { .. } => error.into(),
    })
}

impl From<FrameError> for ConnectionError {
    /// What is wrong with a frame from the broker.
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLong { length: bytes, length_max: max, .. } => Self::ResponseTooLarge { bytes, max },
            FrameError::TooShort { .. } => Self::Malformed(error.to_string()),
        }
    }
}
