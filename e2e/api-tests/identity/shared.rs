//! Someone who dials the operator with a token of the test's choice, and tokens to choose from.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use maplatency_agent::serve::dial::Dialer;
use maplatency_e2e::cluster::{AGENTS, Cluster, NAMESPACE, PATIENCE};
use maplatency_e2e::kubelet::{self, replace};
use maplatency_e2e::wait;
use maplatency_proto::wire::gateway_client::GatewayClient;
use maplatency_proto::{
    AUDIENCE, AgentMessage, Hello, MAX_MESSAGE_BYTES, OperatorMessage, Report, Token, wire,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

pub(crate) const CA: &str = "maplatency-operator-ca";

/// The ConfigMap's bundle, once there is one.
pub(crate) async fn bundle(cluster: &Cluster) -> Result<String> {
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client(), NAMESPACE);
    wait::until("the bundle of CAs", PATIENCE, async || {
        let found = config_maps.get_opt(CA).await?;
        Ok(found.and_then(|it| it.data?.remove("ca.crt")))
    })
    .await
}

/// A text of the operator's Secret.
pub(crate) async fn secret(cluster: &Cluster, key: &str) -> Result<Option<String>> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
    let data = secrets.get(CA).await?.data.unwrap_or_default();
    let bytes = data.get(key).map(|it| it.0.clone());
    Ok(bytes.map(String::from_utf8).transpose()?)
}

/// A pod of the agents on a node.
pub(crate) async fn agent_pod(cluster: &Cluster, name: &str, node: &str) -> Result<Pod> {
    kubelet::pod(&cluster.client(), NAMESPACE, name, AGENTS, node).await
}

/// The token that a kubelet would give to an agent's pod.
pub(crate) async fn agent_token(cluster: &Cluster, pod: &Pod) -> Result<String> {
    let bound = Some(kubelet::bound_to(pod));
    kubelet::token(&cluster.client(), NAMESPACE, AGENTS, AUDIENCE, bound).await
}

/// The same token with another end, signed by the API server's own key.
pub(crate) fn ending(cluster: &Cluster, token: &str, from_now: i64) -> Result<String> {
    resigned(token, from_now, &cluster.token_key()?)
}

/// The same token with another end, signed by this key.
pub(crate) fn resigned(token: &str, from_now: i64, key: &str) -> Result<String> {
    let mut parts = token.split('.');
    let (header, payload) = (
        parts.next().context("a header")?,
        parts.next().context("a payload")?,
    );
    let mut payload: serde_json::Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    payload["iat"] = (now - 1000).into();
    payload["nbf"] = (now - 1000).into();
    payload["exp"] = (now + from_now).into();
    let payload = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload)?);
    let message = format!("{header}.{payload}");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("a key in PEM")?;
    let random = SystemRandom::new();
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der(), &random)
            .ok()
            .context("a key of P-256")?;
    let signature = signer
        .sign(&random, message.as_bytes())
        .ok()
        .context("a signature")?;
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref());
    Ok(format!("{message}.{signature}"))
}

/// Someone who trusts a bundle and dials the operator.
pub(crate) struct Caller {
    dialer: Dialer,
    _folder: tempfile::TempDir,
}

impl Caller {
    pub(crate) async fn new(cluster: &Cluster) -> Result<Self> {
        Self::trusting(&bundle(cluster).await?, cluster.address())
    }

