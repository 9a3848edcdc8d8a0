//! What ties the shards of a broker together, to the controller, and to whoever starts them.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ringmq_controller::{ControllerRequest, MetadataUpdate};
use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_wire::ShardIndex;

use crate::mailbox::{Inbox, Mailboxes, mailboxes};
use crate::storage::{self, RecoveryLink};

/// Updates of the metadata that may wait for a shard. The controller skips what is overtaken, so one would do.
const UPDATES_MAX: usize = 2;

/// Both ends of everything between the shards of one broker, the controller and the broker's start.
///
/// The start goes like this: each shard waits for its first [`MetadataUpdate`], opens its partitions, binds its ports
/// and reports in `started`. When all have, their reports are the [`Roster`]; sent into each of `rosters`, it makes the
/// shards accept connections. Dropping `rosters` instead gives the start up.
#[derive(Debug)]
pub struct Wiring {
    /// What each shard is run with, by index.
    pub shards: Vec<ShardLinks>,
    /// Where the controller sends each shard's updates, by index.
    pub metadata: Vec<channel::Sender<MetadataUpdate>>,
    /// Each shard's report, by index.
    pub started: Vec<OneshotReceiver<Started>>,
    /// Where each shard gets to know the others, by index.
    pub rosters: Vec<OneshotSender<Arc<Roster>>>,
    /// For the broker's own questions to the shards.
    pub mailboxes: Mailboxes,
}

/// One shard's ends.
#[derive(Debug)]
pub struct ShardLinks {
    pub(crate) inbox: Inbox,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) controller: channel::Sender<ControllerRequest>,
    pub(crate) metadata: channel::Receiver<MetadataUpdate>,
    pub(crate) recovery: RecoveryLink,
    pub(crate) started: OneshotSender<Started>,
    pub(crate) roster: OneshotReceiver<Arc<Roster>>,
}

impl Wiring {
    /// Makes the links of `shard_count` shards; `controller` leads to the controller.
    pub fn new(shard_count: NonZeroU16, controller: &channel::Sender<ControllerRequest>) -> Wiring {
        let (mailboxes, inboxes) = mailboxes(shard_count.get());
        let mut wiring = Wiring {
            shards: Vec::new(),
            metadata: Vec::new(),
            started: Vec::new(),
            rosters: Vec::new(),
            mailboxes: mailboxes.clone(),
        };
        for (inbox, recovery) in inboxes.into_iter().zip(storage::link(shard_count.get())) {
            let (metadata_sender, metadata) = channel::bounded(UPDATES_MAX);
            let (started, started_receiver) = channel::oneshot();
            let (roster_sender, roster) = channel::oneshot();
            wiring.metadata.push(metadata_sender);
            wiring.started.push(started_receiver);
            wiring.rosters.push(roster_sender);
            wiring.shards.push(ShardLinks {
                inbox,
                mailboxes: mailboxes.clone(),
                controller: controller.clone(),
                metadata,
                recovery,
                started,
                roster,
            });
        }
        wiring
    }
}

/// What a shard reports when it could serve.
#[derive(Debug, Clone)]
pub struct Started {
    /// The shard as others see it.
    pub member: RosterEntry,
    /// The bound public address.
    pub public: SocketAddr,
    /// Partitions that are open.
    pub partitions_online: usize,
    /// Partitions that could not be opened; each was logged with its reason.
    pub partitions_offline: usize,
}

/// All shards of the broker, as metadata shows them.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    /// In the order of their index.
    pub shards: Vec<RosterEntry>,
}

/// One shard of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RosterEntry {
    /// Its index.
    pub shard: ShardIndex,
    /// The port of its own.
    pub port: u16,
    /// The CPU that it is pinned to.
    pub cpu: Option<u32>,
}

impl Roster {
    /// The port of a shard, if it has one of its own.
    pub(crate) fn port(&self, shard: ShardIndex) -> Option<u16> {
        self.shards.get(shard.as_usize()).map(|entry| entry.port)
    }
}
