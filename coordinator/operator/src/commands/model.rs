//! `nightshift model`: what came out of the tasks.

mod target;

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use coordinator::cli::CliError;
use formats::{
    Architecture, MANIFEST_FILE, Manifest, Origin, Release, SignedRelease, Version, gguf_adapter, peft_files,
};
use proto::adapter::{Factors, State};
use proto::admin::{AdminReply, AdminRequest, TaskStatus, VersionStatus};
use proto::files::{self, Audience};
use proto::ids::Digest;
use proto::plan::{Plan, vector_from_bytes, vector_to_bytes};
use proto::shown::shown;
use serde::Serialize;
use serde_json::json;
use task::gain::{best, content};

use crate::client::{AdminClient, CallError};
use crate::connection::{connect, find_task, tasks};
use crate::output::{Output, epsilon, print, table};
use crate::{base_source, bases};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a version of a task's adapter into a folder that other programs load. Where factors are drawn anew, it
    /// is the nearest of the plan's shipped rank.
    Pull {
        /// The task: its id, the beginning of it, or its label.
        #[arg(long)]
        task: String,
        /// The version; by default the newest, or an earlier one that is better than it by what its devices measured.
        #[arg(long)]
        version: Option<u32>,
        /// The form of the files.
        #[arg(long = "as", value_name = "FORM", value_enum, default_value_t = Layout::Peft)]
        form: Layout,
        /// The folder to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Write into the folder although it holds something else than an earlier version of this task.
        #[arg(long)]
        force: bool,
        /// The base's name in the written configuration; by default the hub's, or the path by which this operator made a task
        /// of it; else `sha256:` and its digest.
        #[arg(long, value_name = "NAME")]
        base_name: Option<String>,
        /// The base's `config.json`, or the folder that it is in, or one of the hub: a GGUF file says what the base is.
        #[arg(long, value_name = "PATH|hf:OWNER/NAME", required_if_eq("form", "gguf"))]
        base_config: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List every version of every task.
    Ls {
        #[command(flatten)]
        output: Output,
    },
}

/// A form of files that other programs load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Layout {
    /// `adapter_config.json` and `adapter_model.safetensors`, for PEFT.
    Peft,
    /// `adapter.gguf`, for llama.cpp.
    Gguf,
}

/// The file of an adapter for llama.cpp.
const GGUF_FILE: &str = "adapter.gguf";

#[derive(Debug, Serialize)]
struct Row {
    task: String,
    name: String,
    version: u32,
    survivors: u32,
    #[serde(with = "proto::admin::finite")]
    epsilon: f64,
    adapter: Digest,
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    match command {
        Command::Pull { task, version, form, out, force, base_name, base_config, output } => {
            let task = find_task(&mut client, &task).await?;
            if version.is_none() && task.version == 0 {
                return Err(CliError::Input(format!(
                    "the task {} has no version yet; `nightshift task watch` says when there is one",
                    shown(&task.name)
                )));
            }
            let best = best(&task.versions);
            if version.is_none() && best.version == 0 && task.version > 0 {
                return Err(CliError::Input(format!(
                    "no version of {} is better than the base, by what its devices measured; take one all the same with \
                     --version N, up to {}",
                    shown(&task.name),
                    task.version
                )));
            }
            let newest = content(&task.versions, task.version);
            let why = match version {
                Some(_) => String::new(),
                None if best.version == newest => ", the newest".to_owned(),
                None => format!(
                    ", which is better than the newest, version {newest}, by what its devices measured"
                ),
            };
            let version = version.unwrap_or(best.version);
            if !force {
                target::check(&out, task.task)?;
            }
            let (plan, state, stored) = fetch(&mut client, &task, version).await?;
            let (adapter, trained) = state.shipped(plan.shipped_rank()).map_err(CliError::internal)?;
            let base = base_name.or_else(|| bases::name(dir, plan.base));
            let base = base.unwrap_or_else(|| format!("sha256:{}", plan.base));
            let files = match form {
                Layout::Peft => peft_files(&adapter, &[], &trained, &base),
                Layout::Gguf => {
                    let config = match &base_config {
                        None => None,
                        Some(name) => Some(base_source::resolve(name).await?),
                    };
                    let architecture = architecture(config.as_deref())?;
                    gguf_adapter(&adapter, &[], &trained, architecture).map(|bytes| vec![(GGUF_FILE, bytes)])
                }
            };
            let files = files.map_err(CliError::input)?;
            let origin = origin(&mut client, &task, version, &plan.base, &stored).await?;
            write(&out, &files, plan.base, origin)?;
            let written = json!({ "task": task.task, "version": version, "newest": newest, "out": out });
            print(output.format, "nightshift.pulled/1", &written, |_| {
                format!("version {version} written to {}{why}", out.display())
            })
        }
        Command::Ls { output } => {
            let rows: Vec<Row> = tasks(&mut client).await?.iter().flat_map(rows).collect();
            print(output.format, "nightshift.versions/1", &json!({ "versions": rows }), |_| {
                let cells = |row: &Row| {
                    let (version, survivors) = (row.version.to_string(), row.survivors.to_string());
                    vec![row.task.clone(), row.name.clone(), version, survivors, epsilon(row.epsilon)]
                };
                let head = ["TASK", "NAME", "VERSION", "SURVIVORS", "EPSILON"];
                table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
            })
        }
    }
}

