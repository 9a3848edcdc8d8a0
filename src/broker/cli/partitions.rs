//! Lists of partitions, such as `0,2,5-7`.

use std::collections::BTreeSet;
use std::str::FromStr;

use ringmq_client::PartitionIndex;

/// The highest number that a partition can have: topics have at most 10,000 of them.
const NUMBER_MAX: u32 = 9_999;

/// Some of a topic's partitions, each once, by number; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionList(Vec<PartitionIndex>);

impl PartitionList {
    /// The partitions, by number.
    pub fn as_slice(&self) -> &[PartitionIndex] {
        &self.0
    }
}

impl FromStr for PartitionList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a list of partitions from 0 to {NUMBER_MAX}, such as 3 or 0,2,5-7");
        let number =
            |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number <= NUMBER_MAX).ok_or_else(refused);
        let mut numbers: BTreeSet<u32> = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(refused());
            }
            numbers.extend(first..=last);
        }
        Ok(Self(numbers.into_iter().map(PartitionIndex::new).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_read_each_once() {
        let read = |text: &str| -> Vec<u32> {
            text.parse::<PartitionList>().expect("valid").as_slice().iter().map(|one| one.get()).collect()
        };
        assert_eq!(read("3"), [3]);
        assert_eq!(read("5-7, 0,2,6"), [0, 2, 5, 6, 7]);
        assert_eq!(read("9999"), [9999]);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", ",", "1,", "-1", "2-1", "1-", "a", "10000", "0-4294967295", "1-2-3"] {
            let error = text.parse::<PartitionList>().expect_err(text);
            assert!(error.contains("such as 3 or 0,2,5-7"), "{error}");
        }
    }
}
