//! Why a connection could not be opened or came to its end, and what that means for a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmq_wire::{CorrelationId, WireError};

/// Why a connection could not be opened, or broke. Cloned to every request that was waiting on it.
///
/// ```
/// use ringmq_client::ConnectionError;
/// assert!(ConnectionError::Closed.is_retriable());
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The host's name has no address, or the resolver failed.
    #[error("the name cannot be resolved ({0}); check its spelling and the resolver")]
    Resolve(#[source] Arc<io::Error>),
    /// Nobody answers at the socket address.
    #[error("cannot connect to {address} ({source}); check that a broker runs there and that no firewall is between")]
    Connect {
        /// Where the attempt went.
        address: SocketAddr,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Connecting and agreeing on a version took too long.
    #[error(
        "{address} did not open a connection within {after:?}; check the address, the network and the broker's load"
    )]
    OpenTimedOut {
        /// Where the attempt went.
        address: SocketAddr,
        /// How long it was given.
        after: Duration,
    },
    /// Something listens there that does not speak the native protocol.
    #[error("{address} is not a RingMQ broker: {reason}; check host and port")]
    NotBroker {
        /// Where the attempt went.
        address: SocketAddr,
        /// What was wrong with its first bytes.
        reason: String,
    },
    /// What listens there closed the connection before it said anything: a broker that ends just now does so, what stands
    /// before one that is away, and some that are no brokers.
    #[error(
        "{address} closed the connection without a word; a broker there may be stopping or restarting, or it is none: \
         check host and port"
    )]
    ClosedAtOnce {
        /// Where the attempt went.
        address: SocketAddr,
    },
    /// Broker and client have no protocol version in common.
    #[error(
        "{address} speaks protocol versions up to {broker_max}, this client {ours_min} to {ours_max}; \
         use a client and a broker whose versions overlap"
    )]
    Version {
        /// Where the attempt went.
        address: SocketAddr,
        /// The broker's newest version.
        broker_max: u8,
        /// The client's oldest version.
        ours_min: u8,
        /// The client's newest version.
        ours_max: u8,
    },
    /// The broker does not offer this type of request in a version that the client speaks.
    #[error("the broker does not offer {request} requests in a version of this client; use a newer broker")]
    UnsupportedRequest {
        /// The type of request.
        request: &'static str,
    },
    /// The request is larger than the broker takes: what it said, or 1 MiB for one without records if that is less.
    #[error(
        "the request has {bytes} bytes and the broker takes {max}; send less at once or, if it has records, raise the \
         broker's request_bytes_max"
    )]
    RequestTooLarge {
        /// The request's length.
        bytes: u64,
        /// The broker's limit.
        max: u32,
    },
    /// A response announced more bytes than the client is willing to hold.
    #[error("a response of {bytes} bytes exceeds the limit of {max}; fetch less at once or raise response_bytes_max")]
    ResponseTooLarge {
        /// The announced length.
        bytes: u64,
        /// The limit from the options.
        max: u32,
    },
    /// A response that belongs to no request.
    #[error(
        "a response has the correlation id {0}, which no request is waiting for; use a client and a broker of the same \
         version, and if they are, report it as a fault"
    )]
    UnknownCorrelation(CorrelationId),
    /// Records of a subscription that were not asked for yet.
    #[error(
        "{bytes} bytes of records came that no credit was granted for; use a client and a broker of the same version, and \
         if they are, report it as a fault"
    )]
    BeyondCredit {
        /// The records' length.
        bytes: usize,
    },
    /// Bytes that cannot be decoded.
    #[error("a response cannot be decoded ({0}); check that client and broker are of matching versions")]
    Malformed(String),
    /// The broker closed the connection.
    #[error("the broker closed the connection; it may be stopping or restarting: try again")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection broke ({0}); check that the broker runs and what is between")]
    Io(#[source] Arc<io::Error>),
    /// The answer did not come in time.
    #[error("no answer within {0:?}; check the broker's load, or give it more time")]
    AnswerTimedOut(Duration),
    /// A request timed out and nothing at all had arrived since it was sent.
    #[error(
        "the broker has been silent for {0:?}, so the connection was given up; check that it runs and what is between"
    )]
    Silent(Duration),
    /// The runtime that carried the connection is gone.
    #[error(
        "the connection's task ended because its tokio runtime was shut down; keep the runtime as long as the client"
    )]
    RuntimeGone,
}

