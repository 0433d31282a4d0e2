//! Linux: files below `/proc`, `/sys` and `/dev`, and services on the system bus.
#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: it reads the clocks, and pauses between the first two looks at the processor"
)]

mod bus;
mod files;
mod hands;
mod idle;
mod known;
mod load;
mod network;
mod power;
mod saver;
mod thermal;
mod told;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use session::conditions::{Condition, Power, Reading, Snapshot, Usage};
use tokio::sync::Notify;

use self::bus::Watch;
use self::hands::Watcher;
use self::idle::{Moment, Sessions};
use self::load::{Own, Ticks};
use self::told::Told;
use super::Sources;

/// Between the first two looks at the processor.
const PAUSE: Duration = Duration::from_millis(500);
/// What changes slowly, or is told for a span of time, is read again after that long.
const FRESH: Duration = Duration::from_secs(1);
/// Whose control group this is, is asked again after that long: others may have come into it.
const OWN_HOLDS: Duration = Duration::from_secs(60);
/// The walls' clock has jumped if it moved so much more or less than the other.
const JUMP: Duration = Duration::from_secs(2);
/// The most reasons that are remembered as said.
const MOST_SAID: usize = 64;

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
    began: Instant,
    watch: Watch,
    kept: Mutex<Kept>,
}

/// What is kept from one look to the next.
#[derive(Debug, Default)]
struct Kept {
    looked: bool,
    hands: Watcher,
    slow: Option<Slow>,
    busy: Option<Busy>,
    own: Option<(Duration, Own)>,
    /// The two clocks at the last look.
    clocks: Option<Moment>,
    clock_set: Option<Duration>,
    /// Reasons for which something is unknown that are in the log.
    said: BTreeSet<(Condition, String)>,
}

/// What was read a moment ago.
#[derive(Debug)]
struct Slow {
    at: Duration,
    cool: Reading<f64>,
    pressure: Reading<f64>,
    /// Read where a service does not say it.
    supplies: Option<Reading<Power>>,
    profile: Option<Profile>,
}

/// The firmware's profile, where it has one.
#[derive(Clone, Debug)]
struct Profile(Option<String>);

/// How busy others were, and the look from which on it is counted next.
#[derive(Debug)]
struct Busy {
    at: Duration,
    ticks: Ticks,
    reading: Reading<f64>,
}

impl Machine {
    pub(super) fn start(sources: Sources) -> Self {
        let began = Instant::now();
        let watch = Watch::start(sources.bus, sources.retry, began);
        Self { root: sources.root, began, watch, kept: Mutex::default() }
    }

    #[expect(clippy::unnecessary_wraps, reason = "other systems do not say when something changes")]
    pub(super) fn changes(&self) -> Option<Arc<Notify>> {
        Some(self.watch.changes())
    }

