//! The types of keys that are more than a number: how they are written, read and shown.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ringmq_client::{AddressError, BrokerAddress, HostPort};
use serde::{Deserialize, Serialize};

/// The address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen {
    host: String,
    port: u16,
}

impl Listen {
    /// The port; 0 has the kernel choose one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket addresses behind the host; the first is listened on. It may block on a resolver.
    ///
    /// # Errors
    /// What the resolver says, in words.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let addresses = BrokerAddress::new(self.host.clone(), self.port).resolve_blocking();
        match addresses {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(format!("no address stands behind the name `{}`", self.host)),
            Err(error) => Err(format!("the name `{}` cannot be resolved: {error}", self.host)),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let HostPort { host, port } = text.parse().map_err(|error: AddressError| error.to_string())?;
        let port = port.ok_or_else(|| format!("`{text}` names no port; write HOST:PORT (port 0 for any free one)"))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostPort { host: self.host.clone(), port: Some(self.port) }.fmt(f)
    }
}

/// The address that clients are told to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Advertise {
    /// Each client is told the address that it reached.
    Auto,
    /// Every client is told this one; without a port, with the one listened on.
    Address(HostPort),
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(HostPort { port: Some(0), .. }) => Err(AddressError::BadPort(text.to_owned()).to_string()),
            Ok(address) => Ok(Self::Address(address)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The CPUs that carry a shard each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WordOrList<usize>", into = "WordOrList<usize>")]
pub enum Cores {
    /// Those that the process may use.
    All,
    /// These, in this order; never empty, none twice.
    List(Vec<usize>),
}

/// More CPUs than any machine has: bounds what a range such as `0-4000000000` can ask for.
const CPU_NUMBER_MAX: usize = 4095;

impl Cores {
    fn from_list(list: Vec<usize>) -> Result<Self, String> {
        if list.is_empty() {
            return Err("the list of CPUs is empty".to_owned());
        }
        for (i, cpu) in list.iter().enumerate() {
            if *cpu > CPU_NUMBER_MAX {
                return Err(format!("CPU {cpu} is beyond {CPU_NUMBER_MAX}"));
            }
            if list.iter().take(i).any(|earlier| earlier == cpu) {
                return Err(format!("CPU {cpu} is named twice"));
            }
        }
        Ok(Self::List(list))
    }
}

impl FromStr for Cores {
    type Err = String;

    /// Reads `all` or a list such as `0,2-3`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(cpu) if cpu <= CPU_NUMBER_MAX => Ok(cpu),
            _ => Err(format!("`{text}` is not a CPU number (0 to {CPU_NUMBER_MAX})")),
        };
        let mut list = Vec::new();
        for item in text.split(',') {
            match item.split_once('-') {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(format!("the range `{item}` runs backwards"));
                    }
                    list.extend(first..=last);
                }
                None => list.push(number(item)?),
            }
        }
        Self::from_list(list)
    }
}

/// The ports of the single shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WordOrList<u16>", into = "WordOrList<u16>")]
pub enum ShardPorts {
    /// The kernel chooses.
    Ephemeral,
    /// Shard `i` gets this port plus `i`.
    Base(u16),
    /// Shard `i` gets the `i`th; there is one for each shard.
    List(Vec<u16>),
}

impl ShardPorts {
    /// The port of each of `shards` shards; 0 where the kernel chooses.
    ///
    /// # Errors
    /// When the list has another length, or the base leaves no room below 65536.
    pub fn for_shards(&self, shards: usize) -> Result<Vec<u16>, String> {
        match self {
            Self::Ephemeral => Ok(vec![0; shards]),
            Self::Base(base) => (0..shards)
                .map(|i| u16::try_from(usize::from(*base) + i))
                .collect::<Result<_, _>>()
                .map_err(|_| format!("{shards} shards from port {base} on pass the last port, 65535")),
            Self::List(ports) if ports.len() == shards => Ok(ports.clone()),
            Self::List(ports) => Err(format!("{} ports for {shards} shards: name one for each", ports.len())),
        }
    }
}

/// A number of bytes, or the broker's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WordOrList<u64>", into = "WordOrList<u64>")]
pub enum Automatic {
    /// The broker chooses by the machine that it runs on.
    Auto,
    /// This many.
    Fixed(u64),
}

/// How much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What stops the broker or loses something.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happens seldom: starts, stops, topics.
    Info,
    /// What happens to single connections and requests.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The words that the file and the flag take.
    pub const WORDS: &[&str] = &["error", "warn", "info", "debug", "trace"];
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The words that the file and the flag take.
    pub const WORDS: &[&str] = &["text", "json"];
}

/// The forms that a value has in TOML: a word, one number, or a list of numbers.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a word, a number or a list of numbers in range")]
enum WordOrList<N> {
    Word(String),
    Number(N),
    List(Vec<N>),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl TryFrom<String> for Advertise {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Advertise> for String {
    fn from(advertise: Advertise) -> Self {
        advertise.to_string()
    }
}

impl TryFrom<WordOrList<usize>> for Cores {
    type Error = String;

    fn try_from(form: WordOrList<usize>) -> Result<Self, Self::Error> {
        match form {
            WordOrList::Word(text) => text.parse(),
            WordOrList::Number(cpu) => Self::from_list(vec![cpu]),
            WordOrList::List(list) => Self::from_list(list),
        }
    }
}

impl From<Cores> for WordOrList<usize> {
    fn from(cores: Cores) -> Self {
        match cores {
            Cores::All => Self::Word("all".to_owned()),
            Cores::List(list) => Self::List(list),
        }
    }
}

impl TryFrom<WordOrList<u16>> for ShardPorts {
    type Error = String;

    fn try_from(form: WordOrList<u16>) -> Result<Self, Self::Error> {
        match form {
            WordOrList::Word(text) if text == "ephemeral" => Ok(Self::Ephemeral),
            WordOrList::Word(text) => Err(format!("`{text}` is not \"ephemeral\"")),
            WordOrList::Number(0) => Err("port 0 is no base; say \"ephemeral\"".to_owned()),
            WordOrList::Number(base) => Ok(Self::Base(base)),
            WordOrList::List(ports) if ports.is_empty() => Err("the list of ports is empty".to_owned()),
            WordOrList::List(ports) => Ok(Self::List(ports)),
        }
    }
}

impl From<ShardPorts> for WordOrList<u16> {
    fn from(ports: ShardPorts) -> Self {
        match ports {
            ShardPorts::Ephemeral => Self::Word("ephemeral".to_owned()),
            ShardPorts::Base(base) => Self::Number(base),
            ShardPorts::List(list) => Self::List(list),
        }
    }
}

impl TryFrom<WordOrList<u64>> for Automatic {
    type Error = String;

    fn try_from(form: WordOrList<u64>) -> Result<Self, Self::Error> {
        match form {
            WordOrList::Word(text) if text == "auto" => Ok(Self::Auto),
            WordOrList::Word(text) => Err(format!("`{text}` is not \"auto\"")),
            WordOrList::Number(number) => Ok(Self::Fixed(number)),
            WordOrList::List(_) => Err("a list where one number is wanted".to_owned()),
        }
    }
}

impl From<Automatic> for WordOrList<u64> {
    fn from(value: Automatic) -> Self {
        match value {
            Automatic::Auto => Self::Word("auto".to_owned()),
            Automatic::Fixed(number) => Self::Number(number),
        }
    }
}
