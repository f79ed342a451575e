//! Connections of agents: accepted, wrapped in TLS, and limited until they have shown what they are for.
//!
//! Whoever reaches the port can open connections. A connection *waits* from its first byte until it has a stream
//! that said a valid hello, and again when its last stream has ended. How many wait is limited by address and over
//! all, and none waits for long. Connections with a stream are limited by the number of nodes: a newer stream of a
//! node replaces the older one.
//!
//! Nothing runs detached: handshakes are polled where connections are taken from.

mod connection;
mod doors;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use crate::refusals::{Reason, Refusals};
use connection::Io;
pub use connection::{Connection, Peer};
use doors::{Doors, Slot};
pub use doors::{Place, Seat};

/// How long to wait where the system has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// What those that wait may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one address that wait.
    pub per_address: usize,
    /// Connections of all addresses that wait.
    pub waiting: usize,
    /// How long TLS may take to come about.
    pub handshake: Duration,
    /// How long a connection may wait.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_address: 64,
            waiting: 1024,
            handshake: Duration::from_secs(5),
            wait: Duration::from_secs(20),
        }
    }
}

/// Takes connections for as long as it is polled. Without an acceptor they are in plaintext.
pub fn incoming(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = io::Result<Connection>> {
    let state = State {
        listener,
        tls,
        doors: Arc::new(Doors::new(limits, Arc::clone(&refusals))),
        handshakes: FuturesUnordered::new(),
        refusals,
    };
    stream::unfold(state, async |mut state| {
        let connection = state.next().await;
        Some((Ok(connection), state))
    })
}

type Handshake = futures::future::BoxFuture<'static, Result<Connection, (SocketAddr, String)>>;

struct State {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    doors: Arc<Doors>,
    /// As many as the doors let in.
    handshakes: FuturesUnordered<Handshake>,
    refusals: Arc<Refusals>,
}

impl State {
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, address)) => self.enter(tcp, address),
                    Err(failure) => {
                        warn!(error = %failure, "Could not accept a connection");
                        sleep(EXHAUSTED).await;
                    }
                },
                Some(ended) = self.handshakes.next() => match ended {
                    Ok(connection) => return connection,
                    Err((address, failure)) => self
                        .refusals
                        .count(Reason::Handshake, format!("{address}: {failure}")),
                },
            }
        }
    }

    fn enter(&mut self, tcp: TcpStream, address: SocketAddr) {
        if let Some(slot) = self.doors.enter(address.ip()) {
            let limits = self.doors.limits();
            let handshake = handshake(tcp, address, self.tls.clone(), slot, limits);
            self.handshakes.push(Box::pin(handshake));
        }
    }
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    slot: Slot,
    limits: Limits,
) -> Result<Connection, (SocketAddr, String)> {
    // It only delays small messages, so a connection without is fine, too.
    _ = tcp.set_nodelay(true);
    let io = match tls {
        None => Io::Plain(tcp),
        Some(tls) => match timeout(limits.handshake, tls.accept(tcp)).await {
            Ok(Ok(stream)) => Io::Tls(Box::new(stream)),
            Ok(Err(failure)) => return Err((address, failure.to_string())),
            Err(_) => return Err((address, "TLS took too long".to_owned())),
        },
    };
    Ok(Connection::new(io, address, slot, limits.wait))
}
