//! What one run of the simulation came to: the numbers that the report, the
//! table and the JSON output all tell.

use proto::admin::MeanMetric;
use proto::plan::Mode;
use serde::{Deserialize, Serialize};

use crate::classes::ClassSummary;
use crate::record::Record;
use crate::samples::Sample;
use crate::yardsticks::{Against, Yardstick};

/// One run, from the base model to the last version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Held-out loss of the base model, in nats a token.
    pub base_loss: f64,
    /// Held-out loss of the last version, in nats a token.
    pub final_loss: f64,
    /// Privacy spent on one device over the whole run; `None` where there is
    /// no bound, which JSON writes as null.
    pub epsilon: Option<f64>,
    /// The δ that goes with `epsilon`.
    pub delta: f64,
    /// One entry for each version, in order.
    pub versions: Vec<VersionSummary>,
    /// The seed that the run is reproduced from.
    pub seed: u64,
    /// Devices in the federation.
    pub devices: u32,
    /// How the adapter was trained and averaged, as the task names it.
    pub method: String,
    /// Rank of the adapter.
    pub rank: u32,
    /// Numbers in one device's update.
    pub coordinates: u64,
    /// Standard deviation of the summed noise divided by the clip norm; 0
    /// without noise.
    pub noise_multiplier: f64,
    /// L2 bound of one device's update in the first round.
    pub clip_norm: f64,
    /// Whether the sum carries noise, and who adds it.
    pub privacy: Mode,
    /// Length of the mean update divided by the length of its noise; `None`
    /// without noise.
    pub snr: Option<f64>,
    /// Versions after which frozen factors were drawn anew; `None` where never.
    pub refresh_every: Option<u32>,
    /// Rank of the adapter that came out.
    pub shipped_rank: u32,
    /// Held-out loss of the adapter that came out: the last version's, but for what its rank cannot hold.
    pub shipped_loss: f64,
    /// What the devices of each class did, the one that trains most first; empty without classes.
    #[serde(default)]
    pub classes: Vec<ClassSummary>,
    /// Whether the run ended before its last version because one gained nothing beyond its noise.
    #[serde(default)]
    pub stopped_when_flat: bool,
    /// Whether its user stopped the run before its last version: all else is that of the versions so far.
    #[serde(default)]
    pub interrupted: bool,
    /// What the loss is compared with, the run itself among it; the largest loss first.
    #[serde(default)]
    pub yardsticks: Vec<Yardstick>,
    /// What is written before and after.
    #[serde(default)]
    pub samples: Vec<Sample>,
    /// What the run is repeated from; `None` where it was no federation.
    #[serde(default)]
    pub record: Option<Record>,
    /// What a reader should know before trusting the numbers.
    pub warnings: Vec<String>,
}

/// One version of the adapter and the round that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// The version that the round made; the base is version 0.
    pub version: u64,
    /// Devices admitted to the round.
    pub cohort: u32,
    /// Devices whose masked input is in the sum.
    pub survivors: u32,
    /// Devices of the cohort that are not in the sum.
    pub missing: u32,
    /// Held-out loss of the version before, in nats a token.
    pub loss_before: f64,
    /// Held-out loss of this version, in nats a token.
    pub loss: f64,
    /// Mean loss of this version over people who take no part; `None` where there are none.
    #[serde(default)]
    pub newcomers_loss: Option<f64>,
    /// Privacy spent on one device up to and including this version; `None`
    /// where there is no bound.
    pub epsilon: Option<f64>,
    /// L2 bound of the updates of this version's round.
    pub clip_norm: f64,
    /// What the round's devices said of their training in the sum: means over them, with the sum's noise.
    pub metrics: Vec<MeanMetric>,
    /// Bytes that one device sent, on average.
    pub bytes_up_per_device: u64,
    /// Bytes that one device received, on average.
    pub bytes_down_per_device: u64,
    /// What the devices of each class did for this version; empty without classes.
    #[serde(default)]
    pub classes: Vec<ClassSummary>,
    /// Wall-clock seconds from the assignment to the published version. They are in `metrics.jsonl` and not in
    /// `summary.json`, which is the same for every run of the same record.
    #[serde(skip)]
    pub secs: f64,
}

impl RunSummary {
    /// The fall of the held-out loss in percent of the base loss; negative
    /// where it rose, and 0 where the base loss is not above 0.
    pub fn fall_percent(&self) -> f64 {
        if self.base_loss > 0.0 { 100.0 * (self.base_loss - self.final_loss) / self.base_loss } else { 0.0 }
    }

    /// The best of what takes nothing of anybody: the base, or public text alone.
    pub fn without_people(&self) -> Yardstick {
        let free = |one: &&Yardstick| matches!(one.name, Against::Base | Against::PublicAlone);
        let best = self.yardsticks.iter().filter(free).min_by(|a, b| a.loss.total_cmp(&b.loss));
        best.cloned().unwrap_or(Yardstick {
            name: Against::Base,
            loss: self.base_loss,
            newcomers_loss: None,
            settings: None,
        })
    }

