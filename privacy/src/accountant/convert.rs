//! From Rényi divergence to (ε, δ).

/// An ε and the order at which it was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epsilon {
    /// ε; infinite when there is no privacy.
    pub epsilon: f64,
    /// The order α of the divergence that gave it.
    pub order: f64,
}

impl Epsilon {
    /// No privacy at all.
    pub(crate) const UNBOUNDED: Self = Self { epsilon: f64::INFINITY, order: f64::INFINITY };
}

/// Points of the first search, even in ln(α − 1).
const GRID: u32 = 256;

/// The least and the largest ln(α − 1) that are tried.
const LOG_RANGE: (f64, f64) = (-14.0, 23.0);

/// Steps of golden section, each of which shrinks the bracket to 0.618.
const SECTIONS: u32 = 48;

/// The least ε over all orders α > 1 of a mechanism with divergence `rdp(α)`:
///
/// ε = min rdp(α) + ln((α − 1)/α) − (ln δ + ln α)/(α − 1),
///
/// Proposition 12 of Canonne, Kamath, Steinke 2020
/// (<https://arxiv.org/abs/2004.00010>). Every order gives a valid ε, so an
/// inexact minimum is never too small; a grid finds the valley and golden
/// section its floor. An order with an infinite or undefined divergence is left
/// out.
pub fn convert(rdp: impl Fn(f64) -> f64, delta: f64) -> Epsilon {
    let at = |log_excess: f64| {
        let excess = log_excess.exp();
        let order = 1.0 + excess;
        let divergence = rdp(order);
        // ln(α − 1) is known better than α − 1 itself.
        let epsilon = divergence + log_excess - order.ln() - (delta.ln() + order.ln()) / excess;
        if epsilon.is_nan() { Epsilon::UNBOUNDED } else { Epsilon { epsilon, order } }
    };
    let (low, high) = LOG_RANGE;
    let step = (high - low) / f64::from(GRID);
    let mut best = Epsilon::UNBOUNDED;
    let mut center = low;
    for point in 0..=GRID {
        let place = low + f64::from(point) * step;
        let found = at(place);
        if found.epsilon < best.epsilon {
            (best, center) = (found, place);
        }
    }
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (center - step, center + step);
    for _ in 0..SECTIONS {
        let width = ratio * (right - left);
        let (lower, upper) = (at(right - width), at(left + width));
        if lower.epsilon < upper.epsilon {
            right = left + width;
        } else {
            left = right - width;
        }
        for found in [lower, upper] {
            if found.epsilon < best.epsilon {
                best = found;
            }
        }
    }
    Epsilon { epsilon: best.epsilon.max(0.0), ..best }
}
