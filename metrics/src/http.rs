//! `/metrics`, in the form that the scraper asks for.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::prometheus_protobuf;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::sink::{Export, Exporter};
use crate::text;

/// Connections at once. Beyond them callers wait.
const CONNECTIONS: usize = 64;
/// Longest time for one connection, from when it is accepted to the end of the answer.
const LIFE: Duration = Duration::from_secs(10);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Nobody can be served at that address.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address} for --http-listen; write another address or port")]
pub struct Taken {
    address: SocketAddr,
    source: io::Error,
}

/// The only format with native histograms.
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A router that answers `/metrics` with what `exported` knows.
pub fn router<E: Export>(exported: Arc<E>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exporter(exported)));
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::new(registry))
}

/// Listens, and logs where.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Taken> {
    let taken = |source| Taken { address, source };
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;
    info!(%address, "Serving metrics over HTTP");
    Ok(listener)
}

/// Serves for as long as the process, so many connections at once, each for one request and a limited time.
pub async fn serve(listener: TcpListener, router: Router) -> Infallible {
    serve_each_for(listener, router, LIFE).await
}

async fn serve_each_for(listener: TcpListener, router: Router, life: Duration) -> Infallible {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let room = Arc::clone(&room).acquire_owned().await;
        let room = room.expect("nobody closes the semaphore");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(failure) => {
                // Such as too many open files, which may be over in a moment.
                warn!(%failure, "Could not accept a connection for metrics");
                sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if timeout(life, connection).await.is_err() {
                debug!("Closed a connection for metrics that took too long");
            }
            drop(room);
        });
    }
}

async fn metrics(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|it| it.to_str().ok());
    let encoded = encode(&registry, accept.is_some_and(wants_protobuf));
    match encoded {
        Ok((kind, body)) => ([(CONTENT_TYPE, kind)], body).into_response(),
        Err(failure) => {
            error!(%failure, "Could not encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Prometheus asks for protobuf before all others where it takes native histograms, and not at all where it does not.
fn wants_protobuf(accept: &str) -> bool {
    let wanted = |it: &str| {
        it.contains("application/vnd.google.protobuf")
            && it.contains("proto=io.prometheus.client.MetricFamily")
            && it.contains("encoding=delimited")
    };
    accept.split(',').any(wanted)
}

fn encode(registry: &Registry, protobuf: bool) -> Result<(&'static str, Vec<u8>), std::fmt::Error> {
    let families = prometheus_protobuf::encode(registry)?;
    if !protobuf {
        return Ok((text::CONTENT_TYPE, text::encode(&families)?.into_bytes()));
    }
    let mut body = Vec::new();
    for family in families.iter().filter(|it| !it.metric.is_empty()) {
        let encoded = family.encode_length_delimited(&mut body);
        encoded.expect("a Vec has room for everything");
    }
    Ok((PROTOBUF, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{AGENT_OPERATIONS, AGENT_REPORTS};
    use crate::sink::Sink;
    use maplatency_core::histogram::Histogram;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    struct Sample;

    impl Export for Sample {
        fn export(&self, sink: &mut Sink<'_>) -> std::fmt::Result {
            sink.counters(&AGENT_REPORTS, [(vec![], 7.0)])?;
            let histogram: Histogram = [300, 700, 5_000_000_000].into_iter().collect();
            let labels = vec!["a\"b\\c", "Lookup", "until_user"];
            sink.histograms(&AGENT_OPERATIONS, [(labels, &histogram)])
        }
    }

    fn encoded(protobuf: bool) -> (&'static str, Vec<u8>) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exporter(Arc::new(Sample))));
        encode(&registry, protobuf).unwrap()
    }

    #[test]
    fn text_has_classic_buckets_and_escaped_labels() {
        let (kind, body) = encoded(false);
        assert_eq!(kind, text::CONTENT_TYPE);
        let text = String::from_utf8(body).unwrap();
        let labels = r#"probe="a\"b\\c",operation="Lookup",latency="until_user""#;
        let name = AGENT_OPERATIONS.name;
        for line in [
            "# TYPE maplatency_agent_reports_sent_total counter".to_owned(),
            "maplatency_agent_reports_sent_total 7".to_owned(),
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{{labels},le=\"0.000000256\"}} 0"),
            format!("{name}_bucket{{{labels},le=\"0.000000512\"}} 1"),
            format!("{name}_bucket{{{labels},le=\"0.000001024\"}} 2"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("{name}_count{{{labels}}} 3"),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }

    /// Who connects and says nothing must not keep the port for itself, or hold memory without end.
    #[tokio::test]
    async fn those_that_say_nothing_are_cut_off_and_others_are_answered() {
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(Arc::new(Sample));
        let life = Duration::from_millis(200);
        let serving = async { match serve_each_for(listener, router, life).await {} };
        let asking = async {
            let mut silent = Vec::new();
            for _ in 0..2 * CONNECTIONS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::select! {
            answer = asking => answer,
            () = serving => unreachable!(),
        };
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[test]
    fn protobuf_is_for_those_that_ask_for_it() {
        let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                          application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1";
        assert!(wants_protobuf(prometheus));
        assert!(!wants_protobuf("text/plain;version=0.0.4"));
        assert!(!wants_protobuf("*/*"));
        let (kind, body) = encoded(true);
        assert_eq!(kind, PROTOBUF);
        let length = usize::from(body[0]);
        assert!(body.len() > length && !body.starts_with(b"#"));
    }
}
