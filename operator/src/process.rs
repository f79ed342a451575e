//! One operator from its start to its end: stands for leader, works while it leads, ends when it is told to.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use kube::Client;
use kube::client::ClientBuilder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;

use crate::agents::AgentSettings;
use crate::args::RunArgs;
use crate::fleet::Fleet;
use crate::http::{self, Health};
use crate::leader::{Candidate, Election, Fence, Leadership, Terms};
use crate::metrics::Metrics;
use crate::owner;
use crate::refusals::Refusals;
use crate::work::Work;

/// How long streams may take to end after a signal.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until a signal comes or something fails.
pub(crate) async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let mut terminated = std::pin::pin!(terminated()?);
    let settings = match &args.agent_settings {
        Some(file) => AgentSettings::read(file)?,
        None => AgentSettings::default(),
    };
    tell(&args, &settings);
    let fleet = Arc::new(Fleet::new(args.report_period, unix_milliseconds()));
    let refusals = Arc::<Refusals>::default();
    let metrics = Arc::new(Metrics::new(Arc::clone(&fleet), Arc::clone(&refusals)));
    let terms = Terms {
        lease: args.lease_duration,
    };
    let leadership = if args.leader_elect {
        Leadership::none()
    } else {
        Leadership::unopposed()
    };
    let (client, standing) = clients(&args, &leadership).await?;
    let health = Health {
        leadership: leadership.clone(),
        terms,
        metrics: Arc::clone(&metrics),
    };
    let listener = maplatency_metrics::http::listen(args.http_listen).await?;
    let mut http = std::pin::pin!(http::serve(listener, health));
    let leads = async {
        let owner = match &args.deployment {
            Some(name) => Some(owner::find(client.clone(), &args.namespace, name).await?),
            None => None,
        };
        let mut election = Election(standing.map(|client| {
            let (me, owner) = (own_name(&args), owner.clone());
            Candidate::new(client, &args.namespace, me, terms, leadership, owner)
        }));
        election.acquire().await;
        anyhow::Ok((owner, election))
    };
    let (owner, mut election) = tokio::select! {
        leads = leads => leads?,
        never = &mut http => match never {},
        () = &mut terminated => {
            info!("Ended");
            return Ok(());
        }
    };
    let (close, closed) = oneshot::channel();
    let work = Work {
        client,
        owner,
        settings,
        fleet: Arc::clone(&fleet),
        metrics,
        refusals,
    };
    let mut work = std::pin::pin!(work.run(&args, closed));
    // Kubernetes restarts only a process that exits, so no long-lived task runs detached.
    tokio::select! {
        ended = &mut work => ended?,
        never = &mut http => match never {},
        lost = election.lost() => return Err(lost.into()),
        () = &mut terminated => {
            info!("Ending");
            fleet.close();
            _ = close.send(());
            // A stream that does not end in time is cut off; its agent finds the next operator all the same.
            if let Ok(ended) = timeout(GRACE, work).await {
                ended?;
            }
            election.release().await;
            info!("Ended");
            return Ok(());
        }
    }
    bail!("a long-lived task ended early")
}

/// Logs what was asked for.
fn tell(args: &RunArgs, agents: &AgentSettings) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %args.listen(),
        agent_operator_url = args.operator_url(),
        namespace = args.namespace,
        agent_image = args.agent_image,
        agent_settings = ?agents,
        http_listen = %args.http_listen,
        leader_elect = args.leader_elect,
        lease_duration = %humantime::format_duration(args.lease_duration),
        report_period = %humantime::format_duration(args.report_period),
        "Starting"
    );
}

/// A client that writes only while this process leads, and where there is an election one that takes part in it.
async fn clients(
    args: &RunArgs,
    leadership: &Leadership,
) -> anyhow::Result<(Client, Option<Client>)> {
    let mut config = kube::Config::infer()
        .await
        .context("could not find an API server")?;
    // What fails is repeated by whoever wanted it, at its own pace and only while this process leads.
    config.default_retry = false;
    let election = args
        .leader_elect
        .then(|| Client::try_from(config.clone()))
        .transpose()?;
    let client = ClientBuilder::try_from(config)?
        .with_layer(&Fence(leadership.clone()))
        .build();
    Ok((client, election))
}

/// The name of this process, which no other one has.
fn own_name(args: &RunArgs) -> String {
    let name = args.name.clone().unwrap_or_else(host_name);
    // A container that is started again has the same name, and must not take itself for the one before.
    format!("{name}_{:016x}", rand::random::<u64>())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Resolves on SIGTERM and SIGINT.
pub(crate) fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}

/// Rises over restarts, as revisions have to.
fn unix_milliseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
