//! Tells the operator that this node cannot be measured, and why.
//!
//! An agent that ended instead would be started again and again, and its reason would stand in a log that nobody reads.
//! The stream is that of any other agent; assignments are not followed, and there is nothing to report.

use std::convert::Infallible;
use std::time::Instant;

use maplatency_proto::Hello;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::dial::Dialer;
use super::stream::{StreamError, open};
use crate::error::chain;

/// Keeps telling, over one stream after the other.
pub(super) async fn tell(dialer: &Dialer, hello: Hello) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let reason = match once(dialer, &hello, &mut backoff).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        warn!(error = chain(&reason), "Not connected to the operator");
        sleep(backoff.next(Instant::now(), &mut rand::rng())).await;
    }
}

/// One stream, until it ends.
async fn once(
    dialer: &Dialer,
    hello: &Hello,
    backoff: &mut Backoff,
) -> Result<Infallible, StreamError> {
    // The stream stands for as long as the outbox does.
    let (outbox, messages) = mpsc::channel(1);
    let (mut inbound, _token) = open(dialer, hello, &outbox, messages).await?;
    let mut is_told = false;
    loop {
        let message = inbound.message().await;
        let message = message.map_err(|it| StreamError::Status(Box::new(it)))?;
        if message.is_none() {
            return Err(StreamError::Closed);
        }
        backoff.reset();
        if !std::mem::replace(&mut is_told, true) {
            info!("Told the operator that this node cannot be measured");
        }
    }
}
