//! A clip norm that follows the updates.

use crate::{error::ParamsError, params::ClipNorm};

/// Moves the clip norm towards a quantile of the updates' norms, by nothing but
/// the noised fraction of devices that were clipped.
///
/// After a round C ← C·exp(−η·(b̄ − γ)), where b̄ is the fraction of devices
/// whose update was not clipped, γ the quantile and η the rate (Andrew and others
/// 2021, <https://arxiv.org/abs/1905.03871>; they use
/// η = 0.2 and γ = 0.5). It costs what the clipped-bit costs as a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveClip {
    quantile: f64,
    rate: f64,
    least: ClipNorm,
    most: ClipNorm,
}

impl AdaptiveClip {
    /// A rule that stays between two clip norms. Fails unless the quantile lies
    /// strictly between 0 and 1, the rate is above 0 and at most 1, and the
    /// least clip norm is not above the most.
    pub fn new(quantile: f64, rate: f64, least: ClipNorm, most: ClipNorm) -> Result<Self, ParamsError> {
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(ParamsError::ClipQuantile { value: quantile });
        }
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(ParamsError::ClipRate { value: rate });
        }
        if least > most {
            return Err(ParamsError::ClipRange { least: least.get(), most: most.get() });
        }
        Ok(Self { quantile, rate, least, most })
    }

    /// Whether a clip norm is in the rule's range.
    pub fn allows(&self, clip_norm: ClipNorm) -> bool {
        self.least <= clip_norm && clip_norm <= self.most
    }

    /// The clip norm after a round in which `clipped` of the devices, as a
    /// fraction and with its noise, were clipped.
    pub fn next(&self, clip_norm: ClipNorm, clipped: f64) -> ClipNorm {
        let unclipped = if clipped.is_nan() { self.quantile } else { 1.0 - clipped.clamp(0.0, 1.0) };
        let moved = clip_norm.get() * (-self.rate * (unclipped - self.quantile)).exp();
        ClipNorm::new(moved.clamp(self.least.get(), self.most.get())).unwrap_or(clip_norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(value: f64) -> ClipNorm {
        ClipNorm::new(value).unwrap()
    }

    #[test]
    fn it_settles_at_the_quantile_of_the_norms() {
        let rule = AdaptiveClip::new(0.5, 0.2, norm(1e-3), norm(1e3)).unwrap();
        // Norms 0.1, 0.2, … 10: the median is 5.05.
        for start in [0.01, 500.0] {
            let mut clip_norm = norm(start);
            for _ in 0..400 {
                let clipped = (1..=100).filter(|i| f64::from(*i) / 10.0 > clip_norm.get()).count();
                clip_norm = rule.next(clip_norm, clipped as f64 / 100.0);
            }
            assert!((clip_norm.get() - 5.05).abs() < 0.1, "{clip_norm:?}");
        }
    }

    #[test]
    fn one_step_is_the_formula_and_stays_in_range() {
        let rule = AdaptiveClip::new(0.5, 0.2, norm(0.5), norm(2.0)).unwrap();
        assert!((rule.next(norm(1.0), 1.0).get() - 0.1f64.exp()).abs() < 1e-15);
        assert!((rule.next(norm(1.0), 0.0).get() - (-0.1f64).exp()).abs() < 1e-15);
        // Noise that carries the fraction out of its range moves no further.
        assert_eq!(rule.next(norm(1.0), 7.0), rule.next(norm(1.0), 1.0));
        assert_eq!(rule.next(norm(1.0), f64::NAN), norm(1.0));
        assert_eq!(rule.next(norm(2.0), 1.0), norm(2.0));
        assert_eq!(rule.next(norm(0.5), 0.0), norm(0.5));
        assert!(rule.allows(norm(0.5)) && !rule.allows(norm(0.49)));
    }

    #[test]
    fn bad_rules_are_errors_with_the_values() {
        let error = |quantile, rate, least, most| {
            AdaptiveClip::new(quantile, rate, norm(least), norm(most)).unwrap_err().to_string()
        };
        assert!(error(1.0, 0.2, 1.0, 2.0).contains("got 1"));
        assert!(error(f64::NAN, 0.2, 1.0, 2.0).contains("NaN"));
        assert!(error(0.5, 0.0, 1.0, 2.0).contains("got 0"));
        assert!(error(0.5, 0.2, 3.0, 2.0).contains("3 to 2"));
    }
}
