//! The mechanism: from an update to a contribution, from a sum to a mean.

use std::sync::OnceLock;

use rand_core::CryptoRng;

use crate::{
    accountant::{Accountant, RdpCurve, SamplerError, convert::Epsilon},
    entropy::{Entropy, wipe},
    params::{ClipNorm, Delta, MechanismParams, NoiseMultiplier, ParamsError, PrivacyMode},
    ring_integers::{MOST_BITS, Ring},
    rotation::{block_len, rotate, rotate_back},
    rounding,
    sensitivity::Sensitivity,
    skellam::{LEAST_VARIANCE, Skellam, sampler_distance, sampler_relative_error},
};

pub use contribution::Contribution;

mod contribution;

/// κ, how many standard deviations of a coordinate of the sum the ring holds
/// to each side.
const KAPPA: f64 = 6.0;

/// The most coordinates that an update may have.
const MOST_COORDINATES: usize = 1 << 30;

/// The ring that [`Mechanism::recommended_scale`] aims for.
const RECOMMENDED_BITS: u32 = 22;

/// The distributed Skellam mechanism of Agarwal, Kairouz, Liu 2021
/// (<https://arxiv.org/abs/2110.04995>), in the pipeline of Kairouz, Liu,
/// Steinke 2021 (<https://arxiv.org/abs/2102.06387>), for one set of
/// parameters.
///
/// A device: clip, rotate, round, add noise, reduce mod 2^b. The coordinator,
/// after the secure sum: centre, unscale, rotate back, divide.
#[derive(Clone, Debug)]
pub struct Mechanism {
    params: MechanismParams,
    block: usize,
    padded_len: usize,
    ring: Ring,
    sensitivity: Sensitivity,
    honest_devices: usize,
    /// Made when the first noise is drawn: most uses of a mechanism need none.
    sampler: OnceLock<Skellam>,
}

