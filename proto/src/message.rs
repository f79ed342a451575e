//! What travels on the stream, either way.

use crate::invalid::{Checked, present};
use crate::{Assignment, Hello, InvalidMessage, Report, Token, wire};

/// From the agent to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage {
    /// The first message of a stream, and only the first.
    Hello(Hello),
    /// What was counted.
    Report(Report),
    /// Who the agent still is.
    Token(Token),
}

/// From the operator to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorMessage {
    /// What to measure from now on.
    Assign(Assignment),
    /// The report with this sequence arrived.
    Ack(u64),
}

impl TryFrom<wire::AgentMessage> for AgentMessage {
    type Error = InvalidMessage;

    fn try_from(wire: wire::AgentMessage) -> Checked<Self> {
        use wire::agent_message::Kind;
        Ok(match present("kind", wire.kind)? {
            Kind::Hello(hello) => Self::Hello(hello.try_into()?),
            Kind::Report(report) => Self::Report(report.try_into()?),
            Kind::Token(token) => Self::Token(token.try_into()?),
        })
    }
}

impl From<AgentMessage> for wire::AgentMessage {
    fn from(message: AgentMessage) -> Self {
        use wire::agent_message::Kind;
        let kind = match message {
            AgentMessage::Hello(hello) => Kind::Hello(hello.into()),
            AgentMessage::Report(report) => Kind::Report(report.into()),
            AgentMessage::Token(token) => Kind::Token(token.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::OperatorMessage> for OperatorMessage {
    type Error = InvalidMessage;

    fn try_from(wire: wire::OperatorMessage) -> Checked<Self> {
        use wire::operator_message::Kind;
        Ok(match present("kind", wire.kind)? {
            Kind::Assign(assign) => Self::Assign(assign.try_into()?),
            Kind::Ack(wire::Ack { sequence }) => Self::Ack(sequence),
        })
    }
}

impl From<OperatorMessage> for wire::OperatorMessage {
    fn from(message: OperatorMessage) -> Self {
        use wire::operator_message::Kind;
        let kind = match message {
            OperatorMessage::Assign(assignment) => Kind::Assign(assignment.into()),
            OperatorMessage::Ack(sequence) => Kind::Ack(wire::Ack { sequence }),
        };
        Self { kind: Some(kind) }
    }
}
