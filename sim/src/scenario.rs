//! What a run is made of, and the plan that follows from it.

use client::train::base::{Base, Projection};
use privacy::{ClipNorm, Delta, Mechanism, NoiseMultiplier};
use proto::adapter::{AdapterSpec, Factors, Method};
use proto::ids::Digest;
use proto::plan::{Mode, Plan, PlanError, PrivacyPlan, RoundPlan, quorum, vector_to_bytes};
use proto::training::{ServerOptimizer, TrainingPlan};

/// Fewest devices of a federation: with fewer, a sum hides nobody.
pub const FEWEST_DEVICES: usize = 3;

/// ε that a summary calls small enough.
pub const EPSILON_GOAL: f64 = 8.0;

/// What a run is made of, the base and the text aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// A label for people.
    pub name: String,
    /// Devices, all of one cohort.
    pub devices: usize,
    /// Versions to make.
    pub versions: u32,
    /// What is trained.
    pub method: Method,
    /// Rank of the adapter.
    pub rank: u32,
    /// The product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// The adapted layers.
    pub projections: Vec<Projection>,
    /// How a device trains.
    pub training: TrainingPlan,
    /// How the mean update is applied.
    pub server: ServerOptimizer,
    /// Whether the sum carries noise.
    pub mode: Mode,
    /// Noise standard deviation of the sum, divided by the clip norm.
    pub noise_multiplier: f64,
    /// L2 bound of an update.
    pub clip_norm: f64,
    /// The δ of ε.
    pub delta: f64,
    /// Fraction of devices that may collude, in thousandths.
    pub corrupt_permille: u16,
    /// Devices that vanish after sharing, in the second version's round.
    pub vanishing: usize,
    /// Everything random follows from it.
    pub seed: u64,
}

/// A scenario that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Too few devices.
    #[error("{found} devices are too few for the plan; a federation needs at least {FEWEST_DEVICES}")]
    TooFewDevices {
        /// How many there are.
        found: usize,
    },
    /// More devices than one round takes.
    #[error("{found} devices do not fit one round; use at most {most}")]
    TooManyDevices {
        /// How many there are.
        found: usize,
        /// The most that fit.
        most: usize,
    },
    /// The plan that follows cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The privacy mechanism cannot be built.
    #[error(transparent)]
    Privacy(#[from] privacy::ParamsError),
}

impl Scenario {
    /// Fewest survivors for which a sum may be opened: nine tenths of the devices, and at least the quorum.
    pub fn report_goal(&self) -> usize {
        let tenth = self.devices.div_ceil(10).max(self.vanishing).min(self.devices / 2);
        (self.devices - tenth).max(quorum(self.devices, self.corrupt_permille))
    }

    /// The shape of the adapter, with factors drawn from the seed.
    pub fn adapter(&self, base: &Base) -> AdapterSpec {
        AdapterSpec {
            method: self.method,
            rank: self.rank,
            alpha: self.alpha,
            factors: Factors::Seeded(self.digest("factors")),
            modules: base.modules(&self.projections),
        }
    }

    /// The plan. `adapter` is as [`Scenario::adapter`] gives it, or with factors named by their hash.
    pub fn plan(&self, base: &Base, adapter: AdapterSpec) -> Result<Plan, ScenarioError> {
        if self.devices < FEWEST_DEVICES {
            return Err(ScenarioError::TooFewDevices { found: self.devices });
        }
        if self.devices > aggregation::MAX_COHORT {
            let most = aggregation::MAX_COHORT;
            return Err(ScenarioError::TooManyDevices { found: self.devices, most });
        }
        adapter.check().map_err(PlanError::from)?;
        let noise_multiplier = match self.mode {
            Mode::Off => 0.0,
            Mode::Central | Mode::Distributed => self.noise_multiplier,
        };
        let scale = Mechanism::recommended_scale(
            self.mode.into(),
            ClipNorm::new(self.clip_norm)?,
            NoiseMultiplier::new(noise_multiplier)?,
            adapter.trained_len(),
            self.devices,
            self.report_goal(),
            f64::from(self.corrupt_permille) / 1000.0,
        )?;
        Delta::new(self.delta)?;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let plan = Plan {
            name: self.name.clone(),
            base: base.digest(),
            initial_seed: self.digest("initial"),
            adapter,
            training: self.training.clone(),
            privacy: PrivacyPlan {
                mode: self.mode,
                clip_norm: self.clip_norm,
                noise_multiplier,
                scale,
                delta: self.delta,
                corrupt_permille: self.corrupt_permille,
                participations: 2 * self.versions,
                epsilon_budget: None,
            },
            round: RoundPlan {
                versions: self.versions,
                cohort: small(self.devices),
                report_goal: small(self.report_goal()),
                join_millis: 60_000,
                step_millis: 60_000,
                grace_millis: 5_000,
            },
            server: self.server,
        };
        plan.check()?;
        Ok(plan)
    }

    /// A seed of its own for each use.
    pub fn digest(&self, purpose: &str) -> Digest {
        let mut bytes = b"nightshift scenario v1".to_vec();
        bytes.extend_from_slice(&self.seed.to_be_bytes());
        bytes.extend_from_slice(purpose.as_bytes());
        Digest::of(&bytes)
    }
}

/// The adapter with these factors instead of seeded ones.
pub fn with_factors(adapter: AdapterSpec, frozen: &[f32]) -> AdapterSpec {
    AdapterSpec { factors: Factors::Given(Digest::of(&vector_to_bytes(frozen))), ..adapter }
}
