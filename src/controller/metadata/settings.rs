//! The settings of a topic: which there are, what they may be, and which a topic chose for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use crate::excerpt::Excerpt;

/// Declares the settings, each once: its number in the metadata log, its name, its key, the type and the default of its
/// value, and the least and the most that it may be; the words for these numbers, where users write words. The doc
/// comment tells users what it is for.
macro_rules! settings {
    (words) => { None };
    (words $words:expr) => { Some($words) };
    ($(
        $(#[doc = $about:literal])+
        $number:literal $variant:ident $key:ident: $type:ty = $default:expr, $least:expr => $most:expr
            $(, words $words:expr)?;
    )+) => {
        /// A setting that a topic may choose. The numbers are those of the metadata log and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum SettingKey {
            $( #[doc = concat!("`", stringify!($key), "`:")] $(#[doc = $about])+ $variant = $number, )+
        }

        impl SettingKey {
            /// All settings, in the order of their numbers.
            pub const ALL: [SettingKey; [$($number),+].len()] = [$(SettingKey::$variant),+];

            /// The key as users write it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(SettingKey::$variant => stringify!($key),)+
                }
            }

            /// What it is for, in lines.
            pub const fn about(self) -> &'static [&'static str] {
                match self {
                    $(SettingKey::$variant => &[$($about),+],)+
                }
            }

            /// The words that users write for its values, from the least on; `None` where they write the numbers.
            pub const fn words(self) -> Option<&'static [&'static str]> {
                match self {
                    $(SettingKey::$variant => settings!(words $($words)?),)+
                }
            }

            /// The values that it takes.
            pub const fn range(self) -> RangeInclusive<u64> {
                match self {
                    $(SettingKey::$variant => $least..=$most,)+
                }
            }
        }

        /// The settings that a topic lives by: its own choices over the broker's defaults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct TopicSettings {
            $( $(#[doc = $about])+ pub $key: $type, )+
        }

        impl Default for TopicSettings {
            fn default() -> Self {
                TopicSettings { $($key: $default),+ }
            }
        }

        impl TopicSettings {
            /// The value of one setting.
            pub fn get(&self, key: SettingKey) -> u64 {
                match key {
                    $(SettingKey::$variant => self.$key.into(),)+
                }
            }

            /// Sets a value, or the nearest one that the setting's range holds.
            pub fn set(&mut self, key: SettingKey, value: u64) {
                let value = value.clamp(*key.range().start(), *key.range().end());
                match key {
                    $(SettingKey::$variant => self.$key = value.try_into().unwrap_or(<$type>::MAX),)+
                }
            }
        }
    };
}

settings! {
    /// A segment is sealed before it grows beyond this, in bytes.
    1 SegmentBytes segment_bytes: u64 = 1 << 30, 1 << 20 => 1 << 40;
    /// A segment is sealed when its first record is older than this, in milliseconds.
    2 SegmentAgeMs segment_age_ms: u64 = 7 * DAY_MS, 1_000 => 10 * 365 * DAY_MS;
    /// Largest record batch that is taken, in bytes.
    3 BatchBytesMax batch_bytes_max: u32 = 1 << 20, 1 << 10 => 16 << 20;
    /// Records are deleted, with their segment, when the latest of it is older than this, in milliseconds. 0: never.
    4 RetentionMs retention_ms: u64 = 7 * DAY_MS, 0 => 100 * 365 * DAY_MS;
    /// The oldest segments of a partition are deleted while the others have this many bytes. 0: never.
    5 RetentionBytes retention_bytes: u64 = 0, 0 => 1 << 50;
    /// What becomes of old records: "delete" removes them when the retention is over, "compact" those that a later record
    /// with the same key replaces, "compact,delete" both.
    6 Cleanup cleanup: Cleanup = Cleanup::Delete, 0 => 2, words Cleanup::WORDS;
    /// How long a record without a value stays once what it deletes is gone, where topics are compacted, in
    /// milliseconds. A consumer that reads all of a topic within that time sees every deletion.
    7 TombstoneRetentionMs tombstone_retention_ms: u64 = DAY_MS, 0 => 10 * 365 * DAY_MS;
    /// A partition is compacted when that much of its sealed segments is new since the last time, in percent.
    8 CompactionDirtyPercent compaction_dirty_percent: u32 = 50, 1 => 100;
    /// 0: records are acknowledged when they are on disk. Otherwise small batches are acknowledged, and shown to consumers,
    /// when the kernel has them, and are on disk within this time, in milliseconds: a broker that is killed loses
    /// nothing, a machine that loses power at most that much.
    9 FlushIntervalMs flush_interval_ms: u64 = 0, 0 => 60_000;
}