impl Mechanism {
    /// Checks `params` and derives what follows from them. Fails on values that
    /// make no sense, when no honest device is sure to be among the survivors,
    /// when the scale is so small that rounding would enlarge the sensitivity
    /// by more than one per cent, and when the sum does not fit 31 bits.
    pub fn new(params: MechanismParams) -> Result<Self, ParamsError> {
        let MechanismParams { clip_norm, scale, coordinates, .. } = params;
        let honest_devices = params.honest_devices()?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(ParamsError::Scale { value: scale });
        }
        let (block, padded_len) = padded(coordinates)?;
        let sensitivity = Sensitivity::rounded(scale * clip_norm.get(), padded_len);
        if !sensitivity.is_tight() {
            let least_scale = Sensitivity::least_scaled_clip(padded_len) / clip_norm.get();
            return Err(ParamsError::ScaleTooSmall { scale, padded_len, least_scale });
        }
        let ring = ring(&params, block, honest_devices, &sensitivity)
            .ok_or(ParamsError::RingTooWide { scale, most: MOST_BITS })?;
        let sampler = OnceLock::new();
        let mechanism = Self { params, block, padded_len, ring, sensitivity, honest_devices, sampler };
        let variance = mechanism.sampled_variance();
        if mechanism.has_noise() && variance < LEAST_VARIANCE {
            return Err(ParamsError::NoiseTooSmall { variance, least: LEAST_VARIANCE });
        }
        Ok(mechanism)
    }

    /// A good scale: the largest power of two whose ring has at most 22 bits,
    /// and if there is none, the least power of two that keeps s·c above
    /// 3.6·√d and the sensitivity within one per cent of the clip norm. Fails
    /// when that does not fit 31 bits.
    ///
    /// A larger scale costs a bit for each doubling and coordinate on the wire;
    /// beyond 22 bits it gains nothing, since rounding is by then far below
    /// both the noise and the useful part of any update. A power of two makes
    /// scaling exact.
    pub fn recommended_scale(
        mode: PrivacyMode,
        clip_norm: ClipNorm,
        noise_multiplier: NoiseMultiplier,
        coordinates: usize,
        cohort: usize,
        report_goal: usize,
        corrupt_fraction: f64,
    ) -> Result<f64, ParamsError> {
        let (block, padded_len) = padded(coordinates)?;
        let least = Sensitivity::least_scaled_clip(padded_len).max(3.6 * (padded_len as f64).sqrt());
        let least = least / clip_norm.get();
        if !least.is_finite() {
            return Err(ParamsError::RingTooWide { scale: least, most: MOST_BITS });
        }
        let mut params = MechanismParams {
            mode,
            clip_norm,
            noise_multiplier,
            scale: power_of_two_above(least),
            coordinates,
            cohort,
            report_goal,
            corrupt_fraction,
        };
        let honest_devices = params.honest_devices()?;
        let bits = |params: &MechanismParams| {
            let sensitivity = Sensitivity::rounded(params.scale * params.clip_norm.get(), padded_len);
            ring(params, block, honest_devices, &sensitivity).map(Ring::bits)
        };
        if bits(&params).is_none() || !params.scale.is_finite() {
            return Err(ParamsError::RingTooWide { scale: params.scale, most: MOST_BITS });
        }
        loop {
            let doubled = MechanismParams { scale: 2.0 * params.scale, ..params.clone() };
            match bits(&doubled) {
                Some(bits) if bits <= RECOMMENDED_BITS => params = doubled,
                _ => return Ok(params.scale),
            }
        }
    }

    /// The parameters it was made from.
    pub fn params(&self) -> &MechanismParams {
        &self.params
    }

    /// d, the length of a contribution: the coordinates, padded to whole blocks
    /// of the rotation.
    pub fn padded_len(&self) -> usize {
        self.padded_len
    }

    /// b, the bits of a ring element.
    ///
    /// With noise b = ⌈log₂(2κ·s·√(c²N²/m + N/(4s²) + σ²))⌉, κ = 6: a
    /// coordinate of the rotated sum is sub-Gaussian with variance at most
    /// c²N²/m. With mode `Off` the ring holds N·Δ₂ to each side, so the sum
    /// never wraps.
    pub fn ring_bits(&self) -> u32 {
        self.ring.bits()
    }

    /// Δ₂, the L2 sensitivity of the integer sum.
    pub fn delta2(&self) -> f64 {
        self.sensitivity.delta2()
    }

    /// Δ₁, the L1 sensitivity of the integer sum.
    pub fn delta1(&self) -> f64 {
        self.sensitivity.delta1(self.padded_len)
    }

    /// The variance of the noise that one device adds, in integer units:
    /// z²s²c²/(n\* − A) with mode `Distributed`, else 0.
    pub fn device_variance(&self) -> f64 {
        match self.params.mode {
            PrivacyMode::Off | PrivacyMode::Central => 0.0,
            PrivacyMode::Distributed => self.guaranteed_variance() / self.honest_devices as f64,
        }
    }

    /// z²s²c², the least variance of the noise in a revealed sum, in integer
    /// units; 0 with mode `Off`.
    pub fn guaranteed_variance(&self) -> f64 {
        let z = match self.params.mode {
            PrivacyMode::Off => 0.0,
            PrivacyMode::Central | PrivacyMode::Distributed => self.params.noise_multiplier.get(),
        };
        let deviation = z * self.sensitivity.scaled_clip();
        deviation * deviation
    }

    /// Turns an update into a contribution, with fresh noise in mode
    /// `Distributed`. Fails when the update has the wrong length or a
    /// coordinate that is not a number.
    pub fn encode(
        &self,
        update: &[f32],
        rotation_seed: &[u8; 32],
        rng: &mut impl CryptoRng,
    ) -> Result<Contribution, EncodeError> {
        let expected = self.params.coordinates;
        if update.len() != expected {
            return Err(EncodeError::Length { expected, got: update.len() });
        }
        if let Some(index) = update.iter().position(|value| !value.is_finite()) {
            return Err(EncodeError::NotFinite { index, value: update[index] });
        }
        let limit = self.params.clip_norm.get();
        let norm = norm(update.iter().map(|&value| f64::from(value)));
        let clipped = norm > limit;
        let factor = if clipped { limit / norm } else { 1.0 } * self.params.scale;

        let mut x = vec![0.0; self.padded_len];
        for (x, &value) in x.iter_mut().zip(update) {
            *x = f64::from(value) * factor;
        }
        rotate(&mut x, self.block, rotation_seed);

        let mut entropy = Entropy::new(rng);
        let mut elements = rounding::round(&x, self.delta2(), self.ring, &mut entropy);
        wipe(&mut x);
        if self.params.mode == PrivacyMode::Distributed && self.has_noise() {
            self.sampler().add_to(&mut elements, self.ring, &mut entropy);
        }
        Ok(Contribution::new(elements, clipped))
    }

    /// Adds the noise of the whole sum in mode `Central`, before
    /// [`decode`](Self::decode); does nothing in the other modes.
    pub fn add_central_noise(&self, sum: &mut [u32], rng: &mut impl CryptoRng) {
        if self.params.mode == PrivacyMode::Central && self.has_noise() {
            self.sampler().add_to(sum, self.ring, &mut Entropy::new(rng));
        }
    }

    /// Turns the sum of the contributions of `survivors` devices into their
    /// mean update. Fails when the sum has the wrong length or an element
    /// outside the ring, or when the survivors are none or more than the cohort.
    pub fn decode(
        &self,
        sum: &[u32],
        survivors: usize,
        rotation_seed: &[u8; 32],
    ) -> Result<Vec<f32>, DecodeError> {
        if sum.len() != self.padded_len {
            return Err(DecodeError::Length { expected: self.padded_len, got: sum.len() });
        }
        let cohort = self.params.cohort;
        if survivors == 0 || survivors > cohort {
            return Err(DecodeError::Survivors { survivors, cohort });
        }
        if let Some(index) = sum.iter().position(|&element| element > self.ring.mask()) {
            let (value, most) = (sum[index], self.ring.mask());
            return Err(DecodeError::OutsideRing { index, value, most });
        }
        let factor = 1.0 / (self.params.scale * survivors as f64);
        let mut x: Vec<f64> =
            sum.iter().map(|&element| f64::from(self.ring.centre(element)) * factor).collect();
        rotate_back(&mut x, self.block, rotation_seed);
        x.truncate(self.params.coordinates);
        Ok(x.into_iter().map(to_f32).collect())
    }

    /// n/(z·√d), the norm of a mean of `survivors` equal clipped updates over
    /// that of its noise; infinite without noise.
    pub fn snr(&self, survivors: usize) -> f64 {
        if !self.has_noise() {
            return f64::INFINITY;
        }
        let z = self.params.noise_multiplier.get();
        survivors as f64 / (z * (self.padded_len as f64).sqrt())
    }

    /// What one participation costs, at every order.
    pub fn curve(&self) -> RdpCurve {
        if !self.has_noise() {
            return RdpCurve::Unbounded;
        }
        let devices = match self.params.mode {
            PrivacyMode::Off | PrivacyMode::Central => 1.0,
            PrivacyMode::Distributed => self.honest_devices as f64,
        };
        let samples = devices * self.padded_len as f64;
        RdpCurve::Skellam {
            delta1: self.delta1(),
            delta2: self.delta2(),
            variance: self.guaranteed_variance(),
            sampler: SamplerError {
                log_ratio: samples * sampler_relative_error(),
                distance: samples * sampler_distance(),
            },
        }
    }

    /// The Rényi divergence of order `order` > 1 of one participation; infinite
    /// without noise.
    pub fn rdp(&self, order: f64) -> f64 {
        self.curve().rdp(order)
    }

    /// The ε of `participations` rounds at `delta`, with the error of the
    /// sampler; infinite without noise.
    pub fn epsilon(&self, participations: u32, delta: Delta) -> Epsilon {
        let mut accountant = Accountant::new();
        accountant.add(self.curve(), participations);
        accountant.epsilon(delta)
    }

    fn has_noise(&self) -> bool {
        self.guaranteed_variance() > 0.0
    }

    /// The variance of what this mechanism draws, on a device or at the
    /// coordinator.
    fn sampled_variance(&self) -> f64 {
        match self.params.mode {
            PrivacyMode::Off | PrivacyMode::Central => self.guaranteed_variance(),
            PrivacyMode::Distributed => self.device_variance(),
        }
    }

    fn sampler(&self) -> &Skellam {
        self.sampler.get_or_init(|| Skellam::new(self.sampled_variance()))
    }
}

