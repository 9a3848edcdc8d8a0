//! The rules of the storage protocol, each of which the model can do without.

/// A rule, or a part of one. Numbers, reasons and histories: `docs/storage-protocol.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// 1: durable is the end of the contiguous frames, and what the journal holds contiguous from there.
    DurableIsContiguous,
    /// 2: each opening and each truncation is a generation, durable before anything is appended after it.
    Generations,
    /// 3: a block is acknowledged only when all blocks before it are durable.
    BlocksInOrder,
    /// 4: a block is written over only when a durable block carries the higher floor.
    FloorBeforeReuse,
    /// 4: the numbers of the ring's blocks go on over crashes and name their places.
    NumbersGoOn,
    /// 4: the last free block is kept for one that raises the floor.
    BlockKeptForFloor,
    /// 5: a block says how far its ring was durable and repeats the ends of the block before it.
    BlocksProveBlocks,
    /// 5: a frame says how far its log was durable, the journal included.
    FramesProveEntries,
    /// 5: a frame says how far the frames before it were durable by themselves.
    FramesProveFrames,
    /// 5: a block's entries say how far the frames of their logs were durable by themselves.
    EntriesProveFrames,
    /// 6: entries that cannot be placed are kept aside, durably, before their blocks are freed.
    KeptAside,
    /// 6: entries are dropped only where a durable record says that their topic was deleted.
    DroppedOnRecordOnly,
    /// 6: that a log is corrupt is made durable before the blocks that tell so are freed.
    VerdictBeforeReuse,
    /// 7: the log start offset passes frames that are durable, and nothing beyond.
    StartBehindFrames,
    /// 8: a segment gets its first frame only when the one before is durable to its end.
    SegmentsInOrder,
    /// 9: producer state in a snapshot covers durable offsets only.
    SnapshotsAreDurable,
    /// 9: a duplicate of a batch that is not yet durable waits for the original.
    DuplicatesWait,
    /// 10: recovery reads only when nothing of a killed process can land any more.
    LocksFirst,
    /// 10: recovery flushes what it has read before it writes anything that builds on it.
    FlushBeforeRedo,
    /// 11: frames are durable when the device was flushed, not when the file system has handed them over.
    DeviceFlush,
    /// 12: a write or a flush that failed is never taken for a success.
    FailureIsFinal,
    /// 12: writes and reads go past the kernel's page cache, which hides what a failed flush has lost.
    DirectReads,
    /// 13: nothing is staged without room for it in its segments.
    RoomFirst,
    /// 14: frames carry a number of their log that no client sees.
    LogNumber,
    /// 15: what rots had been proven to be acknowledged. A promise of nobody: what happens without it is what the broker
    /// cannot help.
    RotIsTold,
}

/// Which rules a history obeys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    dropped: Option<Rule>,
}

impl Rules {
    /// The whole protocol.
    pub(crate) const ALL: Self = Self { dropped: None };

    /// The protocol but for one rule.
    pub(crate) fn without(rule: Rule) -> Self {
        Self { dropped: Some(rule) }
    }

    /// Whether `rule` is obeyed.
    pub(crate) fn hold(self, rule: Rule) -> bool {
        self.dropped != Some(rule)
    }
}
