//! Measures what an operator asks for, and reports to it.
//!
//! Measuring goes on on its own thread whether or not there is a connection. One stream at a time carries
//! assignments in and reports out ([`stream`]); when it ends, for whatever reason, the next one begins after a
//! random wait ([`backoff`]). How the operator is reached is in [`dial`].

pub mod backoff;
pub mod dial;
mod exported;
pub mod report;
pub mod stream;
mod unable;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use maplatency_metrics::http;
use maplatency_proto::{Hello, Transport};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::args::ServeArgs;
use crate::error::chain;
use crate::host::Host;
use crate::logging::brief_chain;
use crate::monitor::Monitor;
use crate::process::{self, Signals};
use backoff::Backoff;
use dial::Dialer;
use exported::Exported;
use stream::Session;

/// Until it is tried again to measure a node where that failed.
const AGAIN: Duration = Duration::from_mins(1);

/// The same for a port that another program has.
const PORT_AGAIN: Duration = Duration::from_secs(30);

/// Serves until a signal comes, or measuring ends that had begun.
pub fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let host = Host::detect(Some(args.node.clone()))?;
    let transport = args.transport().map_err(anyhow::Error::msg)?;
    if transport == Transport::Plaintext {
        warn!(
            "Reporting in plaintext and without proof of who reports (--insecure-plaintext); for trials on a single \
             host only"
        );
    }
    process::block_on(serve_until_told(args, host, &Dialer::new(args, transport)))
}

async fn serve_until_told(args: &ServeArgs, host: Host, dialer: &Dialer) -> anyhow::Result<()> {
    let mut signals = Signals::watch()?;
    let exported = Arc::new(Exported::default());
    let mut metrics = std::pin::pin!(metrics(args.http_listen, Arc::clone(&exported), PORT_AGAIN));
    let started = tokio::select! {
        started = start(args, &host, dialer, &mut signals) => started?,
        never = &mut metrics => match never {},
    };
    let Some(monitor) = started else {
        return Ok(());
    };
    let hello = hello(&host, &monitor.tier().to_string(), None);
    info!(operator = %args.operator, node = %hello.node, epoch = %hello.epoch, tier = %hello.tier, "Starting");
    let mut session = Session::new(hello, &monitor).telling(exported.told());
    exported.measures(monitor.tier().tier);
    let mut snapshots = monitor.snapshots();
    let exports = args.http_listen.is_some();
    let measuring = async {
        while snapshots.changed().await.is_ok() {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            if exports {
                exported.take(snapshot);
            }
        }
    };
    let was_told = tokio::select! {
        never = keep_connected(dialer, &mut session) => match never {},
        () = measuring => false,
        () = signals.told_to_end() => true,
        never = &mut metrics => match never {},
    };
    process::stop(monitor).await?;
    if !was_told {
        bail!("measuring ended early");
    }
    info!("Ended");
    Ok(())
}

/// Starts measuring. Where the kernel does not let it, the operator is told, and it is tried again by and by: whoever
/// changes that need not know of this agent. `None` when the process is told to end.
async fn start(
    args: &ServeArgs,
    host: &Host,
    dialer: &Dialer,
    signals: &mut Signals,
) -> anyhow::Result<Option<Monitor>> {
    let mut attempt = process::start(signals, args.tier.choice(), args.budget(), None).await;
    let mut told = String::new();
    let mut telling: Pin<Box<dyn Future<Output = Infallible>>> = Box::pin(std::future::pending());
    loop {
        let failure = match attempt {
            Ok(started) => return Ok(started),
            Err(failure) => failure,
        };
        let reason = brief_chain(&failure);
        error!(
            error = reason,
            again = %humantime::format_duration(AGAIN),
            "Cannot measure this node"
        );
        // One stream for one reason, however often it is tried.
        if told != reason {
            let hello = hello(host, "None", Some(&reason));
            telling = Box::pin(unable::tell(dialer, hello));
            told = reason;
        }
        attempt = tokio::select! {
            never = &mut telling => match never {},
            again = async {
                tokio::select! {
                    () = sleep(AGAIN) => (),
                    () = signals.told_to_end() => return Ok(None),
                }
                process::start(signals, args.tier.choice(), args.budget(), None).await
            } => again,
        };
    }
}

/// Answers for metrics, if that is asked for. A port that is taken ends no measuring; it may be free later.
async fn metrics(
    listen: Option<SocketAddr>,
    exported: Arc<Exported>,
    again: Duration,
) -> Infallible {
    let Some(address) = listen else {
        return std::future::pending().await;
    };
    let listener = loop {
        match http::listen(address).await {
            Ok(listener) => break listener,
            Err(failure) => {
                error!(error = brief_chain(&failure.into()), "Cannot serve metrics");
                sleep(again).await;
            }
        }
    };
    http::serve(listener, http::router(exported)).await
}

fn hello(host: &Host, tier: &str, problem: Option<&str>) -> Hello {
    let Host {
        node,
        kernel,
        boot_id,
    } = host.clone();
    Hello {
        node,
        epoch: format!("{:032x}", rand::random::<u128>()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel,
        boot_id,
        // Reasons of refused tiers are the kernel's words, and there may be several.
        tier: report::printable(tier),
        problem: problem.map(report::printable),
    }
}

/// Runs one stream after the other.
async fn keep_connected(dialer: &Dialer, session: &mut Session<'_>) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let end = session.stream(dialer).await;
        if end.was_acknowledged {
            backoff.reset();
        }
        let wait = backoff.next(Instant::now(), &mut rand::rng());
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
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn a_hello_is_taken_whatever_the_kernel_says_of_the_tiers() {
        let host = Host {
            node: "node-a".to_owned(),
            kernel: "6.12.0".to_owned(),
            boot_id: "b007".to_owned(),
        };
        let tier = format!("TpBtf (Fentry refused: {}\n)", "no ".repeat(300));
        let hello = hello(&host, &tier, Some(&tier));
        assert_eq!(Hello::try_from(wire::Hello::from(hello.clone())), Ok(hello));
    }

    #[tokio::test]
    async fn metrics_are_served_once_the_port_that_was_taken_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let again = Duration::from_millis(10);
        let serving = async { match metrics(Some(address), Arc::default(), again).await {} };
        let asking = async {
            // Until it has failed once.
            sleep(again).await;
            drop(taken);
            while TcpStream::connect(address).await.is_err() {
                sleep(again).await;
            }
        };
        tokio::select! {
            () = serving => unreachable!(),
            done = tokio::time::timeout(Duration::from_mins(1), asking) => done.unwrap(),
        }
    }
}