/// What kind of base an adapter is for, as its configuration says.
fn architecture(config: Option<&Path>) -> Result<Architecture, CliError> {
    let Some(path) = config else {
        let why = "a GGUF file needs `--base-config` with the base's config.json";
        return Err(CliError::Input(why.to_owned()));
    };
    let path = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
    let json = files::read(&path).map_err(CliError::input)?;
    Architecture::of_config(&json).map_err(|error| CliError::Input(format!("{}: {error}", path.display())))
}

/// Where a version came from; for one that came out of a round, with the coordinator's signature.
async fn origin(
    client: &mut AdminClient,
    task: &TaskStatus,
    version: u32,
    base: &Digest,
    stored: &[f32],
) -> Result<Origin, CliError> {
    let Some(known) = task.versions.iter().find(|known| known.version == version) else {
        let adapter = Digest::of(&vector_to_bytes(stored));
        return Ok(Origin::Version(Version { task: task.task, version, plan: task.plan, adapter }));
    };
    Ok(Origin::Release(signed(client, task, known, base).await?))
}

async fn signed(
    client: &mut AdminClient,
    task: &TaskStatus,
    version: &VersionStatus,
    base: &Digest,
) -> Result<SignedRelease, CliError> {
    let request = AdminRequest::SignVersion { task: task.task, version: version.version };
    let AdminReply::Signed { key, signature } = client.call(request).await? else {
        return Err(CallError::Unexpected.into());
    };
    let signed = SignedRelease { release: Release::of(task, version), key, signature };
    signed.verify(base, &key).map_err(|error| CliError::Internal(error.to_string()))?;
    Ok(signed)
}

/// Writes the files of an export, and what they are last.
fn write(
    folder: &Path,
    files: &[(&'static str, Vec<u8>)],
    base: Digest,
    origin: Origin,
) -> Result<(), CliError> {
    let store = |error: files::FileError| CliError::Store(error.to_string());
    files::create_folder(folder).map_err(store)?;
    for (name, bytes) in files {
        files::write(&folder.join(name), bytes, Audience::Anyone).map_err(store)?;
    }
    let hashes = files.iter().map(|(name, bytes)| ((*name).to_owned(), Digest::of(bytes)));
    let manifest = Manifest::new(base, origin, hashes).to_bytes().map_err(CliError::input)?;
    files::write(&folder.join(MANIFEST_FILE), &manifest, Audience::Anyone).map_err(store)
}

fn rows(task: &TaskStatus) -> Vec<Row> {
    let row = |version: &VersionStatus| Row {
        task: task.task.to_string(),
        name: task.name.clone(),
        version: version.version,
        survivors: version.survivors,
        epsilon: version.epsilon,
        adapter: version.adapter,
    };
    task.versions.iter().map(row).collect()
}

/// The plan, a version's state with all that it is made of, and its trained vector as it is stored.
pub(super) async fn fetch(
    client: &mut AdminClient,
    task: &TaskStatus,
    version: u32,
) -> Result<(Plan, State, Vec<f32>), CliError> {
    let plan = Plan::parse(&client.fetch(task.plan).await?).map_err(CliError::input)?;
    let given = match plan.adapter.factors {
        Factors::Seeded(_) => None,
        Factors::Given(digest) => Some(vector(&client.fetch(digest).await?)?),
    };
    let (trained, folded) = if version == 0 {
        (plan.adapter.initial(&plan.initial_seed, given.as_deref()), None)
    } else {
        let Some(wanted) = task.versions.iter().find(|known| known.version == version) else {
            let newest = task.version;
            return Err(CliError::Input(format!("the task has versions 0 to {newest}, not {version}")));
        };
        let folded = match wanted.folded {
            None => None,
            Some(digest) => Some(vector(&client.fetch(digest).await?)?),
        };
        (vector(&client.fetch(wanted.adapter).await?)?, folded)
    };
    let state =
        plan.state_at(version, given.as_deref(), folded.as_deref(), &trained).map_err(CliError::internal)?;
    Ok((plan, state, trained))
}

fn vector(bytes: &[u8]) -> Result<Vec<f32>, CliError> {
    vector_from_bytes(bytes).ok_or_else(|| CliError::Internal("an adapter is no list of numbers".to_owned()))
}
