//! Tells the operator that this node cannot be measured, and why.
//!
//! An agent that ended instead would be started again and again, and its reason would stand in a log that nobody reads.
//! The stream is that of any other agent; assignments are not followed, and there is nothing to report.

use std::convert::Infallible;
use std::time::Instant;

use maplatency_proto::wire::gateway_client::GatewayClient;
use maplatency_proto::{AgentMessage, Hello};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::stream::{ANSWER, StreamError};
use crate::error::chain;

/// Keeps telling, over one stream after the other.
pub(super) async fn tell(endpoint: &Endpoint, hello: &Hello) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let reason = once(endpoint, hello, &mut backoff).await;
        warn!(error = chain(&reason), "Not connected to the operator");
        sleep(backoff.next(Instant::now(), &mut rand::rng())).await;
    }
}

/// One stream, until it ends.
async fn once(endpoint: &Endpoint, hello: &Hello, backoff: &mut Backoff) -> StreamError {
    let stream = async {
        let channel = endpoint.connect().await.map_err(StreamError::Connect)?;
        let (outbox, messages) = mpsc::channel(1);
        // Has room for one.
        _ = outbox.try_send(AgentMessage::Hello(hello.clone()).into());
        let mut client = GatewayClient::new(channel);
        let answer = timeout(ANSWER, client.connect(ReceiverStream::new(messages)))
            .await
            .map_err(StreamError::Silent)?
            .map_err(|it| StreamError::Status(Box::new(it)))?;
        let mut inbound = answer.into_inner();
        let mut is_told = false;
        loop {
            match inbound.message().await {
                Ok(Some(_)) => {
                    backoff.reset();
                    if !std::mem::replace(&mut is_told, true) {
                        info!("Told the operator that this node cannot be measured");
                    }
                }
                Ok(None) => {
                    drop(outbox);
                    return Err(StreamError::Closed);
                }
                Err(status) => return Err(StreamError::Status(Box::new(status))),
            }
        }
    };
    match stream.await {
        Ok(never) => never,
        Err(reason) => reason,
    }
}
