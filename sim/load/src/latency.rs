//! How long things took: buckets whose bounds are within a thousandth, which add up exactly.

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// The longest that is told apart, in microseconds: an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Significant digits.
const DIGITS: u8 = 3;

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// None where there is nothing yet: a histogram takes memory.
    buckets: Option<Histogram<u64>>,
    max_micros: u64,
}

/// The same as it is written. Of these only `max_micros` and `buckets` are read back, from which the others follow.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    count: u64,
    p50_micros: u64,
    p90_micros: u64,
    p99_micros: u64,
    max_micros: u64,
    /// The highest value of each bucket, and how many are in it.
    buckets: Vec<(u64, u64)>,
}

impl Latency {
    /// Takes one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.put(micros, 1);
        self.max_micros = self.max_micros.max(micros);
    }

    fn put(&mut self, micros: u64, times: u64) {
        if self.buckets.is_none() {
            self.buckets = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).ok();
        }
        if let Some(buckets) = &mut self.buckets {
            // What is beyond the bounds is in the last bucket; the longest is known apart.
            buckets.saturating_record_n(micros, times);
        }
    }

    /// Takes all of another.
    pub fn add(&mut self, other: &Self) {
        for (micros, times) in other.recorded() {
            self.put(micros, times);
        }
        self.max_micros = self.max_micros.max(other.max_micros);
    }

    fn recorded(&self) -> Vec<(u64, u64)> {
        let all = self.buckets.iter().flat_map(Histogram::iter_recorded);
        all.map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.as_ref().map_or(0, Histogram::len)
    }

    /// So much of all took no longer than this, in microseconds; 0 where there is nothing.
    pub fn quantile_micros(&self, quantile: f64) -> u64 {
        self.buckets.as_ref().map_or(0, |buckets| buckets.value_at_quantile(quantile)).min(self.max_micros)
    }

    /// The longest, in microseconds, exactly.
    pub fn max_micros(&self) -> u64 {
        self.max_micros
    }

    /// How much of all took longer than this.
    pub fn share_above(&self, limit: Duration) -> f64 {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        // What is in one bucket with the limit is not told apart from it.
        let limit = self.buckets.as_ref().map_or(limit, |buckets| buckets.highest_equivalent(limit));
        let above = self.recorded().into_iter().filter(|(micros, _)| *micros > limit);
        let above: u64 = above.map(|(_, times)| times).sum();
        if self.count() == 0 { 0.0 } else { above as f64 / self.count() as f64 }
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = |quantile| self.quantile_micros(quantile);
        let written = Written {
            count: self.count(),
            p50_micros: at(0.5),
            p90_micros: at(0.9),
            p99_micros: at(0.99),
            max_micros: self.max_micros,
            buckets: self.recorded(),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { count, max_micros, buckets, .. } = Written::deserialize(deserializer)?;
        let mut latency = Self { buckets: None, max_micros };
        for (micros, times) in buckets {
            latency.put(micros, times);
        }
        if latency.count() != count {
            let found = latency.count();
            return Err(D::Error::custom(format!("buckets hold {found}, and {count} were counted")));
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(micros: &[u64]) -> Latency {
        let mut latency = Latency::default();
        for micros in micros {
            latency.record(Duration::from_micros(*micros));
        }
        latency
    }

    #[test]
    fn quantiles_are_within_a_thousandth_and_the_longest_is_exact() {
        let latency = of(&(1..=10_000).collect::<Vec<_>>());
        for (quantile, exact) in [(0.5, 5_000.0), (0.9, 9_000.0), (0.99, 9_900.0)] {
            let found = latency.quantile_micros(quantile) as f64;
            assert!((found - exact).abs() <= exact / 1000.0, "{quantile}: {found}");
        }
        assert_eq!((latency.max_micros(), latency.count()), (10_000, 10_000));
        assert!((latency.share_above(Duration::from_millis(9)) - 0.1).abs() < 1e-3);
        assert_eq!((Latency::default().quantile_micros(0.5), Latency::default().count()), (0, 0));
    }

    proptest! {
        #[test]
        fn what_shards_measured_adds_up_to_what_one_would_have(
            one in prop::collection::vec(0_u64..10_000_000_000, 0..60),
            other in prop::collection::vec(0_u64..10_000_000, 0..60),
        ) {
            let written = |latency: &Latency| serde_json::to_string(latency).unwrap();
            let read = |text: &str| serde_json::from_str::<Latency>(text).unwrap();
            let mut sum = read(&written(&of(&one)));
            sum.add(&read(&written(&of(&other))));
            prop_assert_eq!(written(&sum), written(&of(&[one, other].concat())));
        }
    }

    #[test]
    fn a_count_that_is_not_that_of_the_buckets_is_refused() {
        let text = serde_json::to_string(&of(&[1, 2])).unwrap().replace("\"count\":2", "\"count\":3");
        let said = serde_json::from_str::<Latency>(&text).unwrap_err().to_string();
        assert!(said.contains("hold 2, and 3"), "{said}");
    }
}
