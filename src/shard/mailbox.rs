//! The only door between shards: one bounded channel into each of them.
//!
//! Whoever asks another shard waits for room first, and then for the answer; the shard that is asked takes messages
//! out without ever waiting for another shard. Answers travel apart from questions, each through a oneshot of its
//! own. So two shards that fill each other's mailbox slow down and refuse, but never lock up.
//!
//! Buffers belong to the core that allocated them from its pool, so record bytes are copied when they cross.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_runtime::local::{Permit, Semaphore};
use ringmq_runtime::task::Stop;
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::{ErrorCode, ShardIndex, WireError};

use crate::handlers;
use crate::handlers::delete_records::ForwardedDeleteRecords;
use crate::handlers::fetch::ForwardedFetch;
use crate::handlers::list_offsets::ForwardedListOffsets;
use crate::handlers::produce::ForwardedProduce;
use crate::limits::{Limits, MAILBOX_MESSAGES, MESSAGE_BYTES};
use crate::placement::{self, Extent, ForwardedQuestion, Online};
use crate::reply_bytes::Account;
use crate::server::Shard;
use crate::stats::{Counter, Stage, Stats, StatsSnapshot};

/// What one shard asks of another.
pub(crate) enum Message {
    Produce(ForwardedProduce),
    Fetch(ForwardedFetch),
    ListOffsets(ForwardedListOffsets),
    DeleteRecords(ForwardedDeleteRecords),
    IsOnline(ForwardedQuestion<Online>),
    Describe(ForwardedQuestion<Extent>),
    /// The sender will ask for nothing more.
    Goodbye,
    /// From the broker: write the statistics to the log.
    LogStats,
    /// From the broker or another shard: hand the statistics over.
    Stats(OneshotSender<StatsSnapshot>),
}

/// The receiving end of one shard's mailbox.
pub(crate) struct Inbox(channel::Receiver<Message>);

/// The sending ends of every shard's mailbox, by index. Clones send to the same mailboxes.
#[derive(Clone)]
pub struct Mailboxes(Arc<[channel::Sender<Message>]>);

/// Makes the mailboxes of all shards of a broker; the inboxes are in the order of their shards.
pub(crate) fn mailboxes(shard_count: u16) -> (Mailboxes, Vec<Inbox>) {
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..shard_count)
        .map(|_| {
            let (sender, receiver) = channel::bounded(MAILBOX_MESSAGES);
            (sender, Inbox(receiver))
        })
        .unzip();
    (Mailboxes(senders.into()), inboxes)
}

impl Mailboxes {
    /// Makes every shard write its statistics to the log, one line each. A shard whose mailbox is full right now is
    /// left out, and the log says so.
    pub fn log_stats(&self) {
        for (shard, sender) in self.0.iter().enumerate() {
            if sender.try_send(Message::LogStats).is_err() {
                tracing::warn!(shard, "statistics cannot be asked for: the shard's mailbox is full or closed");
            }
        }
    }

