//! What an operator does while it leads.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::{Controller, controller, watcher};
use kube::{Api, Client};
use maplatency_core::MapLatencyProbe;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::agents::{AgentSettings, Agents, Settings};
use crate::args::RunArgs;
use crate::authority::Keeper;
use crate::chain::chain;
use crate::fleet::Fleet;
use crate::gateway::{self, Gate};
use crate::identity::{Admission, Reviewer};
use crate::incoming::Limits;
use crate::metrics::Metrics;
use crate::owner;
use crate::refusals::{Refusals, Teller};
use crate::tls::{self, Served};
use crate::{placement, probe};

/// Statuses computed at once.
const CONCURRENCY: u16 = 4;

/// What it takes.
pub(crate) struct Work {
    /// Writes only while this process leads.
    pub(crate) client: Client,
    /// What goes when the operator goes takes along whatever is made here.
    pub(crate) owner: Option<OwnerReference>,
    pub(crate) settings: AgentSettings,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refusals: Arc<Refusals>,
}

impl Work {
    /// Works until `closed` comes and all streams have ended.
    pub(crate) async fn run(
        self,
        args: &RunArgs,
        closed: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let Self {
            client,
            owner,
            settings,
            fleet,
            metrics,
            refusals,
        } = self;
        // Only now, so that agents find nobody at the port of an operator that stands by.
        let listen = args.listen();
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("could not listen on {listen}"))?;
        let replaced = owner::replaced(client.clone(), &args.namespace, owner.clone());
        // Only the leader changes the CA.
        let security = Security::of(args, &client, owner.clone())?;
        let gate = Gate {
            fleet: Arc::clone(&fleet),
            admission: security.admission,
            tls: security.tls,
            limits: Limits::default(),
            refusals: Arc::clone(&refusals),
        };
        let (placed_sender, placed) = watch::channel(0);
        let agents = Agents::new(
            client.clone(),
            Settings {
                operator_url: args.operator_url(),
                namespace: args.namespace.clone(),
                image: args.agent_image.clone(),
                insecure_plaintext: args.insecure_plaintext,
                http_listen: args.agent_http_listen,
                owner,
                agents: settings,
            },
        );
        let teller = Teller::new(client.clone(), &args.namespace);
        let class_label = &args.node_class_label;
        let placement = placement::run(
            client.clone(),
            &fleet,
            agents,
            class_label,
            &metrics,
            placed_sender,
        );
        let gateway = serve_agents(
            listener,
            gate,
            placed.clone(),
            security.ready,
            &metrics,
            closed,
        );
        tokio::select! {
            ended = placement => match ended.context("could not place probes")? {},
            () = statuses(client, Arc::clone(&fleet), Arc::clone(&metrics), placed) => Ok(()),
            ended = gateway => ended,
            replaced = replaced => Err(replaced.into()),
            never = security.keeper => match never {},
            never = refusals.tell(teller) => match never {},
        }
    }
}

/// How agents know the operator, and it them.
struct Security {
    admission: Admission,
    tls: Option<TlsAcceptor>,
    /// Whether there is a certificate to serve with, if one is needed.
    ready: watch::Receiver<bool>,
    /// Keeps the certificate in order.
    keeper: BoxFuture<'static, Infallible>,
}

impl Security {
    fn of(args: &RunArgs, client: &Client, owner: Option<OwnerReference>) -> anyhow::Result<Self> {
        if args.insecure_plaintext {
            warn!(
                "Agents are served in plaintext and without identities (--insecure-plaintext): every program on this \
                 host can report as any node; for trials on a single host only"
            );
            return Ok(Self {
                admission: Admission::Anyone,
                tls: None,
                ready: watch::channel(true).1,
                keeper: Box::pin(std::future::pending()),
            });
        }
        let served = Arc::<Served>::default();
        let names = args.names().map_err(anyhow::Error::msg)?;
        let keeper = Keeper::new(
            client.clone(),
            &args.namespace,
            owner,
            args.terms(),
            names,
            Arc::clone(&served),
        );
        let (ready_sender, ready) = watch::channel(false);
        Ok(Self {
            admission: Admission::ByToken(Arc::new(Reviewer::new(
                client.clone(),
                &args.namespace,
                args.token_review_period,
            ))),
            tls: Some(tls::acceptor(served).context("could not set up TLS")?),
            ready,
            keeper: Box::pin(keeper.run(ready_sender)),
        })
    }
}

/// Serves agents, once there is a certificate and it is known what they are to measure: an agent that finds its
/// probes unknown would have its first report counted for nothing.
async fn serve_agents(
    listener: TcpListener,
    gate: Gate,
    mut placed: watch::Receiver<u64>,
    mut ready: watch::Receiver<bool>,
    metrics: &Metrics,
    closed: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("could not read the address")?;
    placed
        .wait_for(|it| *it > 0)
        .await
        .context("placement ended")?;
    // In plaintext it was said at once, by someone who is gone.
    if !*ready.borrow() {
        ready
            .wait_for(|it| *it)
            .await
            .context("the CA is kept no more")?;
    }
    info!(%address, tls = gate.tls.is_some(), "Serving agents");
    metrics.now_serves();
    let shutdown = async { _ = closed.await };
    gateway::serve(listener, gate, shutdown)
        .await
        .context("the gRPC server failed")
}

/// Keeps the status of every probe up to date.
async fn statuses(
    client: Client,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    placed: watch::Receiver<u64>,
) {
    let probes: Api<MapLatencyProbe> = Api::all(client.clone());
    let controller = Controller::new(probes, watcher::Config::default());
    let context = Arc::new(probe::Context::new(
        client,
        fleet,
        metrics,
        controller.store(),
    ));
    controller
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(changes(placed))
        .run(probe::reconcile, probe::on_error, context)
        .for_each(async |outcome| match outcome {
            Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => (),
            // Deleted between the event and the visit.
            Err(controller::Error::ObjectNotFound(probe)) => debug!(%probe, "Probe is gone"),
            Err(failure) => warn!(
                error = chain(&failure),
                "Could not watch probes; trying again"
            ),
        })
        .await;
}

fn changes(receiver: watch::Receiver<u64>) -> impl Stream<Item = ()> + Send {
    stream::unfold(receiver, async |mut receiver| {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}
