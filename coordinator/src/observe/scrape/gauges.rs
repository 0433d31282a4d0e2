//! Numbers as gauges have them.

use prometheus_client::metrics::gauge::Gauge;

/// A gauge that says this.
pub(super) fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(whole(value));
    gauge
}

/// The number, as far as a gauge can hold it.
pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
