//! Prometheus' text format, for whoever does not ask for protobuf. It has classic buckets only.
//!
//! The encoder of the library writes `OpenMetrics`, in which a counter's samples have other names than its family;
//! `promtool check metrics` and older scrapers read this one.

use std::fmt::{self, Write};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    LabelPair, Metric, MetricFamily, MetricType,
};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn encode(families: &[MetricFamily]) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for family in families.iter().filter(|it| !it.metric.is_empty()) {
        let name = &family.name;
        let kind = match family.r#type() {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            _ => "untyped",
        };
        writeln!(out, "# HELP {name} {}", escaped(&family.help, false))?;
        writeln!(out, "# TYPE {name} {kind}")?;
        for metric in &family.metric {
            sample(&mut out, name, metric)?;
        }
    }
    Ok(out)
}

fn sample(out: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    let labels = labels(&metric.label);
    let braces = |more: &str| match (labels.as_str(), more) {
        ("", "") => String::new(),
        ("", one) | (one, "") => format!("{{{one}}}"),
        (one, other) => format!("{{{one},{other}}}"),
    };
    if let Some(it) = &metric.counter {
        writeln!(out, "{name}{} {}", braces(""), it.value)?;
    }
    if let Some(it) = &metric.gauge {
        writeln!(out, "{name}{} {}", braces(""), it.value)?;
    }
    if let Some(it) = &metric.histogram {
        for bucket in &it.bucket {
            let bound = match bucket.upper_bound {
                bound if bound.is_infinite() => "+Inf".to_owned(),
                bound => bound.to_string(),
            };
            let le = braces(&format!("le=\"{bound}\""));
            writeln!(out, "{name}_bucket{le} {}", bucket.cumulative_count)?;
        }
        writeln!(out, "{name}_sum{} {}", braces(""), it.sample_sum)?;
        writeln!(out, "{name}_count{} {}", braces(""), it.sample_count)?;
    }
    Ok(())
}

fn labels(pairs: &[LabelPair]) -> String {
    let pairs = pairs
        .iter()
        .map(|it| format!("{}=\"{}\"", it.name, escaped(&it.value, true)));
    pairs.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes {
        text.replace('"', "\\\"")
    } else {
        text
    }
}
