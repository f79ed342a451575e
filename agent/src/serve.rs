//! Measures what an operator asks for, and reports to it.
//!
//! Measuring goes on on its own thread whether or not there is a connection. One stream at a time carries
//! assignments in and reports out ([`stream`]); when it ends, for whatever reason, the next one begins after a
//! random wait ([`backoff`]).

pub mod backoff;
pub mod report;
pub mod stream;

use std::convert::Infallible;
use std::time::Duration;

use anyhow::bail;
use maplatency_proto::Hello;
use tokio::time::sleep;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::args::ServeArgs;
use crate::error::chain;
use crate::host::Host;
use crate::process::{self, Signals};
use backoff::Backoff;
use stream::Session;

/// Longest time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection is asked this often whether it still stands, and has this long to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Serves until a signal comes or measuring fails.
pub fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let host = Host::detect(Some(args.node.clone()))?;
    process::block_on(serve_until_told(args, host))
}

async fn serve_until_told(args: &ServeArgs, host: Host) -> anyhow::Result<()> {
    let mut signals = Signals::watch()?;
    let Some(monitor) =
        process::start(&mut signals, args.tier.choice(), args.budget(), None).await?
    else {
        return Ok(());
    };
    let hello = hello(host, &monitor.tier().to_string());
    info!(operator = %args.operator, node = %hello.node, epoch = %hello.epoch, tier = %hello.tier, "Starting");
    let endpoint = endpoint(args);
    let mut session = Session::new(hello, &monitor);
    let mut snapshots = monitor.snapshots();
    let was_told = tokio::select! {
        never = keep_connected(&endpoint, &mut session) => match never {},
        () = async { while snapshots.changed().await.is_ok() {} } => false,
        () = signals.told_to_end() => true,
    };
    process::stop(monitor).await?;
    if !was_told {
        bail!("measuring ended early");
    }
    info!("Ended");
    Ok(())
}

fn hello(host: Host, tier: &str) -> Hello {
    let Host {
        node,
        kernel,
        boot_id,
    } = host;
    Hello {
        node,
        epoch: format!("{:032x}", rand::random::<u128>()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel,
        boot_id,
        // Reasons of refused tiers are the kernel's words, and there may be several.
        tier: report::printable(tier),
    }
}

fn endpoint(args: &ServeArgs) -> Endpoint {
    Endpoint::from(args.operator.clone())
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// Runs one stream after the other.
async fn keep_connected(endpoint: &Endpoint, session: &mut Session<'_>) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let end = session.stream(endpoint).await;
        if end.was_acknowledged {
            backoff.reset();
        }
        let wait = backoff.next(&mut rand::rng());
        let retry_in_milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(
            error = chain(&end.reason),
            retry_in_milliseconds, "Not connected to the operator"
        );
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_proto::wire;

    #[test]
    fn a_hello_is_taken_whatever_the_kernel_says_of_the_tiers() {
        let host = Host {
            node: "node-a".to_owned(),
            kernel: "6.12.0".to_owned(),
            boot_id: "b007".to_owned(),
        };
        let tier = format!("TpBtf (Fentry refused: {}\n)", "no ".repeat(300));
        let hello = hello(host, &tier);
        assert_eq!(Hello::try_from(wire::Hello::from(hello.clone())), Ok(hello));
    }
}
