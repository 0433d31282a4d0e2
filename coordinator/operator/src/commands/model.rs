//! `nightshift model`: what came out of the tasks.

mod diff;
mod listing;
mod merged;
mod target;

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use coordinator::cli::CliError;
use formats::gguf::GgufHeader;
use formats::{
    Architecture, MANIFEST_FILE, Manifest, Origin, Release, SignedRelease, Version, gguf_adapter, is_gguf,
    peft_files,
};
use proto::adapter::{Factors, State};
use proto::admin::{AdminReply, AdminRequest, TaskStatus, VersionStatus};
use proto::files::{self, Audience};
use proto::ids::Digest;
use proto::plan::{Plan, vector_from_bytes, vector_to_bytes};
use proto::shown::shown;
use serde_json::json;
use task::gain::{best, content};

use crate::client::{AdminClient, CallError};
use crate::connection::{connect, find_task, task_in, tasks};
use crate::output::{Output, print};
use crate::{base_source, bases};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a version of a task's adapter into a folder that other programs load. Where factors are drawn anew, it
    /// is the nearest of the plan's shipped rank.
    #[command(allow_negative_numbers = true)]
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
        /// The base's `config.json`, the folder that it is in, a GGUF file, or one of the hub, where the base's kind is needed; by
        /// default what this operator made a task of it by.
        #[arg(long, value_name = "PATH|hf:OWNER/NAME")]
        base_config: Option<String>,
        /// The base to merge into; by default what this operator made a task of it by.
        #[arg(long, value_name = "DIR|FILE.gguf|hf:OWNER/NAME")]
        base: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List the versions of every task, or of one: what devices measured of them, what they cost, and how large they are.
    Ls {
        /// The task: its id, the beginning of it, or its label.
        #[arg(long)]
        task: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Say by how much two versions of a task differ: norms of what each adds to the base, and of the difference.
    #[command(allow_negative_numbers = true)]
    Diff {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        /// One version; 0 is the base.
        from: u32,
        /// The other.
        to: u32,
        /// What a line stands for; JSON has all.
        #[arg(long, value_enum, default_value_t = diff::By::Layer)]
        by: diff::By,
        #[command(flatten)]
        output: Output,
    },
    /// Give the task's next version the parameters of an earlier one, which devices then train from. A round that devices still
    /// join ends; one whose devices have begun to give their inputs has to end by itself first. The version is one of those that
    /// the plan wants.
    #[command(allow_negative_numbers = true)]
    Rollback {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        /// The version whose parameters come back; 0 is the base.
        version: u32,
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
    /// The base with the version in its weights, as a Hugging Face folder; it needs a folder that is new or empty.
    Merged,
}

/// The file of an adapter for llama.cpp.
const GGUF_FILE: &str = "adapter.gguf";

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    match command {
        Command::Pull { task, version, form, out, force, base_name, base_config, base, output } => {
            of_form(
                form,
                [
                    ("--base-name", base_name.is_some(), Layout::Peft),
                    ("--base-config", base_config.is_some(), Layout::Gguf),
                    ("--base", base.is_some(), Layout::Merged),
                ],
            )?;
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
            let remembered = bases::name(dir, plan.base);
            let place = remembered.as_deref().map(base_source::remembered);
            let name = base_name.or(remembered).unwrap_or_else(|| format!("sha256:{}", plan.base));
            let files = match form {
                Layout::Peft => {
                    keep(&out, &peft_files(&adapter, &[], &trained, &name).map_err(CliError::input)?)?
                }
                Layout::Gguf => {
                    let place = place_of(base_config.or(place), plan.base, "--base-config").await?;
                    let bytes = gguf_adapter(&adapter, &[], &trained, architecture(&place)?);
                    keep(&out, &[(GGUF_FILE, bytes.map_err(CliError::input)?)])?
                }
                Layout::Merged => {
                    let base = place_of(base.or(place), plan.base, "--base").await?;
                    let merge =
                        merged::Merge { base, digest: plan.base, spec: adapter, trained, out: out.clone() };
                    tokio::task::spawn_blocking(move || merge.write()).await.map_err(CliError::internal)??
                }
            };
            let origin = origin(&mut client, &task, version, &plan.base, &stored).await?;
            write_manifest(&out, files, plan.base, origin)?;
            let written = json!({ "task": task.task, "version": version, "newest": newest, "out": out });
            print(output.format, "nightshift.pulled/1", &written, |_| {
                format!("version {version} written to {}{why}", out.display())
            })
        }
        Command::Ls { task, output } => {
            let tasks = match task {
                None => tasks(&mut client).await?,
                Some(task) => vec![find_task(&mut client, &task).await?],
            };
            let rows = listing::rows(&mut client, &tasks).await?;
            let document = json!({ "versions": rows });
            print(output.format, "nightshift.versions/1", &document, |_| listing::text(&rows))
        }
        Command::Diff { task, from, to, by, output } => {
            let task = find_task(&mut client, &task).await?;
            let (_, first, _) = fetch(&mut client, &task, from).await?;
            let (_, second, _) = fetch(&mut client, &task, to).await?;
            let difference = diff::difference(&task, (from, &first), (to, &second))?;
            print(output.format, "nightshift.difference/1", &difference, |difference| {
                diff::text(difference, by)
            })
        }
        Command::Rollback { task, version, output } => {
            let task = find_task(&mut client, &task).await?;
            let request = AdminRequest::RollBack { task: task.task, version };
            let task = task_in(client.call(request).await?)?;
            let made = json!({
                "task": task.task,
                "version": task.version,
                "restores": version,
                "adapter": task.adapter,
                "state": task.state,
            });
            print(output.format, "nightshift.rolled-back/1", &made, |_| {
                format!("version {} of {} is version {version} again", task.version, shown(&task.name))
            })
        }
    }
}

