//! How far a run or a sweep is, and how long it takes yet: a bar on a terminal, a line for each version elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use nightshift_sim::population::{Scenario, Sweep, VersionReport};
use proto::shown::message;

/// Parts of a version.
const PARTS: u64 = 1000;

/// Of which so many are trained; the rest is the secure sum.
const TRAINED_PARTS: u64 = 900;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    /// Parts of all versions of all runs that are to be run, and those that are done.
    of: u64,
    done: u64,
    run: String,
    versions: u32,
    made: u32,
    /// Trainings for the version that is under way, and about how many it takes.
    trained: usize,
    cohort: usize,
}

#[expect(clippy::disallowed_methods, reason = "seconds shown to a person; nothing depends on them")]
fn now() -> Instant {
    Instant::now()
}

impl Progress {
    pub(super) fn of(sweep: &Sweep) -> Self {
        let of = sweep.runs.iter().map(|run| PARTS * u64::from(run.scenario.task.versions)).sum();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(of);
            let style = ProgressStyle::with_template("{msg:30} [{bar:30}] {percent:3} %, {eta} left");
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        let (run, begun) = (String::new(), now());
        Self { bar, begun, of, done: 0, run, versions: 0, made: 0, trained: 0, cohort: 1 }
    }

    pub(super) fn begins(&mut self, run: &str, scenario: &Scenario) {
        run.clone_into(&mut self.run);
        (self.versions, self.made, self.trained) = (scenario.task.versions, 0, 0);
        // All rounds of a version, which are beside each other.
        let devices = scenario.task.cohort.saturating_mul(scenario.task.rounds);
        self.cohort = usize::try_from(devices).unwrap_or(1).max(1);
        self.draws();
    }

    /// A run that is there already.
    pub(super) fn skips(&mut self, run: &str, scenario: &Scenario) {
        self.of -= PARTS * u64::from(scenario.task.versions);
        if let Some(bar) = &self.bar {
            bar.set_length(self.of);
        }
        self.says(&format!("{run}: done before, and left as it is"));
    }

    pub(super) fn trained(&mut self, devices: usize) {
        self.trained += devices;
        self.draws();
    }

    /// A version was made. `print` prints what goes to stdout.
    pub(super) fn version(&mut self, version: &VersionReport, print: impl FnOnce()) {
        self.made += 1;
        self.trained = 0;
        self.done += PARTS;
        self.draws();
        if let Some(bar) = &self.bar {
            bar.suspend(print);
            return;
        }
        print();
        let line = format!(
            "{}version {} of {}: {} of {} in the sum, after {:.2} simulated hours, {:.1} s; {} left",
            prefix(&self.run),
            version.version,
            self.versions,
            version.survivors,
            version.cohort,
            version.at_secs / 3600.0,
            version.secs,
            self.left(),
        );
        self.says(&line);
    }

    pub(super) fn says(&self, line: &str) {
        let say = || eprintln!("{}", message(line));
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    pub(super) fn ends(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn draws(&self) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(self.done + self.part());
        bar.set_message(format!("{}version {} of {}", prefix(&self.run), self.made + 1, self.versions));
    }

    /// What is done of the version that is under way.
    fn part(&self) -> u64 {
        (self.trained.min(self.cohort) as u64) * TRAINED_PARTS / self.cohort as u64
    }

    /// How long it takes yet, by what is done.
    fn left(&self) -> String {
        let (done, rest) = (self.done.max(1) as f64, self.of.saturating_sub(self.done) as f64);
        let secs = self.begun.elapsed().as_secs_f64() * rest / done;
        if secs < 90.0 { format!("about {secs:.0} s") } else { format!("about {:.0} min", secs / 60.0) }
    }
}

/// What stands before a line of a run of a sweep.
pub(super) fn prefix(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}: ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_several_rounds_is_trained_when_all_of_them_are() {
        let sweep = Sweep::parse("[task]\ncohort = 8\nrounds = 5\n").unwrap();
        let mut progress = Progress::of(&sweep);
        progress.begins("", &sweep.runs[0].scenario);
        for (trained, part) in [(0, 0), (8, TRAINED_PARTS / 5), (32, TRAINED_PARTS), (8, TRAINED_PARTS)] {
            progress.trained(trained);
            assert_eq!(progress.part(), part, "{trained}");
        }
    }
}