impl ConnectionError {
    /// Whether another attempt, on a new connection, may succeed.
    ///
    /// ```
    /// assert!(!ringmq_client::ConnectionError::RuntimeGone.is_retriable());
    /// ```
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Resolve(_)
            | Self::Connect { .. }
            | Self::OpenTimedOut { .. }
            | Self::ClosedAtOnce { .. }
            | Self::UnknownCorrelation(_)
            | Self::BeyondCredit { .. }
            | Self::Closed
            | Self::Io(_)
            | Self::AnswerTimedOut(_)
            | Self::Silent(_) => true,
            Self::NotBroker { .. }
            | Self::Version { .. }
            | Self::UnsupportedRequest { .. }
            | Self::RequestTooLarge { .. }
            | Self::ResponseTooLarge { .. }
            | Self::Malformed(_)
            | Self::RuntimeGone => false,
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Why a request has no response to show.
///
/// ```
/// use ringmq_client::{ConnectionError, RequestError};
/// let lost = RequestError::Failed { may_have_arrived: true, cause: ConnectionError::Closed };
/// println!("{lost}");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The broker refused the request as a whole.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// No response came.
    #[error("{cause}")]
    Failed {
        /// Whether the broker may have received the request. `false` is certain: not all of it left this process.
        may_have_arrived: bool,
        /// What happened to the request or to its connection.
        #[source]
        cause: ConnectionError,
    },
}

impl RequestError {
    /// A request that surely did not reach the broker.
    pub(crate) fn unsent(cause: ConnectionError) -> Self {
        Self::Failed { may_have_arrived: false, cause }
    }

    /// Whether the broker may have acted on it.
    pub(crate) fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Failed { may_have_arrived: true, .. })
    }

    /// A request that the broker may have received and acted on.
    pub(crate) fn unanswered(cause: ConnectionError) -> Self {
        Self::Failed { may_have_arrived: true, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::tests::one_of_each;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9092);

    fn refused() -> Arc<io::Error> {
        Arc::new(io::ErrorKind::ConnectionRefused.into())
    }

    use ConnectionError as E;
    one_of_each!(ConnectionError {
        E::Resolve(_) => E::Resolve(refused()), "check its spelling";
        E::Connect { .. } => E::Connect { address: ADDRESS, source: refused() }, "check that a broker runs there";
        E::OpenTimedOut { .. } => E::OpenTimedOut { address: ADDRESS, after: Duration::ZERO }, "check the address";
        E::NotBroker { .. } => E::NotBroker { address: ADDRESS, reason: "x".to_owned() }, "check host and port";
        E::ClosedAtOnce { .. } => E::ClosedAtOnce { address: ADDRESS }, "check host and port";
        E::Version { .. } => E::Version { address: ADDRESS, broker_max: 9, ours_min: 1, ours_max: 2 },
            "use a client and a broker whose versions overlap";
        E::UnsupportedRequest { .. } => E::UnsupportedRequest { request: "Fetch" }, "use a newer broker";
        E::RequestTooLarge { .. } => E::RequestTooLarge { bytes: 2, max: 1 }, "send less at once";
        E::ResponseTooLarge { .. } => E::ResponseTooLarge { bytes: 2, max: 1 }, "fetch less at once";
        E::UnknownCorrelation(_) => E::UnknownCorrelation(CorrelationId::new(1)), "report it as a fault";
        E::BeyondCredit { .. } => E::BeyondCredit { bytes: 1 }, "report it as a fault";
        E::Malformed(_) => E::Malformed("x".to_owned()), "check that client and broker";
        E::Closed => E::Closed, "try again";
        E::Io(_) => E::Io(refused()), "check that the broker runs";
        E::AnswerTimedOut(_) => E::AnswerTimedOut(Duration::ZERO), "check the broker's load";
        E::Silent(_) => E::Silent(Duration::ZERO), "check that it runs";
        E::RuntimeGone => E::RuntimeGone, "keep the runtime";
    });

    #[test]
    fn each_says_what_to_do() {
        for (number, (error, advice)) in each().into_iter().enumerate() {
            assert_eq!(place(&error), Some(number), "{error}");
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
