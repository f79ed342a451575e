//! What can go wrong with the CA.

/// Why the CA could not be kept in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused it or was not reached.
    #[error("could not read secret or configmap {}", super::NAME)]
    Read {
        /// Why.
        source: kube::Error,
    },
    /// Likewise.
    #[error("could not write {kind} {}", super::NAME)]
    Write {
        /// Of the object.
        kind: &'static str,
        /// Why.
        source: kube::Error,
    },
    /// Someone else wrote since it was read.
    #[error("someone else wrote at the same time")]
    Raced,
    /// A key or a certificate could not be made.
    #[error("could not make a key or a certificate")]
    Make {
        /// Why.
        source: rcgen::Error,
    },
    /// A key of the Secret is missing, or is not what it should be.
    #[error("{key} of secret {} {problem}", super::NAME)]
    Content {
        /// Key of the Secret.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Key and certificate cannot be served with.
    #[error("the certificate cannot be served with")]
    Serve {
        /// Why.
        source: rustls::Error,
    },
    /// Each step made another one due.
    #[error(
        "the steps come to no end; is the clock of another replica wrong, or does something else write secret {}?",
        super::NAME
    )]
    NoEnd,
}

impl Error {
    /// Metric label: one per variant, so the set of values is fixed.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Raced => "raced",
            Self::Make { .. } => "make",
            Self::Content { .. } => "content",
            Self::Serve { .. } => "serve",
            Self::NoEnd => "no_end",
        }
    }
}