    pub(super) fn look(&self) -> Snapshot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !std::mem::replace(&mut kept.looked, true);
        if first {
            // The pause serves the bus, too, which has answered by then.
            kept.hands.look(&self.root, self.now());
            self.take_ticks(&mut kept);
            std::thread::sleep(PAUSE);
        }
        let now = self.now();
        let busy_percent = match &kept.busy {
            Some(busy) if !first && now.up.saturating_sub(busy.at) < FRESH => busy.reading.clone(),
            Some(_) | None => self.take_ticks(&mut kept),
        };
        let jumped = kept.clocks.replace(now).is_some_and(|last| jumped(last, now));
        if jumped {
            kept.clock_set = Some(now.up);
        }
        let hands = kept.hands.look(&self.root, now);
        let told = self.watch.told();
        let mut slow =
            kept.slow.take().filter(|slow| now.up.saturating_sub(slow.at) < FRESH).unwrap_or_else(|| Slow {
                at: now.up,
                cool: thermal::cool(&self.root),
                pressure: load::pressure(&self.root),
                supplies: None,
                profile: None,
            });
        let supplies = || slow.supplies.get_or_insert_with(|| power::supplies(&self.root)).clone();
        let power = power::power(&told.power, supplies);
        let profile =
            || slow.profile.get_or_insert_with(|| Profile(saver::firmware_profile(&self.root))).0.clone();
        let power_saver = saver::saver(&told.profile, profile);
        let snapshot = Snapshot {
            power,
            idle: idle::idle(now, &self.sessions(told.sessions), &hands, kept.clock_set),
            metered: network::metered(&told.metered),
            cool_celsius: slow.cool.clone(),
            busy_percent,
            pressure_percent: slow.pressure.clone(),
            power_saver,
            usage: Usage::default(),
        };
        kept.slow = Some(slow);
        if let Some(unknown) = kept.newly_unknown(&snapshot) {
            tracing::info!(unknown, "what this machine does not tell");
        }
        snapshot
    }

    /// Where logind keeps sessions and cannot be asked for them, terminals alone do not tell that nobody is there.
    fn sessions(&self, told: Told<Sessions>) -> Told<Sessions> {
        match told {
            Told::Absent(why) if self.root.join("run/systemd/sessions").is_dir() => {
                Told::Trouble(format!("logind runs here and cannot be asked: {why}"))
            }
            Told::Absent(_) | Told::Trouble(_) | Told::Value(_) => told,
        }
    }

    fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { wall, up: self.began.elapsed() }
    }

    /// Looks at the processor, and says how busy others were since the look before.
    fn take_ticks(&self, kept: &mut Kept) -> Reading<f64> {
        let up = self.now().up;
        let own = match kept.own.take().filter(|(at, _)| up.saturating_sub(*at) < OWN_HOLDS) {
            Some(own) => own,
            None => (up, Own::find(&self.root)),
        };
        let source = match own.1 {
            Own::Group(_) => "/proc/stat, without this program's control group",
            Own::Processes => "/proc/stat, without this program's processes",
        };
        let before = kept.busy.take();
        let ticks = load::ticks(&self.root, &own.1);
        kept.own = Some(own);
        let ticks = match ticks {
            Ok(ticks) => ticks,
            Err(why) => return Reading::unknown(why),
        };
        let reading = match before {
            None => Reading::unknown(NOT_YET),
            Some(before) => match load::busy_percent(&before.ticks, &ticks) {
                Some(percent) => Reading::of(percent, source),
                // No time has passed, or this program's share is counted in another way from now on.
                None => before.reading,
            },
        };
        kept.busy = Some(Busy { at: up, ticks, reading: reading.clone() });
        reading
    }
}

const NOT_YET: &str = "/proc/stat was read once only";

/// Whether the clock of the walls was set between two looks, or the machine slept.
fn jumped(last: Moment, now: Moment) -> bool {
    let passed = now.up.saturating_sub(last.up);
    let expected = last.wall.saturating_add(passed);
    expected.abs_diff(now.wall) > JUMP
}

impl Kept {
    /// What is unknown and why, in one line for the log, of each reason once; none where nothing is that was not before.
    fn newly_unknown(&mut self, snapshot: &Snapshot) -> Option<String> {
        let reasons = [
            (Condition::Mains, why_unknown(&snapshot.power)),
            (Condition::Idle, why_unknown(&snapshot.idle)),
            (Condition::Unmetered, why_unknown(&snapshot.metered)),
            (Condition::Cool, why_unknown(&snapshot.cool_celsius)),
            (Condition::Free, why_unknown(&snapshot.busy_percent)),
            (Condition::Saver, why_unknown(&snapshot.power_saver)),
        ];
        let mut new: Vec<String> = Vec::new();
        for (condition, why) in reasons {
            let Some(why) = why else { continue };
            if self.said.len() < MOST_SAID && self.said.insert((condition, why.to_owned())) {
                new.push(format!("{}: {why}", condition.as_str()));
            }
        }
        (!new.is_empty()).then(|| new.join("; "))
    }
}

fn why_unknown<T: fmt::Debug>(reading: &Reading<T>) -> Option<&str> {
    reading.value.is_none().then_some(&*reading.source)
}

#[cfg(test)]
mod tests {
    use super::files::tests::{tree, write};
    use super::*;
    use crate::monitor::BusAddress;

    fn start(root: &std::path::Path) -> Machine {
        let retry = Duration::from_secs(5);
        Machine::start(Sources { root: root.to_owned(), bus: BusAddress::None, retry })
    }

