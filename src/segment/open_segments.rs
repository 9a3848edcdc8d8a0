//! Which sealed segments of one core's logs have their files open.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crate::segment::Segment;

/// The sealed segments of one core's logs whose files are open, with a bound: beyond it, that which was used least
/// recently is closed, of whichever log it is. A sealed segment is opened when it is read. Clones share it.
#[derive(Clone)]
pub struct OpenSegments(Rc<Inner>);

struct Inner {
    max: Cell<usize>,
    /// Least recently used first. Some may have been closed otherwise.
    used: RefCell<VecDeque<Rc<Segment>>>,
}

impl OpenSegments {
    /// The default bound: what fits the usual limit of 1,024 descriptors.
    pub const MAX_DEFAULT: usize = 256;

    /// None is open. At least one may be.
    #[must_use]
    pub fn new(max: usize) -> OpenSegments {
        OpenSegments(Rc::new(Inner { max: Cell::new(max.max(1)), used: RefCell::default() }))
    }

    /// From now on so many may be open, at least one.
    pub fn set_max(&self, max: usize) {
        self.0.max.set(max.max(1));
    }

    /// How many are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.used.borrow().iter().filter(|segment| segment.opened().is_some()).count()
    }

    /// A sealed segment was opened, or used once more.
    pub(crate) fn used(&self, segment: &Rc<Segment>) {
        let mut used = self.0.used.borrow_mut();
        used.retain(|other| !Rc::ptr_eq(other, segment));
        used.push_back(segment.clone());
        if used.len() > self.0.max.get() {
            used.retain(|segment| segment.opened().is_some());
        }
        while used.len() > self.0.max.get()
            && let Some(oldest) = used.pop_front()
        {
            oldest.set_opened(None);
        }
    }

    /// These are closed, or get closed by who asks.
    pub(crate) fn forget(&self, is: impl Fn(&Rc<Segment>) -> bool) {
        self.0.used.borrow_mut().retain(|segment| !is(segment));
    }
}

impl Default for OpenSegments {
    fn default() -> OpenSegments {
        OpenSegments::new(OpenSegments::MAX_DEFAULT)
    }
}

impl fmt::Debug for OpenSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, open) = (self.0.max.get(), self.count());
        f.debug_struct("OpenSegments").field("max", &max).field("open", &open).finish()
    }
}