/// Refuses options that are of another form, which would have no effect.
fn of_form(form: Layout, options: [(&str, bool, Layout); 3]) -> Result<(), CliError> {
    for (option, is_there, of) in options {
        if is_there && form != of {
            let of = of.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            return Err(CliError::Input(format!("{option} has no effect without `--as {of}`; leave it out")));
        }
    }
    Ok(())
}

/// Where the base lies, by what was said or is remembered.
async fn place_of(said: Option<String>, base: Digest, option: &str) -> Result<PathBuf, CliError> {
    let Some(said) = said else {
        return Err(CliError::Input(format!(
            "where the base {base} of this task lies is not known here; name it with {option}"
        )));
    };
    base_source::resolve(&said).await
}

/// What kind of base an adapter is for, as its configuration says, or a GGUF file says of itself.
fn architecture(path: &Path) -> Result<Architecture, CliError> {
    if !path.is_dir() && is_gguf(path) {
        let header = GgufHeader::read(path).map_err(CliError::input)?;
        return Architecture::of_gguf(&header.metadata).map_err(CliError::input);
    }
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

/// Writes the files of an export, and gives their hashes.
fn keep(folder: &Path, files: &[(&'static str, Vec<u8>)]) -> Result<Vec<(String, Digest)>, CliError> {
    files::create_folder(folder).map_err(store)?;
    for (name, bytes) in files {
        files::write(&folder.join(name), bytes, Audience::Anyone).map_err(store)?;
    }
    Ok(files.iter().map(|(name, bytes)| ((*name).to_owned(), Digest::of(bytes))).collect())
}

/// Writes what the files are, which comes last.
fn write_manifest(
    folder: &Path,
    files: Vec<(String, Digest)>,
    base: Digest,
    origin: Origin,
) -> Result<(), CliError> {
    let manifest = Manifest::new(base, origin, files);
    // Of an adapter that was pulled in another form, which would mislead.
    let left = formats::leftovers(folder, &manifest);
    let bytes = manifest.to_bytes().map_err(CliError::input)?;
    files::write(&folder.join(MANIFEST_FILE), &bytes, Audience::Anyone).map_err(store)?;
    for path in left {
        std::fs::remove_file(&path).map_err(|error| {
            CliError::Store(format!(
                "{}, of an adapter that was here before, cannot be removed: {error}",
                path.display()
            ))
        })?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn store(error: files::FileError) -> CliError {
    CliError::Store(error.to_string())
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
