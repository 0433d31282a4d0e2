//! `nightshift task`: create, list, show, stop and watch tasks.

mod funnel;
mod versions;
mod waiting;

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use coordinator::cli::CliError;
use coordinator::driver::now;
use proto::admin::{AdminRequest, TaskState, TaskStatus};
use proto::ids::TaskId;
use proto::shown::shown;
use serde_json::json;
use shell::cli::{Format, note};
use task::gain::{best, standings};
use tokio::time::sleep;

use super::eval;
use super::planning::{PlanArguments, prepare};
use crate::bases;
use crate::connection::{connect, find_task, task_in, tasks};
use crate::evals::{self, Own};
use crate::output::{Output, adversary, epsilon, line, print, state, table};
use versions::{document, standing, version_line};
use waiting::Waits;

/// What the document of one task is.
const TASK: &str = "nightshift.task/1";

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
    /// Show one task, whom it waits for, how far devices came with its newest versions, and its versions.
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
    /// Let a task go on that paused itself, because two versions in a row were worse than the ones before.
    Resume {
        /// The task: its id, the beginning of it, or its label.
        task: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print a line for every new version until the task ends, and on stderr whom it waits for and how it ended. With JSON: the
    /// task at its end.
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
            // What cannot be read is said before devices spend their nights.
            let text = plan.text.as_ref().map(|text| std::path::absolute(text).map_err(CliError::input));
            let text = text.transpose()?;
            if let Some(text) = &text {
                eval::read(text)?;
            }
            let prepared = prepare(&plan).await?;
            for line in prepared.prediction.lines() {
                note(&line);
            }
            let mut client = connect(dir).await?;
            let request = AdminRequest::CreateTask { plan: prepared.plan, frozen: prepared.frozen };
            let task = task_in(client.call(request).await?)?;
            if let Some((base, path)) = prepared.base {
                // That it is not remembered costs a name in what is pulled, and no task.
                if let Err(error) = bases::remember(dir, base, &path) {
                    note(&format!("where the base lies is not remembered: {error}"));
                }
            }
            if let Some(text) = text {
                let own = Own { text: Some(text), measured: None };
                if let Err(error) = evals::remember(dir, task.task, own) {
                    note(&format!("where your text lies is not remembered: {error}"));
                }
            }
            let document = json!({ "task": document(&task)?, "predicted": prepared.prediction });
            print(output.format, "nightshift.task-created/1", &document, |_| task.task.to_string())
        }
        Command::Ls { output } => {
            let tasks = tasks(&mut connect(dir).await?).await?;
            let documents = tasks.iter().map(document).collect::<Result<Vec<_>, _>>()?;
            print(output.format, "nightshift.tasks/1", &json!({ "tasks": documents }), |_| {
                table(
                    &["TASK", "NAME", "STATE", "VERSION", "EPSILON", "ROUND"],
                    &tasks.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
        Command::Show { task, output } => {
            let mut client = connect(dir).await?;
            let task = find_task(&mut client, &task).await?;
            let task = task_in(client.call(AdminRequest::ShowTask(task.task)).await?)?;
            let own = evals::of(dir, task.task).measured;
            let mut document = document(&task)?;
            if let (Some(own), Some(fields)) = (&own, document.as_object_mut()) {
                fields.insert("own_text".to_owned(), versions::own_document(own));
            }
            print(output.format, TASK, &document, |_| {
                let lines = std::iter::once(describe(&task)).chain(own.as_ref().map(versions::own));
                lines.collect::<Vec<_>>().join("\n")
            })
        }
        Command::Stop { task, output } => {
            let mut client = connect(dir).await?;
            let task = find_task(&mut client, &task).await?;
            let task = task_in(client.call(AdminRequest::StopTask(task.task)).await?)?;
            print(output.format, TASK, &document(&task)?, |_| describe(&task))
        }
        Command::Resume { task, output } => {
            let mut client = connect(dir).await?;
            let task = find_task(&mut client, &task).await?;
            let task = task_in(client.call(AdminRequest::ResumeTask(task.task)).await?)?;
            print(output.format, TASK, &document(&task)?, |_| describe(&task))
        }
        Command::Watch { task, output } => {
            let task = find_task(&mut connect(dir).await?, &task).await?;
            let task = watch(dir, task, output.format).await?;
            if output.format == Format::Json {
                print(output.format, TASK, &document(&task)?, |_| String::new())?;
            }
            ended(&task)
        }
    }
}

/// How a watch ends: with a word on stderr, and a failure where there are fewer versions than the plan wants.
fn ended(task: &TaskStatus) -> Result<(), CliError> {
    let (version, wanted, state) = (task.version, task.versions_wanted, state(task.state));
    match task.state {
        TaskState::Complete => {
            note(&format!("the task ended ({state}) at version {version} of {wanted}"));
            Ok(())
        }
        TaskState::Paused => Err(CliError::Ended(format!("the task waits ({state}) {}", paused(task)))),
        TaskState::BudgetSpent => Err(CliError::Ended(format!(
            "the task ended ({state}) at version {version} of {wanted}: too few devices may take part once more"
        ))),
        TaskState::Stopped | TaskState::Active => {
            Err(CliError::Ended(format!("the task ended ({state}) at version {version} of {wanted}")))
        }
    }
}

/// Follows a task to its end.
async fn watch(dir: &Path, mut task: TaskStatus, format: Format) -> Result<TaskStatus, CliError> {
    let (mut told, mut failures) = (0, 0);
    let mut waits = Waits::default();
    let (mut aborts, mut declined) = (task.last_abort.clone(), Vec::new());
    loop {
        for version in task.versions.iter().filter(|version| version.version > told) {
            match format {
                Format::Text => line(&version_line(&task.versions, version))?,
                Format::Json => note(&version_line(&task.versions, version)),
            }
        }
        told = task.version;
        if task.declined != declined {
            for declines in funnel::declines(&task) {
                note(&format!("devices that do not take part, {declines}"));
            }
            declined.clone_from(&task.declined);
        }
        if task.last_abort != aborts {
            note(&format!("a round was aborted: {}", shown(&task.last_abort)));
            aborts.clone_from(&task.last_abort);
        }
        if task.state != TaskState::Active {
            return Ok(task);
        }
        if let Some(waits) = waits.looked(&task, now().0) {
            note(&waits);
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
    vec![
        task.task.to_string(),
        task.name.clone(),
        state(task.state).to_owned(),
        format!("{}/{}", task.version, task.versions_wanted),
        epsilon(task.epsilon),
        waiting::in_short(task),
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
    lines.extend(waiting::of(task, now().0).map(|waits| format!("open       {waits}")));
    if !task.last_abort.is_empty() {
        lines.push(format!("last abort {}", shown(&task.last_abort)));
    }
    lines.extend(funnel::declines(task).iter().map(|declines| format!("declined   {declines}")));
    lines.extend(funnel::steps(task).filter(|_| !task.state.is_over()));
    if task.state == TaskState::Paused {
        lines.push(format!("paused     {}", paused(task)));
    }
    if standings(&task.versions).len() > 1 {
        lines.extend(
            standing(&task.versions, &best(&task.versions)).map(|standing| format!("best       {standing}")),
        );
    }
    lines.extend(task.versions.iter().map(|version| version_line(&task.versions, version)));
    lines.join("\n")
}

/// Why a task waits for its operator, and what to do.
fn paused(task: &TaskStatus) -> String {
    let (name, version) = (shown(&task.name), task.version);
    format!(
        "at version {version} of {}: two versions in a row were worse than the ones before, by what their devices measured; \
         more noise than they can teach is the usual reason. `nightshift task resume {name}` goes on, `task stop` ends it",
        task.versions_wanted
    )
}
