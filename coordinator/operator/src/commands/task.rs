//! `nightshift task`: create, list, show, stop and watch tasks.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use coordinator::cli::CliError;
use proto::admin::{AdminRequest, MeanMetric, TaskState, TaskStatus, VersionStatus};
use proto::ids::TaskId;
use proto::shown::shown;
use serde_json::json;
use shell::cli::{Format, note};
use tokio::time::sleep;

use super::planning::{PlanArguments, prepare};
use crate::connection::{connect, find_task, task_in, tasks};
use crate::output::{Output, adversary, epsilon, line, print, state, table};

const POLL: Duration = Duration::from_secs(1);

/// Polls in a row that may fail before a watch gives up: the coordinator may be restarting.
const PATIENCE: u32 = 30;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a task. Says first what it will reveal and be worth.
    #[command(allow_negative_numbers = true)]
    Create {
        #[command(flatten)]
        plan: Box<PlanArguments>,
        #[command(flatten)]
        output: Output,
    },
    /// List all tasks.
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Show one task and its versions.
    Show {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        #[command(flatten)]
        output: Output,
    },
    /// End a task; its versions stay.
    Stop {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print a line for every new version, until the task ends. With JSON: the task at its end.
    Watch {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    match command {
        Command::Create { plan, output } => {
            let prepared = prepare(&plan)?;
            for line in prepared.prediction.lines() {
                note(&line);
            }
            let mut client = connect(dir).await?;
            let request = AdminRequest::CreateTask { plan: prepared.plan, frozen: prepared.frozen };
            let task = task_in(client.call(request).await?)?;
            let document = json!({ "task": task, "predicted": prepared.prediction });
            print(output.format, &document, |_| task.task.to_string())
        }
        Command::Ls { output } => {
            let tasks = tasks(&mut connect(dir).await?).await?;
            print(output.format, &tasks, |tasks| {
                table(
                    &["TASK", "NAME", "STATE", "VERSION", "EPSILON", "ROUND"],
                    &tasks.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
        Command::Show { task, output } => {
            let task = find_task(&mut connect(dir).await?, &task).await?;
            print(output.format, &task, describe)
        }
        Command::Stop { task, output } => {
            let mut client = connect(dir).await?;
            let task = find_task(&mut client, &task).await?;
            let task = task_in(client.call(AdminRequest::StopTask(task.task)).await?)?;
            print(output.format, &task, describe)
        }
        Command::Watch { task, output } => {
            let task = find_task(&mut connect(dir).await?, &task).await?;
            let task = watch(dir, task, output.format).await?;
            if output.format == Format::Json {
                print(output.format, &task, |_| String::new())?;
            }
            match task.state {
                TaskState::Complete => Ok(()),
                TaskState::Active | TaskState::BudgetSpent | TaskState::Stopped => {
                    let (version, wanted, state) = (task.version, task.versions_wanted, state(task.state));
                    let text = format!("the task ended ({state}) at version {version} of {wanted}");
                    Err(CliError::Ended(text))
                }
            }
        }
    }
}

/// Follows a task to its end.
async fn watch(dir: &Path, mut task: TaskStatus, format: Format) -> Result<TaskStatus, CliError> {
    let (mut told, mut failures) = (0, 0);
    let mut aborts = task.last_abort.clone();
    loop {
        for version in task.versions.iter().filter(|version| version.version > told) {
            match format {
                Format::Text => line(&version_line(version))?,
                Format::Json => note(&version_line(version)),
            }
        }
        told = task.version;
        if task.last_abort != aborts {
            note(&format!("a round was aborted: {}", shown(&task.last_abort)));
            aborts.clone_from(&task.last_abort);
        }
        if task.state != TaskState::Active {
            return Ok(task);
        }
        sleep(POLL).await;
        match poll(dir, task.task).await {
            Ok(now) => (task, failures) = (now, 0),
            Err(CliError::Network(why)) if failures < PATIENCE => {
                if failures == 0 {
                    note(&format!("waiting for the coordinator: {}", shown(&why)));
                }
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn poll(dir: &Path, task: TaskId) -> Result<TaskStatus, CliError> {
    task_in(connect(dir).await?.call(AdminRequest::ShowTask(task)).await?)
}

fn row(task: &TaskStatus) -> Vec<String> {
    let round = if task.open_round.is_empty() { "-" } else { &task.open_round };
    vec![
        task.task.to_string(),
        task.name.clone(),
        state(task.state).to_owned(),
        format!("{}/{}", task.version, task.versions_wanted),
        epsilon(task.epsilon),
        round.to_owned(),
    ]
}

fn describe(task: &TaskStatus) -> String {
    let mut lines = vec![
        format!("task       {} ({})", task.task, shown(&task.name)),
        format!("state      {}", state(task.state)),
        format!("version    {} of {}", task.version, task.versions_wanted),
        format!("epsilon    {} at δ = {:e}", epsilon(task.epsilon), task.delta),
        format!("           {}", adversary(task.mode)),
        format!("rounds     {} charged", task.rounds_charged),
        format!("plan       {}", task.plan),
        format!("adapter    {}", task.adapter),
    ];
    for (name, text) in [("open round", &task.open_round), ("last abort", &task.last_abort)] {
        if !text.is_empty() {
            lines.push(format!("{name} {}", shown(text)));
        }
    }
    if !task.declined.is_empty() {
        lines.extend(task.declined.iter().map(|(reason, devices)| format!("declined   {devices}: {reason}")));
    }
    lines.extend(task.versions.iter().map(version_line));
    lines.join("\n")
}

fn version_line(version: &VersionStatus) -> String {
    let VersionStatus { version, cohort, survivors, round, epsilon: spent, metrics, .. } = version;
    let spent = epsilon(*spent);
    let metric = |MeanMetric { name, mean, standard_deviation }: &MeanMetric| match standard_deviation {
        0.0 => format!(", {name} {mean:.3}"),
        deviation => format!(", {name} {mean:.3} ± {deviation:.3}"),
    };
    let metrics: String = metrics.iter().map(metric).collect();
    format!("version {version}: {survivors} of {cohort} devices, round {round}, epsilon {spent}{metrics}")
}
