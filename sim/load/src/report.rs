//! What came of a load: an object that says first what it is, and that adds up over the processes that made the load.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generator::Generator;
use crate::shape::Shape;
use crate::shard::Shard;
use crate::tally::{CHECK_IN, Tally};

/// What the object says that it is. Within one number fields are added, and none is taken away or means something else.
pub const SCHEMA: &str = "nightshift.load/1";

/// What was asked for, alike in all processes of one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Where the coordinator is.
    pub coordinator: String,
    /// Devices, in all processes together.
    pub devices: u32,
    /// How they come.
    pub shape: Shape,
    /// For how long, in seconds.
    pub secs: u32,
    /// New versions after which it ends; none where only the time does.
    pub versions: Option<u32>,
    /// Seconds that a device takes for what would be a training.
    pub train_secs: f64,
    /// By how much a device moves each number of an adapter.
    pub step: f32,
}

/// Why a process ended its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its time was over.
    Time,
    /// There were as many new versions as were asked for.
    Versions,
    /// All tasks are over for all of its devices that could be played.
    NoMoreWork,
    /// None of its devices could be played.
    NoDevice,
    /// It was told to.
    Interrupted,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Which one.
    pub shard: Shard,
    /// Its devices.
    pub devices: u32,
    /// Those of them that it enrolled first.
    pub enrolled: u32,
    /// When its load began, in milliseconds since 1970.
    pub began_unix_millis: u64,
    /// How long it lasted, in milliseconds.
    pub lasted_millis: u64,
    /// Why it ended.
    pub ended: Ended,
    /// What it is itself.
    pub generator: Generator,
}

impl Process {
    /// When its load ended, in milliseconds since 1970.
    fn ended_unix_millis(&self) -> u64 {
        self.began_unix_millis.saturating_add(self.lasted_millis)
    }
}

/// What follows from what was counted, for whoever does not want to work it out. Not read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// From the first beginning to the last end, in seconds.
    pub secs: f64,
    /// Check-ins that were answered, each second.
    pub check_ins_per_sec: f64,
    /// The same in the busiest second.
    pub most_check_ins_in_a_sec: u64,
    /// Questions of all kinds that were answered, each second.
    pub requests_per_sec: f64,
    /// Rounds that ended, each hour.
    pub rounds_per_hour: f64,
    /// New versions, each hour. One may take several rounds.
    pub versions_per_hour: f64,
    /// Bytes that devices sent, each second.
    pub sent_bytes_per_sec: f64,
    /// Bytes that devices received, each second.
    pub received_bytes_per_sec: f64,
    /// Why what was measured is a limit of what measured, and not of the coordinator; nothing where it is not.
    pub generator_was_the_limit: Vec<String>,
    /// Processes of this load that are not in this report.
    pub missing_shards: Vec<u32>,
}

/// What came of a load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of the program.
    pub program: String,
    /// What was asked for.
    pub load: Load,
    /// The processes, in their order.
    pub processes: Vec<Process>,
    /// What follows.
    pub rates: Rates,
    /// What was counted.
    pub counted: Tally,
}

/// Reports that are not of one load.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("there is no report to merge")]
    Nothing,
    /// Another form.
    #[error("the report is a {found:?}, this program merges {SCHEMA}")]
    Schema {
        /// What it says that it is.
        found: String,
    },
    /// Another load.
    #[error("the reports are of two loads: {what} is {one} in one and {other} in another")]
    OtherLoad {
        /// What differs.
        what: &'static str,
        /// In one.
        one: String,
        /// In another.
        other: String,
    },
    /// The same process twice.
    #[error("shard {0} is there twice: its devices would count twice")]
    Twice(Shard),
}

impl Report {
    /// The report of one process.
    pub(crate) fn of(load: Load, process: Process, counted: Tally) -> Self {
        let mut report = Self {
            schema: SCHEMA.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            load,
            processes: vec![process],
            rates: Rates::default(),
            counted,
        };
        report.rates = report.rates();
        report
    }

