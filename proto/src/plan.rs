//! The plan of a task: everything that both sides must agree on, known by the SHA-256 of its bytes.
//!
//! The bytes are JSON, so that a user can read what a device signs. A device never re-serialises them:
//! the hash is of the bytes as they came.

use aggregation::Parameters;
use privacy::accountant::RdpCurve;
use privacy::{
    AdaptiveClip, ClipNorm, Delta, Mechanism, MechanismParams, MetricParams, NoiseMultiplier, PrivacyMode,
};
use serde::{Deserialize, Serialize};

use crate::adapter::{AdapterError, AdapterSpec, Method};
use crate::ids::{Digest, SessionId};
use crate::message::{Before, Published};
use crate::metrics::{Metric, MetricName};
use crate::training::{PlanValueError, ServerOptimizer, TrainingPlan};

mod bounds;
mod example;
mod refresh;

pub use bounds::{MAX_FOLDED_RANK, MAX_RANK, MAX_ROUND_MILLIS, MAX_ROUNDS, MAX_VERSIONS};
pub use refresh::RefreshPlan;

/// The largest plan that is read.
pub const MAX_PLAN_BYTES: usize = 1 << 20;

/// The largest adapter that is trained.
pub const MAX_COORDINATES: usize = 1 << 24;

/// The most frozen parameters that an adapter has: 1 GiB, as a device holds them.
pub const MAX_FROZEN: usize = 1 << 28;

/// A task's plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// A label for people.
    pub name: String,
    /// The base model, by the hash that [`crate::ids::Digest`] documents.
    pub base: Digest,
    /// The seed of version 0 of the trained parameters.
    pub initial_seed: Digest,
    /// What is trained.
    pub adapter: AdapterSpec,
    /// When frozen factors are drawn anew; never where it is left out.
    #[serde(default)]
    pub refresh: Option<RefreshPlan>,
    /// Whether devices may train less than all of the adapter; they may not where it is left out.
    #[serde(default)]
    pub classes: Option<ClassPlan>,
    /// How a device trains.
    pub training: TrainingPlan,
    /// How much is revealed.
    pub privacy: PrivacyPlan,
    /// How devices are gathered.
    pub round: RoundPlan,
    /// How the mean update is applied.
    pub server: ServerOptimizer,
}

/// How devices that train less than all of the adapter are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassPlan {
    /// A number moves only in versions in which at least so many survivors trained it: the noise of its mean is that
    /// of a mean over them alone.
    pub least_trainers: u32,
}

/// How much is revealed, and to what limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyPlan {
    /// `off`, `central` or `distributed`.
    pub mode: Mode,
    /// L2 bound of an update; where it adapts, that of version 0.
    pub clip_norm: f64,
    /// How the bound follows the updates, where it does.
    #[serde(default)]
    pub adaptive_clip: Option<AdaptiveClipPlan>,
    /// Noise standard deviation of the sum, divided by the bound.
    pub noise_multiplier: f64,
    /// Integer steps of one unit of a coordinate, at the bound above.
    pub scale: f64,
    /// What is summed beside the updates, under the same noise.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// The norm of all metrics of a device, divided by the bound.
    #[serde(default = "default_metrics_weight")]
    pub metrics_weight: f64,
    /// The δ at which ε is stated.
    pub delta: f64,
    /// Fraction of devices that may collude with the coordinator, in thousandths.
    pub corrupt_permille: u16,
    /// Charged rounds that one device may take part in.
    pub participations: u32,
    /// The task ends before its ε passes this, where one is given.
    pub epsilon_budget: Option<f64>,
}

fn default_metrics_weight() -> f64 {
    0.25
}

/// How the clip norm follows the updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveClipPlan {
    /// Which part of the updates should not be clipped.
    pub quantile: f64,
    /// How fast: the exponent of one version's largest change.
    pub rate: f64,
    /// The least that it may become.
    pub least: f64,
    /// The most that it may become.
    pub most: f64,
}

