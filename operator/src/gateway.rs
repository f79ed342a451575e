//! The gRPC service that agents connect to.
//!
//! One stream per agent. Its answers are a stream too, polled by the server for as long as the agent listens, so
//! nothing here runs detached: an agent that stops reading is not read from, and one that goes away takes its
//! session with it. Of assignments only the newest waits for an agent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt as _, stream};
use maplatency_proto::wire::gateway_server::{Gateway, GatewayServer};
use maplatency_proto::{
    AgentMessage, Hello, InvalidMessage, MAX_MESSAGE_BYTES, OperatorMessage, Report, wire,
};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::chain::chain;
use crate::fleet::{Fleet, Session, Taken};

/// How long a stream may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// After this much silence the peer is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// And has this long to answer.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Streams of one connection. An agent needs one, and one more while it opens the next.
const STREAMS: u32 = 4;

/// Serves agents until `shutdown` comes, then lets streams end.
pub async fn serve(
    listener: TcpListener,
    fleet: Arc<Fleet>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service =
        GatewayServer::new(Service { fleet }).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(STREAMS)
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown,
        )
        .await
}

/// The service.
#[derive(Debug)]
struct Service {
    fleet: Arc<Fleet>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<wire::OperatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Gateway for Service {
    type ConnectStream = Answers;

    async fn connect(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let peer = request.remote_addr();
        debug!(?peer, "Accepted a stream");
        let fleet = Arc::clone(&self.fleet);
        let inbound = request.into_inner();
        // Hello is awaited within the answers: an agent may wait for the response before it says anything.
        let answers = stream::once(async move {
            let talk = Conversation::begin(fleet, inbound).await?;
            Ok::<_, Status>(stream::try_unfold(talk, Conversation::next))
        })
        .try_flatten();
        Ok(Response::new(Box::pin(answers)))
    }
}

/// One stream after its hello.
struct Conversation {
    fleet: Arc<Fleet>,
    inbound: Streaming<wire::AgentMessage>,
    session: Session,
}

impl Conversation {
    async fn begin(
        fleet: Arc<Fleet>,
        mut inbound: Streaming<wire::AgentMessage>,
    ) -> Result<Self, Status> {
        let first = timeout(HELLO, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before a hello"))?;
        // Wire types stop at this line; the fleet sees only checked ones.
        let AgentMessage::Hello(hello) = checked(first)? else {
            return Err(Status::invalid_argument("the first message is no hello"));
        };
        let Hello {
            node,
            epoch,
            version,
            kernel,
            boot_id: _,
            tier,
            problem,
        } = &hello;
        info!(%node, %epoch, %version, %kernel, %tier, problem, "Agent connected");
        Ok(Self {
            session: fleet.connect(hello),
            fleet,
            inbound,
        })
    }

    /// The next answer, with the conversation to go on with. `None` when the agent has ended it.
    async fn next(mut self) -> Result<Option<(wire::OperatorMessage, Self)>, Status> {
        let answer = tokio::select! {
            // What to measure comes first: reports of what is no longer wanted are not.
            biased;
            assignment = self.session.assignment() => match assignment {
                Some(it) => {
                    debug!(node = self.session.node(), revision = it.revision, probes = it.probes.len(), "Assigning");
                    OperatorMessage::Assign((*it).clone())
                }
                None => return Err(self.over()),
            },
            message = self.inbound.message() => match self.heard(message)? {
                Some(report) => self.take(report)?,
                None => return Ok(None),
            },
        };
        Ok(Some((answer.into(), self)))
    }

    fn heard(
        &self,
        message: Result<Option<wire::AgentMessage>, Status>,
    ) -> Result<Option<Report>, Status> {
        let node = self.session.node();
        let Some(message) =
            message.inspect_err(|e| info!(%node, error = chain(e), "Agent lost"))?
        else {
            info!(%node, "Agent left");
            return Ok(None);
        };
        match checked(message).inspect_err(|e| {
            self.fleet.refused();
            warn!(%node, error = e.message(), "Refused a message");
        })? {
            AgentMessage::Report(report) => Ok(Some(report)),
            AgentMessage::Hello(_) => {
                Err(Status::invalid_argument("hello is only the first message"))
            }
        }
    }

    fn take(&self, report: Report) -> Result<OperatorMessage, Status> {
        let (node, sequence) = (self.session.node(), report.sequence);
        match self.session.report(report, Instant::now()) {
            Taken::New => debug!(%node, sequence, "Took a report"),
            Taken::Repeated => debug!(%node, sequence, "Had that report"),
            Taken::WentBackwards => warn!(
                %node, sequence,
                "A report held less than one before it; its window begins anew"
            ),
            Taken::Superseded => return Err(self.over()),
        }
        Ok(OperatorMessage::Ack(sequence))
    }

    fn over(&self) -> Status {
        if self.fleet.is_closed() {
            Status::unavailable("the operator ends")
        } else {
            info!(node = self.session.node(), "A newer stream took over");
            Status::aborted("a newer stream of this node took over")
        }
    }
}

fn checked(message: wire::AgentMessage) -> Result<AgentMessage, Status> {
    AgentMessage::try_from(message).map_err(|e: InvalidMessage| Status::invalid_argument(chain(&e)))
}
