//! Why bytes are not the value that they should be.

use crate::error::{ErrorCode, WireError};
use crate::topic_name::TopicNameError;

/// Bytes that cannot be decoded: what is wrong, in which field, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {field} at byte {position}: {problem}")]
pub struct DecodeError {
    /// The innermost field, as `Struct.field`, or the primitive type where there is no struct around it.
    pub field: &'static str,
    /// How many bytes of the value stand in front of the field.
    pub position: usize,
    /// What is wrong with it.
    #[source]
    pub problem: DecodeProblem,
    /// Whether `field` names a struct's field already; the outer ones then leave it alone.
    placed: bool,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// The bytes end before the field does.
    #[error("it takes {needed} bytes, but only {remaining} are left")]
    Truncated {
        /// The bytes that the field takes.
        needed: usize,
        /// The bytes that are there.
        remaining: usize,
    },
    /// An array claims more items than the bytes behind it can hold.
    #[error("it claims {count} items, but only {remaining} bytes are left")]
    Count {
        /// The claim.
        count: u32,
        /// The bytes that are there.
        remaining: usize,
    },
    /// A text or a head is longer than any valid one.
    #[error("it is {bytes} bytes long, but at most {bytes_max} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A text is not UTF-8.
    #[error("it is not valid UTF-8")]
    Utf8,
    /// A number stands for nothing.
    #[error("{value} is not a valid value")]
    Value {
        /// The number.
        value: i64,
    },
    /// The name of a topic breaks a rule.
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
    /// Bytes are left over behind a whole value.
    #[error("{bytes} bytes are left over behind it")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// The sections behind a head are not as long as the head says.
    #[error("the head announces {announced} bytes of sections, but {present} bytes follow it")]
    Sections {
        /// The sum of the head's section lengths.
        announced: u64,
        /// What the frame has room for behind the head.
        present: u64,
    },
}

impl DecodeError {
    pub(crate) fn new(field: &'static str, position: usize, problem: DecodeProblem) -> Self {
        Self { field, position, problem, placed: false }
    }

    /// Names the struct's field in which a primitive could not be decoded.
    pub(crate) fn in_field(mut self, field: &'static str) -> Self {
        if !self.placed {
            self.field = field;
            self.placed = true;
        }
        self
    }

    /// The code that the sender of the bytes gets to see.
    pub const fn code(&self) -> ErrorCode {
        match self.problem {
            DecodeProblem::TopicName(_) => ErrorCode::InvalidTopicName,
            _ => ErrorCode::MalformedRequest,
        }
    }
}

impl From<&DecodeError> for WireError {
    fn from(error: &DecodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
