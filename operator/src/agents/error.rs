//! What can go wrong with the DaemonSet.

/// Why the DaemonSet could not be brought in line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused it or was not reached.
    #[error("could not apply daemonset {}", super::NAME)]
    Apply {
        /// Why.
        source: kube::Error,
    },
    /// Likewise.
    #[error("could not delete daemonset {}", super::NAME)]
    Delete {
        /// Why.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error(
        "the API server did not answer about daemonset {} in time",
        super::NAME
    )]
    Timeout,
}

impl Error {
    /// Metric label: one per variant, so the set of values is fixed.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Delete { .. } => "delete",
            Self::Timeout => "timeout",
        }
    }
}