    #[test]
    fn what_is_unknown_is_one_line_and_said_once() {
        let root = tree(&[]);
        let snapshot = start(root.path()).look();
        let mut kept = Kept::default();
        let line = kept.newly_unknown(&snapshot).unwrap();
        assert!(
            line.starts_with("mains: no bus is asked, no supply in") && line.contains("; idle: "),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
        assert_eq!(kept.newly_unknown(&snapshot), None);
    }

    #[test]
    fn a_machine_without_sources_knows_nothing_and_says_why() {
        let root = tree(&[]);
        let snapshot = start(root.path()).look();
        let reasons = [
            why_unknown(&snapshot.power),
            why_unknown(&snapshot.idle),
            why_unknown(&snapshot.metered),
            why_unknown(&snapshot.cool_celsius),
            why_unknown(&snapshot.busy_percent),
            why_unknown(&snapshot.pressure_percent),
        ];
        assert_eq!(
            reasons,
            [
                Some("no bus is asked, no supply in /sys/class/power_supply"),
                Some("no bus is asked, no terminals in /dev, no keyboard and no mouse"),
                Some("no bus is asked"),
                Some("no zone with a trip in /sys/class/thermal"),
                Some("no /proc/stat"),
                Some("no /proc/pressure/memory"),
            ]
        );
        assert_eq!(snapshot.power_saver, Reading::of(false, "no power profiles"));
    }

    #[test]
    fn the_first_look_knows_how_busy_others_are_and_one_right_after_it_says_the_same() {
        let stat = |user: u64| format!("cpu  {user} 0 0 100 0 0 0 0\n");
        let own = "50 (a) R 1 1 1 0 -1 0 0 0 0 0 5 0 0 0 20 0";
        let root = tree(&[("proc/stat", stat(100).as_str()), ("proc/self/stat", own), ("proc/50/stat", own)]);
        let machine = start(root.path());
        let path = root.path().to_owned();
        // Between the two looks that the first one is.
        let others = std::thread::spawn(move || {
            std::thread::sleep(PAUSE / 2);
            write(&path, &[("proc/stat", &format!("cpu  {} 0 0 {} 0 0 0 0\n", 130, 170))]);
        });
        let first = machine.look();
        others.join().unwrap();
        assert_eq!(first.busy_percent.value, Some(30.0));
        write(root.path(), &[("proc/stat", &stat(900))]);
        assert_eq!(machine.look().busy_percent.value, Some(30.0));
    }

    #[test]
    fn terminals_do_not_speak_for_a_logind_that_cannot_be_asked() {
        let root = tree(&[("dev/tty1", "")]);
        assert_eq!(start(root.path()).look().idle.source, "terminals and input devices");
        write(root.path(), &[("run/systemd/sessions/1", "")]);
        let unknown = start(root.path()).look().idle;
        assert_eq!(unknown, Reading::unknown("logind runs here and cannot be asked: no bus is asked"));
    }

    #[test]
    fn a_reason_is_said_once() {
        let mut kept = Kept::default();
        let snapshot = Snapshot { power: Reading::unknown("no supply"), ..Snapshot::default() };
        let _said = kept.newly_unknown(&snapshot);
        let said = kept.said.clone();
        let _said = kept.newly_unknown(&snapshot);
        assert_eq!(kept.said, said);
        assert!(said.contains(&(Condition::Mains, "no supply".to_owned())));
        for number in 0..200 {
            let _said = kept.newly_unknown(&Snapshot {
                power: Reading::unknown(format!("{number}")),
                ..Snapshot::default()
            });
        }
        assert_eq!(kept.said.len(), MOST_SAID);
    }

    #[test]
    fn a_clock_that_is_set_and_a_machine_that_slept_are_noticed() {
        let at = |wall: u64, up: u64| Moment { wall: Duration::from_secs(wall), up: Duration::from_secs(up) };
        assert!(!jumped(at(100, 10), at(110, 20)));
        assert!(!jumped(at(100, 10), at(112, 20)));
        assert!(jumped(at(100, 10), at(3_700, 20)), "it slept for an hour");
        assert!(jumped(at(100, 10), at(50, 20)));
    }
}