    /// `epsilon` where it bounds anything: privacy is on and the figure is
    /// finite.
    pub fn bounded_epsilon(&self) -> Option<f64> {
        match self.privacy {
            Mode::Off => None,
            Mode::Central | Mode::Distributed => self.epsilon.filter(|epsilon| epsilon.is_finite()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proto::metrics::MetricName;

    use super::*;

    /// A run of `versions` versions whose numbers are all different.
    pub(crate) fn sample(versions: u64) -> RunSummary {
        let mut before = 5.25;
        let versions: Vec<_> = (1..=versions)
            .map(|version| {
                let loss = 3.6 + 1.65 * (-0.35 * version as f64).exp();
                let missing = u32::try_from(version * 7 % 5).unwrap();
                let entry = VersionSummary {
                    version,
                    cohort: 60,
                    survivors: 60 - missing,
                    missing,
                    loss_before: before,
                    loss,
                    newcomers_loss: Some(loss + 0.5),
                    epsilon: Some(2.45 * (version as f64).sqrt()),
                    clip_norm: 0.5,
                    metrics: vec![MeanMetric {
                        name: MetricName::Loss,
                        mean: loss,
                        standard_deviation: 0.1,
                        range: 10.0,
                    }],
                    bytes_up_per_device: 25_610 + version,
                    bytes_down_per_device: 1_310_720,
                    classes: vec![],
                    secs: 12.5 + version as f64,
                };
                before = loss;
                entry
            })
            .collect();
        RunSummary {
            base_loss: 5.25,
            final_loss: before,
            epsilon: versions.last().and_then(|last| last.epsilon),
            delta: 1e-5,
            versions,
            seed: 17,
            devices: 60,
            method: "frozen_a".to_owned(),
            rank: 2,
            coordinates: 6_144,
            noise_multiplier: 2.04,
            clip_norm: 1.0,
            privacy: Mode::Distributed,
            snr: Some(1.3),
            refresh_every: Some(3),
            shipped_rank: 8,
            shipped_loss: before,
            classes: vec![],
            stopped_when_flat: false,
            interrupted: false,
            yardsticks: vec![yardstick(Against::Base, 5.25), yardstick(Against::PublicAlone, 5.2)],
            samples: vec![Sample {
                prompt: "see you at".to_owned(),
                before: " the bridge".to_owned(),
                after: " the lantern gate".to_owned(),
            }],
            record: None,
            warnings: vec![],
        }
    }

    fn yardstick(name: Against, loss: f64) -> Yardstick {
        Yardstick { name, loss, newcomers_loss: Some(loss + 0.5), settings: None }
    }

    #[test]
    fn a_summary_survives_json_but_for_the_seconds() {
        let mut summary = sample(3);
        let json = serde_json::to_string(&summary).unwrap();
        summary.versions.iter_mut().for_each(|version| version.secs = 0.0);
        assert_eq!(serde_json::from_str::<RunSummary>(&json).unwrap(), summary, "{json}");
        assert!(!json.contains("secs"), "{json}");
    }

    #[test]
    fn an_unbounded_epsilon_is_null_in_json() {
        let mut summary = sample(1);
        summary.privacy = Mode::Off;
        for epsilon in [None, Some(f64::INFINITY)] {
            summary.epsilon = epsilon;
            let json = serde_json::to_value(&summary).unwrap();
            assert!(json["epsilon"].is_null());
            assert_eq!(json["privacy"], "off");
            assert_eq!(summary.bounded_epsilon(), None);
        }
    }

    #[test]
    fn the_json_fields_keep_their_names() {
        let json = serde_json::to_value(sample(1)).unwrap();
        let names = |value: &serde_json::Value| -> Vec<String> {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(
            names(&json),
            [
                "base_loss",
                "classes",
                "clip_norm",
                "coordinates",
                "delta",
                "devices",
                "epsilon",
                "final_loss",
                "interrupted",
                "method",
                "noise_multiplier",
                "privacy",
                "rank",
                "record",
                "refresh_every",
                "samples",
                "seed",
                "shipped_loss",
                "shipped_rank",
                "snr",
                "stopped_when_flat",
                "versions",
                "warnings",
                "yardsticks"
            ]
        );
        assert_eq!(
            names(&json["versions"][0]),
            [
                "bytes_down_per_device",
                "bytes_up_per_device",
                "classes",
                "clip_norm",
                "cohort",
                "epsilon",
                "loss",
                "loss_before",
                "metrics",
                "missing",
                "newcomers_loss",
                "survivors",
                "version"
            ]
        );
    }

    #[test]
    fn what_needs_no_people_is_the_better_of_base_and_public_text() {
        let mut summary = sample(2);
        assert_eq!(summary.without_people().name, Against::PublicAlone);
        summary.yardsticks[1].loss = 5.3;
        assert_eq!(summary.without_people().name, Against::Base);
        summary.yardsticks.clear();
        assert_eq!(
            summary.without_people(),
            Yardstick { newcomers_loss: None, ..yardstick(Against::Base, 5.25) }
        );
    }

    #[test]
    fn a_loss_that_rose_is_a_negative_fall() {
        let mut summary = sample(1);
        summary.base_loss = 4.0;
        summary.final_loss = 5.0;
        assert!((summary.fall_percent() + 25.0).abs() < 1e-9);
    }
}
