//! What a device ever contributed and what that cost its user: `ledger` and `tasks`.

use std::collections::BTreeMap;

use client::store::Entry;
use proto::ids::{TaskId, Timestamp};
use session::policy::Policy;
use session::spending::Spending;
use shell::cli::Format;

use super::asked::Asked;
use super::known_tasks::KnownTasks;
use super::spent::{epsilon, spent};
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

/// Lists the tasks that the device has to do with.
pub(super) fn tasks(config: &Config, format: Format) -> Result<(), Failure> {
    let asked = Asked::open(config)?;
    let tasks = KnownTasks::of(&asked.status()?, &asked.entries()?);
    print(format, &tasks, || tasks.text().unwrap_or_else(|| "this device knows of no task yet".to_owned()))
}
