//! The first 8 bytes of a connection, each way: who speaks, and which version of the protocol both will use.

use std::ops::RangeInclusive;

/// What both preambles start with. As the length of a Kafka request it would be 1.4 GB, far above any limit, so one
/// port can serve both protocols.
pub const PREAMBLE_MAGIC: [u8; 4] = *b"RING";

/// The length of either preamble, in bytes.
pub const PREAMBLE_BYTES: usize = 8;

/// The versions of the native protocol that this crate speaks.
pub const PROTOCOL_VERSIONS: RangeInclusive<u8> = 1..=1;

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPreamble {
    /// The lowest protocol version that the client speaks.
    pub version_min: u8,
    /// The highest.
    pub version_max: u8,
    /// Reserved: a client sends 0, a broker ignores bits that it does not know.
    pub flags: u16,
}

/// What a broker answers. The [hello](super::Hello) follows it, unless no version fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerPreamble {
    /// The version that both will use; `None` (0 on the wire) when the ranges do not meet. The broker then closes.
    pub version: Option<u8>,
    /// The highest version that the broker speaks.
    pub version_max: u8,
    /// Reserved: a broker sends 0, a client ignores bits that it does not know.
    pub flags: u16,
}

/// The first bytes of a connection are no preamble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// The other side speaks something else.
    #[error("the connection starts with {found:02x?} instead of \"RING\"; is this a port of RingMQ?")]
    NotRing {
        /// Its first bytes.
        found: [u8; 4],
    },
    /// The range of versions is upside down or starts at 0, which stands for none.
    #[error("the range of protocol versions {version_min} to {version_max} is empty or holds 0")]
    Versions {
        /// Its lower end.
        version_min: u8,
        /// Its upper end.
        version_max: u8,
    },
}

impl ClientPreamble {
    /// What this crate says as a client.
    pub const CURRENT: Self =
        Self { version_min: *PROTOCOL_VERSIONS.start(), version_max: *PROTOCOL_VERSIONS.end(), flags: 0 };

    /// The bytes on the wire.
    pub const fn encode(self) -> [u8; PREAMBLE_BYTES] {
        let [r, i, n, g] = PREAMBLE_MAGIC;
        let [high, low] = self.flags.to_be_bytes();
        [r, i, n, g, self.version_min, self.version_max, high, low]
    }

    /// Reads what a client said.
    ///
    /// # Errors
    /// When it is not a preamble, or the version range is empty.
    pub fn decode(bytes: [u8; PREAMBLE_BYTES]) -> Result<Self, PreambleError> {
        let [r, i, n, g, version_min, version_max, high, low] = bytes;
        check_magic([r, i, n, g])?;
        if version_min == 0 || version_min > version_max {
            return Err(PreambleError::Versions { version_min, version_max });
        }
        Ok(Self { version_min, version_max, flags: u16::from_be_bytes([high, low]) })
    }

    /// What this crate answers as a broker: the highest version that both speak.
    pub fn answer(self) -> BrokerPreamble {
        let version_max = *PROTOCOL_VERSIONS.end();
        let highest = self.version_max.min(version_max);
        let version = (highest >= self.version_min.max(*PROTOCOL_VERSIONS.start())).then_some(highest);
        BrokerPreamble { version, version_max, flags: 0 }
    }
}

impl BrokerPreamble {
    /// The bytes on the wire.
    pub const fn encode(self) -> [u8; PREAMBLE_BYTES] {
        let [r, i, n, g] = PREAMBLE_MAGIC;
        let [high, low] = self.flags.to_be_bytes();
        let version = match self.version {
            Some(version) => version,
            None => 0,
        };
        [r, i, n, g, version, self.version_max, high, low]
    }

    /// Reads what a broker answered.
    ///
    /// # Errors
    /// When it is not a preamble.
    pub fn decode(bytes: [u8; PREAMBLE_BYTES]) -> Result<Self, PreambleError> {
        let [r, i, n, g, version, version_max, high, low] = bytes;
        check_magic([r, i, n, g])?;
        let version = if version == 0 { None } else { Some(version) };
        Ok(Self { version, version_max, flags: u16::from_be_bytes([high, low]) })
    }
}

fn check_magic(found: [u8; 4]) -> Result<(), PreambleError> {
    if found == PREAMBLE_MAGIC { Ok(()) } else { Err(PreambleError::NotRing { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(version_min: u8, version_max: u8) -> ClientPreamble {
        ClientPreamble { version_min, version_max, flags: 0 }
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(client(1, 1).answer().version, Some(1));
        assert_eq!(client(1, 9).answer().version, Some(1));
        assert_eq!(client(2, 9).answer(), BrokerPreamble { version: None, version_max: 1, flags: 0 });
    }

    #[test]
    fn both_preambles_come_back_from_their_bytes() {
        for preamble in [client(1, 1), client(3, 255), ClientPreamble { flags: 0x0102, ..client(1, 2) }] {
            assert_eq!(ClientPreamble::decode(preamble.encode()), Ok(preamble));
        }
        for version in [None, Some(1), Some(255)] {
            let preamble = BrokerPreamble { version, version_max: 7, flags: 0x8001 };
            assert_eq!(BrokerPreamble::decode(preamble.encode()), Ok(preamble));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let http = *b"GET / HT";
        assert_eq!(ClientPreamble::decode(http), Err(PreambleError::NotRing { found: *b"GET " }));
        assert_eq!(BrokerPreamble::decode(http), Err(PreambleError::NotRing { found: *b"GET " }));
        for (version_min, version_max) in [(0, 1), (2, 1), (0, 0)] {
            let refused = ClientPreamble::decode(client(version_min, version_max).encode());
            assert_eq!(refused, Err(PreambleError::Versions { version_min, version_max }));
        }
    }
}
