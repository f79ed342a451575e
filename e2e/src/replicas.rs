//! Several operators, and what a Service in front of them does.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, PATIENCE, free_port};
use crate::http::{get, sample};
use crate::process::Daemon;
use crate::wait;

/// One operator.
#[derive(Debug)]
pub struct Replica {
    /// Its process.
    pub daemon: Daemon,
    /// Where it answers for health and metrics.
    pub http: SocketAddr,
}

impl Replica {
    /// A sample of its metrics; `None` if it does not answer or has none such.
    pub async fn sample(&self, name: &str) -> Option<f64> {
        let answer = get(self.http, "/metrics", "").await.ok()?;
        sample(&answer.text(), name, &[])
    }
}

/// Where an operator is.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    listen: SocketAddr,
    http: SocketAddr,
}

/// Operators that elect a leader. Agents reach whichever is ready, through one address.
#[derive(Debug)]
pub struct Replicas {
    /// The operators.
    pub replicas: Vec<Replica>,
    service: JoinHandle<()>,
}

impl Replicas {
    /// Starts so many.
    pub async fn start(cluster: &Cluster, number: usize) -> Result<Self> {
        let service = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let dialed = service.local_addr()?;
        let mut replicas = Vec::new();
        let mut endpoints = Vec::new();
        for n in 0..number {
            let endpoint = Endpoint {
                listen: free_port()?,
                http: free_port()?,
            };
            let mut command = cluster.operator_command(endpoint.listen, dialed)?;
            command
                .args(["--http-listen", &endpoint.http.to_string()])
                .args(["--leader-elect", "true", "--name", &format!("replica-{n}")]);
            let log = cluster.folder().join(format!("operator-{n}.log"));
            replicas.push(Replica {
                daemon: Daemon::spawn(&format!("operator {n}"), command, &log)?,
                http: endpoint.http,
            });
            endpoints.push(endpoint);
        }
        let service = tokio::spawn(serve(service, endpoints.into()));
        Ok(Self { replicas, service })
    }

    /// Waits until one operator is ready, other than `not`.
    pub async fn ready(&self, not: Option<usize>) -> Result<usize> {
        wait::until("an operator to be ready", PATIENCE, async || {
            for (at, replica) in self.replicas.iter().enumerate() {
                if Some(at) != not && is_ready(replica.http).await {
                    return Ok(Some(at));
                }
            }
            let logs = self.replicas.iter().map(|it| it.daemon.log_tail());
            anyhow::bail!("{}", logs.collect::<Vec<_>>().join("\n---\n"))
        })
        .await
    }

    /// Waits until one operator, other than `not`, is ready and has so many agents.
    pub async fn ready_with_agents(&self, not: Option<usize>, agents: u32) -> Result<usize> {
        let at = self.ready(not).await?;
        wait::until("the agents", PATIENCE, async || {
            let connected = self.replicas[at]
                .sample("maplatency_connected_agents")
                .await;
            ensure!(connected == Some(f64::from(agents)), "{connected:?} agents");
            Ok(Some(at))
        })
        .await
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.service.abort();
    }
}

/// Passes connections on to an operator that is ready, and refuses them where none is.
async fn serve(listener: tokio::net::TcpListener, endpoints: Arc<[Endpoint]>) {
    while let Ok((mut inbound, _)) = listener.accept().await {
        let endpoints = Arc::clone(&endpoints);
        tokio::spawn(async move {
            for endpoint in endpoints.iter() {
                if is_ready(endpoint.http).await
                    && let Ok(mut outbound) = TcpStream::connect(endpoint.listen).await
                {
                    // Ends with either end.
                    _ = copy_bidirectional(&mut inbound, &mut outbound).await;
                    return;
                }
            }
        });
    }
}

async fn is_ready(http: SocketAddr) -> bool {
    get(http, "/readyz", "")
        .await
        .is_ok_and(|it| it.code == 200)
}
