//! A history in words, for whoever has to understand it.

use std::fmt::{self, Display, Write};

use stateright::Path;

use crate::disk::{Batch, Block, Disk, Frame};
use crate::model::{Action, State};
use crate::place::Place;

/// Every step of a history, and what is on the disk after each crash and at the end.
pub(crate) fn tell(history: Path<State, Action>) -> String {
    let mut told = String::new();
    let mut shown = None;
    // Each state comes with the action that follows it.
    let mut action = None;
    for (state, next) in history.into_vec() {
        if let Some(action) = action {
            let _ = writeln!(told, "  {action}");
        }
        if (state.broker.is_none() || state.violation.is_some()) && shown.as_ref() != Some(&state.disk) {
            let _ = write!(told, "{}", state.disk);
            shown = Some(state.disk);
        }
        if let Some(violation) = state.violation {
            let _ = writeln!(told, "  so: {violation:?}");
        }
        action = next;
    }
    told
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => write!(f, "{request:?}"),
            Self::Work(work) => write!(f, "{work:?}"),
            Self::Event(event) => write!(f, "{event:?}"),
        }
    }
}

impl Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (partition, files) in self.files.iter().enumerate() {
            write!(f, "      partition {partition}, generations from {:?}:", files.generations)?;
            files.frames.iter().try_for_each(|place| write!(f, " {place}"))?;
            if files.start > 0 {
                write!(f, ", starts at {}", files.start)?;
            }
            if !files.aside.is_empty() {
                f.write_str(", aside:")?;
                files.aside.iter().try_for_each(|batch| write!(f, " {batch}"))?;
            }
            if let Some((end, record)) = files.snapshot {
                write!(f, ", snapshot of append {record} at {end}")?;
            }
            f.write_str(if files.corrupt { ", corrupt" } else { "" })?;
            f.write_str(if files.deleted { ", deleted\n" } else { "\n" })?;
        }
        f.write_str("      ring:")?;
        self.ring.iter().try_for_each(|place| write!(f, " {place}"))?;
        f.write_str("\n")
    }
}

impl<T: Display + Eq> Display for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |content: &Option<_>| content.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        write!(f, "[{}", show(&self.live))?;
        if self.durable != self.live {
            write!(f, ", durable {}", show(&self.durable))?;
        }
        if let Some(in_flight) = &self.in_flight {
            write!(f, ", in flight {in_flight}")?;
        }
        f.write_str("]")
    }
}

impl Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "append {} at {}..{} g{}", self.record, self.base, self.next, self.generation)
    }
}

impl Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.forged { "forged: " } else { "" })?;
        self.batches.iter().try_for_each(|batch| write!(f, "{batch}; "))?;
        write!(f, "durable {}, frames {}", self.durable, self.frames_end)
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}: ", self.sequence)?;
        for entry in &self.entries {
            write!(f, "partition {} {}, frames {}; ", entry.partition, entry.batch, entry.frames_end)?;
        }
        write!(f, "floor {}, durable through {}", self.floor, self.durable_through)?;
        self.ends_before.iter().try_for_each(|end| write!(f, "; before: partition {} to {}", end.partition, end.offset))
    }
}
