//! What a device uses up in a day: time to train and bytes on the network.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::ids::Timestamp;
use serde::{Deserialize, Serialize};
use session::conditions::Usage;

use crate::store::{State, StateError};

const USED: &str = "used-today";
const DAY_MILLIS: u64 = 24 * 3_600_000;

/// What is kept of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    /// Days since 1970 by the device's clock.
    number: u64,
    trained_millis: u64,
    transferred: u64,
}

impl Day {
    /// The same day, or the one that has begun since. A clock that was set back begins no new day: it would give the
    /// day's budget a second time. One that was ahead by more than a day was wrong, and its day ends when this one does.
    fn at(self, now: Timestamp) -> Self {
        let number = now.0 / DAY_MILLIS;
        if number > self.number {
            Self { number, ..Self::default() }
        } else if number.saturating_add(1) < self.number {
            Self { number, ..self }
        } else {
            self
        }
    }
}

/// Counts what is used in a day, and keeps it over restarts.
#[derive(Debug)]
pub(super) struct Meter {
    folder: PathBuf,
    state: State,
    day: Mutex<Day>,
    /// Bytes that were carried and nobody has taken into account yet: by the host program, and by connections.
    carried: Mutex<Vec<Arc<AtomicU64>>>,
    by_host: Arc<AtomicU64>,
    /// Whether it was said that this cannot be kept.
    is_said: AtomicBool,
}

impl Meter {
    /// What was used of the day so far, by the device's folder.
    pub(super) fn open(folder: PathBuf, state: State) -> Result<Self, StateError> {
        let day = Mutex::new(state.get::<Day>(USED)?.unwrap_or_default());
        let by_host = Arc::<AtomicU64>::default();
        let carried = Mutex::new(vec![Arc::clone(&by_host)]);
        Ok(Self { folder, state, day, carried, by_host, is_said: AtomicBool::new(false) })
    }

    /// Takes what connections carry into account, which they count there.
    pub(super) fn counts(&self, carried: Arc<AtomicU64>) {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).push(carried);
    }

    /// The host program sent or fetched so many bytes.
    pub(super) fn transferred(&self, bytes: u64) {
        self.by_host.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes a time of training into account.
    pub(super) fn trained(&self, for_so_long: Duration, now: Timestamp) {
        let millis = u64::try_from(for_so_long.as_millis()).unwrap_or(u64::MAX);
        self.change(now, |day| day.trained_millis = day.trained_millis.saturating_add(millis));
    }

    /// What was used, with what is free on the disk.
    pub(super) fn usage(&self, now: Timestamp, paused_until: Option<Timestamp>) -> Usage {
        let all = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        let carried =
            all.iter().fold(0_u64, |sum, carried| sum.saturating_add(carried.swap(0, Ordering::Relaxed)));
        drop(all);
        let day = self.change(now, |day| day.transferred = day.transferred.saturating_add(carried));
        Usage {
            trained_today: Duration::from_millis(day.trained_millis),
            transferred_today: day.transferred,
            free_disk_mib: fs4::available_space(&self.folder).ok().map(|bytes| bytes >> 20),
            paused_until: paused_until.filter(|until| *until > now),
        }
    }

    /// Writes down what was used. That it cannot be kept costs no more than the day's count.
    pub(super) fn keep(&self) {
        let day = *self.day.lock().unwrap_or_else(PoisonError::into_inner);
        match self.state.put(USED, &day) {
            Ok(()) => self.is_said.store(false, Ordering::Relaxed),
            // Once, and not each minute.
            Err(error) if !self.is_said.swap(true, Ordering::Relaxed) => {
                tracing::warn!("what was used today cannot be kept: {error}");
            }
            Err(_) => {}
        }
    }

    fn change(&self, now: Timestamp, change: impl FnOnce(&mut Day)) -> Day {
        let mut day = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        *day = day.at(now);
        change(&mut day);
        *day
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_over_restarts_and_a_clock_set_back_gives_no_second_budget() {
        let folder = tempfile::tempdir().unwrap();
        let carried = Arc::new(AtomicU64::new(0));
        let state = State::open(&folder.path().join("state")).unwrap();
        let open = || {
            let meter = Meter::open(folder.path().to_owned(), state.clone()).unwrap();
            meter.counts(Arc::clone(&carried));
            meter
        };
        let day = |number: u64| Timestamp(number * DAY_MILLIS + 5);
        let meter = open();
        meter.trained(Duration::from_secs(60), day(10));
        carried.store(70, Ordering::Relaxed);
        meter.transferred(30);
        assert_eq!(meter.usage(day(10), None).transferred_today, 100);
        meter.keep();
        let meter = open();
        let usage = meter.usage(day(9), Some(day(10)));
        assert_eq!((usage.trained_today, usage.transferred_today), (Duration::from_secs(60), 100));
        assert_eq!(usage.paused_until, Some(day(10)));
        assert!(usage.free_disk_mib.is_some());
        // A clock that was ten years ahead costs no more than the rest of the day.
        meter.trained(Duration::from_secs(60), day(4000));
        assert_eq!(meter.usage(day(10), None).trained_today, Duration::from_secs(60));
        let usage = meter.usage(day(11), Some(day(10)));
        assert_eq!((usage.trained_today, usage.transferred_today), (Duration::ZERO, 0));
        assert_eq!(usage.paused_until, None);
    }
}
