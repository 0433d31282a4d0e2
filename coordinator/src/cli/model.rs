//! `nightshift model`: what came out of the tasks.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use proto::adapter::{Factors, State};
use proto::admin::TaskStatus;
use proto::ids::Digest;
use proto::plan::{Plan, vector_from_bytes};
use serde::Serialize;
use serde_json::json;

use super::CliError;
use super::connection::{connect, find_task, tasks};
use super::output::{Format, Output, epsilon, print, table};
use crate::export;
use crate::service::AdminClient;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a version of a task's adapter into a folder that other programs load. Where factors are drawn anew, it
    /// is the nearest of the plan's shipped rank.
    Pull {
        /// The task: its id, the beginning of it, or its label.
        #[arg(long)]
        task: String,
        /// The version; the newest by default.
        #[arg(long)]
        version: Option<u32>,
        /// The form of the files.
        #[arg(long, value_enum, default_value_t = Layout::Peft)]
        format: Layout,
        /// The folder to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The base's name in the written configuration; by default `sha256:` and its digest.
        #[arg(long, value_name = "NAME")]
        base_name: Option<String>,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        output: Format,
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
}

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
        Command::Pull { task, version, format, out, base_name, output } => {
            let task = find_task(&mut client, &task).await?;
            let version = version.unwrap_or(task.version);
            let (plan, state) = fetch(&mut client, &task, version).await?;
            let (adapter, trained) = state.shipped(plan.shipped_rank()).map_err(CliError::internal)?;
            let base = base_name.unwrap_or_else(|| format!("sha256:{}", plan.base));
            match format {
                Layout::Peft => export::write_peft(&out, &adapter, &[], &trained, &base)
                    .map_err(|error| CliError::Store(error.to_string()))?,
            }
            let written = json!({ "task": task.task, "version": version, "out": out });
            print(output, &written, |_| format!("version {version} written to {}", out.display()))
        }
        Command::Ls { output } => {
            let rows: Vec<Row> = tasks(&mut client).await?.iter().flat_map(rows).collect();
            print(output.format, &rows, |rows| {
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

fn rows(task: &TaskStatus) -> Vec<Row> {
    let row = |version: &proto::admin::VersionStatus| Row {
        task: task.task.to_string(),
        name: task.name.clone(),
        version: version.version,
        survivors: version.survivors,
        epsilon: version.epsilon,
        adapter: version.adapter,
    };
    task.versions.iter().map(row).collect()
}

/// A version of the adapter, with all that it is made of.
async fn fetch(client: &mut AdminClient, task: &TaskStatus, version: u32) -> Result<(Plan, State), CliError> {
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
    Ok((plan, state))
}

fn vector(bytes: &[u8]) -> Result<Vec<f32>, CliError> {
    vector_from_bytes(bytes).ok_or_else(|| CliError::Internal("an adapter is no list of numbers".to_owned()))
}
