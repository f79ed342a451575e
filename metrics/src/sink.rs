//! Where programs put what they export.

use std::fmt;
use std::sync::Arc;

use maplatency_core::histogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::catalog::{Kind, Metric};
use crate::latency::{Native, classic, seconds};
use crate::process;

/// A program's metrics.
pub trait Export: Send + Sync + 'static {
    /// Puts everything into the sink, as it is now.
    fn export(&self, sink: &mut Sink<'_>) -> fmt::Result;
}

/// Adapts an [`Export`] to the registry, and adds what every process exports.
pub struct Exporter<E>(pub Arc<E>);

impl<E> fmt::Debug for Exporter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl<E: Export> Collector for Exporter<E> {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut sink = Sink(encoder);
        self.0.export(&mut sink)?;
        process::export(&mut sink)
    }
}

/// Values of the labels of one sample, in the order of [`Metric::labels`].
pub type Values<'a> = Vec<&'a str>;

/// Takes metrics one after the other.
pub struct Sink<'a>(DescriptorEncoder<'a>);

impl fmt::Debug for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

impl Sink<'_> {
    /// Values that rise and fall.
    pub fn gauges<'v>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Values<'v>, f64)>,
    ) -> fmt::Result {
        self.each(metric, Kind::Gauge, samples, |mut encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    /// One value without labels.
    pub fn gauge(&mut self, metric: &Metric, value: f64) -> fmt::Result {
        self.gauges(metric, [(vec![], value)])
    }

    /// Counts.
    pub fn counters<'v>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Values<'v>, f64)>,
    ) -> fmt::Result {
        self.each(metric, Kind::Counter, samples, |mut encoder, value| {
            encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None)
        })
    }

    /// Latencies in nanoseconds, exported in seconds.
    pub fn histograms<'v>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Values<'v>, &'v Histogram)>,
    ) -> fmt::Result {
        self.each(metric, Kind::Histogram, samples, |mut encoder, it| {
            let Native {
                zero,
                spans,
                deltas,
            } = Native::of(it);
            let none = NativeHistogramBuckets {
                spans: &[],
                deltas: &[],
            };
            let native = NativeHistogram {
                schema: Native::SCHEMA,
                zero_threshold: Native::ZERO_THRESHOLD,
                zero_count: zero,
                negative: none,
                positive: NativeHistogramBuckets {
                    spans: &spans,
                    deltas: &deltas,
                },
                created: None,
            };
            encoder.encode_histogram_with_native::<NoLabelSet>(
                seconds(it.sum()),
                it.count(),
                &classic(it),
                None,
                native,
            )
        })
    }

    fn each<'v, V>(
        &mut self,
        metric: &Metric,
        kind: Kind,
        samples: impl IntoIterator<Item = (Values<'v>, V)>,
        encode: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(metric.kind, kind, "{}", metric.name);
        let mut family = self.0.encode_descriptor(
            metric.name_without_suffix(),
            metric.help,
            None,
            match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
                Kind::Histogram => MetricType::Histogram,
            },
        )?;
        for (values, value) in samples {
            debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
            let names = metric.labels.iter().map(|it| it.name);
            let labels: Vec<(&str, &str)> = names.zip(values).collect();
            encode(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}