const DAY_MS: u64 = 24 * 3_600_000;

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// They go when the retention is over.
    Delete,
    /// They go when a later record has their key.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl Cleanup {
    const ALL: [Cleanup; 3] = [Cleanup::Delete, Cleanup::Compact, Cleanup::CompactAndDelete];
    const WORDS: &'static [&'static str] = &["delete", "compact", "compact,delete"];
    const MAX: Cleanup = Cleanup::CompactAndDelete;

    /// Whether records go when the retention is over.
    #[must_use]
    pub const fn deletes(self) -> bool {
        matches!(self, Cleanup::Delete | Cleanup::CompactAndDelete)
    }

    /// Whether records go when a later one has their key.
    #[must_use]
    pub const fn compacts(self) -> bool {
        matches!(self, Cleanup::Compact | Cleanup::CompactAndDelete)
    }
}

impl From<Cleanup> for u64 {
    fn from(cleanup: Cleanup) -> u64 {
        cleanup as u64
    }
}

impl TryFrom<u64> for Cleanup {
    type Error = u64;

    fn try_from(value: u64) -> Result<Cleanup, u64> {
        usize::try_from(value).ok().and_then(|value| Cleanup::ALL.get(value)).copied().ok_or(value)
    }
}

impl SettingKey {
    /// A value as users write it.
    #[must_use]
    pub fn text(self, value: u64) -> String {
        let word = usize::try_from(value).ok().and_then(|value| self.words()?.get(value));
        word.map_or_else(|| value.to_string(), |word| (*word).to_owned())
    }

    /// The setting's number in the metadata log.
    pub(crate) const fn number(self) -> u16 {
        self as u16
    }

    pub(crate) fn from_number(number: u16) -> Option<SettingKey> {
        SettingKey::ALL.into_iter().find(|key| key.number() == number)
    }

    /// The setting with this key.
    ///
    /// # Errors
    /// [`SettingError::UnknownKey`] with the key that was probably meant.
    pub fn from_name(name: &str) -> Result<SettingKey, SettingError> {
        SettingKey::ALL
            .into_iter()
            .find(|key| key.name() == name)
            .ok_or_else(|| SettingError::UnknownKey { name: Excerpt::new(name), nearest: SettingKey::nearest(name) })
    }

    /// The key that a misspelt one was meant to be: the closest in letters, in whatever order the words come.
    fn nearest(name: &str) -> SettingKey {
        // Longer than any key by far: what lies beyond cannot make another key the nearest.
        let name: String = name.chars().take(64).collect();
        let mut nearest = (usize::MAX, SettingKey::ALL[0]);
        for key in SettingKey::ALL {
            let in_order = edit_distance(&name, key.name());
            let in_any_order = edit_distance(&sorted_words(&name), &sorted_words(key.name()));
            let distance = in_order.min(in_any_order);
            if distance < nearest.0 {
                nearest = (distance, key);
            }
        }
        nearest.1
    }
}

