//! Bugs that tests put in to see that they are found. A build without the feature `sim` has none of them.

/// A bug that one simulation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// A frame counts as durable when its write is complete, though nothing flushed it.
    AcknowledgeBeforeFlush,
    /// Directories are not flushed, so names may not outlive a crash.
    SkipDirectorySync,
    /// The end of a log is where its index says.
    TrustIndex,
    /// A flush that failed is tried again, and taken for good when that succeeds.
    RetryFailedFlush,
    /// Journal blocks are free before segments have what they hold.
    FreeJournalEarly,
    /// What the journal has behind a gap counts as durable.
    AcknowledgePastGap,
    /// The log's start passes the frames' end, and what the journal has begins below it.
    StartPastFrames,
    /// What the journal has below the log's start is redone.
    RedoBelowStart,
    /// What a producer sends again is answered before the original is durable.
    AnswerRetryEarly,
    /// A compacted segment takes the place of the old ones before it is flushed.
    SwapBeforeFlush,
    /// A start does without the snapshots of what producers have stored.
    ForgetProducers,
    /// The log's start moves, and files go, before that is durable.
    StartBeforeRecord,
    /// The relaxed journal takes for durable what it never flushed.
    SkipRelaxedFlush,
    /// Offsets that were shown before they were durable, and are lost, are given again.
    GiveLostOffsetsAgain,
    /// Journal blocks are acknowledged when one behind them has landed.
    AcknowledgeOvertaken,
    /// Reads see what the page cache has, and the disk may not.
    ReadPageCache,
    /// A snapshot of the metadata is put in place without any flush.
    SnapshotUnflushed,
    /// Shards hear of a change of the metadata before it is durable.
    PublishBeforeLog,
    /// A snapshot of the metadata has commands that the log does not have yet.
    SnapshotBeforeLog,
    /// The snapshots of the metadata that a new one makes superfluous go before it is durable.
    RemoveSnapshotsFirst,
    /// A snapshot of the metadata counts whatever its checksum says.
    TrustTornSnapshot,
    /// The last command that a snapshot of the metadata covers is applied again.
    ApplyTwice,
}

impl SeededBug {
    /// Each of them.
    pub const ALL: [SeededBug; 22] = [
        SeededBug::AcknowledgeBeforeFlush,
        SeededBug::SkipDirectorySync,
        SeededBug::TrustIndex,
        SeededBug::RetryFailedFlush,
        SeededBug::FreeJournalEarly,
        SeededBug::AcknowledgePastGap,
        SeededBug::StartPastFrames,
        SeededBug::RedoBelowStart,
        SeededBug::AnswerRetryEarly,
        SeededBug::SwapBeforeFlush,
        SeededBug::ForgetProducers,
        SeededBug::StartBeforeRecord,
        SeededBug::SkipRelaxedFlush,
        SeededBug::GiveLostOffsetsAgain,
        SeededBug::AcknowledgeOvertaken,
        SeededBug::ReadPageCache,
        SeededBug::SnapshotUnflushed,
        SeededBug::PublishBeforeLog,
        SeededBug::SnapshotBeforeLog,
        SeededBug::RemoveSnapshotsFirst,
        SeededBug::TrustTornSnapshot,
        SeededBug::ApplyTwice,
    ];

    /// Whether the simulation that this executor belongs to has the bug.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn is_in(self) -> bool {
        crate::backend::try_current().is_some_and(|context| match &context.backend {
            crate::backend::Backend::Sim(world) => world.seeded_bug() == Some(self),
            crate::backend::Backend::Glommio(_) => false,
        })
    }

    /// Whether the simulation that this executor belongs to has the bug.
    #[cfg(not(feature = "sim"))]
    #[must_use]
    pub const fn is_in(self) -> bool {
        false
    }
}
