//! One stream to the operator, from hello to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use maplatency_core::rate::{Bucket, Rate};
use maplatency_proto::wire::gateway_client::GatewayClient;
use maplatency_proto::{
    AgentMessage, Assignment, Hello, InvalidMessage, MAX_MESSAGE_BYTES, OperatorMessage, Token,
    wire,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, error::Elapsed, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use tracing::{debug, info, warn};

use super::dial::{DialError, Dialer, bearer};
use super::report::{self, Begun, Generation, Refused};
use crate::monitor::{Monitor, MonitorError, ProbeRequest, Snapshot};

/// Longest time until the operator answers hello.
const ANSWER: Duration = Duration::from_secs(10);
/// Periods, and at least a time, after which a report without an answer ends the stream.
const PATIENCE_PERIODS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(5);
/// A slice that comes so much early still counts as on time.
const EARLY: Duration = Duration::from_millis(250);
/// Messages that may wait: hello, one report in flight, and a fresh token.
const OUTBOX: usize = 3;
/// How often the file with the token is looked at. A kubelet renews it minutes before it ends.
const TOKEN_LOOK: Duration = Duration::from_secs(10);
/// What the operator may send. It answers each report once, and places probes now and then.
const MESSAGES: Rate = Rate {
    each: Duration::from_millis(50),
    burst: 200,
};

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The operator did not take the stream, or ended it with an error.
    #[error("the operator ended the stream")]
    Status(#[source] Box<tonic::Status>),
    /// The operator ended the stream without an error.
    #[error("the operator closed the stream")]
    Closed,
    /// Hello stays without an answer.
    #[error("the operator did not answer within {} s", ANSWER.as_secs())]
    Silent(#[source] Elapsed),
    /// A report stays without an answer.
    #[error("report {0} was not acknowledged in time")]
    Unacknowledged(u64),
    /// More messages than an operator has to send.
    #[error("the operator sends more than {} messages a second", 1000 / MESSAGES.each.as_millis())]
    Flood,
    /// A message that breaks the protocol.
    #[error("the operator sent a malformed message")]
    Malformed(#[source] InvalidMessage),
    /// Measuring has ended.
    #[error("could not change what is measured")]
    Monitor(#[source] MonitorError),
}

/// How a stream ended.
#[derive(Debug)]
pub struct End {
    /// Why.
    pub reason: StreamError,
    /// Whether the operator acknowledged at least one report, and so was well.
    pub was_acknowledged: bool,
}

/// What outlives a stream.
#[derive(Debug)]
pub struct Session<'a> {
    hello: Hello,
    monitor: &'a Monitor,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Of the newest report.
    sequence: u64,
    /// When the newest reported snapshot was taken.
    reported: Duration,
    plan: Plan,
    told: Arc<Told>,
}

/// What the streams of this process did, for its metrics.
#[derive(Debug, Default)]
pub struct Told {
    /// Whether the operator has answered on the present stream.
    pub connected: AtomicBool,
    /// Reports that were sent.
    pub reports: AtomicU64,
}

/// What the agent was asked to measure.
#[derive(Debug, Default)]
struct Plan {
    period: Duration,
    /// Probes of the applied assignment that cannot be measured.
    refused: Vec<Refused>,
    /// The newest assignment whose probes a snapshot has told of.
    applied: u64,
    /// A newer one, of which no snapshot has told yet.
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    revision: u64,
    /// By these a snapshot shows that it is measured.
    wanted: BTreeSet<Generation>,
    refused: Vec<Refused>,
}

impl Plan {
    /// Whether `snapshot` is the first to tell of a newer assignment.
    fn sees(&mut self, snapshot: &Snapshot) -> bool {
        let measured = report::generations(snapshot);
        let Some(pending) = self.pending.take_if(|it| it.wanted == measured) else {
            return false;
        };
        self.applied = pending.revision;
        self.refused = pending.refused;
        true
    }
}

/// What lasts as long as one stream.
struct Exchange {
    outbox: mpsc::Sender<wire::AgentMessage>,
    /// Whether the operator has said on this stream what to measure.
    assigned: bool,
    /// Whether a report has gone out on this stream.
    reported: bool,
    /// What this stream has told of generations.
    begun: Begun,
    /// The report that waits for its answer, and until when.
    in_flight: Option<(u64, Instant)>,
    /// Whether any report was answered.
    acknowledged: bool,
    /// What the operator has sent of late.
    heard: Bucket,
    /// The token that the operator knows. `None` in plaintext.
    token: Option<Token>,
}

impl<'a> Session<'a> {
    /// Nothing is assigned or reported yet.
    pub fn new(hello: Hello, monitor: &'a Monitor) -> Self {
        Self {
            hello,
            monitor,
            snapshots: monitor.snapshots(),
            sequence: 0,
            reported: Duration::ZERO,
            plan: Plan::default(),
            told: Arc::default(),
        }
    }

    /// Notes what it does in `told`.
    #[must_use]
    pub fn telling(mut self, told: Arc<Told>) -> Self {
        self.told = told;
        self
    }

    /// Runs one stream until it ends.
    pub async fn stream(&mut self, dialer: &Dialer) -> End {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let mut state = Exchange {
            outbox,
            assigned: false,
            reported: false,
            begun: Begun::default(),
            in_flight: None,
            acknowledged: false,
            heard: Bucket::default(),
            token: None,
        };
        let reason = match open(dialer, &self.hello, &state.outbox, messages).await {
            Ok((inbound, token)) => {
                state.token = token;
                self.exchange(dialer, inbound, &mut state).await
            }
            Err(reason) => reason,
        };
        self.told.connected.store(false, Ordering::Relaxed);
        End {
            reason,
            was_acknowledged: state.acknowledged,
        }
    }

    async fn exchange(
        &mut self,
        dialer: &Dialer,
        mut inbound: Streaming<wire::OperatorMessage>,
        state: &mut Exchange,
    ) -> StreamError {
        let mut looks = token_looks();
        loop {
            let step = tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.receive(message, state),
                    Ok(None) => return StreamError::Closed,
                    Err(status) => return StreamError::Status(Box::new(status)),
                },
                // When measuring ends, whoever runs the session ends too.
                Ok(()) = self.snapshots.changed() => self.take(state),
                _ = looks.tick() => renew(dialer, state),
                sequence = overdue(state.in_flight) => return StreamError::Unacknowledged(sequence),
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    fn receive(
        &mut self,
        message: wire::OperatorMessage,
        state: &mut Exchange,
    ) -> Result<(), StreamError> {
        if !state.heard.take(MESSAGES, 1, std::time::Instant::now()) {
            return Err(StreamError::Flood);
        }
        match OperatorMessage::try_from(message).map_err(StreamError::Malformed)? {
            OperatorMessage::Assign(assignment) => {
                // The operator's first words. Before, something else might have taken the stream.
                if !state.assigned {
                    info!("Connected to the operator");
                }
                self.assign(assignment)?;
                state.assigned = true;
                self.told.connected.store(true, Ordering::Relaxed);
            }
            OperatorMessage::Ack(sequence) => {
                if state.in_flight.take_if(|it| it.0 == sequence).is_some() {
                    state.acknowledged = true;
                } else {
                    debug!(sequence, "Ignored an acknowledgement of nothing in flight");
                }
            }
        }
        Ok(())
    }

    fn assign(&mut self, assignment: Assignment) -> Result<(), StreamError> {
        let Assignment {
            revision,
            report_period,
            probes,
        } = assignment;
        let mut requests = Vec::new();
        let mut refused = Vec::new();
        for probe in probes {
            match probe.spec.check() {
                Ok(spec) => requests.push(ProbeRequest {
                    name: probe.name,
                    uid: probe.uid,
                    generation: probe.generation,
                    spec,
                }),
                Err(invalid) => {
                    warn!(probe = %probe.name, error = %invalid, "Cannot measure");
                    let problems = invalid.0.iter().map(ToString::to_string).collect();
                    refused.push(Refused::new(&probe, problems));
                }
            }
        }
        info!(
            revision,
            measured = requests.len(),
            refused = refused.len(),
            "Took an assignment"
        );
        let wanted = requests
            .iter()
            .map(|it| (it.uid.clone(), it.generation))
            .collect();
        self.monitor
            .measure(requests)
            .map_err(StreamError::Monitor)?;
        self.plan.period = report_period;
        self.plan.pending = Some(Pending {
            revision,
            wanted,
            refused,
        });
        Ok(())
    }

    /// Reports the newest snapshot if it is time to.
    fn take(&mut self, state: &mut Exchange) -> Result<(), StreamError> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        if !state.assigned || state.in_flight.is_some() {
            return Ok(());
        }
        // What is new is told at once: a new assignment, and to a new stream everything.
        let is_news = self.plan.sees(&snapshot) || !state.reported;
        let is_due = snapshot.taken + EARLY >= self.reported + self.plan.period;
        if snapshot.taken <= self.reported || !(is_news || is_due) {
            return Ok(());
        }
        self.sequence += 1;
        let report = report::build(
            self.sequence,
            self.plan.applied,
            &snapshot,
            &self.plan.refused,
            &mut state.begun,
        );
        let kind = wire::agent_message::Kind::Report(report);
        send(&state.outbox, wire::AgentMessage { kind: Some(kind) })?;
        self.reported = snapshot.taken;
        state.reported = true;
        self.told.reports.fetch_add(1, Ordering::Relaxed);
        let patience = (self.plan.period * PATIENCE_PERIODS).max(PATIENCE);
        state.in_flight = Some((self.sequence, Instant::now() + patience));
        debug!(
            sequence = self.sequence,
            revision = self.plan.applied,
            "Sent a report"
        );
        Ok(())
    }
}

/// Opens a stream and says hello. Gives what the operator says on it, and the token that it was shown.
pub(super) async fn open(
    dialer: &Dialer,
    hello: &Hello,
    outbox: &mpsc::Sender<wire::AgentMessage>,
    messages: mpsc::Receiver<wire::AgentMessage>,
) -> Result<(Streaming<wire::OperatorMessage>, Option<Token>), StreamError> {
    let connection = dialer.dial().await?;
    let mut client = GatewayClient::new(connection.channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    send(outbox, AgentMessage::Hello(hello.clone()).into())?;
    let mut request = Request::new(ReceiverStream::new(messages));
    if let Some(token) = &connection.token {
        request
            .metadata_mut()
            .insert("authorization", bearer(token));
    }
    let answer = timeout(ANSWER, client.connect(request))
        .await
        .map_err(StreamError::Silent)?
        .map_err(|it| StreamError::Status(Box::new(it)))?;
    Ok((answer.into_inner(), connection.token))
}

/// Sends the token that the kubelet has put into the file since the last one was sent.
fn renew(dialer: &Dialer, state: &mut Exchange) -> Result<(), StreamError> {
    let Some(known) = &state.token else {
        return Ok(());
    };
    if let Some(token) = dialer.newer_token(known) {
        send(&state.outbox, AgentMessage::Token(token.clone()).into())?;
        debug!("Sent a fresh token");
        state.token = Some(token);
    }
    Ok(())
}

fn token_looks() -> Interval {
    interval_at(Instant::now() + TOKEN_LOOK, TOKEN_LOOK)
}

fn send(
    outbox: &mpsc::Sender<wire::AgentMessage>,
    message: wire::AgentMessage,
) -> Result<(), StreamError> {
    // Never full: besides hello at most one report and one token are on their way.
    outbox.try_send(message).map_err(|_| StreamError::Closed)
}

/// Waits until the report in flight should have been acknowledged.
async fn overdue(in_flight: Option<(u64, Instant)>) -> u64 {
    match in_flight {
        Some((sequence, deadline)) => {
            sleep_until(deadline).await;
            sequence
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::monitor::ProbeSnapshot;

    fn generation(uid: &str, generation: i64) -> Generation {
        (uid.to_owned(), generation)
    }

    fn snapshot(of: &[Generation]) -> Snapshot {
        let probes = of.iter().map(|(uid, generation)| ProbeSnapshot {
            name: uid.clone(),
            uid: uid.clone(),
            generation: *generation,
            maps: vec![],
            gone: vec![],
            cumulative: BTreeMap::new(),
            beginning: BTreeMap::new(),
            beginning_at: Duration::ZERO,
            within: BTreeMap::new(),
            sampling: 1,
            span: Duration::ZERO,
            worst: BTreeMap::new(),
            callers: vec![],
            spikes: vec![],
            outliers: None,
            exact: vec![],
            readers: BTreeMap::new(),
            problems: vec![],
        });
        Snapshot {
            probes: probes.collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn an_assignment_counts_as_applied_when_a_snapshot_tells_of_it() {
        let old = [generation("a", 1)];
        let new = [generation("a", 2), generation("b", 1)];
        let mut plan = Plan {
            applied: 6,
            pending: Some(Pending {
                revision: 7,
                wanted: new.iter().cloned().collect(),
                refused: vec![Refused {
                    uid: "r".to_owned(),
                    generation: 1,
                    problems: vec![],
                }],
            }),
            ..Plan::default()
        };

        assert!(
            !plan.sees(&snapshot(&old)),
            "measuring has not moved on yet"
        );
        assert_eq!((plan.applied, plan.refused.len()), (6, 0));

        assert!(plan.sees(&snapshot(&new)));
        assert_eq!((plan.applied, plan.refused.len()), (7, 1));
        assert!(!plan.sees(&snapshot(&new)), "only the first time");
    }
}
