//! Measures what an operator asks for, and reports to it.
//!
//! Measuring goes on on its own thread whether or not there is a connection. One stream at a time carries
//! assignments in and reports out ([`stream`]); when it ends, for whatever reason, the next one begins after a
//! random wait ([`backoff`]). How the operator is reached is in [`dial`].

pub mod backoff;
pub mod dial;
pub mod report;
pub mod stream;

use std::convert::Infallible;

use anyhow::bail;
use maplatency_proto::{Hello, Transport};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::args::ServeArgs;
use crate::error::chain;
use crate::host::Host;
use crate::process::{self, Signals};
use backoff::Backoff;
use dial::Dialer;
use stream::Session;

/// Serves until a signal comes or measuring fails.
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
    let Some(monitor) =
        process::start(&mut signals, args.tier.choice(), args.budget(), None).await?
    else {
        return Ok(());
    };
    let hello = hello(host, &monitor.tier().to_string());
    info!(operator = %args.operator, node = %hello.node, epoch = %hello.epoch, tier = %hello.tier, "Starting");
    let mut session = Session::new(hello, &monitor);
    let mut snapshots = monitor.snapshots();
    let was_told = tokio::select! {
        never = keep_connected(dialer, &mut session) => match never {},
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

/// Runs one stream after the other.
async fn keep_connected(dialer: &Dialer, session: &mut Session<'_>) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let end = session.stream(dialer).await;
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
