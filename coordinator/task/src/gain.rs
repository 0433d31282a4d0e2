//! What devices measured of versions on text that they hold out, and what follows from it.
//!
//! The devices that train from a version tell, in the sum of that round, by how much it is better than the version before.
//! So a version is judged when the next one is made, and the newest one is judged by nobody yet.

use proto::admin::{MeanMetric, VersionStatus};
use proto::metrics::MetricName;

/// So many standard deviations below zero a mean gain is no accident: one in forty of versions that gain nothing is taken
/// for a worse one.
pub const CERTAINTY: f64 = 2.0;

/// The mean gain of a version over the one before, as its devices measured it, in nats a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The mean.
    pub gain: f64,
    /// Standard deviation of the sum's noise in it.
    pub noise: f64,
    /// The most that the mean may be off because other devices would have measured other gains, as a standard deviation:
    /// that of values between the two ends of the range with this mean.
    pub spread: f64,
}

impl Measured {
    /// What so many devices said of the version that they trained from, if they were asked and it had one before it.
    pub fn of(metrics: &[MeanMetric], devices: u32) -> Option<Self> {
        let metric = metrics.iter().find(|metric| metric.name == MetricName::Gain)?;
        let most = if metric.range > 0.0 { metric.range / 2.0 } else { 1.0 };
        let share = (metric.mean / most).clamp(-1.0, 1.0);
        let spread = most * ((1.0 - share * share) / f64::from(devices.max(1))).sqrt();
        Some(Self { gain: metric.mean, noise: metric.standard_deviation, spread })
    }

    /// Noise and spread together, as a standard deviation.
    pub fn deviation(&self) -> f64 {
        self.noise.hypot(self.spread)
    }

    /// Whether the version is worse than the one before, beyond noise and chance.
    pub fn is_worse(&self) -> bool {
        self.gain < 0.0 && self.gain < -CERTAINTY * self.deviation()
    }
}

/// What is known of a version against the base: the gains since, added up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The version.
    pub version: u32,
    /// Nats a token.
    pub gain: f64,
    /// The variance of it, by noise and spread.
    pub variance: f64,
}

/// The versions of which every step since the base was measured, by their numbers, the base first as version 0. Each has
/// its own parameters: one that restores an earlier version is left out.
pub fn standings(versions: &[VersionStatus]) -> Vec<Standing> {
    let mut known = vec![Standing { version: 0, gain: 0.0, variance: 0.0 }];
    for (made, next) in versions.iter().zip(versions.iter().skip(1)) {
        if made.restores.is_some() {
            continue;
        }
        let parent = content(versions, made.version.saturating_sub(1));
        let from = known.iter().find(|standing| standing.version == parent).copied();
        if let (Some(from), Some(measured)) = (from, Measured::of(&next.metrics, next.survivors)) {
            let (gain, variance) = (from.gain + measured.gain, from.variance + measured.deviation().powi(2));
            known.push(Standing { version: made.version, gain, variance });
        }
    }
    known
}

/// The version whose parameters a version has: itself, but for one that restores another.
pub fn content(versions: &[VersionStatus], version: u32) -> u32 {
    let found = versions.iter().find(|known| known.version == version);
    found.and_then(|known| known.restores).unwrap_or(version)
}

/// Which version to use, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// The version.
    pub version: u32,
    /// What is known of it, or, where `is_measured` is not so, of the one that it was made from.
    pub standing: Option<Standing>,
    /// Whether devices measured the version itself.
    pub is_measured: bool,
}

