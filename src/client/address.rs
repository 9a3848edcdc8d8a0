//! Addresses as people write them, and the socket addresses that stand behind a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 9092;

/// Where a broker can be reached: a host name or an IP address, and a port.
///
/// ```
/// use ringmq_client::BrokerAddress;
/// let address: BrokerAddress = "[::1]:9093".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 9093));
/// assert_eq!("queue.example".parse::<BrokerAddress>()?.to_string(), "queue.example:9092");
/// # Ok::<(), ringmq_client::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    host: String,
    port: u16,
}

/// A host and perhaps a port, as people write them: `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `[IPV6]` or a bare IPv6 address.
///
/// ```
/// use ringmq_client::HostPort;
/// let address: HostPort = "[::1]:0".parse()?;
/// assert_eq!((address.host.as_str(), address.port), ("::1", Some(0)));
/// assert_eq!("queue.example".parse::<HostPort>()?.port, None);
/// # Ok::<(), ringmq_client::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A host name or an IP address, without brackets; not empty.
    pub host: String,
    /// The port, if one is named. It may be 0, which means something only to who listens.
    pub port: Option<u16>,
}

/// Text that is not an address.
///
/// ```
/// use ringmq_client::{AddressError, BrokerAddress};
/// let error = "queue:none".parse::<BrokerAddress>().unwrap_err();
/// assert!(matches!(error, AddressError::BadPort(_)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing but white space, or nothing between two commas.
    #[error("an address is empty; write HOST, HOST:PORT or [IPV6]:PORT, several with commas between them")]
    Empty,
    /// No host stands in front of the port.
    #[error("the address `{0}` has no host; write HOST:PORT, for example localhost:9092")]
    NoHost(String),
    /// The host has characters that no name and no IP address has, or is longer than a name can be.
    #[error("`{0}` is not a host name or an IP address; write HOST:PORT or [IPV6]:PORT")]
    BadHost(String),
    /// The port is not a number between 1 and 65535.
    #[error("the port in the address `{0}` is not a number between 1 and 65535")]
    BadPort(String),
}

/// The longest name that a resolver takes, in characters (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let (host, port) = split_port(text)?;
        let port = port.map(|digits| parse_port(digits).ok_or_else(|| AddressError::BadPort(text.to_owned())));
        let port = port.transpose()?;
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        // The zone of a link-local address (`fe80::1%eth0`) needs an interface number that only the resolver knows.
        if host.len() > HOST_BYTES_MAX || !is_name && host.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::BadHost(text.to_owned()));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.as_str(), self.port) {
            (host, None) => f.write_str(host),
            (host, Some(port)) if host.contains(':') => write!(f, "[{host}]:{port}"),
            (host, Some(port)) => write!(f, "{host}:{port}"),
        }
    }
}