impl AdaptiveClipPlan {
    /// The rule of the paper, from `clip_norm` on, up to a hundred times of it and down to a hundredth.
    pub fn around(clip_norm: f64, quantile: f64) -> Self {
        Self { quantile, rate: 0.2, least: clip_norm / 100.0, most: clip_norm * 100.0 }
    }

    /// The rule that it describes.
    pub fn rule(&self) -> Result<AdaptiveClip, privacy::ParamsError> {
        AdaptiveClip::new(self.quantile, self.rate, ClipNorm::new(self.least)?, ClipNorm::new(self.most)?)
    }
}

/// A task's way of adding noise; the wire's name of [`PrivacyMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No noise: the coordinator learns the exact sum of a round.
    Off,
    /// The coordinator adds the noise after the sum.
    Central,
    /// Every device adds a share of the noise before masking.
    Distributed,
}

impl From<Mode> for PrivacyMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Central => Self::Central,
            Mode::Distributed => Self::Distributed,
        }
    }
}

/// How devices are gathered into rounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundPlan {
    /// Versions after which the task is complete.
    pub versions: u32,
    /// Most devices of a round.
    pub cohort: u32,
    /// Fewest survivors for which a sum may be revealed.
    pub report_goal: u32,
    /// Most rounds of one version, beside each other, whose sums are added up: a version can be of more devices than one
    /// secure sum. One where it is left out.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub rounds: u32,
    /// Fewest rounds whose sums make a version.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub min_rounds: u32,
    /// How long a round waits for devices that have finished training, in milliseconds.
    pub join_millis: u64,
    /// How long each later step waits, in milliseconds.
    pub step_millis: u64,
    /// How long a round waits for stragglers once the report goal is reached, and a version for rounds that lack theirs once
    /// it has sums enough, in milliseconds.
    pub grace_millis: u64,
    /// Fraction of devices that may vanish, in thousandths. The graph of a cohort above
    /// [`aggregation::MAX_COMPLETE`] is sized by it.
    #[serde(default = "default_missing_permille")]
    pub missing_permille: u16,
}

impl RoundPlan {
    /// Most devices of a version.
    pub fn most_devices(&self) -> u32 {
        self.cohort.saturating_mul(self.rounds)
    }

    /// Fewest devices of which a version is made.
    pub fn least_devices(&self) -> u32 {
        self.report_goal.saturating_mul(self.min_rounds)
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(rounds: &u32) -> bool {
    *rounds == 1
}

fn default_missing_permille() -> u16 {
    300
}

/// A plan that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The bytes are too many to be a plan.
    #[error("a plan has at most {MAX_PLAN_BYTES} bytes, found {0}")]
    TooLarge(usize),
    /// The bytes are not a plan.
    #[error("the plan cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The adapter cannot exist.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter has too many trained parameters.
    #[error("the adapter trains {0} parameters; at most {MAX_COORDINATES} fit a round")]
    TooManyCoordinates(usize),
    /// The adapter has too many frozen parameters.
    #[error("the adapter freezes {0} parameters; a device holds at most {MAX_FROZEN}")]
    TooManyFrozen(usize),
    /// Factors are to be drawn anew, and none are frozen.
    #[error(
        "the plan draws frozen factors anew, but its method freezes none; leave `refresh` out, or train with frozen_a, frozen_b or core"
    )]
    NothingToRefresh,
    /// Devices may train less than all, and what few of them train would be read too clearly, or averaged wrongly.
    #[error(
        "devices can train less than all of the adapter only with the method frozen_a, and only where each adds noise of \
         its own (mode `distributed`); change these, or leave `classes` out"
    )]
    Classes,
    /// A number cannot be used.
    #[error(transparent)]
    Value(#[from] PlanValueError),
    /// The privacy mechanism cannot be built.
    #[error(transparent)]
    Privacy(#[from] privacy::ParamsError),
    /// A metric is asked for twice.
    #[error("the plan asks for the metric `{0}` twice")]
    RepeatedMetric(MetricName),
    /// The clip norm is to adapt, and nothing says how many were clipped.
    #[error("an adaptive clip norm needs the metric `clipped` among the plan's metrics")]
    AdaptsBlindly,
    /// A version's clip norm is not one that the plan allows.
    #[error("a clip norm of {found} is not one that the plan allows")]
    ClipNotAllowed {
        /// The version's.
        found: f64,
    },
    /// So many devices may be corrupt or vanish that a large cohort has no safe graph.
    #[error(
        "a cohort of {cohort} of which {corrupt} thousandths may be corrupt and {missing} may vanish has no safe graph; \
         lower one of the three"
    )]
    NoGraph {
        /// What the plan asks for.
        cohort: u32,
        /// Thousandths.
        corrupt: u16,
        /// Thousandths.
        missing: u16,
    },
    /// The cohort is larger than any graph.
    #[error("a cohort of {found} does not fit one round; use at most {most}")]
    Cohort {
        /// What the plan asks for.
        found: u32,
        /// The most that fit.
        most: usize,
    },
    /// The report goal is below the quorum that opens a sum. No device opens a sum of fewer inputs than a quorum, so
    /// such a goal promises sums that never come; and it is a plan that only a coordinator that lies has a use for.
    #[error(
        "a report goal of {goal} in a cohort of {cohort} is below the quorum of {quorum} without which no device opens \
         a sum; raise it or lower the cohort"
    )]
    GoalBelowQuorum {
        /// The plan's report goal.
        goal: u32,
        /// The plan's cohort.
        cohort: u32,
        /// Signatures that a device waits for.
        quorum: usize,
    },
}

