//! Axes with round ticks.

/// A range of values that begins and ends at a tick.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    step: f64,
    decimals: usize,
}

impl Axis {
    /// The narrowest axis over all finite `values` whose ticks are 1, 2 or 5
    /// times a power of ten and at most about `ticks` in number; from 0 to 1
    /// where there is no value.
    pub(crate) fn over(values: impl IntoIterator<Item = f64>, ticks: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A single value, or values that differ by rounding only.
        let least = f64::max(high.abs() * 1e-6, 1e-9);
        if high - low < least {
            let margin = f64::max(high.abs() * 0.1, 1e-6);
            (low, high) = (low - margin, high + margin);
        }
        Self::stepped(low, high, round_step((high - low) / ticks))
    }

    /// The same for whole numbers: no tick lies between two.
    pub(crate) fn over_whole(values: impl IntoIterator<Item = f64>, ticks: f64) -> Self {
        let axis = Self::over(values, ticks);
        let step = axis.step.max(1.0);
        Self::stepped(axis.low, axis.high, step)
    }

    fn stepped(low: f64, high: f64, step: f64) -> Self {
        // A hair of rounding is no reason for another tick.
        let low = (low / step + 1e-9).floor() * step;
        let high = (high / step - 1e-9).ceil() * step;
        let decimals = (0..9)
            .find(|decimals| {
                let scaled = step * 10_f64.powi(*decimals);
                (scaled - scaled.round()).abs() < 1e-6
            })
            .and_then(|decimals| usize::try_from(decimals).ok())
            .unwrap_or(9);
        Self { low, high, step, decimals }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Whether `value` lies on the axis.
    pub(crate) fn shows(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The low end.
    pub(crate) fn low(&self) -> f64 {
        self.low
    }

    /// Every tick with its label.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        (0_u32..100)
            .map(|tick| self.low + f64::from(tick) * self.step)
            .take_while(|value| *value < self.high + self.step / 2.0)
            .map(|value| {
                // Not "-0".
                let value = if value.abs() < self.step / 2.0 { 0.0 } else { value };
                (value, format!("{value:.*}", self.decimals))
            })
            .collect()
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        assert_eq!(labels(&Axis::over([3.57, 5.25], 5.0)), ["3.5", "4.0", "4.5", "5.0", "5.5"]);
        assert_eq!(labels(&Axis::over([0.0, 7.9], 5.0)), ["0", "2", "4", "6", "8"]);
    }

    #[test]
    fn whole_numbers_have_no_tick_between_them() {
        assert_eq!(labels(&Axis::over_whole([0.0, 2.0], 8.0)), ["0", "1", "2"]);
    }

    #[test]
    fn without_a_finite_value_the_axis_is_still_an_axis() {
        assert_eq!(labels(&Axis::over([f64::NAN], 2.0)), ["0.0", "0.5", "1.0"]);
    }

    proptest! {
        #[test]
        fn every_value_lies_on_the_axis_and_ticks_are_few(
            values in proptest::collection::vec(-1e6..1e6_f64, 1..20),
            ticks in 3..9_u8,
        ) {
            let axis = Axis::over(values.clone(), f64::from(ticks));
            for value in values {
                prop_assert!((-1e-6..=1.0 + 1e-6).contains(&axis.place(value)));
            }
            prop_assert!((2..=12).contains(&axis.ticks().len()));
        }
    }
}
