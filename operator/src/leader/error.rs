//! What can go wrong with the lease.

use std::time::Duration;

use super::NAME;

/// Why an attempt to get or renew the lease failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused it or was not reached.
    #[error("could not read lease {NAME}")]
    Read {
        /// Why.
        source: kube::Error,
    },
    /// Likewise, or another was faster.
    #[error("could not write lease {NAME}")]
    Write {
        /// Why.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("the API server did not answer about lease {NAME} in time")]
    Timeout,
}

impl Error {
    /// Whether another changed the lease in the meantime.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Write { source: kube::Error::Api(status) } if status.code == 409)
    }
}

/// Why a leader leads no more. The process has to end.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The API server could not be asked in time.
    #[error(
        "lease {NAME} could not be renewed for {} s, so another operator may lead soon; this one ends",
        .0.as_secs_f32()
    )]
    NotRenewed(Duration),
    /// Another holds it.
    #[error("lease {NAME} was taken by {0:?}; this operator ends")]
    Taken(String),
}
