//! A blocking connection to the broker that does as little as possible for each byte.
//!
//! One thread writes a connection's requests with vectored writes from where the batches are, and reads into one buffer
//! that stays in the processor's cache. On a machine whose cores are shared with the broker this costs less than an
//! event loop: the kernel wakes a thread once for each response, and nothing else runs in between.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringmq_client::BrokerAddress;
use ringmq_wire::protocol::InitProducerIdResponse;
use ringmq_wire::protocol::frame::ResponseHead;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::driver::{Driver, Greeting};

/// What one read takes at most: it stays in the processor's own cache until it has been looked at.
const BUFFER_BYTES: usize = 256 * 1024;
/// A broker that is silent for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    inbound: Inbound,
    driver: &'static dyn Driver,
    greeting: Greeting,
}

/// Bytes that have arrived and were not looked at yet.
#[derive(Debug)]
struct Inbound {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects to the first of `addresses` that a broker answers on.
    pub(crate) fn open(driver: &'static dyn Driver, addresses: &[BrokerAddress]) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no address to connect to");
        for address in addresses {
            match Self::open_one(driver, address) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(last)
    }

    fn open_one(driver: &'static dyn Driver, address: &BrokerAddress) -> io::Result<Self> {
        let stream = TcpStream::connect(&address.resolve_blocking()?[..])?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let inbound = Inbound { buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0 };
        let mut connection = Self { stream, inbound, driver, greeting: Greeting::default() };
        connection.greeting = driver.greet(&mut connection)?;
        Ok(connection)
    }

    /// The longest request that the broker takes.
    pub(crate) fn request_bytes_max(&self) -> u32 {
        self.greeting.request_bytes_max
    }

    /// Whether the broker sends records by itself.
    pub(crate) fn has_subscriptions(&self) -> bool {
        self.greeting.has_subscriptions
    }

    /// The protocol that is spoken.
    pub(crate) fn driver(&self) -> &'static dyn Driver {
        self.driver
    }

    /// Writes all of `pieces`.
    pub(crate) fn write(&mut self, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Leaves out empty ones at the front: writing nothing looks like an error.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match self.stream.write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut pieces, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// An identity for a producer that nobody else has.
    pub(crate) fn init_producer_id(&mut self) -> io::Result<InitProducerIdResponse> {
        let mut request = BytesMut::new();
        self.driver.encode_init_producer_id(&mut request)?;
        self.write(&mut [IoSlice::new(&request)])?;
        let head = self.wait_for_response_head()?;
        let (driver, body_bytes) = (self.driver, head.body_bytes as usize);
        let identity = driver.decode_init_producer_id(&head, self.wait_for(body_bytes)?)?;
        self.consume(body_bytes);
        Ok(identity)
    }

    /// Waits until something can be received, or until this moment; says whether something can be.
    pub(crate) fn wait_readable(&self, until: Instant) -> io::Result<bool> {
        // To the nanosecond, unlike a socket's own time-out, which counts in ticks of the scheduler.
        let timeout = Timespec::try_from(until.saturating_duration_since(Instant::now())).map_err(invalid)?;
        let mut stream = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut stream, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until more has arrived.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        self.inbound.fill(&mut self.stream)
    }

    /// What has arrived and was not consumed.
    pub(crate) fn available(&self) -> &[u8] {
        self.inbound.available()
    }

    /// Forgets the first `count` bytes of what is available.
    pub(crate) fn consume(&mut self, count: usize) {
        self.inbound.start += count;
    }

    /// The head of the next response, if all of it has arrived; its body is then the first of what is available.
    pub(crate) fn take_response_head(&mut self) -> io::Result<Option<ResponseHead>> {
        let Some((head, head_bytes)) = self.driver.decode_response_head(self.available())? else { return Ok(None) };
        self.consume(head_bytes);
        Ok(Some(head))
    }

    /// Waits for the head of the next response.
    pub(crate) fn wait_for_response_head(&mut self) -> io::Result<ResponseHead> {
        loop {
            match self.take_response_head()? {
                Some(head) => return Ok(head),
                None => self.receive()?,
            }
        }
    }

    /// Waits until the first `count` bytes of what is available have arrived; a small body's, not a section's.
    pub(crate) fn wait_for(&mut self, count: usize) -> io::Result<&[u8]> {
        if count > BUFFER_BYTES {
            return Err(invalid(format!("{count} bytes were announced where only a short answer can be")));
        }
        while self.available().len() < count {
            self.receive()?;
        }
        Ok(&self.available()[..count])
    }
}

impl Inbound {
    fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn fill(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        // What is left is short: large sections are consumed as they arrive.
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            return Err(invalid("a response's head is longer than any can be"));
        }
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the broker has been silent for a minute"));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Bytes from the broker that make no sense.
pub(crate) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