    /// One report of those of several processes, or of such. What each counted adds up exactly; which of them are missing is
    /// said in it.
    pub fn merge(reports: impl IntoIterator<Item = Self>) -> Result<Self, MergeError> {
        let mut all: Option<Self> = None;
        for report in reports {
            if report.schema != SCHEMA {
                return Err(MergeError::Schema { found: report.schema });
            }
            let Some(sum) = &mut all else {
                all = Some(report);
                continue;
            };
            sum.is_of_the_same(&report)?;
            for process in report.processes {
                if sum.processes.iter().any(|known| known.shard == process.shard) {
                    return Err(MergeError::Twice(process.shard));
                }
                sum.processes.push(process);
            }
            sum.counted.add(&report.counted);
        }
        let mut all = all.ok_or(MergeError::Nothing)?;
        all.processes.sort_by_key(|process| process.shard);
        all.rates = all.rates();
        Ok(all)
    }

    fn is_of_the_same(&self, other: &Self) -> Result<(), MergeError> {
        let of = |report: &Self| {
            let Load { coordinator, devices, shape, secs, versions, train_secs, step } = &report.load;
            [
                ("the program", report.program.clone()),
                ("the coordinator", coordinator.clone()),
                ("the number of devices", devices.to_string()),
                ("the shape", shape.to_string()),
                ("the time", format!("{secs} s")),
                ("the number of versions", versions.map_or("none".to_owned(), |n| n.to_string())),
                ("the time of a training", format!("{train_secs} s")),
                ("the step", step.to_string()),
                ("the number of shards", report.shards().to_string()),
            ]
        };
        for ((what, one), (_, other)) in of(self).into_iter().zip(of(other)) {
            if one != other {
                return Err(MergeError::OtherLoad { what, one, other });
            }
        }
        Ok(())
    }

    fn shards(&self) -> u32 {
        self.processes.first().map_or(1, |process| process.shard.count)
    }

    /// From the first beginning to the last end.
    fn lasted(&self) -> Duration {
        let began = self.processes.iter().map(|process| process.began_unix_millis).min();
        let ended = self.processes.iter().map(Process::ended_unix_millis).max();
        Duration::from_millis(ended.unwrap_or(0).saturating_sub(began.unwrap_or(0)))
    }

    fn rates(&self) -> Rates {
        let (counted, secs) = (&self.counted, self.lasted().as_secs_f64());
        let per_sec = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
        let here: BTreeSet<u32> = self.processes.iter().map(|process| process.shard.index).collect();
        Rates {
            secs,
            check_ins_per_sec: per_sec(counted.count_of(CHECK_IN)),
            most_check_ins_in_a_sec: counted.seconds.values().map(|second| second[0]).max().unwrap_or(0),
            requests_per_sec: per_sec(counted.answered_in_all()),
            rounds_per_hour: 3600.0 * per_sec(counted.ended_rounds()),
            versions_per_hour: 3600.0 * per_sec(counted.versions()),
            sent_bytes_per_sec: per_sec(counted.sent_bytes),
            received_bytes_per_sec: per_sec(counted.received_bytes),
            generator_was_the_limit: self.limits(),
            missing_shards: (0..self.shards()).filter(|shard| !here.contains(shard)).collect(),
        }
    }

    fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        for process in &self.processes {
            let lasted = Duration::from_millis(process.lasted_millis);
            let said = process.generator.limits(lasted);
            let of = |why: String| match self.shards() {
                1 => why,
                _ => format!("shard {}: {why}", process.shard),
            };
            limits.extend(said.into_iter().map(of));
        }
        let last = self.processes.iter().max_by_key(|process| process.began_unix_millis);
        let first = self.processes.iter().min_by_key(|process| process.ended_unix_millis());
        if let (Some(last), Some(first)) = (last, first)
            && last.began_unix_millis > first.ended_unix_millis()
        {
            limits.push(format!(
                "shard {} began {:.1} s after shard {} had ended: they were no load together, and what is said by the second is \
                 over the time between them too",
                last.shard,
                (last.began_unix_millis - first.ended_unix_millis()) as f64 / 1000.0,
                first.shard
            ));
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            coordinator: "here:7443".to_owned(),
            devices: 4,
            shape: Shape::Herd,
            secs: 10,
            versions: None,
            train_secs: 0.0,
            step: 0.0,
        }
    }

    fn report(shard: Shard, began_unix_millis: u64) -> Report {
        let process = Process {
            shard,
            devices: 2,
            enrolled: 2,
            began_unix_millis,
            lasted_millis: 10_000,
            ended: Ended::Time,
            generator: Generator::default(),
        };
        let mut counted = Tally::default();
        for _ in 0..30 {
            counted.answered((CHECK_IN, "wait"), Duration::from_millis(3), began_unix_millis / 1000);
        }
        Report::of(load(), process, counted)
    }

    #[test]
    fn shards_become_one_report_over_the_time_of_all_of_them() {
        let shard = |index| Shard::new(index, 3).unwrap();
        let merged = Report::merge([report(shard(2), 5_000), report(shard(0), 0)]).unwrap();
        assert_eq!(merged.processes.iter().map(|process| process.shard.index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(merged.counted.count_of(CHECK_IN), 60);
        let Rates { secs, check_ins_per_sec, most_check_ins_in_a_sec, missing_shards, .. } = &merged.rates;
        assert_eq!((*secs, *check_ins_per_sec, *most_check_ins_in_a_sec), (15.0, 4.0, 30));
        assert_eq!(missing_shards, &[1]);
        // In whatever order, and in steps.
        let whole = Report::merge([merged, report(shard(1), 5_000)]).unwrap();
        let at_once = [report(shard(1), 5_000), report(shard(0), 0), report(shard(2), 5_000)];
        assert_eq!(whole, Report::merge(at_once).unwrap());
        assert_eq!(whole.rates.most_check_ins_in_a_sec, 60);
        assert!(whole.rates.missing_shards.is_empty());
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), whole);
    }

    #[test]
    fn shards_that_did_not_load_at_the_same_time_are_no_load_together() {
        let shard = |index| Shard::new(index, 3).unwrap();
        let limits = |reports: Vec<Report>| Report::merge(reports).unwrap().rates.generator_was_the_limit;
        let (first, second, late) = (report(shard(0), 0), report(shard(1), 10_000), report(shard(2), 12_500));
        assert_eq!(limits(vec![first.clone(), second.clone()]), Vec::<String>::new());
        let said = limits(vec![late.clone(), second, first]);
        assert!(said.len() == 1 && said[0].contains("shard 2/3 began 2.5 s after shard 0/3"), "{said:?}");
        assert_eq!(limits(vec![late]), Vec::<String>::new());
    }

    #[test]
    fn what_was_asked_before_the_load_is_in_no_rate() {
        let mut counted = Tally::default();
        for _ in 0..500 {
            counted.answered(("enroll", "enrolled"), Duration::from_millis(3), 1);
            counted.failed(("enroll", "connection refused"), "as was said", 1);
        }
        counted.answered((CHECK_IN, "wait"), Duration::from_millis(3), 1);
        counted.begins();
        counted.offers_not_told = 3;
        for _ in 0..20 {
            counted.answered((CHECK_IN, "wait"), Duration::from_millis(3), 3);
        }
        let Report { processes, load, .. } = report(Shard::WHOLE, 3_000);
        let report = Report::of(load, processes.into_iter().next().unwrap(), counted);
        let Rates { check_ins_per_sec, requests_per_sec, most_check_ins_in_a_sec, .. } = report.rates;
        assert_eq!((check_ins_per_sec, requests_per_sec, most_check_ins_in_a_sec), (2.0, 2.0, 20));
        assert_eq!(report.counted.seconds, [(3, [20, 20, 0])].into());
        let text = report.to_text();
        for words in [
            "2.0/s, 20 answered, 0 without",
            "before the load",
            "500  enroll: enrolled",
            "3 offers of a place",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn what_is_not_of_one_load_is_not_added_up() {
        let shard = |index| Shard::new(index, 2).unwrap();
        let said = |other: Report| Report::merge([report(shard(0), 0), other]).unwrap_err().to_string();
        assert!(said(report(shard(0), 0)).contains("shard 0/2 is there twice"));
        assert!(said(report(Shard::WHOLE, 0)).contains("number of shards is 2 in one and 1"));
        let mut other = report(shard(1), 0);
        other.load.devices = 5;
        assert!(said(other).contains("devices is 4 in one and 5"));
        let mut other = report(shard(1), 0);
        other.load.shape = Shape::Ramp { secs: 3 };
        assert!(said(other).contains("all at once in one and one after another in 3 s"));
        let mut other = report(shard(1), 0);
        "nightshift.load/2".clone_into(&mut other.schema);
        assert!(said(other).contains("nightshift.load/2"));
        assert_eq!(Report::merge([]), Err(MergeError::Nothing));
    }
}
