//! The mechanism: from an update to a contribution, from a sum to a mean.

use std::sync::OnceLock;

use rand_core::CryptoRng;

use crate::{
    accountant::{Accountant, RdpCurve, SamplerError, convert::Epsilon},
    entropy::Entropy,
    error::{DecodeError, EncodeError, ParamsError},
    params::{ClipNorm, Delta, MechanismParams, PrivacyMode},
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
        let scale = params.scale;
        let honest_devices = params.honest_devices()?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(ParamsError::Scale { value: scale });
        }
        let (block, padded_len) = padded(params.coordinates)?;
        let len = padded_len + params.metrics.count();
        let sensitivity = Sensitivity::rounded(scale * params.bound(), len);
        if !sensitivity.is_tight() {
            let least_scale = Sensitivity::least_scaled_bound(len) / params.bound();
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

    /// A good scale for `params`, whose own scale is ignored: the largest power
    /// of two whose ring has at most 22 bits, and if there is none, the least
    /// power of two that keeps s·c above 3.6·√d and the sensitivity within one
    /// per cent of the clip norm. Fails when that does not fit 31 bits.
    ///
    /// A larger scale costs a bit for each doubling and coordinate on the wire;
    /// beyond 22 bits it gains nothing, since rounding is by then far below
    /// both the noise and the useful part of any update. A power of two makes
    /// scaling exact.
    pub fn recommended_scale(params: &MechanismParams) -> Result<f64, ParamsError> {
        let (block, padded_len) = padded(params.coordinates)?;
        let len = padded_len + params.metrics.count();
        let least = Sensitivity::least_scaled_bound(len).max(3.6 * (len as f64).sqrt()) / params.bound();
        if !least.is_finite() {
            return Err(ParamsError::RingTooWide { scale: least, most: MOST_BITS });
        }
        let honest_devices = params.honest_devices()?;
        let bits = |scale: f64| {
            let params = MechanismParams { scale, ..params.clone() };
            let sensitivity = Sensitivity::rounded(scale * params.bound(), len);
            ring(&params, block, honest_devices, &sensitivity).map(Ring::bits)
        };
        let mut scale = power_of_two_above(least);
        if bits(scale).is_none() || !scale.is_finite() {
            return Err(ParamsError::RingTooWide { scale, most: MOST_BITS });
        }
        while bits(2.0 * scale).is_some_and(|bits| bits <= RECOMMENDED_BITS) {
            scale *= 2.0;
        }
        Ok(scale)
    }

    /// The same mechanism for another clip norm. The scale changes the other
    /// way, so that everything in integer units stays as it is: the
    /// sensitivity, the noise, the ring, and what a participation costs. Fails
    /// when the scale would not be a positive number.
    pub fn with_clip_norm(&self, clip_norm: ClipNorm) -> Result<Self, ParamsError> {
        let scale = self.params.scale * (self.params.clip_norm.get() / clip_norm.get());
        if !(scale.is_normal() && scale > 0.0) {
            return Err(ParamsError::Scale { value: scale });
        }
        let params = MechanismParams { clip_norm, scale, ..self.params.clone() };
        Ok(Self { params, ..self.clone() })
    }

    /// The parameters it was made from.
    pub fn params(&self) -> &MechanismParams {
        &self.params
    }

    /// d, the coordinates, padded to whole blocks of the rotation.
    pub fn padded_len(&self) -> usize {
        self.padded_len
    }

    /// The length of a contribution: d and the metrics.
    pub fn contribution_len(&self) -> usize {
        self.padded_len + self.params.metrics.count()
    }

    /// b, the bits of a ring element.
    ///
    /// With noise b = ⌈log₂(2κ·s·√(c²N²/m + N/(4s²) + σ²))⌉, κ = 6: a
    /// coordinate of the rotated sum is sub-Gaussian with variance at most
    /// c²N²/m. A metric is not rotated and may be at its end on every device, so
    /// with metrics there is room for that and κ·σ. With mode `Off` the ring
    /// holds N·Δ₂ to each side, so the sum never wraps.
    pub fn ring_bits(&self) -> u32 {
        self.ring.bits()
    }

    /// Δ₂, the L2 sensitivity of the integer sum.
    pub fn delta2(&self) -> f64 {
        self.sensitivity.delta2()
    }

    /// Δ₁, the L1 sensitivity of the integer sum.
    pub fn delta1(&self) -> f64 {
        self.sensitivity.delta1(self.contribution_len())
    }

    /// The variance of the noise that one device adds, in integer units:
    /// z²s²c²(1 + w²)/(n\* − f) with mode `Distributed`, else 0.
    pub fn device_variance(&self) -> f64 {
        match self.params.mode {
            PrivacyMode::Off | PrivacyMode::Central => 0.0,
            PrivacyMode::Distributed => self.guaranteed_variance() / self.honest_devices as f64,
        }
    }

    /// z²s²c²(1 + w²), the least variance of the noise in a revealed sum, in
    /// integer units; 0 with mode `Off`.
    pub fn guaranteed_variance(&self) -> f64 {
        let z = match self.params.mode {
            PrivacyMode::Off => 0.0,
            PrivacyMode::Central | PrivacyMode::Distributed => self.params.noise_multiplier.get(),
        };
        let deviation = z * self.sensitivity.scaled_bound();
        deviation * deviation
    }

    /// Turns an update and its metrics, each in \[0, 1\], into a contribution,
    /// with fresh noise in mode `Distributed`. Works on one block of the
    /// rotation at a time. Fails when a length is wrong, a coordinate is not a
    /// number, or a metric is out of its range.
    pub fn encode(
        &self,
        update: &[f32],
        metrics: &[f64],
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
        let expected = self.params.metrics.count();
        if metrics.len() != expected {
            return Err(EncodeError::Metrics { expected, got: metrics.len() });
        }
        if let Some(index) = metrics.iter().position(|value| !(0.0..=1.0).contains(value)) {
            return Err(EncodeError::MetricRange { index, value: metrics[index] });
        }
        let limit = self.params.clip_norm.get();
        let norm = l2_norm(update);
        let factor = if norm > limit { limit / norm } else { 1.0 } * self.params.scale;
        let span = self.metric_span();

        let mut entropy = Entropy::new(rng);
        let mut elements = vec![0; self.contribution_len()];
        let write = |start: usize, x: &mut [f64]| {
            if let Some(first) = start.checked_sub(self.padded_len) {
                for (x, metric) in x.iter_mut().zip(&metrics[first..]) {
                    *x = (metric - 0.5) * span;
                }
                return;
            }
            x.fill(0.0);
            for (x, &value) in x.iter_mut().zip(&update[start..]) {
                *x = f64::from(value) * factor;
            }
            rotate(x, start / self.block, rotation_seed);
        };
        rounding::round(&mut elements, self.block, write, self.delta2(), self.ring, &mut entropy);
        if self.params.mode == PrivacyMode::Distributed && self.has_noise() {
            self.sampler().add_to(&mut elements, self.ring, &mut entropy);
        }
        Ok(Contribution::new(elements))
    }

    /// Adds the noise of the whole sum in mode `Central`, before
    /// [`decode`](Self::decode); does nothing in the other modes.
    pub fn add_central_noise(&self, sum: &mut [u32], rng: &mut impl CryptoRng) {
        if self.params.mode == PrivacyMode::Central && self.has_noise() {
            self.sampler().add_to(sum, self.ring, &mut Entropy::new(rng));
        }
    }

    /// Turns the sum of the contributions of `survivors` devices into their
    /// mean update and mean metrics. Fails when the sum has the wrong length or
    /// an element outside the ring, or when the survivors are none or more than
    /// the cohort.
    pub fn decode(
        &self,
        sum: &[u32],
        survivors: usize,
        rotation_seed: &[u8; 32],
    ) -> Result<Decoded, DecodeError> {
        if sum.len() != self.contribution_len() {
            return Err(DecodeError::Length { expected: self.contribution_len(), got: sum.len() });
        }
        let cohort = self.params.cohort;
        if survivors == 0 || survivors > cohort {
            return Err(DecodeError::Survivors { survivors, cohort });
        }
        if let Some(index) = sum.iter().position(|&element| element > self.ring.mask()) {
            let (value, most) = (sum[index], self.ring.mask());
            return Err(DecodeError::OutsideRing { index, value, most });
        }
        let (sum, metrics) = sum.split_at(self.padded_len);
        let factor = 1.0 / (self.params.scale * survivors as f64);
        let mut mean = Vec::with_capacity(self.params.coordinates);
        let mut x = vec![0.0; self.block];
        for (index, elements) in sum.chunks_exact(self.block).enumerate() {
            for (x, &element) in x.iter_mut().zip(elements) {
                *x = f64::from(self.ring.center(element)) * factor;
            }
            rotate_back(&mut x, index, rotation_seed);
            let wanted = self.params.coordinates - mean.len();
            mean.extend(x.iter().take(wanted).copied().map(to_f32));
        }
        let survivors = survivors as f64;
        let metric =
            |&element: &u32| f64::from(self.ring.center(element)) / (self.metric_span() * survivors) + 0.5;
        Ok(Decoded { mean, metrics: metrics.iter().map(metric).collect() })
    }

    /// The standard deviation of the noise in a mean metric of `survivors`
    /// devices, in units of its range \[0, 1\].
    pub fn metric_deviation(&self, survivors: usize) -> f64 {
        self.revealed_variance(survivors).sqrt() / (self.metric_span() * survivors as f64)
    }

    /// The norm of a mean of `survivors` equal clipped updates over that of its
    /// noise: n/(z·√d) where all noise is relied on and there are no metrics.
    /// Infinite without noise.
    pub fn snr(&self, survivors: usize) -> f64 {
        let clip_norm = self.params.scale * self.params.clip_norm.get();
        let noise = (self.revealed_variance(survivors) * self.padded_len as f64).sqrt();
        survivors as f64 * clip_norm / noise
    }

    /// The variance of the noise in a sum of `survivors` contributions, in
    /// integer units.
    fn revealed_variance(&self, survivors: usize) -> f64 {
        match self.params.mode {
            PrivacyMode::Off | PrivacyMode::Central => self.guaranteed_variance(),
            PrivacyMode::Distributed => self.device_variance() * survivors as f64,
        }
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
        let samples = devices * self.contribution_len() as f64;
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

    /// What a metric spans from 0 to 1, in integer units.
    fn metric_span(&self) -> f64 {
        self.params.scale * self.params.clip_norm.get() * self.params.metrics.span()
    }

    fn sampler(&self) -> &Skellam {
        self.sampler.get_or_init(|| Skellam::new(self.sampled_variance()))
    }
}

/// What a sum says about the devices in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The mean update.
    pub mean: Vec<f32>,
    /// The mean of each metric; noise may carry it out of \[0, 1\].
    pub metrics: Vec<f64>,
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
    let deviation = params.noise_multiplier.get() * params.bound();
    let noise = match params.mode {
        PrivacyMode::Off => return Ring::holding(2.0 * n * sensitivity.delta2() + 2.0),
        PrivacyMode::Central => deviation,
        PrivacyMode::Distributed => deviation * (n / honest_devices as f64).sqrt(),
    };
    let update = KAPPA * (c * c * n * n / block as f64 + n / (4.0 * s * s) + noise * noise).sqrt();
    let metric = match params.metrics.count() {
        0 => 0.0,
        _ => n * (0.5 * c * params.metrics.span() + 1.0 / s) + KAPPA * noise,
    };
    Ring::holding(2.0 * s * update.max(metric))
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

/// The L2 norm of an update, in f64, summed in eight lanes so that it needs no
/// chain of additions.
pub fn l2_norm(update: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    for (index, &value) in update.iter().enumerate() {
        lanes[index % 8] += f64::from(value) * f64::from(value);
    }
    lanes.iter().sum::<f64>().sqrt()
}

fn to_f32(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "an update is f32; the nearest one is what is meant")]
    let nearest = value as f32;
    nearest
}

#[cfg(test)]
mod tests;
