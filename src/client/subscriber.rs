//! Follows a group of partitions by a subscription of the broker: records come as soon as they may be seen.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ringmq_wire::protocol::SubscribeRequest;
use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::connection::{Connection, Frame, Grants, RequestError, Subscription};
use crate::error::Error;
use crate::fetch::topics;
use crate::guide::{Ended, Place, Position, Response, Room, Section, Shared};
use crate::retry::Retry;
use crate::window::Window;

/// How long the broker may have nothing to tell without saying so.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The pause behind a subscription that the broker ended before it brought anything.
const FRUITLESS_PAUSE: Duration = Duration::from_millis(20);

/// What a frame brought.
#[derive(Default)]
struct Brought {
    sections: VecDeque<Section>,
    error: Option<Error>,
    /// Records came of a partition that has all it wants.
    is_wasteful: bool,
}

impl Shared {
    /// Receives a group of partitions over one connection until all are done, the broker ends it, or an error comes.
    pub(crate) async fn subscribe(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        place: Place,
        mut left: Vec<Position>,
    ) -> Ended {
        left.sort_unstable_by_key(|position| position.partition);
        let mut progressed = false;
        let followed = self.subscribe_once(address, connection, place, &mut left, &mut progressed).await;
        Ended { left, error: followed.err(), progressed }
    }

    async fn subscribe_once(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        Place { slot, window, _entered }: Place,
        left: &mut [Position],
        progressed: &mut bool,
    ) -> Result<(), Error> {
        let failed = |error| Error::of_request("subscribe", address, error);
        let fetch = self.options.fetch;
        let request = SubscribeRequest {
            credit_bytes: window.open().await,
            max_bytes: fetch.max_bytes,
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX),
            topics: topics(&self.sources(left), fetch),
        };
        let deadline = Instant::now() + self.cluster.options.timeout;
        let mut subscription = connection.subscribe(&request, slot, deadline).await.map_err(failed)?;
        let grants = subscription.grants();
        let ended = tokio::select! {
            biased;
            taken = self.take_frames(address, &mut subscription, &window, left) => taken,
            error = self.grant(&grants, &window) => Err(failed(error)),
        };
        *progressed = subscription.is_answered();
        ended
    }

    /// Passes on what comes until nothing more does, or is wanted.
    async fn take_frames(
        &self,
        address: &BrokerAddress,
        subscription: &mut Subscription,
        window: &Arc<Window>,
        left: &mut [Position],
    ) -> Result<(), Error> {
        let patience = HEARTBEAT + self.cluster.options.timeout;
        let mut is_fruitless = true;
        loop {
            let next = subscription.next(patience).await;
            let Some(frame) = next.map_err(|error| Error::of_request("subscribe", address, error))? else { break };
            let room = Room::Bytes(window.hold(frame.sections.len()));
            let Brought { sections, error, is_wasteful } = self.take_frame(frame, left);
            if !sections.is_empty() {
                is_fruitless = false;
                if self.sender.send(Ok(Response { sections, _room: room })).is_err() {
                    // The reader left.
                    return Ok(());
                }
            }
            if let Some(error) = error {
                return Err(error);
            }
            if is_wasteful || left.iter().all(Position::is_done) {
                return Ok(());
            }
        }
        if is_fruitless {
            tokio::time::sleep(FRUITLESS_PAUSE).await;
        }
        Ok(())
    }

    /// Positions move past the sections that are given, error or not.
    fn take_frame(&self, frame: Frame, left: &mut [Position]) -> Brought {
        let (mut brought, mut sections) = (Brought::default(), frame.sections);
        for topic in frame.head.topics {
            for found in topic.partitions {
                let asked = left.binary_search_by_key(&found.partition, |position| position.partition);
                let position = asked.ok().and_then(|at| left.get_mut(at)).filter(|_| topic.topic == self.topic);
                let Some(position) = position else {
                    let reason = format!("partition {} of topic `{}` came unasked", found.partition, topic.topic);
                    brought.error = Some(Error::Nonsense(reason));
                    return brought;
                };
                // The head was checked against the length of the frame.
                let section = sections.split_to((found.records_bytes as usize).min(sections.len()));
                if position.is_done() {
                    brought.is_wasteful = true;
                    continue;
                }
                match position.take(&self.topic, (found, section)) {
                    Ok(section) => brought.sections.extend(section),
                    Err(error) => brought.error = Some(error),
                }
            }
        }
        brought
    }

    /// Grants what the reader frees, until that fails for good.
    async fn grant(&self, grants: &Grants, window: &Window) -> RequestError {
        loop {
            let bytes = window.freed().await;
            let mut retry = Retry::new("grant credit", self.cluster.options.timeout);
            loop {
                let granted = grants.grant(bytes, Instant::now() + self.cluster.options.timeout).await;
                let Err(error) = granted else { break };
                // What may have been granted is not granted again: it would be too much.
                let RequestError::Refused(refusal) = &error else { return error };
                let refusal = Error::Broker { subject: "credit of a subscription".to_owned(), source: refusal.clone() };
                if retry.pause_after(refusal).await.is_err() {
                    return error;
                }
            }
        }
    }
}
