//! Labels and families in the words of the encoder.

use std::fmt::{self, Write as _};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Labels of one sample, in the order in which they are written. Values are escaped here: the encoder writes them as they
/// are, and an interface may be called `a"b`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a>(pub &'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.0 {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(name)?;
            let mut out = key.encode_label_value()?;
            let mut rest = *value;
            while let Some(at) = rest.find(['\\', '"', '\n']) {
                let (plain, special) = rest.split_at(at);
                out.write_str(plain)?;
                out.write_str(match special.as_bytes()[0] {
                    b'\\' => "\\\\",
                    b'"' => "\\\"",
                    _ => "\\n",
                })?;
                rest = &special[1..];
            }
            out.write_str(rest)?;
            out.finish()?;
        }
        Ok(())
    }
}

/// Begins families.
pub(super) struct Families<'a>(pub DescriptorEncoder<'a>);

impl Families<'_> {
    /// A family of counters, whose samples end in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        self.begin(name, help, MetricType::Counter)
    }

    /// A family of gauges.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        self.begin(name, help, MetricType::Gauge)
    }

    /// A family of texts as labels, whose samples end in `_info`.
    pub fn info(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        self.begin(name, help, MetricType::Info)
    }

    /// A family of sums and counts: histograms with one bucket, because the encoder knows no summaries.
    pub fn durations(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        self.begin(name, help, MetricType::Histogram)
    }

    fn begin(&mut self, name: &'static str, help: &str, kind: MetricType) -> Result<Family<'_>, fmt::Error> {
        const SECONDS: &Unit = &Unit::Seconds;
        const BYTES: &Unit = &Unit::Bytes;
        // The encoder appends the unit to the name.
        let (stem, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
            (Some(stem), _) => (stem, Some(SECONDS)),
            (None, Some(stem)) => (stem, Some(BYTES)),
            (None, None) => (name, None),
        };
        Ok(Family(self.0.encode_descriptor(stem, help, unit, kind)?))
    }
}

/// One family; each function adds a sample of its kind.
pub(super) struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    pub fn count(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        self.sample(labels, |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    pub fn value(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        // The encoder's whole numbers end at 2^63 - 1; no gauge comes near.
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.sample(labels, |encoder| encoder.encode_gauge(&value))
    }

    pub fn flag(&mut self, labels: &[(&str, &str)], value: bool) -> fmt::Result {
        self.value(labels, value.into())
    }

    pub fn seconds(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        self.sample(labels, |encoder| encoder.encode_gauge(&value))
    }

    pub fn text(&mut self, labels: &[(&str, &str)]) -> fmt::Result {
        self.0.encode_info(&Labels(labels))
    }

    pub fn duration(&mut self, labels: &[(&str, &str)], sum: f64, count: u64) -> fmt::Result {
        let buckets = [(f64::MAX, count)];
        self.sample(labels, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None))
    }

    fn sample(
        &mut self,
        labels: &[(&str, &str)],
        encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if labels.is_empty() {
            // As labels, none at all would be written as `{}`, which not every reader takes.
            return encode(&mut self.0);
        }
        encode(&mut self.0.encode_family(&Labels(labels))?)
    }
}
