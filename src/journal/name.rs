//! Which file holds what. Described in `docs/formats/journal.md`.

use ringmq_wire::ShardIndex;

use crate::number::{BlockNumber, RingNumber};

/// What a file is called until it is complete.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// When the blocks of a ring are durable. What is in them is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flushing {
    /// Each when it is written.
    Each,
    /// With the next flush, which makes all durable that were written before: they go to the page cache, and a killed
    /// process loses none.
    Relaxed,
}

impl Flushing {
    const ALL: [Flushing; 2] = [Flushing::Each, Flushing::Relaxed];

    /// How the file of such a ring is called.
    fn suffix(self) -> &'static str {
        match self {
            Flushing::Each => ".ring",
            Flushing::Relaxed => ".relaxed",
        }
    }
}

/// The name of a ring's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RingName {
    /// The core that writes it.
    pub shard: ShardIndex,
    /// Which of the rings that ever were.
    pub number: RingNumber,
    /// When its blocks are durable.
    pub flushing: Flushing,
}

impl RingName {
    /// Within the directory of the journals.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:05}-{}{}", self.shard.get(), self.number, self.flushing.suffix())
    }

    /// What a file's name says; `None` for a name that is no ring's.
    #[must_use]
    pub fn parse(name: &str) -> Option<RingName> {
        let of = |flushing: Flushing| Some((name.strip_suffix(flushing.suffix())?, flushing));
        let (stem, flushing) = Flushing::ALL.into_iter().find_map(of)?;
        let (shard, number) = stem.split_once('-')?;
        let number = RingNumber(u64::from_str_radix(number, 16).ok()?);
        let parsed = RingName { shard: ShardIndex::new(shard.parse().ok()?), number, flushing };
        (parsed.file_name() == name).then_some(parsed)
    }
}

/// The name of an aside file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsideName {
    /// The ring that the blocks were copied from.
    pub ring: RingNumber,
    /// The first of them.
    pub first: BlockNumber,
}

impl AsideName {
    /// Within the directory of the journals.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}-{:020}.aside", self.ring, self.first)
    }

    /// What a file's name says; `None` for a name that is no aside file's.
    #[must_use]
    pub fn parse(name: &str) -> Option<AsideName> {
        let (ring, first) = name.strip_suffix(".aside")?.split_once('-')?;
        let ring = RingNumber(u64::from_str_radix(ring, 16).ok()?);
        let parsed = AsideName { ring, first: BlockNumber(first.parse().ok()?) };
        (parsed.file_name() == name).then_some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_not_ours() {
        for (flushing, file_name) in
            [(Flushing::Each, "00003-00000000000000ab.ring"), (Flushing::Relaxed, "00003-00000000000000ab.relaxed")]
        {
            let ring = RingName { shard: ShardIndex::new(3), number: RingNumber(0xAB), flushing };
            assert_eq!(ring.file_name(), file_name);
            assert_eq!(RingName::parse(file_name), Some(ring));
        }
        let aside = AsideName { ring: RingNumber(0xAB), first: BlockNumber(u64::MAX) };
        assert_eq!(aside.file_name(), "00000000000000ab-18446744073709551615.aside");
        assert_eq!(AsideName::parse(&aside.file_name()), Some(aside));
        let others =
            ["", ".ring", "3-ab.ring", "00003-00000000000000AB.ring", "00003-00000000000000ab.ring.tmp", "é-é.ring"];
        for other in others {
            assert_eq!((RingName::parse(other), AsideName::parse(other)), (None, None), "{other}");
        }
    }
}
