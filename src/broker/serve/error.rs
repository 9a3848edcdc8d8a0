//! Why a broker does not start, or stops by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringmq_controller::ControllerError;
use ringmq_runtime::probe::Problem;
use ringmq_shard::ShardError;
use thiserror::Error;

use super::machine::CpuError;
use crate::config::ConfigError;
use crate::exit::Exit;

/// Why a broker does not serve, or no longer.
#[derive(Debug, Error)]
pub(super) enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The shards cannot have the CPUs that it names.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Something in the configuration does not fit the machine.
    #[error("{0}")]
    Unfit(String),
    /// The machine lacks something.
    #[error("{0} (`ringmq doctor` shows everything that this machine has and lacks)")]
    Machine(#[from] Problem),
    /// The data directory cannot be made.
    #[error("cannot create the data directory {}: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody listens there already.
    #[error(
        "{address} is in use; stop what listens there (another broker, perhaps), or choose another address with --listen"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error(
        "cannot listen on {address}: {source}; name an address of this machine with --listen, and a port that the user may use"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Signal handlers or threads cannot be set up.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The controller failed.
    #[error("{0}")]
    Controller(#[source] Box<ControllerError>),
    /// A shard failed.
    #[error("shard {shard} stopped: {source}")]
    Shard {
        /// Which one.
        shard: u16,
        /// Why.
        #[source]
        source: Box<ShardError>,
    },
    /// A thread panicked, or its executor could not run.
    #[error("{who} ended without a result: {source}; this is a fault in the broker, please report it")]
    Crashed {
        /// Which thread.
        who: String,
        /// What is known of it.
        source: io::Error,
    },
    /// A thread ended without an error before anybody asked it to.
    #[error("{who} ended by itself; this is a fault in the broker, please report it")]
    Ended {
        /// Which thread.
        who: String,
    },
}

impl ServeError {
    /// How the process ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Cpu(_) | Self::Unfit(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    /// Whether this is only what follows when another executor could not start.
    pub(super) fn is_consequence(&self) -> bool {
        matches!(self, Self::Shard { source, .. } if matches!(**source, ShardError::GivenUp))
    }
}

#[cfg(test)]
mod tests {
    use ringmq_shard::RecoveryError;

    use super::*;

    #[test]
    fn a_shard_that_gave_up_for_another_ones_sake_is_not_the_cause() {
        let stopped = |source| ServeError::Shard { shard: 1, source: Box::new(source) };
        assert!(stopped(RecoveryError::GivenUp.into()).is_consequence());
        assert!(stopped(ShardError::GivenUp).is_consequence());
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let cannot_listen = ShardError::Listen { address: ([127, 0, 0, 1], 9092).into(), cause: in_use };
        assert!(!stopped(cannot_listen).is_consequence());
    }
}