impl Plan {
    /// Reads and checks a plan.
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanError> {
        if bytes.len() > MAX_PLAN_BYTES {
            return Err(PlanError::TooLarge(bytes.len()));
        }
        let plan: Self = serde_json::from_slice(bytes)?;
        plan.check()?;
        Ok(plan)
    }

    /// The bytes that are published and hashed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanError> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Whether the plan can be followed, every part of it.
    pub fn check(&self) -> Result<(), PlanError> {
        self.adapter.check()?;
        if self.adapter.trained_len() > MAX_COORDINATES {
            return Err(PlanError::TooManyCoordinates(self.adapter.trained_len()));
        }
        if self.adapter.frozen_len() > MAX_FROZEN {
            return Err(PlanError::TooManyFrozen(self.adapter.frozen_len()));
        }
        self.check_refresh()?;
        self.check_classes()?;
        self.check_bounds()?;
        self.training.check()?;
        self.server.check()?;
        let round = &self.round;
        for (name, value) in [
            ("versions", u64::from(round.versions)),
            ("report_goal", u64::from(round.report_goal)),
            ("rounds", u64::from(round.rounds)),
            ("min_rounds", u64::from(round.min_rounds)),
            ("participations", u64::from(self.privacy.participations)),
            ("join_millis", round.join_millis),
            ("step_millis", round.step_millis),
        ] {
            if value == 0 {
                return Err(PlanValueError { name, wanted: "at least 1", found: 0.0 }.into());
            }
        }
        if let Some(budget) = self.privacy.epsilon_budget
            && !(budget.is_finite() && budget > 0.0)
        {
            let wanted = "a number above 0";
            return Err(PlanValueError { name: "epsilon_budget", wanted, found: budget }.into());
        }
        if round.min_rounds > round.rounds {
            let wanted = "at most as many as `rounds`";
            return Err(PlanValueError { name: "min_rounds", wanted, found: round.min_rounds.into() }.into());
        }
        if round.cohort as usize > aggregation::MAX_COHORT {
            return Err(PlanError::Cohort { found: round.cohort, most: aggregation::MAX_COHORT });
        }
        let (permille, missing) = (self.privacy.corrupt_permille, round.missing_permille);
        if permille >= 500 {
            let (name, wanted) = ("corrupt_permille", "below 500");
            return Err(PlanValueError { name, wanted, found: f64::from(permille) }.into());
        }
        if missing >= 1000 {
            let (name, wanted) = ("missing_permille", "below 1000");
            return Err(PlanValueError { name, wanted, found: f64::from(missing) }.into());
        }
        // The smallest cohort that a round goes on with, and the largest.
        let sizes = [round.report_goal, round.cohort].map(|size| size as usize);
        let large = |size: &&usize| (aggregation::MAX_COMPLETE + 1..=aggregation::MAX_COHORT).contains(*size);
        let corrupt = self.corrupt_devices();
        if sizes.iter().filter(large).any(|size| Parameters::search(*size, corrupt, missing).is_none()) {
            return Err(PlanError::NoGraph { cohort: round.cohort, corrupt: permille, missing });
        }
        Delta::new(self.privacy.delta)?;
        self.check_metrics()?;
        if self.privacy.mode != Mode::Off && self.privacy.noise_multiplier == 0.0 {
            let wanted = "a number above 0 where the mode is not `off`";
            return Err(PlanValueError { name: "noise_multiplier", wanted, found: 0.0 }.into());
        }
        self.mechanism()?;
        for version in [0, 1] {
            self.mechanism_at(version, self.privacy.clip_norm)?;
        }
        let quorum = aggregation::quorum(round.cohort as usize, corrupt);
        if (round.report_goal as usize) < quorum {
            return Err(PlanError::GoalBelowQuorum { goal: round.report_goal, cohort: round.cohort, quorum });
        }
        Ok(())
    }

