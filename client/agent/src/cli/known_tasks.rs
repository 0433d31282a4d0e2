//! The tasks that a device has to do with, and the one that its user means.

use std::collections::{BTreeMap, BTreeSet};

use client::Status;
use client::store::{Entry, short_name};
use proto::counted::counted;
use proto::ids::TaskId;
use proto::shown::shown;
use serde::Serialize;

use super::spent::{epsilons, spent};

/// What a device has to do with a task.
#[derive(Clone, Debug, Serialize)]
pub(super) struct KnownTask {
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

/// The tasks that a device took part in, heard of, holds a version of, or was told to forget.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct KnownTasks(Vec<KnownTask>);

impl KnownTasks {
    pub(super) fn of(status: &Status, entries: &[Entry]) -> Self {
        let ((spending, deltas), epsilons) = (spent(entries), epsilons(entries));
        let installed: BTreeMap<TaskId, u32> =
            status.installed.iter().map(|held| (held.task, held.version)).collect();
        let known = deltas.keys().chain(installed.keys()).chain(&status.forgotten).chain(status.names.keys());
        let all: BTreeSet<TaskId> = known.copied().collect();
        let of = |task| KnownTask {
            task,
            name: status.names.get(&task).cloned(),
            contributions: spending.participations(task),
            epsilon: epsilons.get(&task).copied().flatten(),
            installed: installed.get(&task).copied(),
            forgotten: status.forgotten.contains(&task),
        };
        Self(all.into_iter().map(of).collect())
    }

    /// The one that a user means by its name or the beginning of its id; else why it is not known.
    pub(super) fn meant(&self, named: &str) -> Result<TaskId, String> {
        let name = short_name(named);
        let by_name = |task: &&KnownTask| !named.is_empty() && task.name.as_ref() == Some(&name);
        let by_id = |task: &&KnownTask| !named.is_empty() && task.task.to_string().starts_with(named);
        let mut found: Vec<&KnownTask> = self.0.iter().filter(by_name).collect();
        if found.is_empty() {
            found = self.0.iter().filter(by_id).collect();
        }
        let which = shown(named);
        match found.as_slice() {
            [one] => Ok(one.task),
            [] if self.0.is_empty() => {
                Err(format!("there is no task `{which}`: this device knows of none yet"))
            }
            [] => Err(format!("there is no task `{which}`; this device knows {}", listed(self.0.iter()))),
            several => {
                let several = listed(several.iter().copied());
                Err(format!("`{which}` is more than one task; give the id of one: {several}"))
            }
        }
    }

    /// For people; nothing where there is none.
    pub(super) fn text(&self) -> Option<String> {
        let lines: Vec<String> = self.0.iter().map(KnownTask::text).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// In one line.
fn listed<'a>(tasks: impl Iterator<Item = &'a KnownTask>) -> String {
    let one = |task: &KnownTask| match &task.name {
        Some(name) => format!("{} ({name}, {})", task.task, task.state()),
        None => format!("{} ({})", task.task, task.state()),
    };
    tasks.map(one).collect::<Vec<_>>().join(", ")
}

impl KnownTask {
    /// Whether a version is held, and whether its user left it.
    fn state(&self) -> String {
        let installed = self
            .installed
            .map_or("not installed".to_owned(), |version| format!("version {version} installed"));
        if self.forgotten { format!("{installed}, forgotten") } else { installed }
    }

    fn text(&self) -> String {
        let epsilon = self.epsilon.map_or(String::new(), |epsilon| format!(", epsilon {epsilon:.3}"));
        let name = self.name.as_ref().map_or(String::new(), |name| format!("{name}, "));
        let (task, state) = (self.task, self.state());
        let contributions = counted(self.contributions, "contribution", "contributions");
        format!("{task}  {name}{contributions}{epsilon}, {state}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8) -> TaskId {
        let mut id = [7; 16];
        id[0] = first;
        TaskId(id)
    }

    fn known() -> KnownTasks {
        let long = "x".repeat(80);
        let names = [(1, "owl"), (2, "wren"), (0x20, "owl"), (3, &long)];
        let status = Status {
            names: names.map(|(first, name)| (id(first), short_name(name))).into(),
            forgotten: [id(1), id(0x21)].into(),
            ..Status::default()
        };
        KnownTasks::of(&status, &[])
    }

    #[test]
    fn a_task_is_meant_by_its_name_or_the_beginning_of_its_id() {
        let known = known();
        assert_eq!(known.meant("wren"), Ok(id(2)));
        assert_eq!(known.meant("21"), Ok(id(0x21)), "of which no name is known");
        assert_eq!(known.meant(&"x".repeat(80)), Ok(id(3)), "a name that is longer than what is kept of it");
    }

    #[test]
    fn two_of_a_name_are_listed_with_their_ids() {
        let error = known().meant("owl").unwrap_err();
        let listed = format!("{} (owl, not installed, forgotten), {} (owl, not installed)", id(1), id(0x20));
        assert_eq!(error, format!("`owl` is more than one task; give the id of one: {listed}"));
        let error = known().meant("2").unwrap_err();
        assert!(error.contains(&id(0x20).to_string()) && error.contains(&id(0x21).to_string()), "{error}");
    }

    #[test]
    fn one_that_is_not_known_is_answered_with_those_that_are() {
        let error = known().meant("eagle").unwrap_err();
        assert!(
            error.starts_with("there is no task `eagle`; this device knows ") && error.contains("wren"),
            "{error}"
        );
        assert!(known().meant("").is_err());
        let none = KnownTasks::of(&Status::default(), &[]).meant("owl").unwrap_err();
        assert_eq!(none, "there is no task `owl`: this device knows of none yet");
    }
}
