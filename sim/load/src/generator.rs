//! What this program is itself: whether what it measured is the coordinator's, or only how fast it could ask.

use std::time::Duration;

use proto::counted::counted;
use serde::{Deserialize, Serialize};

use crate::latency::Latency;

/// Of its processors, in a hundred: above this share nothing is left for a question whose time has come.
const BUSY: f64 = 0.8;

/// How late a question may leave, and a task of the program wake, and how many of all may be later.
const LATE: Duration = Duration::from_millis(100);
const LATE_SHARE: f64 = 0.01;

/// Arrivals that found no free device, of all.
const MISSED_SHARE: f64 = 0.01;

/// How much later than it was told to it may begin: what it is told is in whole seconds.
const BEGUN_LATE: Duration = Duration::from_secs(1);

/// What a process was while it made its load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Processors that the system gives it.
    pub cores: u32,
    /// Seconds of them that it used; none where the system does not tell.
    pub cpu_secs: Option<f64>,
    /// The most memory that it held, in bytes; none where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// How long the whole machine's processors were wanted on average, at the beginning and at the end, over the minute before;
    /// none where the system does not tell.
    pub machine_load: Option<[f64; 2]>,
    /// How far behind its time each question left.
    pub late: Latency,
    /// How much later than it was to a task of the program woke that does nothing but sleep.
    pub lag: Latency,
    /// Arrivals, and those of them for which no device was free.
    pub arrivals: u64,
    /// The same that found none.
    pub arrivals_missed: u64,
    /// Devices that it could not play, by a fault of its own or of their files.
    pub broken: u64,
    /// Devices that took too long to leave when the load was over.
    pub not_left: u64,
    /// How much later it began than it was told to (`--begin-at`), in milliseconds.
    pub begun_late_millis: u64,
    /// Descriptors that it needed at most.
    pub descriptors_needed: u64,
    /// Descriptors that the system lets it have.
    pub descriptors_granted: u64,
}

impl Generator {
    /// Why it was the limit, in words; nothing where it was not.
    pub fn limits(&self, lasted: Duration) -> Vec<String> {
        let mut limits = Vec::new();
        let all = lasted.as_secs_f64() * f64::from(self.cores);
        if let Some(used) = self.cpu_secs
            && all > 0.0
            && used / all > BUSY
        {
            limits.push(format!(
                "it used {:.0} % of its {} processors; use more processes (--shard) on other machines",
                100.0 * used / all,
                self.cores
            ));
        }
        let late = self.late.share_above(LATE);
        if late > LATE_SHARE {
            limits.push(format!(
                "{:.1} % of its questions left more than {} ms behind their time, at most {} ms",
                100.0 * late,
                LATE.as_millis(),
                self.late.max_micros() / 1000
            ));
        }
        let lag = self.lag.share_above(LATE);
        if lag > LATE_SHARE {
            limits.push(format!(
                "it was woken more than {} ms late in {:.1} % of all looks, at most {} ms: what it measured is longer than what \
                 the coordinator took",
                LATE.as_millis(),
                100.0 * lag,
                self.lag.max_micros() / 1000
            ));
        }
        if self.arrivals > 0 && self.arrivals_missed as f64 / self.arrivals as f64 > MISSED_SHARE {
            limits.push(format!(
                "at {} of {} arrivals all of its devices were still busy; give it more --devices",
                self.arrivals_missed, self.arrivals
            ));
        }
        if self.broken > 0 {
            limits.push(format!("it could not play {}", counted(self.broken, "device", "devices")));
        }
        if self.not_left > 0 {
            limits.push(format!(
                "{} did not leave in time when the load was over, so busy was it; what they remember is not kept",
                counted(self.not_left, "device", "devices")
            ));
        }
        if Duration::from_millis(self.begun_late_millis) > BEGUN_LATE {
            limits.push(format!(
                "it began {:.1} s later than --begin-at, and so not together with others; give devices more time to enroll",
                self.begun_late_millis as f64 / 1000.0
            ));
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_says_when_it_was_the_limit_and_by_what() {
        let calm = Generator { cores: 2, cpu_secs: Some(10.0), arrivals: 1000, ..Generator::default() };
        let lasted = Duration::from_secs(10);
        assert_eq!(calm.limits(lasted), Vec::<String>::new());
        let busy = Generator { cpu_secs: Some(17.0), ..calm.clone() };
        assert!(busy.limits(lasted)[0].contains("85 % of its 2 processors"));
        let missed = Generator { arrivals_missed: 11, ..calm.clone() };
        assert!(missed.limits(lasted)[0].contains("at 11 of 1000 arrivals"));
        for (odd, words) in [
            (Generator { broken: 1, ..calm.clone() }, "could not play 1 device"),
            (Generator { not_left: 3, ..calm.clone() }, "3 devices did not leave in time"),
            (Generator { begun_late_millis: 1_500, ..calm.clone() }, "1.5 s later than --begin-at"),
        ] {
            let said = odd.limits(lasted);
            assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
        }
        let told_now = Generator { begun_late_millis: 900, ..calm.clone() };
        assert_eq!(told_now.limits(lasted), Vec::<String>::new());
        let (mut late, mut lag) = (calm.clone(), calm.clone());
        for millis in 1..=100 {
            late.late.record(Duration::from_millis(2 * millis));
            lag.lag.record(Duration::from_millis(2 * millis));
        }
        let said = late.limits(lasted);
        assert!(said.len() == 1 && said[0].starts_with("50.0 % of its questions"), "{said:?}");
        assert!(said[0].ends_with("at most 200 ms"), "{said:?}");
        assert!(lag.limits(lasted)[0].contains("woken more than 100 ms late in 50.0 %"));
    }
}