    fn check_classes(&self) -> Result<(), PlanError> {
        let Some(ClassPlan { least_trainers }) = self.classes else { return Ok(()) };
        if self.adapter.method != Method::FrozenA || self.privacy.mode != Mode::Distributed {
            return Err(PlanError::Classes);
        }
        if !(2..=self.round.report_goal).contains(&least_trainers) {
            let (name, wanted) = ("classes.least_trainers", "2 up to the report goal");
            return Err(PlanValueError { name, wanted, found: f64::from(least_trainers) }.into());
        }
        Ok(())
    }

    fn check_metrics(&self) -> Result<(), PlanError> {
        let metrics = &self.privacy.metrics;
        for (i, metric) in metrics.iter().enumerate() {
            metric.check()?;
            if metrics[..i].iter().any(|earlier| earlier.name == metric.name) {
                return Err(PlanError::RepeatedMetric(metric.name));
            }
        }
        if let Some(adaptive) = &self.privacy.adaptive_clip {
            let allowed = adaptive.rule()?.allows(ClipNorm::new(self.privacy.clip_norm)?);
            if !allowed {
                return Err(PlanError::ClipNotAllowed { found: self.privacy.clip_norm });
            }
            if !metrics.iter().any(|metric| metric.name == MetricName::Clipped) {
                return Err(PlanError::AdaptsBlindly);
            }
            for clip_norm in [adaptive.least, adaptive.most] {
                self.mechanism()?.with_clip_norm(ClipNorm::new(clip_norm)?)?;
            }
        }
        Ok(())
    }

    /// The mechanism for updates that are trained from `version` on, at the version's clip norm. That must be one
    /// that the plan allows: the plan's own, or, where it adapts, one in its range. What a participation costs is
    /// the same at all of them.
    pub fn mechanism_at(&self, version: u32, clip_norm: f64) -> Result<Mechanism, PlanError> {
        let checked = ClipNorm::new(clip_norm)?;
        let allowed = match &self.privacy.adaptive_clip {
            None => checked == ClipNorm::new(self.privacy.clip_norm)?,
            Some(adaptive) => adaptive.rule()?.allows(checked),
        };
        if !allowed {
            return Err(PlanError::ClipNotAllowed { found: clip_norm });
        }
        let params =
            MechanismParams { coordinates: self.adapter.update_len(version), ..self.mechanism_params()? };
        Ok(Mechanism::new(params)?.with_clip_norm(checked)?)
    }

    /// The plan with the scale that suits it; its own is ignored.
    pub fn with_recommended_scale(mut self) -> Result<Self, PlanError> {
        self.privacy.scale = Mechanism::recommended_scale(&self.mechanism_params()?)?;
        Ok(self)
    }

