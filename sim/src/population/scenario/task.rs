//! What devices of a population make, and with what.

use std::path::PathBuf;

use proto::adapter::Method;
use serde::{Deserialize, Serialize};

/// What is trained: closed formulas in the place of a model, or an adapter of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveName {
    /// Nothing: every update is zero.
    None,
    /// Half the squared distance to an optimum of each device.
    Quadratic,
    /// A logistic regression on a device's examples.
    Logistic,
    /// An adapter of a base, on each device's text, by the engine of the devices.
    Engine,
}

impl ObjectiveName {
    /// What is measured of it; nothing where nothing is trained.
    pub fn measures(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Quadratic => Some("value above the least"),
            Self::Logistic => Some("loss, nats an example"),
            Self::Engine => Some("held-out loss, nats a token"),
        }
    }
}

/// What devices make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskTable {
    /// Versions to make.
    pub versions: u32,
    /// Most devices of a round.
    pub cohort: u32,
    /// Fewest devices of which a sum is made; two thirds of the cohort, or the quorum, where left out.
    pub report_goal: Option<u32>,
    /// Most rounds of one version, beside each other, whose sums are added up.
    pub rounds: u32,
    /// Fewest rounds whose sums make a version; all where left out.
    pub min_rounds: Option<u32>,
    /// Numbers of an update.
    pub coordinates: u32,
    /// What is trained.
    pub objective: ObjectiveName,
    /// Step size of one step on a device; of the engine that of its method, where left out.
    pub learning_rate: Option<f64>,
    /// Steps of one training.
    pub local_steps: u32,
    /// How much devices' optima, or their labels, differ; 0 for not.
    pub heterogeneity: f32,
    /// Seconds that a round waits for devices that have finished training.
    pub join_secs: u64,
    /// Seconds that each later step of a round waits.
    pub step_secs: u64,
    /// Seconds that a round waits for stragglers once the report goal is reached.
    pub grace_secs: u64,
    /// Simulated hours after which a version that was not made ends the run.
    pub patience_hours: u64,
}

impl Default for TaskTable {
    fn default() -> Self {
        Self {
            versions: 10,
            cohort: 100,
            report_goal: None,
            rounds: 1,
            min_rounds: None,
            coordinates: 1000,
            objective: ObjectiveName::Quadratic,
            learning_rate: None,
            local_steps: 5,
            heterogeneity: 0.5,
            join_secs: 60,
            step_secs: 60,
            grace_secs: 5,
            patience_hours: 48,
        }
    }
}

/// Step size of a formula where nothing says it.
pub(in crate::population) const USUAL_RATE: f64 = 0.1;

/// With what the engine trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelTable {
    /// The base, as seen from the scenario's folder, or one of the hub that is in the cache.
    pub base: Option<PathBuf>,
    /// A folder with a file or a folder for each device, as seen from the scenario's folder.
    pub data: Option<PathBuf>,
    /// Which matrices are trained.
    pub method: Method,
    /// The adapter's rank.
    pub rank: u32,
    /// The adapter is scaled by alpha / rank; twice the rank where left out.
    pub alpha: Option<f32>,
    /// The adapted layers of every block, or `all`.
    pub targets: Vec<String>,
    /// Sequences of one step.
    pub batch_size: u32,
    /// Tokens of one sequence.
    pub sequence_len: u32,
}

impl Default for ModelTable {
    fn default() -> Self {
        Self {
            base: None,
            data: None,
            method: Method::FrozenA,
            rank: 2,
            alpha: None,
            targets: vec!["all".to_owned()],
            batch_size: 4,
            sequence_len: 128,
        }
    }
}