    /// The statistics of one shard; `None` when it has ended.
    pub async fn stats(&self, shard: ShardIndex) -> Option<StatsSnapshot> {
        let (reply, answer) = channel::oneshot();
        self.0.get(shard.as_usize())?.send(Message::Stats(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailboxes").field("shards", &self.0.len()).finish()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

/// One shard's doors to the others, with what is bounded on its side.
pub(crate) struct Doors {
    doors: Vec<Door>,
    wait_max: Duration,
}

struct Door {
    sender: channel::Sender<Message>,
    /// Record bytes on their way to that shard, until it has answered.
    bytes: Semaphore,
    /// Messages that it has not answered yet, without fetches.
    messages: Semaphore,
    /// Record bytes that it has sent back and that are not written to a socket yet.
    incoming: Account,
}

impl Doors {
    pub(crate) fn new(mailboxes: &Mailboxes, limits: &Limits) -> Self {
        let door = |sender: &channel::Sender<Message>| Door {
            sender: sender.clone(),
            bytes: Semaphore::new(limits.forwarded_bytes_max),
            messages: Semaphore::new(limits.forwarded_in_flight_max),
            incoming: Account::new(limits.forwarded_bytes_max),
        };
        Self { doors: mailboxes.0.iter().map(door).collect(), wait_max: limits.forward_wait_max }
    }

    /// The account of what a shard sends back to this one.
    ///
    /// # Errors
    /// When there is no such shard.
    pub(crate) fn incoming(&self, shard: ShardIndex) -> Result<Account, WireError> {
        self.door(shard).map(|door| door.incoming.clone())
    }

    /// Tells the others that this shard, `own`, will ask for nothing more.
    pub(crate) async fn say_goodbye(&self, own: ShardIndex) {
        for (shard, door) in self.doors.iter().enumerate() {
            // One that has ended, or is stuck, gives up on its own.
            if shard != own.as_usize() {
                let _ = time::timeout(self.wait_max, door.sender.send(Message::Goodbye)).await;
            }
        }
    }

    fn door(&self, shard: ShardIndex) -> Result<&Door, WireError> {
        let missing = || WireError::new(ErrorCode::UnknownServerError, format!("shard {shard} does not exist"));
        self.doors.get(shard.as_usize()).ok_or_else(missing)
    }

    /// Sends a message that carries `bytes` record bytes. Messages of one caller arrive in the order of their calls.
    ///
    /// # Errors
    /// `Overloaded` when there was no room for the time that a request may wait, `ShuttingDown` when the other shard
    /// has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        shard: ShardIndex,
        bytes: usize,
        message: impl FnOnce(OneshotSender<T>) -> Message,
    ) -> Result<Asked<T>, WireError> {
        let door = self.door(shard)?;
        let (reply, answer) = channel::oneshot();
        let message = message(reply);
        let sent = async {
            let room = SentRoom {
                _message: door.messages.acquire(1).await,
                _bytes: door.bytes.acquire(bytes + MESSAGE_BYTES).await,
            };
            door.sender.send(message).await.map(|()| room)
        };
        let room = self.in_time(shard, sent).await?;
        Ok(Asked { shard, answer, _room: Some(room), sent: Instant::now() })
    }

    /// As [`Self::ask`], for what may wait there for minutes: the sender has bounded how many of those there are, and
    /// they take nothing from those that do not wait.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_to_wait<T: Send + 'static>(
        &self,
        shard: ShardIndex,
        message: impl FnOnce(OneshotSender<T>) -> Message,
    ) -> Result<Asked<T>, WireError> {
        let door = self.door(shard)?;
        let (reply, answer) = channel::oneshot();
        self.in_time(shard, door.sender.send(message(reply))).await?;
        Ok(Asked { shard, answer, _room: None, sent: Instant::now() })
    }

    async fn in_time<T>(
        &self,
        shard: ShardIndex,
        sent: impl Future<Output = Result<T, channel::Closed<Message>>>,
    ) -> Result<T, WireError> {
        match time::timeout(self.wait_max, sent).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(ended(shard)),
            Err(_) => Err(overloaded(shard)),
        }
    }
}

fn overloaded(shard: ShardIndex) -> WireError {
    let detail = format!("shard {shard} has no room for forwarded requests; wait a moment, or use its own port");
    WireError::new(ErrorCode::Overloaded, detail)
}

fn ended(shard: ShardIndex) -> WireError {
    WireError::new(ErrorCode::ShuttingDown, format!("shard {shard} has stopped"))
}

/// What a message takes up on the way to another shard, until it is answered.
struct SentRoom {
    _message: Permit,
    _bytes: Permit,
}

/// A message under way; its answer is awaited with [`Asked::answer`].
pub(crate) struct Asked<T> {
    shard: ShardIndex,
    answer: OneshotReceiver<T>,
    _room: Option<SentRoom>,
    sent: Instant,
}

impl<T: Send + 'static> Asked<T> {
    /// The other shard's answer.
    ///
    /// # Errors
    /// `ShuttingDown` when it ended without one.
    pub(crate) async fn answer(self, stats: &Stats) -> Result<T, WireError> {
        let answer = self.answer.await.map_err(|_| ended(self.shard));
        stats.add(Counter::ForwardedMessages, 1);
        stats.record(Stage::Forwarded, self.sent.elapsed());
        answer
    }
}

/// Takes messages out in the order they come, until the shard stops and every other one has said goodbye, or `ended`.
/// Never waits for another shard.
pub(crate) async fn serve(shard: Rc<Shard>, mut inbox: Inbox, ended: Stop) {
    let mut others = shard.config.shard_count.get() - 1;
    loop {
        let until = if others == 0 { &shard.stop } else { &ended };
        let Some(Some(message)) = until.or_stop(inbox.0.recv()).await else { return };
        match message {
            Message::Produce(forwarded) => handlers::produce::serve_forwarded(&shard, forwarded).await,
            Message::Fetch(forwarded) => handlers::fetch::serve_forwarded(&shard, forwarded),
            Message::ListOffsets(forwarded) => handlers::list_offsets::serve_forwarded(&shard, forwarded),
            Message::DeleteRecords(forwarded) => handlers::delete_records::serve_forwarded(&shard, forwarded),
            Message::IsOnline(forwarded) => placement::serve_forwarded_is_online(&shard, forwarded),
            Message::Describe(forwarded) => placement::serve_forwarded_describe(&shard, forwarded),
            Message::Goodbye => others = others.saturating_sub(1),
            Message::LogStats => shard.log_stats(),
            Message::Stats(reply) => {
                let serving = shard.clone();
                shard.spawn_forwarded("statistics", async move {
                    // Whoever asked may have gone away meanwhile.
                    let _ = reply.send(serving.statistics().await);
                });
            }
        }
    }
}