impl BrokerAddress {
    /// The address of `host` (a name or an IP address without brackets) and `port`.
    ///
    /// ```
    /// use ringmq_client::BrokerAddress;
    /// assert_eq!(BrokerAddress::new("::1", 9092).to_string(), "[::1]:9092");
    /// ```
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The name or IP address, without brackets.
    ///
    /// ```
    /// use ringmq_client::BrokerAddress;
    /// assert_eq!(BrokerAddress::new("::1", 9092).host(), "::1");
    /// ```
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    ///
    /// ```
    /// use ringmq_client::BrokerAddress;
    /// assert_eq!(BrokerAddress::new("queue", 9093).port(), 9093);
    /// ```
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    ///
    /// ```
    /// use ringmq_client::BrokerAddress;
    /// assert_eq!(BrokerAddress::new("queue", 9092).with_port(9093), BrokerAddress::new("queue", 9093));
    /// ```
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// Reads a list with commas between the addresses, as in `RINGMQ_BROKERS`.
    ///
    /// ```
    /// use ringmq_client::BrokerAddress;
    /// let addresses = BrokerAddress::parse_list("queue-1, queue-2:9093")?;
    /// assert_eq!(addresses, [BrokerAddress::new("queue-1", 9092), BrokerAddress::new("queue-2", 9093)]);
    /// # Ok::<(), ringmq_client::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// [`AddressError`] names the entry that is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, AddressError> {
        text.split(',').map(|entry| entry.trim().parse()).collect()
    }

    /// Every socket address behind the host, in the order in which to try them. It may block on a resolver: for the
    /// start of a program, not for a task.
    ///
    /// `localhost` never asks a resolver: it is both loopback addresses (RFC 6761, section 6.3), IPv4 first.
    ///
    /// ```
    /// use ringmq_client::BrokerAddress;
    /// let found = BrokerAddress::new("localhost", 9092).resolve_blocking()?;
    /// assert_eq!(found[0].to_string(), "127.0.0.1:9092");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the resolver says.
    pub fn resolve_blocking(&self) -> std::io::Result<Vec<SocketAddr>> {
        match self.loopbacks() {
            Some(loopbacks) => Ok(loopbacks),
            None => (self.host.as_str(), self.port).to_socket_addrs().map(each_once),
        }
    }

    /// As [`BrokerAddress::resolve_blocking`], for tasks. That `localhost` is both loopback addresses has a broker which
    /// listens on only one of them found.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match self.loopbacks() {
            Some(loopbacks) => Ok(loopbacks),
            None => tokio::net::lookup_host((self.host.as_str(), self.port)).await.map(each_once),
        }
    }

    fn loopbacks(&self) -> Option<Vec<SocketAddr>> {
        let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let is_local = self.host.eq_ignore_ascii_case("localhost");
        is_local.then(|| loopbacks.map(|ip| SocketAddr::new(ip, self.port)).to_vec())
    }
}

fn each_once(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let HostPort { host, port } = text.parse()?;
        match port {
            Some(0) => Err(AddressError::BadPort(text.trim().to_owned())),
            port => Ok(Self { host, port: port.unwrap_or(DEFAULT_PORT) }),
        }
    }
}

/// Host and port text of `host`, `host:port`, `[v6]`, `[v6]:port` or a bare `v6`.
fn split_port(text: &str) -> Result<(&str, Option<&str>), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| AddressError::BadHost(text.to_owned()))?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::BadHost(text.to_owned()));
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(AddressError::BadHost(text.to_owned())),
        };
    }
    match text.split_once(':') {
        // More than one colon without brackets can only be an IPv6 address that has no port.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// Digits alone: no sign.
fn parse_port(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.host.clone(), Some(self.port));
        HostPort { host, port }.fmt(f)
    }
}

impl From<SocketAddr> for BrokerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip().to_string(), address.port())
    }
}

/// One or several broker addresses: what [`Client::connect`](crate::Client::connect) takes.
///
/// Text may hold a list with commas between the addresses.
///
/// ```
/// use ringmq_client::IntoBrokers;
/// assert_eq!("queue-1, queue-2".into_brokers()?, ["queue-1", "queue-2"].into_brokers()?);
/// # Ok::<(), ringmq_client::AddressError>(())
/// ```
pub trait IntoBrokers {
    /// The addresses in the order in which they are tried.
    ///
    /// ```
    /// use ringmq_client::IntoBrokers;
    /// assert_eq!("localhost".into_brokers()?[0].port(), 9092);
    /// # Ok::<(), ringmq_client::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// [`AddressError`] when an entry is not an address.
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError>;
}

impl IntoBrokers for &str {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        BrokerAddress::parse_list(self)
    }
}

impl IntoBrokers for &String {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        BrokerAddress::parse_list(self)
    }
}

impl IntoBrokers for String {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        BrokerAddress::parse_list(&self)
    }
}

impl IntoBrokers for SocketAddr {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        Ok(vec![self.into()])
    }
}

impl IntoBrokers for BrokerAddress {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        Ok(vec![self])
    }
}

