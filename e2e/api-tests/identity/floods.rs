//! Those that say too much, or nonsense: cut off, while others go on.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use maplatency_e2e::cluster::{Cluster, PATIENCE, Transport};
use maplatency_e2e::wait;
use maplatency_proto::{AgentMessage, MAX_MESSAGE_BYTES, wire};
use rcgen::KeyPair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::shared::{Caller, Stream, agent_pod, agent_token, event, report, resigned};

const NODES: [(&str, &[(&str, &str)]); 2] = [("node-a", &[]), ("node-b", &[])];

/// A cluster, someone who dials it, an agent that is well, and the token of another one.
async fn set_up() -> Result<(Cluster, Caller, Stream, String)> {
    let cluster = Cluster::start_with(&NODES, Transport::tls(&[])).await?;
    let caller = Caller::new(&cluster).await?;
    let good = agent_pod(&cluster, "agent-a", "node-a").await?;
    let bad = agent_pod(&cluster, "agent-b", "node-b").await?;
    let good = agent_token(&cluster, &good).await?;
    let bad = agent_token(&cluster, &bad).await?;
    let mut stream = caller.stream(&good, "node-a").await?;
    stream.is_alive(1).await?;
    Ok((cluster, caller, stream, bad))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_floods_or_sends_nonsense_is_cut_off_and_others_go_on() -> Result<()> {
    let (cluster, caller, mut good, token) = set_up().await?;

    let mut flood = caller.stream(&token, "node-b").await?;
    for sequence in 1..=1000 {
        if flood.outbound.send(report(sequence)).await.is_err() {
            break;
        }
    }
    let status = flood.end().await?;
    ensure!(status.code() == Code::ResourceExhausted, "{status}");
    event(&cluster, "AgentRefusedFlood").await?;
    good.is_alive(2).await?;

    let nonsense = [
        wire::AgentMessage { kind: None },
        report(0),
        AgentMessage::Hello(super::shared::hello("node-b")).into(),
    ];
    for message in nonsense {
        ends(&caller, &token, message, |it| {
            it.code() == Code::InvalidArgument
        })
        .await?;
    }
    event(&cluster, "AgentRefusedNonsense").await?;

    let long = "a".repeat(MAX_MESSAGE_BYTES + 1);
    let kind = Some(wire::agent_message::Kind::Token(wire::Token {
        token: long,
    }));
    ends(&caller, &token, wire::AgentMessage { kind }, |it| {
        it.code() == Code::OutOfRange
    })
    .await?;
    good.is_alive(3).await
}

/// Sends a message as node-b until it ends the stream as expected: for a while after the flood the node may say nothing at
/// all.
async fn ends(
    caller: &Caller,
    token: &str,
    message: wire::AgentMessage,
    expected: impl Fn(&Status) -> bool,
) -> Result<()> {
    wait::until("the message to be refused", PATIENCE, async || {
        let mut bad = caller.stream(token, "node-b").await?;
        bad.outbound.send(message.clone()).await?;
        let status = bad.end().await?;
        ensure!(expected(&status), "{status}");
        Ok(Some(()))
    })
    .await
}

/// Dials from another address of this host, as another host would.
async fn dial_from(from: &str, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse()?)?;
    Ok(socket.connect(to).await?)
}

/// Whether the operator closes a connection without having been sent anything.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(std::time::Duration::from_secs(2), stream.read(&mut byte));
    matches!(read.await, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_garbage_keep_no_agent_out() -> Result<()> {
    let (cluster, caller, mut good, token) = set_up().await?;
    let to = cluster.address();

    let mut silent = join_all((0..100).map(|_| dial_from("127.0.0.2", to)))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let closed = join_all(silent.iter_mut().map(is_closed)).await;
    let closed = closed.into_iter().filter(|it| *it).count();
    ensure!(closed >= 30, "{closed} of 100 were closed at once");
    event(&cluster, "AgentRefusedTooManyConnections").await?;
    caller.stream(&token, "node-b").await?;
    good.is_alive(2).await?;

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 4096]] {
        let mut stream = dial_from("127.0.0.3", to).await?;
        stream.write_all(garbage).await?;
        let mut answer = Vec::new();
        // Closed or reset; only that it ends counts.
        _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .context("the connection stays open")?;
    }
    event(&cluster, "AgentRefusedHandshake").await?;
    // The silent ones had their time.
    for stream in &mut silent {
        let mut byte = [0];
        _ = timeout(PATIENCE, stream.read(&mut byte))
            .await
            .context("a silent connection stays open")?;
    }
    good.is_alive(3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_guessed_wear_out_their_own_address_only() -> Result<()> {
    let (cluster, caller, mut good, token) = set_up().await?;
    let foreign = KeyPair::generate()?.serialize_pem();
    // At once, since the limit is one of time.
    let guesses = (0..16).map(|at| guess(&caller, &token, &foreign, at * 1000));
    let codes: Vec<Code> = join_all(guesses)
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .concat();
    let count = |code| codes.iter().filter(|it| **it == code).count();
    ensure!(count(Code::Unauthenticated) >= 200, "{codes:?}");
    ensure!(count(Code::ResourceExhausted) > 0, "{codes:?}");
    event(&cluster, "AgentRefusedTooManyTokens").await?;
    good.is_alive(2).await
}

/// Shows tokens that nobody signed, each another one; gives the answers.
async fn guess(caller: &Caller, token: &str, key: &str, first: i64) -> Result<Vec<Code>> {
    let mut client = caller.dial().await?;
    let mut codes = Vec::new();
    for at in 0..50 {
        let guess = resigned(token, 1000 + first + at, key)?;
        let mut request = Request::new(tokio_stream::empty());
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {guess}").parse()?);
        let refusal = client.connect(request).await;
        let status = refusal.err().context("a guess was taken")?;
        codes.push(status.code());
        if status.code() == Code::Unavailable {
            // The operator has closed the connection.
            client = caller.dial().await?;
        }
    }
    Ok(codes)
}
