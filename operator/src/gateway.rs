//! The gRPC service that agents connect to.
//!
//! One stream per agent. Its answers are a stream too, polled by the server for as long as the agent listens, so
//! nothing here runs detached: an agent that stops reading is not read from, and one that goes away takes its
//! session with it. Of assignments only the newest waits for an agent.
//!
//! With TLS a stream has to come with an agent's token ([`crate::identity`]) and may speak for the node of that token
//! alone. What a node may send is limited ([`flow`]), over all of its streams.

mod flow;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt as _, stream};
use maplatency_proto::wire::gateway_server::{Gateway, GatewayServer};
use maplatency_proto::{
    AgentMessage, Hello, InvalidMessage, MAX_MESSAGE_BYTES, OperatorMessage, Report, Token, wire,
};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::chain::chain;
use crate::fleet::{Fleet, Session, Taken};
use crate::identity::{Admission, Refusal, Standing};
use crate::incoming::{Limits, Peer, Seat, incoming};
use crate::refusals::{Reason, Refusals};
use flow::Flow;

/// How long a stream may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// After this much silence the peer is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// And has this long to answer.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Streams of one connection. An agent needs one, and one more while it opens the next.
const STREAMS: u32 = 4;
/// Size of a request's metadata. A token is the largest part of it.
const METADATA_BYTES: u32 = 16 * 1024;

/// What agents meet.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the acceptor has none")]
pub struct Gate {
    /// Where streams end up.
    pub fleet: Arc<Fleet>,
    /// Who is let in.
    pub admission: Admission,
    /// Without it, connections are in plaintext.
    pub tls: Option<TlsAcceptor>,
    /// For connections without a stream.
    pub limits: Limits,
    /// Where those are counted that are turned away.
    pub refusals: Arc<Refusals>,
}

/// Serves agents until `shutdown` comes, then lets streams end.
pub async fn serve(
    listener: TcpListener,
    gate: Gate,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let Gate {
        fleet,
        admission,
        tls,
        limits,
        refusals,
    } = gate;
    let connections = incoming(listener, tls, limits, Arc::clone(&refusals));
    let service = Service {
        fleet,
        admission,
        refusals,
        flow: Arc::default(),
    };
    let service = GatewayServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .http2_max_header_list_size(METADATA_BYTES)
        .max_concurrent_streams(STREAMS)
        .add_service(service)
        .serve_with_incoming_shutdown(connections, shutdown)
        .await
}

