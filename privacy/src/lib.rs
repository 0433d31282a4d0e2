//! Differential privacy: the distributed Skellam mechanism and its accountant.
//!
//! A device clips its update, rotates it, rounds it to integers and adds its
//! share of integer noise ([`Mechanism::encode`]); the secure sum of such
//! contributions is turned back into the mean update by
//! [`Mechanism::decode`]. A few numbers about the training, its
//! [metrics](MetricParams), travel in the same sum under the same noise. What a participation costs is an
//! [`RdpCurve`](accountant::RdpCurve), and an
//! [`Accountant`](accountant::Accountant) adds curves up and converts them to (ε, δ);
//! [`PldAccountant`](accountant::PldAccountant) does so more tightly for Gaussian
//! noise. [`most_participations`](accountant::most_participations) and the
//! `calibrate_…` functions beside it go the other way, from a target ε.
//!
//! This crate knows flat vectors of floats, vectors of integers mod 2^b, and
//! probabilities. It deliberately knows nothing of clocks, disks, networks,
//! tensors, models, masks or the identity of a device; randomness is always an
//! argument.
//!
//! Start reading at [`Mechanism`]; then `skellam` for the noise and
//! [`accountant`] for the numbers. The neighbouring relation everywhere is: one
//! device's contribution present, or replaced by zero.

pub use accountant::{analytic::analytic_gaussian_epsilon, convert::Epsilon};
pub use adaptive_clip::AdaptiveClip;
pub use error::{DecodeError, EncodeError, ParamsError};
pub use mechanism::{Contribution, Decoded, Mechanism, l2_norm};
pub use metrics::MetricParams;
pub use params::{ClipNorm, Delta, MechanismParams, NoiseMultiplier, PrivacyMode};
pub use sensitivity::Sensitivity;
pub use skellam::{sampler_distance, sampler_relative_error};

pub mod accountant;
mod adaptive_clip;
mod double;
mod entropy;
mod error;
mod mechanism;
mod metrics;
mod params;
mod ring_integers;
mod rotation;
mod rounding;
mod sensitivity;
mod skellam;
