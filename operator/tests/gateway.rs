//! The protocol over a real connection on loopback.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maplatency_core::measure::{Counts, Rows, SeriesKey};
use maplatency_core::{MapIdentity, Operation, Outcome};
use maplatency_operator::fleet::{Fleet, Placement, Placements};
use maplatency_operator::gateway::{self, Gate};
use maplatency_operator::identity::Admission;
use maplatency_operator::incoming::Limits;
use maplatency_operator::refusals::{Reason, Refusals};
use maplatency_proto::wire::gateway_client::GatewayClient;
use maplatency_proto::{
    AgentMessage, AssignedProbe, Beginning, Hello, OperatorMessage, ProbeReport, Report, wire,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

const UID: &str = "uid-1";
const LIMIT: Duration = Duration::from_secs(20);

/// The gateway as the operator runs it.
struct Operator {
    fleet: Arc<Fleet>,
    refusals: Arc<Refusals>,
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Operator {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let fleet = Arc::new(Fleet::new(Duration::from_secs(2), 1000));
        fleet.place(placements(1));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let stopped = async { _ = stopped.await };
        let refusals = Arc::<Refusals>::default();
        let gate = Gate {
            fleet: Arc::clone(&fleet),
            admission: Admission::Anyone,
            tls: None,
            limits,
            refusals: Arc::clone(&refusals),
        };
        let server = tokio::spawn(gateway::serve(listener, gate, stopped));
        Self {
            fleet,
            refusals,
            address,
            shutdown,
            server,
        }
    }

    fn reads(&self, generation: i64) -> u64 {
        let view = self.fleet.view(UID, generation, Instant::now()).unwrap();
        let rows = view.windows.iter().flat_map(|it| it.rows.values());
        rows.map(|it| it.until_user.count()).sum()
    }

    async fn connect(&self) -> Agent {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let (outbound, messages) = mpsc::channel(16);
        let inbound = GatewayClient::new(channel)
            .connect(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        Agent { outbound, inbound }
    }

    async fn agent(&self) -> Agent {
        let agent = self.connect().await;
        agent.send(AgentMessage::Hello(hello())).await;
        agent
    }
}

/// The other end.
struct Agent {
    outbound: mpsc::Sender<wire::AgentMessage>,
    inbound: Streaming<wire::OperatorMessage>,
}

impl Agent {
    async fn send(&self, message: AgentMessage) {
        self.outbound.send(message.into()).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<OperatorMessage>, Status> {
        let message = timeout(LIMIT, self.inbound.message())
            .await
            .expect("an answer");
        Ok(message?.map(|it| it.try_into().unwrap()))
    }

    async fn assigned(&mut self) -> maplatency_proto::Assignment {
        match self.next().await.unwrap() {
            Some(OperatorMessage::Assign(assignment)) => assignment,
            other => panic!("{other:?} is no assignment"),
        }
    }

    async fn acked(&mut self) -> u64 {
        match self.next().await.unwrap() {
            Some(OperatorMessage::Ack(sequence)) => sequence,
            other => panic!("{other:?} is no ack"),
        }
    }

    async fn refused(&mut self) -> Status {
        self.next()
            .await
            .expect_err("the stream ends with an error")
    }
}

fn hello() -> Hello {
    Hello {
        node: "node-a".to_owned(),
        epoch: "1".repeat(32),
        version: "0.1.0".to_owned(),
        kernel: "6.18".to_owned(),
        boot_id: "b007".to_owned(),
        tier: "Tracepoint".to_owned(),
        problem: None,
    }
}

fn placements(generation: i64) -> Placements {
    let placement = Placement {
        window: Duration::from_mins(1),
        nodes: BTreeSet::from(["node-a".to_owned()]),
        probe: AssignedProbe {
            name: "probe".to_owned(),
            uid: UID.to_owned(),
            generation,
            spec: serde_yaml::from_str("{maps: [{names: ['ct_*']}]}").unwrap(),
        },
    };
    Placements::from([(UID.to_owned(), placement)])
}

fn rows(count: usize) -> Rows {
    let key = SeriesKey {
        map_id: 7,
        operation: Operation::Lookup,
        cpu: 0,
        outcome: Outcome::Success,
    };
    let counts = Counts {
        until_user: std::iter::repeat_n(500, count).collect(),
        ..Counts::default()
    };
    Rows::from([(key, counts)])
}

fn report(sequence: u64, total: usize) -> Report {
    Report {
        sequence,
        revision: 1001,
        taken: Duration::from_secs(sequence),
        losses: BTreeMap::new(),
        cost: maplatency_core::cost::Cost::default(),
        shed: vec![],
        probes: vec![ProbeReport {
            uid: UID.to_owned(),
            generation: 1,
            maps: vec![MapIdentity {
                id: 7,
                name: "ct_tcp".to_owned(),
                map_type: None,
            }],
            rows: rows(total),
            worst: BTreeMap::new(),
            beginning: (sequence == 1).then(|| Beginning {
                taken: Duration::ZERO,
                rows: Rows::new(),
            }),
            problems: vec![],
            rows_withheld: false,
            callers: vec![],
            spikes: vec![],
            outliers: None,
            sampling: 1,
            exact: vec![],
        }],
    }
}

#[tokio::test]
async fn an_agent_is_assigned_reports_and_is_acknowledged() {
    let operator = Operator::start().await;
    let mut agent = operator.agent().await;

    let assignment = agent.assigned().await;
    assert!(assignment.revision > 1000);
    assert_eq!(assignment.report_period, Duration::from_secs(2));
    assert_eq!(assignment.probes[0].uid, UID);

    agent.send(AgentMessage::Report(report(1, 10))).await;
    assert_eq!(agent.acked().await, 1);
    assert_eq!(operator.reads(1), 10);
}

#[tokio::test]
async fn a_change_of_the_spec_is_pushed() {
    let operator = Operator::start().await;
    let mut agent = operator.agent().await;
    let first = agent.assigned().await;

    operator.fleet.place(placements(2));

    let second = agent.assigned().await;
    assert!(second.revision > first.revision);
    assert_eq!(second.probes[0].generation, 2);
}

#[tokio::test]
async fn a_repeated_report_is_acknowledged_and_not_counted() {
    let operator = Operator::start().await;
    let mut agent = operator.agent().await;
    agent.assigned().await;
    for _ in 0..3 {
        agent.send(AgentMessage::Report(report(1, 10))).await;
        assert_eq!(agent.acked().await, 1);
    }
    assert_eq!(operator.reads(1), 10);
}

#[tokio::test]
async fn a_second_stream_of_a_node_replaces_the_first() {
    let operator = Operator::start().await;
    let mut first = operator.agent().await;
    first.assigned().await;

    let mut second = operator.agent().await;
    second.assigned().await;

    assert_eq!(first.refused().await.code(), Code::Aborted);
    second.send(AgentMessage::Report(report(1, 10))).await;
    assert_eq!(second.acked().await, 1);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let operator = Operator::start().await;
    let mut agent = operator.connect().await;
    agent.send(AgentMessage::Report(report(1, 10))).await;
    assert_eq!(agent.refused().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_second_hello_is_refused() {
    let operator = Operator::start().await;
    let mut agent = operator.agent().await;
    agent.assigned().await;
    agent.send(AgentMessage::Hello(hello())).await;
    assert_eq!(agent.refused().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_malformed_message_ends_its_stream_with_the_fields_name_and_no_other() {
    let operator = Operator::start().await;
    let mut good = operator.agent().await;
    good.assigned().await;

    let mut bad = operator.connect().await;
    let hello = wire::Hello {
        node: "Node A".to_owned(),
        ..hello().into()
    };
    let kind = Some(wire::agent_message::Kind::Hello(hello));
    bad.outbound
        .send(wire::AgentMessage { kind })
        .await
        .unwrap();
    let status = bad.refused().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("hello.node is not"),
        "{status}"
    );

    let mut bad = operator.connect().await;
    let other = Hello {
        node: "node-b".to_owned(),
        ..self::hello()
    };
    bad.send(AgentMessage::Hello(other)).await;
    bad.assigned().await;
    let mut report_without_sequence = wire::Report::from(report(1, 1));
    report_without_sequence.sequence = 0;
    let kind = Some(wire::agent_message::Kind::Report(report_without_sequence));
    bad.outbound
        .send(wire::AgentMessage { kind })
        .await
        .unwrap();
    let status = bad.refused().await;
    assert!(
        status.message().starts_with("report.sequence is 0"),
        "{status}"
    );

    good.send(AgentMessage::Report(report(1, 10))).await;
    assert_eq!(good.acked().await, 1);
}

#[tokio::test]
async fn an_agent_that_floods_is_cut_off_and_another_goes_on() {
    let operator = Operator::start().await;
    let mut good = operator.agent().await;
    good.assigned().await;
    let mut flood = operator.connect().await;
    let other = Hello {
        node: "node-b".to_owned(),
        ..hello()
    };
    flood.send(AgentMessage::Hello(other)).await;
    flood.assigned().await;

    let outbound = flood.outbound.clone();
    let sending = tokio::spawn(async move {
        let mut sequence = 0;
        loop {
            sequence += 1;
            let message = AgentMessage::Report(report(sequence, 1)).into();
            if outbound.send(message).await.is_err() {
                return sequence;
            }
        }
    });
    let status = loop {
        match flood.next().await {
            Ok(_) => (),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(flood);
    assert!(sending.await.unwrap() > 50, "a burst passes");
    let floods = operator.refusals.totals().find(|it| it.0 == Reason::Flood);
    assert_eq!(floods, Some((Reason::Flood, 1)));

    good.send(AgentMessage::Report(report(1, 10))).await;
    assert_eq!(good.acked().await, 1);
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed_and_one_with_a_stream_is_not() {
    let operator = Operator::with(Limits {
        wait: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut agent = operator.agent().await;
    agent.assigned().await;

    let mut silent = TcpStream::connect(operator.address).await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset; only that it ends counts.
    _ = timeout(LIMIT, silent.read_to_end(&mut answer))
        .await
        .expect("it is closed");
    let refused = operator
        .refusals
        .totals()
        .find(|it| it.0 == Reason::NoStream);
    assert_eq!(refused, Some((Reason::NoStream, 1)));

    agent.send(AgentMessage::Report(report(1, 10))).await;
    assert_eq!(agent.acked().await, 1);
}

#[tokio::test]
async fn an_agent_that_leaves_is_absent() {
    let operator = Operator::start().await;
    let Agent {
        outbound,
        mut inbound,
    } = operator.agent().await;
    inbound.message().await.unwrap();
    drop(outbound);
    assert!(inbound.message().await.unwrap().is_none());
    let view = operator.fleet.view(UID, 1, Instant::now()).unwrap();
    assert_eq!(view.absent.len(), 1);
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_then_the_server() {
    let operator = Operator::start().await;
    let mut agent = operator.agent().await;
    agent.assigned().await;

    operator.fleet.close();
    operator.shutdown.send(()).unwrap();

    assert_eq!(agent.refused().await.code(), Code::Unavailable);
    drop(agent);
    timeout(LIMIT, operator.server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