/// The service.
#[derive(Clone, Debug)]
struct Service {
    fleet: Arc<Fleet>,
    admission: Admission,
    refusals: Arc<Refusals>,
    flow: Arc<Flow>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<wire::OperatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Gateway for Service {
    type ConnectStream = Answers;

    async fn connect(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        debug!(?peer, "Accepted a stream");
        let standing = self.admit(request.metadata(), peer.as_ref()).await?;
        let (service, inbound) = (self.clone(), request.into_inner());
        // Hello is awaited within the answers: an agent may wait for the response before it says anything.
        let answers = stream::once(async move {
            let talk = Conversation::begin(service, standing, peer, inbound).await?;
            Ok::<_, Status>(stream::try_unfold(talk, Conversation::next))
        })
        .try_flatten();
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Service {
    /// Checks the token, where one is asked for.
    async fn admit(
        &self,
        metadata: &MetadataMap,
        peer: Option<&Peer>,
    ) -> Result<Option<Standing>, Status> {
        let Admission::ByToken(reviewer) = &self.admission else {
            return Ok(None);
        };
        let address = peer.map(|it| it.address);
        let begin = async {
            let token = bearer(metadata)?;
            Standing::begin(Arc::clone(reviewer), token, address.map(|it| it.ip())).await
        };
        begin
            .await
            .map(Some)
            .map_err(|it| self.refused(&it, address))
    }

    /// Counts a refusal, and says it to the agent.
    fn refused(&self, refusal: &Refusal, address: Option<SocketAddr>) -> Status {
        let from = address.map_or_else(|| "someone".to_owned(), |it| it.to_string());
        self.refusals
            .count(refusal.reason(), format!("{from}: {refusal}"));
        refusal.status()
    }

    /// Counts a message that breaks the protocol.
    fn nonsense(&self, status: Status, who: &str) -> Status {
        let example = format!("{who}: {}", status.message());
        self.refusals.count(Reason::Nonsense, example);
        status
    }

    /// Lets a message pass, or counts and ends a stream that says too much.
    fn pass(&self, node: &str, message: &wire::AgentMessage) -> Result<(), Status> {
        if self.flow.passes(node, message, Instant::now()) {
            return Ok(());
        }
        let example = format!("{node}: more messages than an agent has to say");
        self.refusals.count(Reason::Flood, example);
        Err(Status::resource_exhausted(
            "too many or too large messages of this node; an agent reports once per period",
        ))
    }
}

/// The token of `authorization: Bearer TOKEN`.
fn bearer(metadata: &MetadataMap) -> Result<Token, Refusal> {
    let value = metadata.get("authorization").ok_or(Refusal::NoToken)?;
    let text = value
        .to_str()
        .ok()
        .and_then(|it| it.strip_prefix("Bearer "))
        .ok_or(Refusal::Malformed("does not stand behind \"Bearer \""))?;
    Token::new(text.to_owned()).map_err(|_| Refusal::Malformed("is no JSON Web Token"))
}

/// One stream after its hello.
struct Conversation {
    service: Service,
    inbound: Streaming<wire::AgentMessage>,
    address: Option<SocketAddr>,
    standing: Option<Standing>,
    session: Session,
    /// The connection has a stream as long as this is here.
    _seat: Option<Seat>,
}

impl Conversation {
    async fn begin(
        service: Service,
        standing: Option<Standing>,
        peer: Option<Peer>,
        mut inbound: Streaming<wire::AgentMessage>,
    ) -> Result<Self, Status> {
        let address = peer.as_ref().map(|it| it.address);
        let who = || address.map_or_else(|| "someone".to_owned(), |it| it.to_string());
        let first = timeout(HELLO, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before a hello"))?;
        // Costs something, too: a node that connects again and again is no better than one that floods.
        let price = wire::AgentMessage { kind: None };
        // Wire types stop at this line; the fleet sees only checked ones.
        let hello = match checked(first).map_err(|it| service.nonsense(it, &who()))? {
            AgentMessage::Hello(hello) => hello,
            AgentMessage::Report(_) | AgentMessage::Token(_) => {
                let status = Status::invalid_argument("the first message is no hello");
                return Err(service.nonsense(status, &who()));
            }
        };
        if let Some(standing) = &standing {
            standing
                .speaks_for(&hello.node)
                .map_err(|it| service.refused(&it, address))?;
        }
        service.pass(&hello.node, &price)?;
        let Hello {
            node,
            epoch,
            version,
            kernel,
            boot_id: _,
            tier,
            problem,
        } = &hello;
        let pod = standing.as_ref().map(|it| it.caller().pod.as_str());
        info!(%node, pod, %epoch, %version, %kernel, %tier, problem, "Agent connected");
        Ok(Self {
            session: service.fleet.connect(hello),
            _seat: peer.map(|it| it.place.sit()),
            service,
            inbound,
            address,
            standing,
        })
    }

    /// The next answer, with the conversation to go on with. `None` when the agent has ended it.
    async fn next(mut self) -> Result<Option<(wire::OperatorMessage, Self)>, Status> {
        let answer = loop {
            tokio::select! {
                // What to measure comes first: reports of what is no longer wanted are not.
                biased;
                assignment = self.session.assignment() => match assignment {
                    Some(it) => {
                        debug!(node = self.session.node(), revision = it.revision, probes = it.probes.len(), "Assigning");
                        break OperatorMessage::Assign((*it).clone());
                    }
                    None => return Err(self.over()),
                },
                () = is_due(self.standing.as_ref()) => self.look().await?,
                message = self.inbound.message() => match self.heard(message)? {
                    Some(AgentMessage::Report(report)) => break self.take(report)?,
                    Some(AgentMessage::Token(token)) => self.renew(token).await?,
                    Some(AgentMessage::Hello(_)) => {
                        let status = Status::invalid_argument("hello is only the first message");
                        return Err(self.service.nonsense(status, self.session.node()));
                    }
                    None => return Ok(None),
                },
            }
        };
        Ok(Some((answer.into(), self)))
    }

    fn heard(
        &self,
        message: Result<Option<wire::AgentMessage>, Status>,
    ) -> Result<Option<AgentMessage>, Status> {
        let node = self.session.node();
        let Some(message) =
            message.inspect_err(|e| info!(%node, error = chain(e), "Agent lost"))?
        else {
            info!(%node, "Agent left");
            return Ok(None);
        };
        self.service.pass(node, &message)?;
        checked(message)
            .map(Some)
            .inspect_err(|e| warn!(%node, error = e.message(), "Refused a message"))
            .map_err(|it| self.service.nonsense(it, node))
    }

    async fn look(&mut self) -> Result<(), Status> {
        let Some(standing) = &mut self.standing else {
            return Ok(());
        };
        let outcome = standing.look().await;
        outcome.map_err(|it| self.service.refused(&it, self.address))
    }

    async fn renew(&mut self, token: Token) -> Result<(), Status> {
        // In plaintext nobody asked for one.
        let Some(standing) = &mut self.standing else {
            return Ok(());
        };
        let outcome = standing.renew(token).await;
        outcome.map_err(|it| self.service.refused(&it, self.address))
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
        if self.service.fleet.is_closed() {
            Status::unavailable("the operator ends")
        } else {
            info!(node = self.session.node(), "A newer stream took over");
            Status::aborted("a newer stream of this node took over")
        }
    }
}

/// Resolves when a token has to be looked at again.
async fn is_due(standing: Option<&Standing>) {
    match standing {
        Some(standing) => standing.is_due().await,
        None => std::future::pending().await,
    }
}

fn checked(message: wire::AgentMessage) -> Result<AgentMessage, Status> {
    AgentMessage::try_from(message).map_err(|e: InvalidMessage| Status::invalid_argument(chain(&e)))
}