    pub(crate) fn trusting(bundle: &str, address: std::net::SocketAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.path().join(name);
            replace(&path, text)?;
            Ok(path)
        };
        let (ca, token) = (file("ca.crt", bundle)?, file("token", "unused")?);
        Ok(Self {
            dialer: Dialer::tls(format!("https://{address}").parse()?, ca, token),
            _folder: folder,
        })
    }

    /// Opens a connection without a stream.
    pub(crate) async fn dial(&self) -> Result<GatewayClient<tonic::transport::Channel>> {
        let connection = self.dialer.dial().await?;
        Ok(GatewayClient::new(connection.channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX))
    }

    /// Opens a stream with this header and says that it is on `node`; gives what came first.
    pub(crate) async fn open(&self, header: Option<&str>, node: &str) -> Result<Opened> {
        let mut client = self.dial().await?;
        let (outbound, messages) = mpsc::channel(4096);
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(header) = header {
            request
                .metadata_mut()
                .insert("authorization", header.parse()?);
        }
        let hello = AgentMessage::Hello(hello(node));
        outbound.send(hello.into()).await?;
        let mut inbound = match client.connect(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Opened::Refused(status)),
        };
        match timeout(PATIENCE, inbound.message()).await? {
            Ok(Some(first)) => match OperatorMessage::try_from(first)? {
                OperatorMessage::Assign(_) => {
                    Ok(Opened::Stream(Box::new(Stream { outbound, inbound })))
                }
                OperatorMessage::Ack(_) => bail!("an acknowledgement of nothing"),
            },
            Ok(None) => bail!("the stream ended without a word"),
            Err(status) => Ok(Opened::Refused(status)),
        }
    }

    /// Opens a stream that has to be taken.
    pub(crate) async fn stream(&self, token: &str, node: &str) -> Result<Stream> {
        match self.open(Some(&format!("Bearer {token}")), node).await? {
            Opened::Stream(stream) => Ok(*stream),
            Opened::Refused(status) => bail!("refused: {status}"),
        }
    }

    /// Opens a stream that has to be refused.
    pub(crate) async fn refused(&self, header: Option<&str>, node: &str) -> Result<Status> {
        match self.open(header, node).await? {
            Opened::Stream(_) => bail!("the operator took a stream of {node}"),
            Opened::Refused(status) => Ok(status),
        }
    }
}

pub(crate) enum Opened {
    Stream(Box<Stream>),
    Refused(Status),
}

/// A stream that the operator has taken.
pub(crate) struct Stream {
    pub(crate) outbound: mpsc::Sender<wire::AgentMessage>,
    inbound: Streaming<wire::OperatorMessage>,
}

impl Stream {
    /// Whether the operator answers a report.
    pub(crate) async fn is_alive(&mut self, sequence: u64) -> Result<()> {
        self.outbound.send(report(sequence)).await?;
        loop {
            let message = timeout(PATIENCE, self.inbound.message()).await??;
            let message = message.context("the stream goes on")?;
            if OperatorMessage::try_from(message)? == OperatorMessage::Ack(sequence) {
                return Ok(());
            }
        }
    }

    pub(crate) async fn renew(&self, token: &str) -> Result<()> {
        let token = AgentMessage::Token(Token::new(token.to_owned())?);
        Ok(self.outbound.send(token.into()).await?)
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Result<Status> {
        self.end_within(PATIENCE).await
    }

    pub(crate) async fn end_within(&mut self, patience: Duration) -> Result<Status> {
        let read = async {
            loop {
                match self.inbound.message().await {
                    Ok(Some(_)) => (),
                    Ok(None) => bail!("the stream ended without an error"),
                    Err(status) => return Ok(status),
                }
            }
        };
        timeout(patience, read)
            .await
            .context("the stream goes on")?
    }
}

pub(crate) fn report(sequence: u64) -> wire::AgentMessage {
    AgentMessage::Report(Report {
        sequence,
        revision: 1,
        taken: Duration::from_secs(sequence),
        losses: std::collections::BTreeMap::new(),
        cost: maplatency_core::cost::Cost::default(),
        shed: vec![],
        probes: vec![],
    })
    .into()
}

pub(crate) fn hello(node: &str) -> Hello {
    Hello {
        node: node.to_owned(),
        epoch: "1".repeat(32),
        version: "0.1.0".to_owned(),
        kernel: "6.18".to_owned(),
        boot_id: "b007".to_owned(),
        tier: "Tracepoint".to_owned(),
        problem: None,
    }
}

/// Waits for a warning on the agents' DaemonSet.
pub(crate) async fn event(cluster: &Cluster, reason: &str) -> Result<Event> {
    let events: Api<Event> = Api::namespaced(cluster.client(), NAMESPACE);
    wait::until(&format!("an event {reason}"), PATIENCE, async || {
        let all = events.list(&ListParams::default()).await?.items;
        let found = all.iter().find(|it| it.reason.as_deref() == Some(reason));
        let reasons: Vec<_> = all.iter().filter_map(|it| it.reason.as_deref()).collect();
        ensure!(found.is_some(), "{reasons:?}");
        Ok(found.cloned())
    })
    .await
}