/// The newest version, or an earlier one that is better than it by more than noise and chance; version 0, which is the base,
/// where that is better than all.
pub fn best(versions: &[VersionStatus]) -> Best {
    let newest = content(versions, versions.last().map_or(0, |version| version.version));
    let known = standings(versions);
    let of = |version: u32| known.iter().find(|standing| standing.version == version).copied();
    let measured = of(newest);
    // One that nobody measured is taken for what it was made from.
    let standing = measured.or_else(|| of(content(versions, newest.saturating_sub(1))));
    let kept = Best { version: newest, standing, is_measured: measured.is_some() };
    let Some(now) = standing else { return kept };
    let is_better = |earlier: &&Standing| {
        let variance = (now.variance - earlier.variance).abs();
        earlier.version < now.version && earlier.gain - now.gain > CERTAINTY * variance.sqrt()
    };
    match known.iter().filter(is_better).max_by(|a, b| a.gain.total_cmp(&b.gain)) {
        Some(earlier) => Best { version: earlier.version, standing: Some(*earlier), is_measured: true },
        None => kept,
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::Digest;

    use super::*;

    /// A version that was made in a round in which the one before was measured so.
    fn version(version: u32, gain: Option<f64>, restores: Option<u32>) -> VersionStatus {
        let metric = |mean| MeanMetric { name: MetricName::Gain, mean, standard_deviation: 0.03, range: 2.0 };
        VersionStatus {
            version,
            cohort: 400,
            survivors: 400,
            round: u64::from(version),
            rounds: 1,
            epsilon: 1.0,
            adapter: Digest([1; 32]),
            folded: None,
            committed_unix_millis: 0,
            clip_norm: 1.0,
            metrics: gain.map(metric).into_iter().collect(),
            restores,
            rolled_back: false,
        }
    }

    #[test]
    fn worse_is_what_noise_and_chance_do_not_explain() {
        let measured = |mean, standard_deviation, devices| {
            let metric = MeanMetric { name: MetricName::Gain, mean, standard_deviation, range: 2.0 };
            Measured::of(&[metric], devices).unwrap()
        };
        // At 400 devices chance explains up to 0.05, and twice that with its deviation.
        assert!(!measured(-0.1, 0.03, 400).is_worse());
        assert!(measured(-0.15, 0.03, 400).is_worse());
        assert!(!measured(-0.15, 0.27, 400).is_worse());
        assert!(!measured(0.0, 0.0, 4).is_worse());
        // What every one of four devices found ruined is.
        assert!(measured(-1.0, 0.0, 4).is_worse());
        assert!((measured(-1.0, 0.0, 4).spread).abs() < 1e-12);
        assert!((measured(0.0, 0.1, 100).deviation() - 0.02_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Measured::of(&[], 4), None);
    }

    #[test]
    fn gains_add_up_over_what_versions_were_made_from() {
        // Version 2 was bad, so 3 has the parameters of 1, and 4 was made from them.
        let versions = [
            version(1, Some(0.0), None),
            version(2, Some(0.3), None),
            version(3, Some(-0.5), Some(1)),
            version(4, None, None),
            version(5, Some(0.2), None),
        ];
        let found: Vec<(u32, f64)> =
            standings(&versions).iter().map(|s| (s.version, (s.gain * 1e6).round() / 1e6)).collect();
        assert_eq!(found, [(0, 0.0), (1, 0.3), (2, -0.2), (4, 0.5)]);
        let best = best(&versions);
        assert_eq!((best.version, best.is_measured), (5, false));
        assert_eq!(best.standing.map(|standing| standing.version), Some(4));
    }

    #[test]
    fn an_earlier_version_is_taken_only_where_it_is_better_beyond_chance() {
        let three = |second| {
            best(&[version(1, Some(0.0), None), version(2, Some(0.3), None), version(3, Some(second), None)])
        };
        assert_eq!(three(-0.05).version, 3);
        assert_eq!(three(-0.3).version, 1);
        let only_worse = [version(1, Some(0.0), None), version(2, Some(-0.9), None)];
        assert_eq!(best(&only_worse).version, 0);
        // A plan that measures nothing gives the newest.
        let unmeasured = best(&[version(1, None, None), version(2, None, None)]);
        assert_eq!((unmeasured.version, unmeasured.standing), (2, None));
        assert_eq!(best(&[]).version, 0);
    }
}