    /// The mechanism at the plan's clip norm, for the longest update that a version asks for. A shorter one costs
    /// no more: its sensitivity is rounded up by less.
    pub fn mechanism(&self) -> Result<Mechanism, PlanError> {
        Ok(Mechanism::new(self.mechanism_params()?)?)
    }

    /// What a participation costs against whoever reads the round's sum, the coordinator too: noise that
    /// somebody else adds later is none of the device's own. A plan that cannot be followed costs everything.
    pub fn participation_cost(&self) -> RdpCurve {
        match (self.privacy.mode, self.mechanism()) {
            (Mode::Distributed, Ok(mechanism)) => mechanism.curve(),
            (Mode::Off | Mode::Central, _) | (_, Err(_)) => RdpCurve::Unbounded,
        }
    }

    /// What the mechanism is made from.
    pub fn mechanism_params(&self) -> Result<MechanismParams, PlanError> {
        Ok(MechanismParams {
            mode: self.privacy.mode.into(),
            clip_norm: ClipNorm::new(self.privacy.clip_norm)?,
            noise_multiplier: NoiseMultiplier::new(self.privacy.noise_multiplier)?,
            scale: self.privacy.scale,
            coordinates: self.adapter.update_len(0).max(self.adapter.update_len(1)),
            cohort: self.round.cohort as usize,
            report_goal: self.round.report_goal as usize,
            corrupt: self.corrupt_devices(),
            metrics: MetricParams::new(self.privacy.metrics.len(), self.privacy.metrics_weight)?,
        })
    }

    /// Most devices of the cohort that may collude with the coordinator, f: for the noise, the quorum, the graph and the
    /// bounds on shares alike.
    pub fn corrupt_devices(&self) -> usize {
        aggregation::corrupt_devices(self.round.cohort as usize, self.privacy.corrupt_permille)
    }

    /// The δ of the plan.
    pub fn delta(&self) -> Result<Delta, PlanError> {
        Ok(Delta::new(self.privacy.delta)?)
    }
}

/// What a version is known by in a round: base, frozen factors' source, the version's number (which says the epoch,
/// and which half is trained), what earlier epochs left, trained parameters, clip norm, and what its gain is measured
/// against: devices that were told different ones never open a sum together.
pub fn model_digest(plan: &Plan, published: &Published, before: Option<&Before>) -> Digest {
    let factors = match plan.adapter.factors {
        crate::adapter::Factors::Seeded(seed) => (0, seed),
        crate::adapter::Factors::Given(digest) => (1, digest),
    };
    let mut bytes = b"nightshift model v4".to_vec();
    bytes.extend_from_slice(&plan.base.0);
    bytes.push(factors.0);
    bytes.extend_from_slice(&factors.1.0);
    bytes.extend_from_slice(&published.version.to_be_bytes());
    bytes.push(u8::from(published.folded.is_some()));
    bytes.extend(published.folded.iter().flat_map(|digest| digest.0));
    bytes.extend_from_slice(&published.adapter.0);
    bytes.extend_from_slice(&published.clip_norm.to_be_bytes());
    bytes.push(u8::from(before.is_some()));
    if let Some(before) = before {
        bytes.extend_from_slice(&before.version.to_be_bytes());
        bytes.extend_from_slice(&before.adapter.0);
        bytes.push(u8::from(before.folded.is_some()));
        bytes.extend(before.folded.iter().flat_map(|digest| digest.0));
    }
    Digest::of(&bytes)
}

/// The public seed of a round's rotation.
pub fn rotation_seed(session: &SessionId) -> [u8; 32] {
    let mut bytes = b"nightshift rotation v1".to_vec();
    bytes.extend_from_slice(&session.0);
    Digest::of(&bytes).0
}

/// The trained parameters as the bytes of an artefact: little-endian f32.
pub fn vector_to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The vector of an artefact's bytes; `None` where they are not whole numbers of four.
pub fn vector_from_bytes(bytes: &[u8]) -> Option<Vec<f32>> {
    let (whole, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| whole.iter().map(|x| f32::from_le_bytes(*x)).collect())
}
