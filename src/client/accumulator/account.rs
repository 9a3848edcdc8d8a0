//! What one producer and its clones have handed over, and how that went.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// The records of one producer that are not answered yet, and those that failed since somebody asked.
#[derive(Debug, Default)]
pub(crate) struct Account {
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    unanswered: u64,
    failed: u64,
    first_failure: Option<Error>,
    is_closed: bool,
}

impl Account {
    /// # Errors
    /// [`Error::Closed`] when no more records may be handed over.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.tally().is_closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Takes no more records.
    pub(crate) fn close(&self) {
        self.tally().is_closed = true;
    }

    /// So many records are handed over.
    ///
    /// # Errors
    /// [`Error::Closed`]: none is counted then. Who closes in another thread waits for those that were.
    pub(super) fn add(&self, records: u32) -> Result<(), Error> {
        let mut tally = self.tally();
        if tally.is_closed {
            return Err(Error::Closed);
        }
        tally.unanswered += u64::from(records);
        Ok(())
    }

    /// So many records that were counted are not handed over after all.
    pub(super) fn take_back(&self, records: u32) {
        self.settle(records, None);
    }

    /// So many records were answered, or given up for `failure`.
    pub(super) fn settle(&self, records: u32, failure: Option<&Error>) {
        let mut tally = self.tally();
        tally.unanswered -= u64::from(records).min(tally.unanswered);
        if let Some(failure) = failure {
            tally.failed += u64::from(records);
            tally.first_failure.get_or_insert_with(|| failure.clone());
        }
    }

    /// Tells, once, of the records that failed since this was last asked.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when there are some.
    pub(crate) fn take_failures(&self) -> Result<(), Error> {
        let mut tally = self.tally();
        let records = std::mem::take(&mut tally.failed);
        match tally.first_failure.take() {
            Some(first) => Err(Error::Undelivered { records, first: Box::new(first) }),
            None => Ok(()),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account as long as there is a producer that it belongs to.
#[derive(Debug, Default)]
pub(crate) struct OpenAccount(Arc<Account>);

impl std::ops::Deref for OpenAccount {
    type Target = Arc<Account>;

    fn deref(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        let records = self.0.tally().unanswered;
        if records > 0 {
            tracing::warn!(
                records,
                "a producer was dropped before its records were acknowledged; they are lost if the runtime ends before \
                 they are sent: flush or close it first"
            );
        }
    }
}
