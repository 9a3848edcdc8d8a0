//! When positions are saved: soon after they have moved, and at the end.

use std::time::Duration;

use ringmq_client::{Client, TopicId};
use ringmq_wire::{Offset, PartitionIndex};
use tokio::time::Instant;

use super::resume::Positions;
use crate::cli::ConsumeArgs;
use crate::commands::{CommandError, Interrupt};

/// Positions that have moved are saved this much later.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What the command is to do between two chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Todo {
    /// Save the positions.
    Save,
    /// End: somebody has asked for that.
    End,
}

/// Keeps the positions, and saves them where that was asked for.
#[derive(Debug)]
pub(super) struct Saver {
    /// Up to where everything is printed.
    pub positions: Positions,
    saving: Option<Saving>,
}

#[derive(Debug)]
struct Saving {
    topic: String,
    topic_id: TopicId,
    /// Whoever wants to end it waits until they are saved.
    interrupt: Interrupt,
    /// When they are to be saved; `None` while they have not moved.
    due: Option<Instant>,
}

impl Saver {
    /// The positions that were saved, if there are any.
    ///
    /// # Errors
    /// When there is no such topic, or its positions cannot be read or used.
    pub(super) async fn open(args: &ConsumeArgs, client: &Client) -> Result<Self, CommandError> {
        let Some(file) = &args.resume else { return Ok(Self { positions: Positions::default(), saving: None }) };
        let topic = client.admin().describe_topic(&args.topic).await?;
        let positions = Positions::read(file, &topic.name, topic.topic_id)?;
        let interrupt = Interrupt::listen().map_err(CommandError::Setup)?;
        let saving = Saving { topic: topic.name, topic_id: topic.topic_id, interrupt, due: None };
        Ok(Self { positions, saving: Some(saving) })
    }

    /// Moves the position of a partition.
    pub(super) fn moved_to(&mut self, partition: PartitionIndex, next: Offset) {
        self.positions.set(partition, next);
        if let Some(saving) = &mut self.saving {
            saving.due.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
        }
    }

    /// Waits until there is something to do; for ever where nothing is saved, and an interrupt ends the process by itself.
    pub(super) async fn next(&mut self) -> Todo {
        let Some(saving) = &mut self.saving else { return std::future::pending().await };
        let due = saving.due.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = saving.interrupt.received() => Todo::End,
            () = tokio::time::sleep_until(due), if saving.due.is_some() => Todo::Save,
        }
    }

    /// Saves them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn save(&mut self) -> Result<(), CommandError> {
        if let Some(saving) = &mut self.saving {
            self.positions.save(&saving.topic, saving.topic_id)?;
            saving.due = None;
        }
        Ok(())
    }
}
