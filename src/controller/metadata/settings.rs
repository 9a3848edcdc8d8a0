//! The settings of a topic: which there are, what they may be, and which a topic chose for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::excerpt::Excerpt;

/// A setting that a topic may choose. The numbers are those of the metadata log and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum SettingKey {
    /// `segment_bytes`: a segment is sealed before it grows beyond this. 1 MiB to 1 TiB.
    SegmentBytes = 1,
    /// `segment_age_ms`: a segment is sealed when its first record is older than this. 1 s to ten years.
    SegmentAgeMs = 2,
    /// `batch_bytes_max`: the largest record batch that the topic takes. 1 KiB to 16 MiB.
    BatchBytesMax = 3,
}

impl SettingKey {
    /// All settings, in the order of their numbers.
    pub const ALL: [SettingKey; 3] = [SettingKey::SegmentBytes, SettingKey::SegmentAgeMs, SettingKey::BatchBytesMax];

    /// The key as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            SettingKey::SegmentBytes => "segment_bytes",
            SettingKey::SegmentAgeMs => "segment_age_ms",
            SettingKey::BatchBytesMax => "batch_bytes_max",
        }
    }

    /// The values that it takes.
    pub const fn range(self) -> RangeInclusive<u64> {
        match self {
            SettingKey::SegmentBytes => 1 << 20..=1 << 40,
            SettingKey::SegmentAgeMs => 1_000..=10 * 365 * 24 * 3_600_000,
            SettingKey::BatchBytesMax => 1 << 10..=16 << 20,
        }
    }

    /// The setting's number in the metadata log.
    pub(crate) const fn number(self) -> u16 {
        self as u16
    }

    pub(crate) fn from_number(number: u16) -> Option<SettingKey> {
        SettingKey::ALL.into_iter().find(|key| key.number() == number)
    }

    fn from_name(name: &str) -> Option<SettingKey> {
        SettingKey::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The key that a misspelt one was meant to be: the closest in letters, in whatever order the words come.
    fn nearest(name: &str) -> SettingKey {
        // Longer than any key by far: what lies beyond cannot make another key the nearest.
        let name: String = name.chars().take(64).collect();
        let mut nearest = (usize::MAX, SettingKey::SegmentBytes);
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

/// The settings that a topic lives by: its own choices over the broker's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// A segment is sealed before it grows beyond this. Default 1 GiB.
    pub segment_bytes: u64,
    /// A segment is sealed when its first record is older than this, in milliseconds. Default seven days.
    pub segment_age_ms: u64,
    /// The largest record batch that is taken, in bytes, its header counted. Default 1 MiB.
    pub batch_bytes_max: u32,
}

impl Default for TopicSettings {
    fn default() -> Self {
        TopicSettings { segment_bytes: 1 << 30, segment_age_ms: 7 * 24 * 3_600_000, batch_bytes_max: 1 << 20 }
    }
}

impl TopicSettings {
    /// The value of one setting.
    pub fn get(&self, key: SettingKey) -> u64 {
        match key {
            SettingKey::SegmentBytes => self.segment_bytes,
            SettingKey::SegmentAgeMs => self.segment_age_ms,
            SettingKey::BatchBytesMax => u64::from(self.batch_bytes_max),
        }
    }

    /// Sets a value, or the nearest one that the setting's range holds.
    fn set(&mut self, key: SettingKey, value: u64) {
        let value = value.clamp(*key.range().start(), *key.range().end());
        match key {
            SettingKey::SegmentBytes => self.segment_bytes = value,
            SettingKey::SegmentAgeMs => self.segment_age_ms = value,
            SettingKey::BatchBytesMax => self.batch_bytes_max = u32::try_from(value).unwrap_or(u32::MAX),
        }
    }

    /// Checks every value against its range, and the values against each other. For a broker's defaults, at start.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn check(&self) -> Result<(), SettingError> {
        for key in SettingKey::ALL {
            check_range(key, self.get(key), &self.get(key).to_string())?;
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
    /// Reads choices as a user writes them: keys by name, values as decimal numbers.
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
        let mut choices = SettingChoices::default();
        for (name, value) in pairs {
            let Some(key) = SettingKey::from_name(name) else {
                return Err(SettingError::UnknownKey { name: Excerpt::new(name), nearest: SettingKey::nearest(name) });
            };
            let number = parse_value(key, value)?;
            if choices.insert(key, number).is_some() {
                return Err(SettingError::GivenTwice { key });
            }
        }
        choices.over(defaults).check_together()?;
        Ok(choices)
    }

    /// Adds a choice; the value that it replaces, if there was one.
    pub(crate) fn insert(&mut self, key: SettingKey, value: u64) -> Option<u64> {
        self.0.insert(key, value)
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<SettingChoices, SettingError> {
        SettingChoices::parse(pairs.iter().copied(), &TopicSettings::default())
    }

    #[test]
    fn the_defaults_are_within_their_own_ranges() {
        assert_eq!(TopicSettings::default().check(), Ok(()));
    }

    #[test]
    fn numbers_in_the_log_lead_back_to_their_keys() {
        for key in SettingKey::ALL {
            assert_eq!(SettingKey::from_number(key.number()), Some(key));
            assert_eq!(SettingKey::from_name(key.name()), Some(key));
        }
        assert_eq!(SettingKey::from_number(0), None);
        assert_eq!(SettingKey::from_number(4), None);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_one() {
        for (typo, nearest) in [
            ("segment.bytes", SettingKey::SegmentBytes),
            ("segment_age", SettingKey::SegmentAgeMs),
            ("max_batch_bytes", SettingKey::BatchBytesMax),
            ("BATCH_BYTES_MAX", SettingKey::BatchBytesMax),
            ("segment.age.ms", SettingKey::SegmentAgeMs),
        ] {
            let error = parse(&[(typo, "1")]).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, SettingError::UnknownKey { .. }));
            assert!(
                text.contains(&format!("\"{typo}\"")) && text.contains(&format!("nearest key is {nearest}")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_value_out_of_range_is_named_with_key_and_range() {
        for (value, shown) in
            [("1023", "1023"), ("16777217", "16777217"), ("99999999999999999999", "99999999999999999999")]
        {
            let text = parse(&[("batch_bytes_max", value)]).unwrap_err().to_string();
            assert!(text.contains(&format!("batch_bytes_max = \"{shown}\"")), "{text}");
            assert!(text.contains("from 1024 to 16777216"), "{text}");
        }
        for value in ["", "-1", "1e6", "1MiB", " 5000", "+5000"] {
            assert!(matches!(parse(&[("segment_age_ms", value)]), Err(SettingError::NotANumber { .. })), "{value:?}");
        }
        assert_eq!(parse(&[("batch_bytes_max", "1024")]).unwrap().get(SettingKey::BatchBytesMax), Some(1024));
        assert_eq!(parse(&[("batch_bytes_max", "16777216")]).unwrap().get(SettingKey::BatchBytesMax), Some(16 << 20));
    }

    #[test]
    fn a_key_given_twice_is_refused_even_with_the_same_value() {
        let twice = parse(&[("segment_age_ms", "5000"), ("segment_age_ms", "5000")]);
        assert_eq!(twice, Err(SettingError::GivenTwice { key: SettingKey::SegmentAgeMs }));
    }

    #[test]
    fn a_batch_must_fit_the_segment_whatever_the_order_of_the_settings() {
        let small = ("segment_bytes", "1048576");
        assert_eq!(parse(&[small]).unwrap().resolve(&TopicSettings::default()).segment_bytes, 1 << 20);
        let large = ("batch_bytes_max", "1048577");
        for pairs in [[small, large], [large, small]] {
            assert!(matches!(parse(&pairs), Err(SettingError::BatchBeyondSegment { .. })));
        }
    }

    #[test]
    fn a_value_that_was_not_chosen_follows_the_defaults_of_the_day() {
        let choices = parse(&[("segment_age_ms", "5000")]).unwrap();
        let tomorrow = TopicSettings { segment_bytes: 5 << 20, ..TopicSettings::default() };
        assert_eq!(choices.resolve(&tomorrow).segment_bytes, 5 << 20);
        assert_eq!(choices.resolve(&tomorrow).segment_age_ms, 5000);
        assert_eq!(choices.get(SettingKey::SegmentBytes), None);
    }

    #[test]
    fn choices_stay_sound_when_ranges_and_defaults_change() {
        let defaults = TopicSettings::default();
        let mut choices = SettingChoices::default();
        choices.insert(SettingKey::SegmentBytes, 0);
        choices.insert(SettingKey::SegmentAgeMs, u64::MAX);
        choices.insert(SettingKey::BatchBytesMax, u64::MAX);
        let settings = choices.resolve(&defaults);
        assert_eq!(settings.check(), Ok(()));
        assert_eq!((settings.batch_bytes_max, settings.segment_bytes), (16 << 20, 16 << 20));
    }

    proptest! {
        #[test]
        fn whatever_a_user_writes_is_answered_in_a_short_message(name in ".{0,300}", value in ".{0,300}") {
            if let Err(error) = parse(&[(&name, &value)]) {
                prop_assert!(error.to_string().len() <= 1024);
            }
        }

        #[test]
        fn edit_distance_is_a_distance(a in "[abc_]{0,8}", b in "[abc_]{0,8}", c in "[abc_]{0,8}") {
            prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
            prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
            prop_assert!(edit_distance(&a, &c) <= edit_distance(&a, &b) + edit_distance(&b, &c));
        }
    }
}
