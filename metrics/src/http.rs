//! `/metrics`, in the form that the scraper asks for.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_protobuf;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::net::TcpListener;
use tracing::error;

use crate::sink::{Export, Exporter};
use crate::text;

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

/// Serves for as long as the process.
pub async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    axum::serve(listener, router).await
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
