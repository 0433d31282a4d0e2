//! From the operator's options to a plan that a coordinator will take.

use std::path::{Path, PathBuf};

use clap::Args;
use coordinator::cli::CliError;
use coordinator::driver::check_frozen;
use formats::BaseInfo;
use planning::{PlanOptions, Subject};
use proto::adapter::Factors;
use proto::files;
use proto::ids::{Digest, TaskId};
use proto::plan::Plan;
use rand::rngs::SysRng;
use rand_core::{Rng, UnwrapErr};
use shell::cli::note;
use task::Task;
use task::worth::LEAST_SNR;

mod prediction;

use crate::base_source;
use prediction::{Prediction, mends, predict, too_noisy};

/// A sum of fewer devices is one device's own update.
const LEAST_GOAL: u32 = 2;

/// What a task is made of.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct PlanArguments {
    /// The base: a Hugging Face folder, a GGUF file, or one of the hub, which is fetched where it is not here. Of its weights
    /// the headers are read, and all of it once for its digest.
    #[arg(
        long,
        value_name = "DIR|FILE.gguf|hf:OWNER/NAME",
        required_unless_present = "plan",
        conflicts_with = "plan"
    )]
    base: Option<String>,
    /// A plan as JSON; it says everything, so only --frozen and --accept-noise go with it.
    #[arg(long, value_name = "FILE", conflicts_with = "PlanOptions")]
    plan: Option<PathBuf>,
    /// The task's label.
    #[arg(long, conflicts_with = "plan", default_value = "task")]
    name: String,
    /// Most devices of a round.
    #[arg(long, help_heading = "Rounds", conflicts_with = "plan", default_value_t = 10)]
    cohort: u32,
    /// Start the task although its noise is more than its devices can teach it.
    #[arg(long, help_heading = "Privacy")]
    accept_noise: bool,
    /// Frozen factors, raw little-endian f32, those of one draw after another; drawn from a random seed by default.
    #[arg(long, help_heading = "Adapter", value_name = "FILE")]
    frozen: Option<PathBuf>,
    /// Text of your own, as a device would read it, on which `nightshift eval` will measure versions; it stays on this
    /// machine.
    #[arg(long = "eval", value_name = "DIR|FILE")]
    pub(super) text: Option<PathBuf>,
    #[command(flatten)]
    options: PlanOptions,
}

/// A plan's bytes, the factors that go with it, and what to expect of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) plan: Vec<u8>,
    pub(super) frozen: Vec<u8>,
    pub(super) prediction: Prediction,
    /// The base, and where it lies, where the plan is made of it here.
    pub(super) base: Option<(Digest, PathBuf)>,
}

/// Makes a plan and checks all of it, as the coordinator will.
pub(super) async fn prepare(arguments: &PlanArguments) -> Result<Prepared, CliError> {
    let read = |path: &Path| files::read(path).map_err(CliError::input);
    let frozen = arguments.frozen.as_deref().map(read).transpose()?;
    let base = match &arguments.base {
        None => None,
        Some(name) => Some(base_source::resolve(name).await?),
    };
    let bytes = match (&base, &arguments.plan) {
        (_, Some(path)) => read(path)?,
        (Some(dir), None) => {
            planned(arguments, dir, frozen.as_deref())?.to_bytes().map_err(CliError::input)?
        }
        (None, None) => return Err(CliError::Input("a task needs --base DIR or --plan FILE".to_owned())),
    };
    let nobody = aggregation::IdentityPublic([0; 32]);
    let plan = Plan::parse(&bytes).map_err(CliError::input)?;
    let frozen = frozen.unwrap_or_default();
    let given = check_frozen(&plan, &frozen)
        .map_err(|error| CliError::Input(format!("{error}; give the right factors with --frozen FILE")))?;
    let given = given.map(|(_, factors)| factors);
    let task = Task::new(TaskId([0; 16]), &bytes, given, nobody).map_err(CliError::input)?;
    let plan = task.plan();
    let goal = plan.round.report_goal;
    if goal < LEAST_GOAL {
        return Err(CliError::Input(format!(
            "a report goal of {goal} would reveal the update of a single device; use a cohort and a report goal \
             of at least {LEAST_GOAL}"
        )));
    }
    let prediction = predict(plan)?;
    if prediction.snr < LEAST_SNR && !arguments.accept_noise {
        let is_own = arguments.plan.is_none();
        if is_own {
            note(&mends(plan));
        }
        return Err(CliError::Input(too_noisy(plan, prediction.snr, is_own)));
    }
    let base = base.map(|path| (plan.base, path));
    Ok(Prepared { plan: bytes, frozen, prediction, base })
}

/// The plan by the options, of the base in a folder.
fn planned(arguments: &PlanArguments, dir: &Path, frozen: Option<&[u8]>) -> Result<Plan, CliError> {
    let PlanArguments { name, cohort, options, .. } = arguments;
    let base = BaseInfo::open(dir).map_err(CliError::input)?;
    let subject = Subject {
        name: name.clone(),
        base: base.digest(),
        modules: base.modules(&options.targets).map_err(CliError::input)?,
        factors: frozen.map_or_else(|| Factors::Seeded(random()), |bytes| Factors::Given(Digest::of(bytes))),
        initial_seed: random(),
        cohort: *cohort,
    };
    options.plan(&subject).map_err(CliError::input)
}

fn random() -> Digest {
    let mut bytes = [0; 32];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    Digest(bytes)
}
