//! The client's connections: one to each address, opened when first needed, replaced when broken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::connection::{Connection, ConnectionError};
use crate::options::ClientOptions;

/// Addresses that are remembered before those without a connection are forgotten: the ports of shards change with
/// every start of a broker.
const REMEMBERED_MAX: usize = 1024;

/// Connections by address.
#[derive(Debug)]
pub(crate) struct Pool {
    options: ClientOptions,
    slots: Mutex<HashMap<BrokerAddress, Arc<Slot>>>,
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Slot {
    state: Mutex<SlotState>,
    /// Held while a connection is opened, so that everyone who needs one shares it.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct SlotState {
    connection: Option<Connection>,
    /// When the last attempt to connect failed, if the last one did.
    failed_at: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(options: ClientOptions) -> Self {
        Self { options, slots: Mutex::default() }
    }

    /// The connection to `address` if there is one that works.
    pub(crate) fn established(&self, address: &BrokerAddress) -> Option<Connection> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(address)?.established()
    }

    /// The connection to `address`, opened now if there is none.
    ///
    /// Dropping the future abandons the opening; others who wait for the same connection start over.
    pub(crate) async fn connection(
        &self,
        address: &BrokerAddress,
        deadline: Instant,
    ) -> Result<Connection, ConnectionError> {
        let slot = self.slot(address);
        if let Some(connection) = slot.established() {
            return Ok(connection);
        }
        let started = Instant::now();
        let _opening = slot.opening.lock().await;
        if let Some(connection) = slot.established() {
            return Ok(connection);
        }
        let deadline = deadline.min(started + self.options.connect_timeout);
        let opened = Connection::open(address, &self.options, deadline).await;
        let mut state = slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(connection) => {
                tracing::debug!(%address, "connected");
                *state = SlotState { connection: Some(connection.clone()), failed_at: None };
                Ok(connection)
            }
            Err(error) => {
                tracing::debug!(%address, %error, "cannot connect");
                *state = SlotState { connection: None, failed_at: Some(Instant::now()) };
                Err(error)
            }
        }
    }

    /// Whether connecting to `address` failed a short time ago, so that another way is to be preferred.
    pub(crate) fn failed_lately(&self, address: &BrokerAddress) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get(address) else { return false };
        let state = slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed_at.is_some_and(|at| at.elapsed() < self.options.unreachable_for)
    }

    fn slot(&self, address: &BrokerAddress) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(address) {
            return slot.clone();
        }
        if slots.len() >= REMEMBERED_MAX {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.established().is_some());
        }
        slots.entry(address.clone()).or_default().clone()
    }
}

impl Slot {
    fn established(&self) -> Option<Connection> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connection.as_ref().filter(|connection| !connection.is_closed()).cloned()
    }
}
