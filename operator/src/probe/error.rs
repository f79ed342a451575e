//! What can go wrong with a status.

/// Why a reconcile stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused it or was not reached.
    #[error("could not write the status of probe {probe}")]
    Write {
        /// The probe's name.
        probe: String,
        /// Why.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("the API server did not take the status of probe {probe} in time")]
    Timeout {
        /// The probe's name.
        probe: String,
    },
    /// The API server refused it or was not reached.
    #[error("could not write an event of probe {probe}")]
    Event {
        /// The probe's name.
        probe: String,
        /// Why.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("the API server did not take an event of probe {probe} in time")]
    EventTimeout {
        /// The probe's name.
        probe: String,
    },
}

impl Error {
    /// Metric label: one per variant, so the set of values is fixed.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Write { .. } | Self::Event { .. } => "write",
            Self::Timeout { .. } | Self::EventTimeout { .. } => "timeout",
        }
    }
}
