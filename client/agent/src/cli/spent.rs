//! What a ledger's records cost their user, task by task.

use std::collections::BTreeMap;

use client::store::Entry;
use proto::ids::{TaskId, Timestamp};
use session::spending::Spending;

/// Whether what a task cost has a bound, by the same accountant.
pub(super) fn has_bound(spending: &Spending, (task, delta): (TaskId, f64)) -> bool {
    privacy::Delta::new(delta).is_ok_and(|delta| spending.epsilon(task, delta).is_finite())
}

/// By this device's own accountant, from its own records.
pub(super) fn epsilon(spending: &Spending, (task, delta): (TaskId, f64)) -> String {
    match privacy::Delta::new(delta).map(|delta| spending.epsilon(task, delta)) {
        Ok(epsilon) if epsilon.is_finite() => format!("{epsilon:.3} at δ = {delta:e}"),
        Ok(_) => "unbounded: a round had no noise of the devices' own".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What the ledger's records add up to, and the δ of each task in it.
pub(super) fn spent(entries: &[Entry]) -> (Spending, BTreeMap<TaskId, Option<f64>>) {
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
