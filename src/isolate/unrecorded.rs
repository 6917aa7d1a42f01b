//! An audit that fails: it stops what goes forward, and not what goes back.

use super::execute::AdvanceError;
use crate::ports::AuditError;

/// What could not be put on record. Nothing is changed without a record; but a zone is given back all the same.
#[derive(Debug)]
pub(super) struct Unrecorded {
    returning: bool,
    failure: Option<AuditError>,
}

impl Unrecorded {
    pub(super) const fn new(returning: bool) -> Self {
        Self { returning, failure: None }
    }

    /// Whether it is on record.
    pub(super) fn take(&mut self, recorded: Result<(), AuditError>) -> Result<bool, AuditError> {
        match recorded {
            Ok(()) => Ok(true),
            Err(error) if self.returning => {
                self.failure.get_or_insert(error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn end(self) -> Result<(), AdvanceError> {
        self.failure.map_or(Ok(()), |error| Err(error.into()))
    }
}