impl<T: IntoBrokers> IntoBrokers for Vec<T> {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        let lists: Result<Vec<_>, _> = self.into_iter().map(IntoBrokers::into_brokers).collect();
        lists.map(|lists| lists.concat())
    }
}

impl<T: IntoBrokers, const N: usize> IntoBrokers for [T; N] {
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        Vec::from(self).into_brokers()
    }
}

impl<T: Clone> IntoBrokers for &[T]
where
    T: IntoBrokers,
{
    fn into_brokers(self) -> Result<Vec<BrokerAddress>, AddressError> {
        self.to_vec().into_brokers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, u16) {
        let address: BrokerAddress = text.parse().unwrap();
        (address.host, address.port)
    }

    #[test]
    fn reads_what_people_write() {
        for (text, host, port) in [
            ("localhost", "localhost", 9092),
            ("localhost:1", "localhost", 1),
            (" broker-1.example_net:65535 ", "broker-1.example_net", 65535),
            ("127.0.0.1:9093", "127.0.0.1", 9093),
            ("[::1]:9094", "::1", 9094),
            ("[::1]", "::1", 9092),
            ("::1", "::1", 9092),
            ("2001:db8::7", "2001:db8::7", 9092),
        ] {
            assert_eq!(parts(text), (host.to_owned(), port), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        use AddressError::{BadHost, BadPort, Empty, NoHost};
        for (text, expected) in [
            ("", Empty),
            ("   ", Empty),
            (":9092", NoHost(":9092".into())),
            ("host:", BadPort("host:".into())),
            ("host:0", BadPort("host:0".into())),
            ("host:65536", BadPort("host:65536".into())),
            ("host:+80", BadPort("host:+80".into())),
            ("host:http", BadPort("host:http".into())),
            ("a b:1", BadHost("a b:1".into())),
            ("http://host", BadPort("http://host".into())),
            ("[::1", BadHost("[::1".into())),
            ("[::1]9092", BadHost("[::1]9092".into())),
            ("[localhost]:1", BadHost("[localhost]:1".into())),
            ("1:2:3", BadHost("1:2:3".into())),
        ] {
            assert_eq!(text.parse::<BrokerAddress>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_port_may_be_left_out_or_be_zero_where_somebody_listens() {
        for (text, host, port) in [("[::]:0", "::", Some(0)), ("0.0.0.0:80", "0.0.0.0", Some(80)), ("a", "a", None)] {
            let found: HostPort = text.parse().unwrap();
            assert_eq!((found.host.as_str(), found.port), (host, port), "{text}");
            assert_eq!(found.to_string(), text);
        }
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        assert_eq!(long.parse::<HostPort>(), Err(AddressError::BadHost(long)));
    }

    #[test]
    fn lists_and_collections_keep_their_order() {
        let expected = vec![BrokerAddress::new("a", 1), BrokerAddress::new("b", 9092), BrokerAddress::new("::1", 2)];
        assert_eq!("a:1, b,[::1]:2".into_brokers(), Ok(expected.clone()));
        assert_eq!(["a:1", "b", "[::1]:2"].into_brokers(), Ok(expected.clone()));
        assert_eq!(vec!["a:1,b".to_owned(), "[::1]:2".to_owned()].into_brokers(), Ok(expected));
        assert_eq!("a,,b".into_brokers(), Err(AddressError::Empty));
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["localhost:9092", "[::1]:1", "10.0.0.1:80"] {
            assert_eq!(text.parse::<BrokerAddress>().unwrap().to_string(), text);
        }
    }

    #[tokio::test]
    async fn localhost_is_both_loopbacks() {
        let found = BrokerAddress::new("LocalHost", 7).resolve().await.unwrap();
        assert_eq!(found, ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        assert_eq!(BrokerAddress::new("localhost", 7).resolve_blocking().unwrap(), found);
        let literal = BrokerAddress::new("::1", 7);
        assert_eq!(literal.resolve().await.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert_eq!(literal.resolve_blocking().unwrap(), ["[::1]:7".parse().unwrap()]);
    }
}