/// An update that cannot be encoded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// It does not have the task's number of coordinates.
    #[error("expected an update of {expected} coordinates, got {got}")]
    Length {
        /// The task's coordinates.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// A coordinate is infinite or not a number.
    #[error("coordinate {index} of the update is {value}, expected a finite number")]
    NotFinite {
        /// The first such coordinate.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// A sum that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It does not have the padded length.
    #[error("expected a sum of {expected} elements, got {got}")]
    Length {
        /// The padded length.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// There are no survivors, or more than the ring was made for.
    #[error("expected between 1 and {cohort} survivors, got {survivors}")]
    Survivors {
        /// What was given.
        survivors: usize,
        /// The largest cohort.
        cohort: usize,
    },
    /// An element is not reduced.
    #[error("element {index} of the sum is {value}, expected at most {most}")]
    OutsideRing {
        /// The first such element.
        index: usize,
        /// Its value.
        value: u32,
        /// The largest element of the ring.
        most: u32,
    },
}

/// The block of the rotation, and the length padded to a multiple of it.
fn padded(coordinates: usize) -> Result<(usize, usize), ParamsError> {
    if coordinates == 0 || coordinates > MOST_COORDINATES {
        return Err(ParamsError::Coordinates { value: coordinates, most: MOST_COORDINATES });
    }
    let block = block_len(coordinates);
    Ok((block, coordinates.next_multiple_of(block)))
}

/// The ring for the sum, or `None` when it would be too wide. See
/// [`Mechanism::ring_bits`].
fn ring(
    params: &MechanismParams,
    block: usize,
    honest_devices: usize,
    sensitivity: &Sensitivity,
) -> Option<Ring> {
    let (n, c, s) = (params.cohort as f64, params.clip_norm.get(), params.scale);
    let z = params.noise_multiplier.get();
    let noise = match params.mode {
        PrivacyMode::Off => return Ring::holding(2.0 * n * sensitivity.delta2() + 2.0),
        PrivacyMode::Central => z * c,
        PrivacyMode::Distributed => z * c * (n / honest_devices as f64).sqrt(),
    };
    let deviation = (c * c * n * n / block as f64 + n / (4.0 * s * s) + noise * noise).sqrt();
    Ring::holding(2.0 * KAPPA * s * deviation)
}

/// The least power of two that is not below a positive, finite `value`.
fn power_of_two_above(value: f64) -> f64 {
    let mut power = 1.0;
    while power < value {
        power *= 2.0;
    }
    while power / 2.0 >= value {
        power /= 2.0;
    }
    power
}

/// The L2 norm, summed in eight lanes so that it needs no chain of additions.
fn norm(values: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 8];
    for (index, value) in values.enumerate() {
        lanes[index % 8] += value * value;
    }
    lanes.iter().sum::<f64>().sqrt()
}

fn to_f32(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "an update is f32; the nearest one is what is meant")]
    let nearest = value as f32;
    nearest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    const SEED: [u8; 32] = [5; 32];

    #[test]
    fn rings_match_the_reference() {
        let bits = |n, z| mechanism(wide(n, z)).ring_bits();
        assert_eq!(bits(100, 4.0), 18);
        assert_eq!(bits(1000, 10.0), 20);
    }

    #[test]
    fn an_end_to_end_epsilon_matches_the_reference() {
        let delta = Delta::new(1e-6).unwrap();
        // The least over integer orders from distributed_dp's formulas, which
        // is at order 3 in both rows; the least over all orders from mpmath.
        for (n, z, participations, at_three, expected) in [
            (100, 4.0, 100, 15.477_043_4, 15.477_040_202_1),
            (1000, 10.0, 500, 13.572_231_5, 13.502_427_180_4),
        ] {
            let mechanism = mechanism(wide(n, z));
            let divergence = f64::from(participations) * mechanism.rdp(3.0);
            let found = divergence + (2.0f64 / 3.0).ln() - 0.5 * 3e-6f64.ln();
            assert!((found / at_three - 1.0).abs() < 1e-8, "{found}");
            let found = mechanism.epsilon(participations, delta);
            assert!((found.epsilon / expected - 1.0).abs() < 1e-9, "{found:?}");
            assert!((found.order - 3.0).abs() < 0.3);
        }
    }

    #[test]
    fn the_sampler_error_is_charged_and_tiny() {
        let mechanism = mechanism(wide(1000, 10.0));
        let ideal = crate::accountant::skellam_rdp(
            4.0,
            mechanism.delta1(),
            mechanism.delta2(),
            mechanism.guaranteed_variance(),
        );
        assert!(mechanism.rdp(4.0) >= ideal && mechanism.rdp(4.0) < ideal * (1.0 + 1e-12));
        assert!(mechanism.curve().distance() > 0.0);
        let least = Delta::new(mechanism.curve().distance()).unwrap();
        assert!(mechanism.epsilon(1, least).epsilon.is_infinite());
    }

    #[test]
    fn the_noise_of_a_device_is_sized_for_the_report_goal_less_the_corrupt() {
        let params = MechanismParams { corrupt_fraction: 0.105, report_goal: 80, ..wide(100, 4.0) };
        let mechanism = mechanism(params);
        // A = ⌊10.5⌋ = 10.
        let expected = (4.0f64 * 4096.0).powi(2) / 70.0;
        assert!((mechanism.device_variance() / expected - 1.0).abs() < 1e-12);
        let total = mechanism.device_variance() * 70.0;
        assert!((mechanism.guaranteed_variance() / total - 1.0).abs() < 1e-12);
    }

    #[test]
    fn without_noise_there_is_no_privacy() {
        let delta = Delta::new(1e-6).unwrap();
        for mode in [PrivacyMode::Off, PrivacyMode::Central, PrivacyMode::Distributed] {
            let z = if mode == PrivacyMode::Off { 3.0 } else { 0.0 };
            let mechanism = mechanism(small(mode, 100, 5, z));
            assert!(mechanism.epsilon(1, delta).epsilon.is_infinite());
            assert!(mechanism.rdp(2.0).is_infinite());
            assert!(mechanism.snr(5).is_infinite());
            assert!(mechanism.epsilon(0, delta).epsilon.abs() < f64::EPSILON);
        }
    }

    #[test]
    fn the_signal_to_noise_ratio_is_that_of_the_design() {
        let snr = |coordinates, z, n| {
            let scale = 8192.0;
            let params = MechanismParams { scale, coordinates, ..wide(n, z) };
            mechanism(params).snr(n)
        };
        assert!((snr(1 << 17, 2.0, 1000) - 1.38).abs() < 0.01);
        assert!((snr(1 << 20, 10.0, 1000) - 0.098).abs() < 0.001);
    }

    #[test]
    fn one_hot_updates_add_up() {
        let mechanism = mechanism(small(PrivacyMode::Off, 40, 3, 0.0));
        let updates: Vec<_> = (0..3).map(|device| one_hot(40, 11 * device, 0.5)).collect();
        let decoded = mean_through(&mechanism, &updates, 7);
        for (index, value) in decoded.iter().enumerate() {
            let expected = if [0, 11, 22].contains(&index) { 0.5 / 3.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-3, "{index}: {value}");
        }
    }

    #[test]
    fn an_update_at_the_clip_norm_in_one_coordinate_does_not_wrap_the_sum() {
        let cohort = 50;
        let mechanism = mechanism(small(PrivacyMode::Off, 1, cohort, 0.0));
        let updates = vec![vec![100.0]; cohort];
        let decoded = mean_through(&mechanism, &updates, 8);
        assert!((decoded[0] - 1.0).abs() < 1e-3, "{}", decoded[0]);
    }

    #[test]
    fn a_long_update_is_clipped_and_says_so() {
        let mechanism = mechanism(small(PrivacyMode::Off, 64, 1, 0.0));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut encode = |value| mechanism.encode(&one_hot(64, 3, value), &SEED, &mut rng).unwrap();
        assert!(!encode(1.0).was_clipped());
        let contribution = encode(3.0);
        assert!(contribution.was_clipped());
        let decoded = mechanism.decode(contribution.as_ring(), 1, &SEED).unwrap();
        assert!((decoded[3] - 1.0).abs() < 1e-3);
    }

    #[test]
    fn a_huge_update_is_clipped_without_overflow() {
        let mechanism = mechanism(small(PrivacyMode::Off, 64, 1, 0.0));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let contribution = mechanism.encode(&[f32::MAX; 64], &SEED, &mut rng).unwrap();
        let decoded = mechanism.decode(contribution.as_ring(), 1, &SEED).unwrap();
        assert!(decoded.iter().all(|v| (v - 0.125).abs() < 1e-3));
    }

    #[test]
    fn the_noise_of_a_sum_has_the_planned_variance() {
        let cohort = 20;
        for mode in [PrivacyMode::Central, PrivacyMode::Distributed] {
            let params = MechanismParams { report_goal: 16, ..small(mode, 4096, cohort, 4.0) };
            let mechanism = mechanism(params);
            let mut rng = ChaCha20Rng::seed_from_u64(2);
            let updates = vec![vec![0.0; 4096]; cohort];
            let mut sum = sum_of(&mechanism, &updates, &mut rng);
            mechanism.add_central_noise(&mut sum, &mut rng);
            let decoded = mechanism.decode(&sum, cohort, &SEED).unwrap();
            let sigma = match mode {
                PrivacyMode::Distributed => 4.0 * (20.0f64 / 16.0).sqrt(),
                PrivacyMode::Off | PrivacyMode::Central => 4.0,
            } / 20.0;
            let squares: f64 = decoded.iter().map(|v| f64::from(*v).powi(2)).sum();
            let ratio = squares / (4096.0 * sigma * sigma);
            assert!((ratio - 1.0).abs() < 4.5 * (2.0f64 / 4096.0).sqrt(), "{mode:?}: {ratio}");
            let mean = decoded.iter().map(|v| f64::from(*v)).sum::<f64>() / 4096.0;
            assert!(mean.abs() < 4.5 * sigma / 64.0, "{mode:?}: {mean}");
        }
    }

    #[test]
    fn central_noise_leaves_the_other_modes_alone() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for mode in [PrivacyMode::Off, PrivacyMode::Distributed] {
            let mut sum = vec![7; 64];
            mechanism(small(mode, 64, 2, 1.0)).add_central_noise(&mut sum, &mut rng);
            assert_eq!(sum, vec![7; 64]);
        }
    }

    #[test]
    fn a_contribution_shows_only_its_length() {
        let mechanism = mechanism(small(PrivacyMode::Distributed, 64, 2, 1.0));
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let contribution = mechanism.encode(&[0.1; 64], &SEED, &mut rng).unwrap();
        assert_eq!(format!("{contribution:?}"), "Contribution { len: 64, .. }");
        assert_eq!(contribution.into_ring().len(), 64);
    }

    #[test]
    fn bad_updates_are_errors_with_the_values() {
        let mechanism = mechanism(small(PrivacyMode::Off, 3, 2, 0.0));
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut error = |update: &[f32]| mechanism.encode(update, &SEED, &mut rng).unwrap_err().to_string();
        assert_eq!(error(&[0.0; 2]), "expected an update of 3 coordinates, got 2");
        for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let expected = format!("coordinate 1 of the update is {text}, expected a finite number");
            assert_eq!(error(&[0.0, value, 0.0]), expected);
        }
    }

    #[test]
    fn bad_sums_are_errors_with_the_values() {
        let mechanism = mechanism(small(PrivacyMode::Off, 3, 2, 0.0));
        let bits = mechanism.ring_bits();
        let error = |sum: &[u32], n| mechanism.decode(sum, n, &SEED).unwrap_err().to_string();
        assert_eq!(error(&[0; 3], 1), "expected a sum of 4 elements, got 3");
        assert_eq!(error(&[0; 4], 0), "expected between 1 and 2 survivors, got 0");
        assert_eq!(error(&[0; 4], 3), "expected between 1 and 2 survivors, got 3");
        let outside = 1 << bits;
        assert_eq!(
            error(&[0, 0, outside, 0], 1),
            format!("element 2 of the sum is {outside}, expected at most {}", outside - 1)
        );
    }

    #[test]
    fn bad_params_are_errors_with_the_values() {
        let good = || wide(100, 4.0);
        let error = |params| Mechanism::new(params).unwrap_err().to_string();
        let cases = [
            (MechanismParams { scale: 0.0, ..good() }, "scale must be finite and above 0, got 0"),
            (MechanismParams { scale: f64::NAN, ..good() }, "scale must be finite and above 0, got NaN"),
            (
                MechanismParams { coordinates: 0, ..good() },
                "coordinates must be between 1 and 1073741824, got 0",
            ),
            (MechanismParams { cohort: 0, ..good() }, "cohort must have at least 1 device, got 0"),
            (
                MechanismParams { report_goal: 101, ..good() },
                "report goal must be between 1 and the cohort of 100, got 101",
            ),
            (
                MechanismParams { report_goal: 0, ..good() },
                "report goal must be between 1 and the cohort of 100, got 0",
            ),
            (
                MechanismParams { corrupt_fraction: 1.0, ..good() },
                "corrupt fraction must be at least 0 and below 1, got 1",
            ),
            (
                MechanismParams { corrupt_fraction: -0.1, ..good() },
                "corrupt fraction must be at least 0 and below 1, got -0.1",
            ),
            (
                MechanismParams { corrupt_fraction: 0.5, report_goal: 50, ..good() },
                "report goal of 50 leaves no honest device when 50 may be corrupt",
            ),
            (
                MechanismParams { scale: 2f64.powi(28), ..good() },
                "the sum needs a ring of more than 31 bits with scale 268435456",
            ),
        ];
        for (params, expected) in cases {
            assert_eq!(error(params), expected);
        }
    }

    #[test]
    fn a_scale_that_is_too_small_names_the_least() {
        let error = Mechanism::new(MechanismParams { scale: 2048.0, ..wide(100, 4.0) });
        let ParamsError::ScaleTooSmall { least_scale, padded_len, .. } = error.unwrap_err() else {
            panic!("expected the scale to be too small");
        };
        assert_eq!(padded_len, 1 << 20);
        assert!((least_scale / 3.6 / 1024.0 - 1.0).abs() < 0.02, "{least_scale}");
        assert!(Mechanism::new(MechanismParams { scale: least_scale, ..wide(100, 4.0) }).is_ok());
    }

    #[test]
    fn no_scale_is_recommended_for_an_absurd_clip_norm() {
        for clip in [f64::MIN_POSITIVE, 5e-324, 1e300] {
            let scale = Mechanism::recommended_scale(
                PrivacyMode::Off,
                ClipNorm::new(clip).unwrap(),
                NoiseMultiplier::new(1.0).unwrap(),
                1 << 20,
                1 << 20,
                1,
                0.0,
            );
            assert!(matches!(scale, Err(ParamsError::RingTooWide { .. })), "{scale:?}");
        }
    }

    #[test]
    fn noise_that_is_surely_a_mistake_is_refused() {
        let params = small(PrivacyMode::Distributed, 64, 2, 1e-12);
        assert!(matches!(Mechanism::new(params), Err(ParamsError::NoiseTooSmall { .. })));
    }

    #[test]
    fn bad_numbers_are_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(ClipNorm::new(value).unwrap_err().to_string().contains(&value.to_string()));
        }
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            let error = NoiseMultiplier::new(value).unwrap_err().to_string();
            assert!(error.contains(&value.to_string()));
        }
        for value in [0.0, 1.0, -1.0, 2.0, f64::NAN] {
            assert!(Delta::new(value).unwrap_err().to_string().contains(&value.to_string()));
        }
    }

    #[test]
    fn recommended_scales_are_usable_powers_of_two() {
        for mode in [PrivacyMode::Off, PrivacyMode::Central, PrivacyMode::Distributed] {
            for coordinates in [1, 100, 5000, 131_072, 1 << 20] {
                for (cohort, z, clip) in [(1, 0.5, 0.1), (50, 1.0, 1.0), (1000, 8.0, 30.0)] {
                    let clip_norm = ClipNorm::new(clip).unwrap();
                    let noise_multiplier = NoiseMultiplier::new(z).unwrap();
                    let scale = Mechanism::recommended_scale(
                        mode,
                        clip_norm,
                        noise_multiplier,
                        coordinates,
                        cohort,
                        cohort,
                        0.0,
                    )
                    .unwrap();
                    let mechanism = mechanism(MechanismParams {
                        mode,
                        clip_norm,
                        noise_multiplier,
                        scale,
                        coordinates,
                        cohort,
                        report_goal: cohort,
                        corrupt_fraction: 0.0,
                    });
                    assert!(scale * clip >= 3.6 * (mechanism.padded_len() as f64).sqrt());
                    assert!((scale.log2().fract()).abs() < f64::EPSILON, "{scale}");
                    assert!((14..=24).contains(&mechanism.ring_bits()));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn clipping_never_exceeds_the_sensitivity(
            update in prop::collection::vec(-1e4f32..1e4, 1..300),
            shrink in 1e-8f32..1.0,
            seed: u64,
        ) {
            let mechanism = mechanism(small(PrivacyMode::Off, update.len(), 1, 0.0));
            let update: Vec<_> = update.iter().map(|v| v * shrink).collect();
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let contribution = mechanism.encode(&update, &SEED, &mut rng).unwrap();
            let squares: f64 = contribution
                .as_ring()
                .iter()
                .map(|&q| f64::from(mechanism.ring.centre(q)).powi(2))
                .sum();
            prop_assert!(squares.sqrt() <= mechanism.delta2());
        }

        #[test]
        fn the_sum_of_encodings_decodes_to_the_mean(
            (coordinates, updates) in (1usize..200, 1usize..8).prop_flat_map(|(len, count)| {
                let update = prop::collection::vec(-1f32..1.0, len);
                (Just(len), prop::collection::vec(update, count))
            }),
            seed: u64,
        ) {
            for mode in [PrivacyMode::Off, PrivacyMode::Distributed] {
                let clip_norm = ClipNorm::new(20.0).unwrap();
                let params = small(mode, coordinates, 8, 0.0);
                let mechanism = mechanism(MechanismParams { clip_norm, ..params });
                let decoded = mean_through(&mechanism, &updates, seed);
                for (index, value) in decoded.iter().enumerate() {
                    let mean = updates.iter().map(|u| u[index]).sum::<f32>()
                        / updates.len() as f32;
                    // Each rounding moves the rotated sum by at most √d in norm.
                    let most = (mechanism.padded_len() as f64).sqrt() / mechanism.params.scale;
                    prop_assert!(f64::from((value - mean).abs()) <= most + 1e-6);
                }
            }
        }
    }

    /// The mean update through encoding, summing and decoding.
    fn mean_through(mechanism: &Mechanism, updates: &[Vec<f32>], seed: u64) -> Vec<f32> {
        let sum = sum_of(mechanism, updates, &mut ChaCha20Rng::seed_from_u64(seed));
        mechanism.decode(&sum, updates.len(), &SEED).unwrap()
    }

    fn sum_of(mechanism: &Mechanism, updates: &[Vec<f32>], rng: &mut ChaCha20Rng) -> Vec<u32> {
        let mut sum = vec![0u32; mechanism.padded_len()];
        for update in updates {
            let contribution = mechanism.encode(update, &SEED, rng).unwrap();
            for (sum, element) in sum.iter_mut().zip(contribution.into_ring()) {
                *sum = (*sum + element) % (1 << mechanism.ring_bits());
            }
        }
        sum
    }

    fn one_hot(len: usize, index: usize, value: f32) -> Vec<f32> {
        let mut update = vec![0.0; len];
        update[index] = value;
        update
    }

    fn mechanism(params: MechanismParams) -> Mechanism {
        Mechanism::new(params).unwrap()
    }

    /// The parameters of the reference rows: d = 2^20, s = 4096, c = 1.
    fn wide(cohort: usize, z: f64) -> MechanismParams {
        MechanismParams {
            mode: PrivacyMode::Distributed,
            clip_norm: ClipNorm::new(1.0).unwrap(),
            noise_multiplier: NoiseMultiplier::new(z).unwrap(),
            scale: 4096.0,
            coordinates: 1 << 20,
            cohort,
            report_goal: cohort,
            corrupt_fraction: 0.0,
        }
    }

    fn small(mode: PrivacyMode, coordinates: usize, cohort: usize, z: f64) -> MechanismParams {
        MechanismParams { mode, scale: 65_536.0, coordinates, ..wide(cohort, z) }
    }
}
