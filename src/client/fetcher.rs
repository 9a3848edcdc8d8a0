//! Follows a group of partitions with fetches, where the broker does not send by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::connection::Connection;
use crate::error::Error;
use crate::fetch::request;
use crate::fetched::Source;
use crate::guide::{Ended, Position, Response, Room, Section, Shared};

impl Shared {
    /// Fetches a group of partitions over one connection until all are done, or an error comes.
    pub(crate) async fn fetch(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        responses: Arc<Semaphore>,
        mut left: Vec<Position>,
    ) -> Ended {
        let mut progressed = false;
        let error = loop {
            // Asked for only when there is room for the answer.
            let Ok(permit) = responses.clone().acquire_owned().await else { break None };
            let (sections, error) = self.fetch_once(address, connection, &mut left).await;
            let response = Response { sections, _room: Room::Response(permit) };
            if !response.sections.is_empty() && self.sender.send(Ok(response)).is_err() {
                // The reader left.
                break None;
            }
            if error.is_some() {
                break error;
            }
            progressed = true;
            left.retain(|position| !position.is_done());
            if left.is_empty() {
                break None;
            }
            // The broker serves partitions in the order of the request until the response is full.
            left.rotate_left(1);
        };
        Ended { left, error, progressed }
    }

    /// One request for all of `left`. Positions move past the sections that are given, error or not.
    async fn fetch_once(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        left: &mut [Position],
    ) -> (VecDeque<Section>, Option<Error>) {
        let deadline = Instant::now() + self.cluster.options.timeout + self.options.fetch.max_wait;
        let sources = self.sources(left);
        let answer = match request(connection, address, &sources, self.options.fetch, deadline).await {
            Ok(answer) => answer,
            Err(error) => return (VecDeque::new(), Some(error)),
        };
        let (mut sections, mut failure) = (VecDeque::new(), None);
        for (position, found) in left.iter_mut().zip(answer) {
            match position.take(&self.topic, found) {
                Ok(section) => sections.extend(section),
                Err(error) => failure = Some(error),
            }
        }
        (sections, failure)
    }

    /// What is left, as a request names it.
    pub(crate) fn sources(&self, left: &[Position]) -> Vec<Source> {
        let source = |position: &Position| Source {
            topic: self.topic.clone(),
            partition: position.partition,
            from: position.next,
        };
        left.iter().map(source).collect()
    }
}
