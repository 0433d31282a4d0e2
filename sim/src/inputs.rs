//! What a run reads, and the plan that follows from it.

use std::path::Path;
use std::sync::Arc;

use engine::{Base, Blocks, DecodeError, EncodeError, Engine, TrainError};
use proto::adapter::{AdapterError, AdapterSpec, Folded, State};
use proto::plan::Plan;
use text::{Corpus, ReadOptions, TextError, UserText};

use crate::public::factors;
use crate::scenario::{Scenario, ScenarioError, with_factors};
use crate::world::WorldError;

/// One user's text, split, as tokens.
#[derive(Debug)]
pub struct User {
    /// For messages.
    pub name: String,
    /// The text.
    pub corpus: Corpus,
}

/// What a run reads.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The base.
    pub base: &'a Arc<Base>,
    /// One for each device.
    pub users: &'a [User],
    /// People who take no part.
    pub newcomers: &'a [User],
    /// Text that belongs to nobody: where there is some, the adapter's frozen factors come from the base's gradient
    /// on it.
    pub public: Option<&'a Blocks>,
}

/// A run that came to no end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The federation came to no end.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The training engine failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A version is none of its plan's adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A prompt that the base's tokenizer cannot read.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A sample that the base's tokenizer cannot write.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Reads one user's file, and says how many lines of it were left out.
pub fn read_user(base: &Base, path: &Path) -> Result<(User, u64), TextError> {
    let text = UserText::read(&[path.to_owned()], &ReadOptions::default())?;
    let skipped = text.reading().skipped_lines() + text.reading().secret_looking();
    let corpus = Corpus::new(base, &text)?;
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok((User { name, corpus }, skipped))
}

/// The plan, and the factors that it names by their hash, where it does.
pub fn prepare(
    scenario: &Scenario,
    base: &Base,
    engine: &Engine,
    public: Option<&Blocks>,
) -> Result<(Plan, Option<Vec<f32>>), RunError> {
    let seeded = scenario.adapter(base);
    let Some(public) = public else { return Ok((scenario.plan(base, seeded)?, None)) };
    // What cannot be a plan is said before anything is computed.
    let plan = scenario.plan(base, seeded.clone())?;
    let epochs = scenario.public_epochs.min(plan.epoch(plan.round.versions) + 1);
    let given = factors(engine, &seeded, epochs, public, scenario.digest("public").0)?;
    Ok((scenario.plan(base, with_factors(seeded, &given))?, Some(given)))
}

/// What came out, on the base as it is.
pub(crate) fn alone((adapter, parameters): &(AdapterSpec, Vec<f32>)) -> State {
    let (spec, trained) = (adapter.clone(), parameters.clone());
    State { spec, frozen: Vec::new(), folded: Folded::default(), trained }
}

/// Numbers in one device's longest update.
pub(crate) fn coordinates(plan: &Plan) -> u64 {
    plan.adapter.update_len(0).max(plan.adapter.update_len(1)) as u64
}

pub(crate) fn method_name(plan: &Plan) -> String {
    serde_json::to_value(plan.adapter.method)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