impl fmt::Display for SettingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TopicSettings {
    /// Checks every value against its range, and the values against each other. For a broker's defaults, at start.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn check(&self) -> Result<(), SettingError> {
        for key in SettingKey::ALL {
            check_range(key, self.get(key), &key.text(self.get(key)))?;
        }
        self.check_together()
    }

    /// A segment must be able to hold the largest batch, with its frame around it.
    fn check_together(&self) -> Result<(), SettingError> {
        if u64::from(self.batch_bytes_max) > self.segment_bytes {
            return Err(SettingError::BatchBeyondSegment {
                batch_bytes_max: self.batch_bytes_max,
                segment_bytes: self.segment_bytes,
            });
        }
        Ok(())
    }
}

/// What a topic chose for itself. Everything else follows the broker's defaults, also when those change later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingChoices(BTreeMap<SettingKey, u64>);

impl SettingChoices {
    /// Reads choices as a user writes them: keys by name, values as decimal numbers or words.
    ///
    /// ```
    /// use ringmq_controller::metadata::{SettingChoices, TopicSettings};
    ///
    /// let defaults = TopicSettings::default();
    /// let chosen = SettingChoices::parse([("segment_bytes", "67108864")], &defaults)?;
    /// assert_eq!(chosen.resolve(&defaults).segment_bytes, 64 << 20);
    /// assert_eq!(chosen.resolve(&defaults).batch_bytes_max, defaults.batch_bytes_max);
    ///
    /// let typo = SettingChoices::parse([("segment_byte", "1")], &defaults).unwrap_err();
    /// assert!(typo.to_string().contains("nearest key is segment_bytes"));
    /// # Ok::<(), ringmq_controller::metadata::SettingError>(())
    /// ```
    ///
    /// # Errors
    /// An unknown key, a key given twice, a value that is no number or out of range, or values that do not fit together
    /// once the defaults fill the rest.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        defaults: &TopicSettings,
    ) -> Result<SettingChoices, SettingError> {
        SettingChoices::default().altered(pairs, [], defaults)
    }

    /// The choices after those of `set` are added or replaced and those of `unset` are taken back, as users write them.
    ///
    /// ```
    /// use ringmq_controller::metadata::{SettingChoices, SettingKey, TopicSettings};
    ///
    /// let defaults = TopicSettings::default();
    /// let chosen = SettingChoices::parse([("segment_age_ms", "5000")], &defaults)?;
    /// let altered = chosen.altered([("batch_bytes_max", "4096")], ["segment_age_ms"], &defaults)?;
    /// assert_eq!(altered.get(SettingKey::BatchBytesMax), Some(4096));
    /// assert_eq!(altered.get(SettingKey::SegmentAgeMs), None);
    /// # Ok::<(), ringmq_controller::metadata::SettingError>(())
    /// ```
    ///
    /// # Errors
    /// As [`SettingChoices::parse`]; a key counts in both lists.
    pub fn altered<'a>(
        &self,
        set: impl IntoIterator<Item = (&'a str, &'a str)>,
        unset: impl IntoIterator<Item = &'a str>,
        defaults: &TopicSettings,
    ) -> Result<SettingChoices, SettingError> {
        let mut named = BTreeSet::new();
        let mut named_once = |name| {
            let key = SettingKey::from_name(name)?;
            if named.insert(key) { Ok(key) } else { Err(SettingError::GivenTwice { key }) }
        };
        let mut altered = self.clone();
        for (name, value) in set {
            let key = named_once(name)?;
            altered.insert(key, parse_value(key, value)?);
        }
        for name in unset {
            altered.0.remove(&named_once(name)?);
        }
        altered.over(defaults).check_together()?;
        Ok(altered)
    }

    /// Adds a choice, or replaces it.
    pub(crate) fn insert(&mut self, key: SettingKey, value: u64) {
        self.0.insert(key, value);
    }

    /// The choices, ascending by the settings' numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SettingKey, u64)> + '_ {
        self.0.iter().map(|(key, value)| (*key, *value))
    }

    /// The value that the topic chose, if it did.
    pub fn get(&self, key: SettingKey) -> Option<u64> {
        self.0.get(&key).copied()
    }

    /// The settings that the topic lives by.
    ///
    /// Ranges and defaults may change after a topic was created. A choice outside today's range counts as the nearest
    /// value within, and a segment always holds the largest batch: where a new default is smaller, the batch decides.
    pub fn resolve(&self, defaults: &TopicSettings) -> TopicSettings {
        let mut settings = self.over(defaults);
        settings.segment_bytes = settings.segment_bytes.max(u64::from(settings.batch_bytes_max));
        settings
    }

    fn over(&self, defaults: &TopicSettings) -> TopicSettings {
        let mut settings = *defaults;
        for (key, value) in self.iter() {
            settings.set(key, value);
        }
        settings
    }
}

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("there is no setting {name}: the nearest key is {nearest} (the keys are {})", key_names())]
    UnknownKey {
        /// What was asked for, shortened.
        name: Excerpt,
        /// The key whose spelling is closest.
        nearest: SettingKey,
    },
    /// The value is not an unsigned decimal number.
    #[error("{key} = {value} is not a whole number: give one from {} to {}", .key.range().start(), .key.range().end())]
    NotANumber {
        /// The setting.
        key: SettingKey,
        /// What was given, shortened.
        value: Excerpt,
    },
    /// The value is a number, but too small or too large.
    #[error("{key} = {value} is out of range: give a value from {} to {}", .key.range().start(), .key.range().end())]
    OutOfRange {
        /// The setting.
        key: SettingKey,
        /// What was given, shortened.
        value: Excerpt,
    },
    /// The value is none of the words that there are.
    #[error("{key} = {value} is not known: give one of {}", .key.words().unwrap_or_default().join(" or "))]
    NotAWord {
        /// The setting.
        key: SettingKey,
        /// What was given, shortened.
        value: Excerpt,
    },
    /// One topic gives the same setting more than once.
    #[error("{key} is given more than once: give it once")]
    GivenTwice {
        /// The setting.
        key: SettingKey,
    },
    /// The largest batch would not fit a segment.
    #[error(
        "batch_bytes_max = {batch_bytes_max} is more than segment_bytes = {segment_bytes}: a segment must hold the \
         largest batch, so lower the one or raise the other (what a topic does not set follows the broker's defaults)"
    )]
    BatchBeyondSegment {
        /// The largest batch, after defaults.
        batch_bytes_max: u32,
        /// The segment size, after defaults.
        segment_bytes: u64,
    },
}

