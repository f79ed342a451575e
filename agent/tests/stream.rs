//! The agent's half of the protocol, as an operator sees it that restarts.
#![allow(
    clippy::unwrap_used,
    reason = "a helper that panics fails its test, which is what it is for"
)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maplatency_core::MapLatencyProbeSpec;
use maplatency_proto::wire::gateway_server::{Gateway, GatewayServer};
use maplatency_proto::{
    AgentMessage, AssignedProbe, Assignment, Hello, MAX_MESSAGE_BYTES, OperatorMessage, Report,
    wire,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Longest time for the next message; the agent loads its probes first.
const PATIENCE: Duration = Duration::from_secs(20);

type Outbox = mpsc::Sender<Result<wire::OperatorMessage, Status>>;

/// An operator that hands every stream to the test.
struct Operator {
    streams: mpsc::Sender<Conversation>,
}

/// One stream, as the operator holds it. Dropping it ends it.
struct Conversation {
    inbox: Streaming<wire::AgentMessage>,
    outbox: Outbox,
}

#[tonic::async_trait]
impl Gateway for Operator {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<wire::OperatorMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (outbox, messages) = mpsc::channel(8);
        let conversation = Conversation {
            inbox: request.into_inner(),
            outbox,
        };
        self.streams
            .send(conversation)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

impl Conversation {
    async fn next(&mut self) -> AgentMessage {
        let message = timeout(PATIENCE, self.inbox.message())
            .await
            .expect("a message in time");
        message
            .unwrap()
            .expect("the agent goes on")
            .try_into()
            .unwrap()
    }

    async fn hello(&mut self) -> Hello {
        match self.next().await {
            AgentMessage::Hello(hello) => hello,
            _ => panic!("the first message is hello"),
        }
    }

    async fn report(&mut self) -> Report {
        match self.next().await {
            AgentMessage::Report(report) => report,
            _ => panic!("only the first message is hello"),
        }
    }

    async fn send(&self, message: OperatorMessage) {
        self.outbox.send(Ok(message.into())).await.unwrap();
    }

    /// Sends `message` up to so many times, until the agent ends the stream.
    async fn send_until_left(mut self, message: &wire::OperatorMessage, times: usize) {
        for _ in 0..times {
            if self.outbox.send(Ok(message.clone())).await.is_err() {
                return;
            }
        }
        let left = async {
            // Reports may be on their way.
            while let Ok(Some(_)) = self.inbox.message().await {}
        };
        timeout(PATIENCE, left).await.expect("the agent leaves");
    }
}

struct Agent {
    process: Child,
    log: NamedTempFile,
}

impl Agent {
    fn start(url: &str) -> Self {
        let log = NamedTempFile::new().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_maplatency-agent"))
            .args([
                "serve",
                "--operator",
                url,
                "--node",
                "node-a",
                "--insecure-plaintext",
            ])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Ends it by SIGTERM; gives the time that this took.
    fn end(&mut self) -> Duration {
        let began = Instant::now();
        kill(
            Pid::from_raw(self.process.id().cast_signed()),
            Signal::SIGTERM,
        )
        .unwrap();
        assert!(self.process.wait().unwrap().success());
        began.elapsed()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already in a test that passes.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Shown by the runner if the test has failed.
        eprint!("{}", self.log());
    }
}

/// Begins to serve; gives the URL and the streams.
async fn operator() -> (String, mpsc::Receiver<Conversation>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (streams, conversations) = mpsc::channel(1);
    let server =
        tonic::transport::Server::builder().add_service(GatewayServer::new(Operator { streams }));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, conversations)
}

async fn next(conversations: &mut mpsc::Receiver<Conversation>) -> Conversation {
    timeout(PATIENCE, conversations.recv())
        .await
        .expect("a stream in time")
        .unwrap()
}

fn probe(uid: &str, generation: i64, spec: &str) -> AssignedProbe {
    let spec: MapLatencyProbeSpec = serde_yaml::from_str(spec).unwrap();
    AssignedProbe {
        name: uid.to_owned(),
        uid: uid.to_owned(),
        generation,
        spec,
    }
}

fn assignment(revision: u64, generation: i64) -> OperatorMessage {
    OperatorMessage::Assign(Assignment {
        revision,
        report_period: Duration::from_millis(100),
        probes: vec![
            probe("good", generation, "{maps: [{names: [no_such_map_here]}]}"),
            probe("bad", 1, "{maps: [{names: [x]}], activeReads: {cpus: 3-1}}"),
        ],
    })
}

fn may_load_probes() -> bool {
    if geteuid().is_root() {
        return true;
    }
    let note = "agent stream: needs root";
    eprintln!("not run: {note}");
    if let Ok(path) = std::env::var("MAPLATENCY_NOT_RUN") {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{note}").unwrap();
    }
    false
}

#[tokio::test]
async fn an_operator_that_restarts_is_told_where_the_window_begins() {
    if !may_load_probes() {
        return;
    }
    let (url, mut conversations) = operator().await;
    let mut agent = Agent::start(&url);

    let mut stream = next(&mut conversations).await;
    let hello = stream.hello().await;
    assert_eq!((hello.node.as_str(), hello.epoch.len()), ("node-a", 32));
    stream.send(assignment(4, 1)).await;

    let first = stream.report().await;
    assert_eq!((first.sequence, first.revision), (1, 4));
    let [good, bad] = &first.probes[..] else {
        panic!("{first:?}")
    };
    assert!(
        good.beginning.is_some() && good.problems.is_empty(),
        "{good:?}"
    );
    assert_eq!(
        (bad.uid.as_str(), bad.problems.len()),
        ("bad", 1),
        "what does not check here is told"
    );
    stream.send(OperatorMessage::Ack(1)).await;

    let second = stream.report().await;
    assert_eq!(second.sequence, 2);
    assert!(second.taken > first.taken);
    assert_eq!(
        second.probes[0].beginning.as_ref().map(|it| it.taken),
        good.beginning.as_ref().map(|it| it.taken),
        "told until the first report is no part of the window"
    );
    stream.send(OperatorMessage::Ack(2)).await;

    stream.send(assignment(5, 2)).await;
    let changed = loop {
        let report = stream.report().await;
        stream.send(OperatorMessage::Ack(report.sequence)).await;
        if report.revision == 5 {
            break report;
        }
        assert_eq!(
            report.probes[0].generation, 1,
            "a revision and its probes go together"
        );
    };
    assert_eq!(changed.probes[0].generation, 2);
    assert!(
        changed.probes[0].beginning.is_some(),
        "another generation begins another window"
    );

    drop(stream);
    let mut stream = next(&mut conversations).await;
    assert_eq!(stream.hello().await, hello, "the agent has not restarted");
    stream.send(assignment(9, 2)).await;
    let again = stream.report().await;
    assert!(again.sequence > changed.sequence);
    assert_eq!(again.revision, 9);
    let beginning = again.probes[0]
        .beginning
        .as_ref()
        .expect("the operator may know nothing");
    assert!(
        beginning.taken < changed.taken,
        "the window began before the operator was lost"
    );

    let took = agent.end();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn an_operator_that_floods_or_sends_nonsense_is_left_and_dialled_again() {
    if !may_load_probes() {
        return;
    }
    let (url, mut conversations) = operator().await;
    let mut agent = Agent::start(&url);
    let long = probe(&"a".repeat(MAX_MESSAGE_BYTES), 1, "{maps: [{ids: [1]}]}");
    let cases = [
        (
            OperatorMessage::Ack(7).into(),
            1000,
            "the operator sends more than 20 messages a second",
        ),
        (
            wire::OperatorMessage { kind: None },
            1,
            "the operator sent a malformed message",
        ),
        (
            OperatorMessage::Assign(Assignment {
                revision: 2,
                report_period: Duration::from_secs(1),
                probes: vec![long],
            })
            .into(),
            1,
            "message length too large",
        ),
    ];
    for (message, times, reason) in cases {
        let mut stream = next(&mut conversations).await;
        stream.hello().await;
        stream.send(assignment(1, 1)).await;
        let sequence = stream.report().await.sequence;
        stream.send(OperatorMessage::Ack(sequence)).await;
        assert!(!agent.log().contains(reason), "{}", agent.log());
        stream.send_until_left(&message, times).await;
        let left = Instant::now();
        while !agent.log().contains(reason) {
            assert!(left.elapsed() < PATIENCE, "not told: {reason}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    let mut stream = next(&mut conversations).await;
    stream.hello().await;
    stream.send(assignment(3, 1)).await;
    assert_eq!(stream.report().await.revision, 3, "it measures as before");
    agent.end();
}
