//! What a device ever contributed and what that cost its user: `ledger` and `tasks`.

use std::collections::BTreeMap;

use client::store::Entry;
use proto::ids::{TaskId, Timestamp};
use serde::Serialize;
use session::policy::Policy;
use session::spending::Spending;
use shell::cli::Format;

use super::asked::Asked;
use super::time::at;
use super::{Failure, device_failure, failed, print};
use crate::config::Config;

/// Prints all contributions, and what they cost in total. Only without a daemon can the chain be walked on disk.
pub(super) fn ledger(config: &Config, verify: bool, format: Format) -> Result<(), Failure> {
    let asked = Asked::open(config)?;
    if verify {
        match &asked {
            Asked::Folder(device) => {
                device.store().verify().map_err(|error| device_failure(client::Error::from(error)))?;
            }
            Asked::Nothing => {}
            Asked::Daemon(_) => {
                let why = "an agent runs and holds the ledger; stop it first, or leave --verify out: it walked the \
                           chain when it started";
                return Err(failed(4)(anyhow::anyhow!(why)));
            }
        }
    }
    let entries = asked.entries()?;
    let names = asked.status()?.names;
    print(format, &entries, || page(&entries, &names, &config.policy, verify))
}

fn page(entries: &[Entry], names: &BTreeMap<TaskId, String>, policy: &Policy, verified: bool) -> String {
    let mut spending = Spending::new();
    let mut lines = vec![format!(
        "{:20}  {:32}  {:>7}  {:>8}  {:>12}  epsilon so far (this device stops at {})",
        "when", "task", "version", "examples", "bytes", policy.largest_epsilon
    )];
    for entry in entries {
        match entry {
            Entry::Charge { unix_millis, charge } => {
                spending.add(charge, Timestamp(*unix_millis));
                let epsilon = epsilon(&spending, (charge.task, charge.delta));
                lines.push(format!(
                    "{:20}  {}  {:>7}  {:>8}  {:>12}  {epsilon}",
                    at(*unix_millis),
                    charge.task,
                    charge.version,
                    charge.examples,
                    charge.bytes
                ));
            }
            Entry::FoundAtCoordinator { unix_millis, found } => {
                spending.add_found(found, Timestamp(*unix_millis));
                let epsilon = epsilon(&spending, (found.task, found.delta));
                let what = format!("{} found at the coordinator", found.times);
                lines.push(format!("{:20}  {}  {what:>31}  {epsilon}", at(*unix_millis), found.task));
            }
            Entry::Signature(_) | Entry::Answer(_) => {}
        }
    }
    lines.extend(
        spent(entries).1.keys().filter_map(|task| Some(format!("{task} is the task {}", names.get(task)?))),
    );
    if spending.in_total() == 0 {
        lines = vec!["this device has not contributed anything".to_owned()];
    } else if let Ok(delta) = privacy::Delta::new(policy.largest_delta) {
        let total = spending.epsilon_in_total(delta);
        let total = if total.is_finite() { format!("{total:.3}") } else { "unbounded".to_owned() };
        let most = policy
            .largest_epsilon_in_total
            .map_or("no limit".to_owned(), |most| format!("the limit is {most}"));
        lines.push(format!("all tasks together: epsilon {total} at δ = {:e}, {most}", policy.largest_delta));
        lines.push(privacy::accountant::ADJACENCY.to_owned());
    }
    if verified {
        lines.push(format!("the chain of {} records is whole", entries.len()));
    }
    lines.join("\n")
}

/// By this device's own accountant, from its own records.
fn epsilon(spending: &Spending, (task, delta): (TaskId, f64)) -> String {
    match privacy::Delta::new(delta).map(|delta| spending.epsilon(task, delta)) {
        Ok(epsilon) if epsilon.is_finite() => format!("{epsilon:.3} at δ = {delta:e}"),
        Ok(_) => "unbounded: a round had no noise of the devices' own".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What a device has to do with a task.
#[derive(Debug, Serialize)]
struct Known {
    task: TaskId,
    /// As its plan calls it; none where that is not known.
    name: Option<String>,
    /// Rounds that its ledger has charges of.
    contributions: u32,
    /// By the device's own accountant; none where it is unbounded or nothing was contributed.
    epsilon: Option<f64>,
    /// The version that is installed.
    installed: Option<u32>,
    /// Whether its user left it.
    forgotten: bool,
}

/// What the ledger's records add up to, and the δ of each task in it.
fn spent(entries: &[Entry]) -> (Spending, BTreeMap<TaskId, Option<f64>>) {
    let mut spending = Spending::new();
    let mut deltas: BTreeMap<TaskId, Option<f64>> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Charge { unix_millis, charge } => {
                spending.add(charge, Timestamp(*unix_millis));
                deltas.insert(charge.task, Some(charge.delta));
            }
            Entry::FoundAtCoordinator { unix_millis, found } => {
                spending.add_found(found, Timestamp(*unix_millis));
                deltas.insert(found.task, Some(found.delta));
            }
            Entry::Signature(_) | Entry::Answer(_) => {}
        }
    }
    (spending, deltas)
}

/// ε of each task in the ledger, by the device's own accountant; none where it has no bound.
pub(super) fn epsilons(entries: &[Entry]) -> BTreeMap<TaskId, Option<f64>> {
    let (spending, deltas) = spent(entries);
    let epsilon = |(task, delta): (TaskId, Option<f64>)| {
        let delta = delta.and_then(|delta| privacy::Delta::new(delta).ok());
        let epsilon = delta.map(|delta| spending.epsilon(task, delta));
        (task, epsilon.filter(|epsilon| epsilon.is_finite()))
    };
    deltas.into_iter().map(epsilon).collect()
}

/// Lists the tasks that the device took part in, holds a version of, or was told to forget.
pub(super) fn tasks(config: &Config, format: Format) -> Result<(), Failure> {
    let asked = Asked::open(config)?;
    let (entries, status) = (asked.entries()?, asked.status()?);
    let ((spending, mut deltas), epsilons) = (spent(&entries), epsilons(&entries));
    for task in
        status.installed.iter().map(|published| published.task).chain(status.forgotten.iter().copied())
    {
        deltas.entry(task).or_default();
    }
    let tasks: Vec<Known> = deltas
        .into_keys()
        .map(|task| Known {
            task,
            name: status.names.get(&task).cloned(),
            contributions: spending.participations(task),
            epsilon: epsilons.get(&task).copied().flatten(),
            installed: status
                .installed
                .iter()
                .find(|installed| installed.task == task)
                .map(|installed| installed.version),
            forgotten: status.forgotten.contains(&task),
        })
        .collect();
    print(format, &tasks, || {
        if tasks.is_empty() {
            return "this device has not taken part in any task".to_owned();
        }
        let line = |task: &Known| {
            let installed = task
                .installed
                .map_or("not installed".to_owned(), |version| format!("version {version} installed"));
            let epsilon = task.epsilon.map_or(String::new(), |epsilon| format!(", epsilon {epsilon:.3}"));
            let forgotten = if task.forgotten { ", forgotten" } else { "" };
            let name = task.name.as_ref().map_or(String::new(), |name| format!("{name}, "));
            format!(
                "{}  {name}{} contributions{epsilon}, {installed}{forgotten}",
                task.task, task.contributions
            )
        };
        tasks.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}