fn key_names() -> String {
    SettingKey::ALL.map(SettingKey::name).join(", ")
}

fn parse_value(key: SettingKey, text: &str) -> Result<u64, SettingError> {
    if let Some(words) = key.words() {
        let number = (0_u64..).zip(words).find(|(_, word)| **word == text).map(|(number, _)| number);
        return number.ok_or_else(|| SettingError::NotAWord { key, value: Excerpt::new(text) });
    }
    let only_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !only_digits {
        return Err(SettingError::NotANumber { key, value: Excerpt::new(text) });
    }
    // Digits that do not fit a u64 are a number all the same, and larger than any range.
    let value = text.parse().unwrap_or(u64::MAX);
    check_range(key, value, text)?;
    Ok(value)
}

fn check_range(key: SettingKey, value: u64, text: &str) -> Result<(), SettingError> {
    if key.range().contains(&value) { Ok(()) } else { Err(SettingError::OutOfRange { key, value: Excerpt::new(text) }) }
}

fn sorted_words(name: &str) -> String {
    let lower = name.to_lowercase();
    let mut words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    words.sort_unstable();
    words.join(" ")
}

/// Levenshtein's distance: how many characters to insert, delete or replace to get from one word to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // row[j]: the distance between the part of `from` read so far and the first j characters of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests;
