//! Why an agent is not let in, in words that say what to do.

use maplatency_proto::AUDIENCE;
use tonic::{Code, Status};

use crate::agents;
use crate::refusals::Reason;

/// Why a token is not enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// None came.
    #[error(
        "no token came with the stream; the agent sends one if it dials https:// and finds it (--token-file)"
    )]
    NoToken,
    /// It is none.
    #[error(
        "the token {0}; send a projected service account token with audience {AUDIENCE} (--token-file)"
    )]
    Malformed(&'static str),
    /// It is over.
    #[error(
        "the token has expired and no fresh one came; the kubelet renews the file of a projected token, so read it again, \
         and look at the clocks"
    )]
    Expired,
    /// It is for someone else.
    #[error("the token is not for audience {AUDIENCE}; project one with this audience")]
    OtherAudience,
    /// The API server says no.
    #[error(
        "the API server does not accept the token: it is over, its pod or service account is gone, or it comes from another \
         cluster"
    )]
    Rejected,
    /// It is not an agent's.
    #[error(
        "the token is of {found}, and agents are {wanted}; run the agent with service account {}",
        agents::NAME
    )]
    OtherAccount {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// It is of no pod, or tells not the node of it.
    #[error(
        "the token names no pod with its node; send one of a pod (Kubernetes 1.32 or later names the node in it)"
    )]
    NoNode,
    /// It is of another node.
    #[error(
        "the token is of a pod on node {found}, and the agent says that it is on {said}; leave --node to the DaemonSet"
    )]
    OtherNode {
        /// Where the pod runs.
        found: String,
        /// What hello says.
        said: String,
    },
    /// Too many were asked about.
    #[error("too many tokens came from this address; wait and connect again")]
    TooMany,
    /// The API server could not be asked.
    #[error("the operator could not ask the API server about the token: {0}")]
    NoReview(String),
}

impl Refusal {
    /// Under which reason it is counted.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoToken => Reason::NoToken,
            Self::Malformed(_) => Reason::MalformedToken,
            Self::Expired => Reason::ExpiredToken,
            Self::OtherAudience => Reason::OtherAudience,
            Self::Rejected => Reason::RejectedToken,
            Self::OtherAccount { .. } => Reason::OtherAccount,
            Self::NoNode => Reason::NoNode,
            Self::OtherNode { .. } => Reason::OtherNode,
            Self::TooMany => Reason::TooManyTokens,
            Self::NoReview(_) => Reason::NoReview,
        }
    }

    /// What the agent gets.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::NoToken
            | Self::Malformed(_)
            | Self::Expired
            | Self::OtherAudience
            | Self::Rejected => Code::Unauthenticated,
            Self::OtherAccount { .. } | Self::NoNode | Self::OtherNode { .. } => {
                Code::PermissionDenied
            }
            Self::TooMany => Code::ResourceExhausted,
            Self::NoReview(_) => Code::Unavailable,
        };
        let message = match self {
            // What the API server says is for whoever runs the operator.
            Self::NoReview(_) => {
                "the operator could not ask the API server about the token".to_owned()
            }
            _ => self.to_string(),
        };
        Status::new(code, message)
    }

    /// Whether it may be remembered: the same question would get the same answer for a while.
    pub(super) fn lasts(&self) -> bool {
        !matches!(self, Self::TooMany | Self::NoReview(_))
    }
}
