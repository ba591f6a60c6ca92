//! What a store can answer instead.

use std::sync::Arc;

use sapwood_protocol::{
    Fault, Timestamp,
    fault::{Lack, Misuse},
};
use thiserror::Error;

/// Why a store did not do as asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Somebody else was first; read again. A verdict: nothing was written.
    #[error("{what} has changed in the meantime")]
    Conflict {
        /// Which row.
        what: String,
    },
    /// The lease was lost: another coordinator drives this now. A verdict: nothing was written.
    #[error("the lease on {resource} was lost to another coordinator")]
    Fenced {
        /// What the lease is on.
        resource: String,
    },
    /// Another coordinator drives this. A verdict: nothing was written.
    #[error("{resource} is driven by {holder} until {until}")]
    Held {
        /// What the lease is on.
        resource: String,
        /// By whom.
        holder: String,
        /// When it may be taken over.
        until: Timestamp,
    },
    /// There is no such row. A verdict: nothing was written.
    #[error("there is no {what}")]
    Missing {
        /// Which row.
        what: String,
    },
    /// There is no room for more such rows. A verdict: nothing was written.
    #[error("{what} are as many as there may be; try again later")]
    Full {
        /// Which rows.
        what: &'static str,
    },
    /// The storage does not work now. The outcome of a write is unknown.
    #[error("the coordinator's database cannot be used: {trouble}")]
    Unavailable {
        /// What is wrong, and what to do.
        trouble: Trouble,
        /// What the database said.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// What is stored makes no sense; restore a backup.
    #[error("the coordinator's database is damaged ({what}): {why}; restore a backup")]
    Corrupt {
        /// Which row.
        what: String,
        /// How it shows.
        why: String,
    },
}

/// Why a storage does not work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    /// No room left.
    #[error("the disk is full; make room and it goes on by itself")]
    DiskFull,
    /// Somebody else holds it.
    #[error("it is locked by another program")]
    Busy,
    /// The disk, the folder or its rights.
    #[error("reading or writing failed; look at the disk and at the rights of the data folder")]
    Io,
    /// It was made by a newer version.
    #[error("it was written by a newer version of this program; upgrade")]
    Newer,
    /// The writing task is gone.
    #[error("the coordinator is shutting down")]
    Closed,
}

impl StoreError {
    pub(crate) fn unavailable(trouble: Trouble) -> Self {
        Self::Unavailable { trouble, source: None }
    }

    /// One failure of a whole group, for each of its members.
    pub(super) fn shared(error: &Arc<Self>) -> Self {
        match &**error {
            Self::Corrupt { what, why } => Self::Corrupt { what: what.clone(), why: why.clone() },
            Self::Unavailable { trouble, .. } => Self::Unavailable { trouble: *trouble, source: Some(Box::new(Arc::clone(error))) },
            _ => Self::Unavailable { trouble: Trouble::Io, source: Some(Box::new(Arc::clone(error))) },
        }
    }

    /// Whether the write that got this answer has certainly not happened.
    pub fn is_verdict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Fenced { .. } | Self::Held { .. } | Self::Missing { .. } | Self::Full { .. })
    }
}

impl From<&StoreError> for Fault {
    /// What a peer is told.
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Fenced { resource } | StoreError::Held { resource, .. } => Lack::Lease { what: resource.clone() }.into(),
            StoreError::Missing { what } => Misuse::State { what: what.clone(), why: "there is none".into() }.into(),
            other => Lack::Resource { what: "the coordinator's database", why: other.to_string() }.into(),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}
