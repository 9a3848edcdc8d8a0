//! The name of a topic, checked once where it enters.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name of a topic: what a file name holds with room for a suffix, and the limit of Kafka.
pub const TOPIC_NAME_CHARS_MAX: usize = 249;

/// A valid topic name: 1 to 249 characters of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`. Cheap to clone.
///
/// ```
/// use ringmq_wire::TopicName;
///
/// let name = TopicName::parse("orders.v1")?;
/// assert_eq!(&*name, "orders.v1");
/// assert!(TopicName::parse("../x").is_err());
/// # Ok::<(), ringmq_wire::TopicNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text cannot name a topic.
///
/// ```
/// use ringmq_wire::{TopicName, TopicNameError};
///
/// let refused = TopicName::parse("..");
/// assert!(matches!(refused, Err(TopicNameError::Reserved { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// There is no character at all.
    #[error("a topic name cannot be empty; use 1 to {TOPIC_NAME_CHARS_MAX} characters of a-z, A-Z, 0-9, '.', '_', '-'")]
    Empty,
    /// There are too many characters.
    #[error("the topic name is {bytes} bytes long; use at most {TOPIC_NAME_CHARS_MAX} characters")]
    TooLong {
        /// How long the text is.
        bytes: usize,
    },
    /// The name would be a directory's own or its parent's.
    #[error("a topic cannot be named {name:?}; use a name that is not made of dots alone")]
    Reserved {
        /// `.` or `..`.
        name: String,
    },
    /// A character is not allowed.
    #[error("the topic name holds {found:?} at byte {position}; use only a-z, A-Z, 0-9, '.', '_', '-'")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// Where it stands, in bytes from 0.
        position: usize,
    },
}

impl TopicName {
    /// Checks a text and takes it as a topic's name.
    ///
    /// # Errors
    /// [`TopicNameError`] names the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, TopicNameError> {
        if text.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if text.len() > TOPIC_NAME_CHARS_MAX {
            return Err(TopicNameError::TooLong { bytes: text.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((position, found)) = text.char_indices().find(|&(_, c)| !allowed(c)) {
            return Err(TopicNameError::Character { found, position });
        }
        if text == "." || text == ".." {
            return Err(TopicNameError::Reserved { name: text.to_owned() });
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = TopicNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicName({:?})", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_taken_as_they_are() {
        for name in ["a", "orders", "Orders_2.v-1", "...", ".hidden", &"x".repeat(TOPIC_NAME_CHARS_MAX)] {
            assert_eq!(TopicName::parse(name).map(|name| name.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn each_bad_name_is_told_why() {
        use TopicNameError::*;
        assert_eq!(TopicName::parse(""), Err(Empty));
        assert_eq!(TopicName::parse("."), Err(Reserved { name: ".".into() }));
        assert_eq!(TopicName::parse(".."), Err(Reserved { name: "..".into() }));
        assert_eq!(TopicName::parse("../x"), Err(Character { found: '/', position: 2 }));
        assert_eq!(TopicName::parse("a b"), Err(Character { found: ' ', position: 1 }));
        assert_eq!(TopicName::parse("aé"), Err(Character { found: 'é', position: 1 }));
        assert_eq!(TopicName::parse("a\0"), Err(Character { found: '\0', position: 1 }));
        assert_eq!(TopicName::parse(&"x".repeat(250)), Err(TooLong { bytes: 250 }));
    }
}
