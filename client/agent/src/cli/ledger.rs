//! What a device ever contributed and what that cost its user: `ledger` and `tasks`.

use std::collections::BTreeMap;

use client::store::Entry;
use proto::counted::counted;
use proto::ids::{TaskId, Timestamp};
use session::policy::Policy;
use session::spending::Spending;
use shell::cli::Format;

use super::asked::{Asked, no_device};
use super::known_tasks::KnownTasks;
use super::spent::{epsilon, has_bound, spent};
use super::time::at;
use super::{Failure, device_failure, failed, print};
use crate::config::Config;

/// Prints all contributions, and what they cost in total. Only without a daemon can the chain be walked on disk.
pub(super) fn ledger(config: &Config, verify: bool, format: Format) -> Result<(), Failure> {
    let asked = Asked::open_to_tell(config)?;
    if verify {
        match &asked {
            Asked::Folder(device) => {
                device.store().verify().map_err(|error| device_failure(client::Error::from(error)))?;
            }
            Asked::Nothing => return Err(no_device(config)),
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
        "{:20}  {:32}  {:>7}  {:>8}  {:>12}  epsilon so far",
        "when", "task", "version", "examples", "bytes"
    )];
    let mut is_bounded = true;
    let mut so_far = |spending: &Spending, of: (TaskId, f64)| {
        is_bounded &= has_bound(spending, of);
        epsilon(spending, of)
    };
    for entry in entries {
        match entry {
            Entry::Charge { unix_millis, charge } => {
                spending.add(charge, Timestamp(*unix_millis));
                let epsilon = so_far(&spending, (charge.task, charge.delta));
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
                let epsilon = so_far(&spending, (found.task, found.delta));
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
        lines.push(limit(policy, is_bounded));
        let total = spending.epsilon_in_total(delta);
        let total = if total.is_finite() { format!("{total:.3}") } else { "unbounded".to_owned() };
        let most = policy
            .largest_epsilon_in_total
            .map_or("no limit".to_owned(), |most| format!("the limit is {most}"));
        lines.push(format!("all tasks together: epsilon {total} at δ = {:e}, {most}", policy.largest_delta));
        lines.push(privacy::accountant::ADJACENCY.to_owned());
    }
    if verified {
        lines.push(format!("the chain of {} is whole", counted(entries.len(), "record", "records")));
    }
    lines.join("\n")
}

/// Where this device stops in a task by its limit of ε, which rounds without the devices' own noise have none of.
fn limit(policy: &Policy, is_bounded: bool) -> String {
    let noised = format!(
        "in a task with noise of its devices' own this device stops at epsilon {}",
        policy.largest_epsilon
    );
    match (is_bounded && !policy.allow_without_noise, policy.allow_without_noise) {
        (true, _) => noised,
        (false, true) => {
            format!("{noised}; rounds without it have no bound, and `allow_without_noise` lets them go on")
        }
        (false, false) => {
            format!("{noised}; rounds without it have no bound, and it takes part in no more of them")
        }
    }
}

/// Lists the tasks that the device has to do with.
pub(super) fn tasks(config: &Config, format: Format) -> Result<(), Failure> {
    let asked = Asked::open_to_tell(config)?;
    let tasks = KnownTasks::of(&asked.status()?, &asked.entries()?);
    print(format, &tasks, || tasks.text().unwrap_or_else(|| "this device knows of no task yet".to_owned()))
}

#[cfg(test)]
mod tests {
    use privacy::accountant::RdpCurve;
    use proto::ids::Digest;
    use proto::plan::Plan;
    use session::spending::Charge;

    use super::*;

    fn charge(task: u8, cost: RdpCurve) -> Entry {
        let (task, plan) = (TaskId([task; 16]), Digest([1; 32]));
        let charge = Charge { task, version: 1, round: 1, plan, cost, delta: 1e-5, bytes: 9, examples: 4 };
        Entry::Charge { unix_millis: 1_700_000_000_000, charge }
    }

    #[test]
    fn what_is_said_of_a_limit_is_true_beside_rows_that_have_no_bound() {
        let plan = Plan::example();
        let exact = Plan {
            privacy: proto::plan::PrivacyPlan { mode: proto::plan::Mode::Off, ..plan.privacy.clone() },
            ..plan.clone()
        };
        let (noised, exact) = (plan.participation_cost(), exact.participation_cost());
        let said = |costs: &[&RdpCurve], allow_without_noise| {
            let entries: Vec<Entry> =
                (1..).zip(costs).map(|(task, cost)| charge(task, (*cost).clone())).collect();
            let policy = Policy { allow_without_noise, ..Policy::default() };
            page(&entries, &BTreeMap::new(), &policy, false)
        };
        let most = Policy::default().largest_epsilon;
        let stops = format!("in a task with noise of its devices' own this device stops at epsilon {most}");
        let of = |page: String| {
            page.lines().find(|line| line.starts_with(&stops)).unwrap()[stops.len()..].to_owned()
        };
        assert_eq!(of(said(&[&noised], false)), "");
        let none = said(&[&noised, &exact], false);
        assert!(none.contains("unbounded: a round had no noise"), "{none}");
        assert_eq!(of(none), "; rounds without it have no bound, and it takes part in no more of them");
        let lets = "; rounds without it have no bound, and `allow_without_noise` lets them go on";
        assert_eq!((of(said(&[&exact], true)).as_str(), of(said(&[&noised], true)).as_str()), (lets, lets));
        assert!(!said(&[&noised], false).lines().next().unwrap().contains("stops"));
    }
}
