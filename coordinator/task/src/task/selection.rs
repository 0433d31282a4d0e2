//! Which of the devices that ask are given a version to train from, and when the others ask again.
//!
//! A version has as many places as its rounds have members, and some more for those that are given one and do not come
//! ([`Selection::places`]). Whoever has a place and does not ask to join in time loses it to the next. Among those that
//! ask, a place is kept for devices that were given fewer versions and are expected back within the window that they were
//! told ([`Selection::ask`]): so nobody trains ten times before another did once, and nobody waits for those that are gone.
//!
//! Everything here is of this process, but for how often a device took part; after a restart places are given anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::ids::{DeviceId, Timestamp};
use proto::message::Window;

use crate::pacing;

/// How long a device that was told a window is expected after its end, in milliseconds.
const LATE_MILLIS: u64 = 10_000;

/// A place is kept for a device at least so long, in milliseconds.
const LEAST_KEPT_MILLIS: u64 = 60_000;

/// Before it is known how long a training takes, a place is kept so long, in milliseconds.
const FIRST_KEPT_MILLIS: u64 = 10 * 60_000;

/// A place is never kept longer, in milliseconds.
const MOST_KEPT_MILLIS: u64 = 24 * 3_600_000;

/// A place is kept for so many times what nine of ten devices took.
const KEPT_TIMES: u64 = 3;

/// How long the members of a round that was aborted have to ask again, in milliseconds.
const AGAIN_MILLIS: u64 = 60_000;

/// The most of those given a place that may be expected not to come: twice as many as there are places are given one.
const MOST_DROP_OUT: f64 = 1.0;

/// What is left of the measured drop-out after a version that was full.
const DROP_OUT_DECAY: f64 = 0.9;

/// A device that has a place.
#[derive(Clone, Copy, Debug)]
struct Given {
    at: Timestamp,
    /// It asked to join a round.
    came: bool,
    /// It did before, and that round came to nothing: how long it takes to ask again is not how long it trains.
    again: bool,
}

/// A device that was told to ask again.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// When it is not expected any more.
    until: Timestamp,
    /// How often it was given a version before.
    picks: u32,
}

/// What a device that asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has a place.
    Place,
    /// It has none, and asks again.
    Wait(Window),
}

/// Who has a place in the version that is being made, and who is expected.
#[derive(Debug)]
pub(super) struct Selection {
    /// The members of a version's rounds at most.
    cohort: usize,
    /// At least as long a place is kept, in milliseconds.
    patience_millis: u64,
    given: BTreeMap<DeviceId, Given>,
    /// Those of them that did not come yet, by when they were given their place; some are not there any more.
    lapsing: VecDeque<(Timestamp, DeviceId)>,
    waiting: BTreeMap<DeviceId, Waiting>,
    /// By when they are not expected any more.
    until: BTreeSet<(Timestamp, DeviceId)>,
    /// How many of those that wait were given so many versions.
    by_picks: BTreeMap<u32, usize>,
    picks: BTreeMap<DeviceId, u32>,
    /// How long those that came to this version took, in milliseconds, the quickest first.
    took: Vec<u64>,
    /// What nine of ten devices took for the version before.
    took_before: Option<u64>,
    /// How many were given a place in this version, and how many of them came.
    counted: (u32, u32),
    drop_out: f64,
    /// As many devices as there were before a restart, until they have had time to come: from the first that asks on.
    before: (usize, Option<Timestamp>),
    /// How often something happened by which somebody who waits may have a place now.
    openings: u64,
}

impl Selection {
    /// For versions of so many members, where there were so many devices before a restart.
    pub(super) fn new(cohort: usize, patience_millis: u64, devices: usize) -> Self {
        Self {
            before: (devices, None),
            cohort,
            patience_millis,
            given: BTreeMap::new(),
            lapsing: VecDeque::new(),
            waiting: BTreeMap::new(),
            until: BTreeSet::new(),
            by_picks: BTreeMap::new(),
            picks: BTreeMap::new(),
            took: Vec::new(),
            took_before: None,
            counted: (0, 0),
            drop_out: 0.0,
            openings: 0,
        }
    }

    /// How many devices take part, as far as is known.
    pub(super) fn devices(&self) -> usize {
        (self.given.len() + self.waiting.len()).max(self.before.0)
    }

    /// How many may have a place at a time: the members of a version's rounds, and as many more as are expected not to come.
    pub(super) fn places(&self) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "a cohort has at most some thousand members")]
        let places = (self.cohort as f64 * (1.0 + self.drop_out)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most twice a cohort")]
        let places = places as usize;
        places.max(self.cohort)
    }

    /// Something changed by which somebody who waits may have a place now; alike only where nothing did.
    pub(super) fn openings(&self) -> u64 {
        self.openings
    }

    /// When somebody who waits may have a place because somebody else did not come.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let (not_expected, _) = self.until.first()?;
        let lapses = self.lapsing.front().map(|(at, _)| at.plus_millis(self.kept_millis()));
        Some(lapses.map_or(*not_expected, |at| at.min(*not_expected)))
    }

    /// A device asks for a version. It was charged for so many rounds, which it is known by after a restart.
    pub(super) fn ask(&mut self, device: DeviceId, charged: u32, now: Timestamp) -> Verdict {
        self.pass_time(now);
        if self.given.contains_key(&device) {
            return Verdict::Place;
        }
        self.forget_waiting(device);
        let picks = self.picks.get(&device).copied().unwrap_or(0).max(charged);
        let free = self.places().saturating_sub(self.given.len());
        let before: usize = self.by_picks.range(..picks).map(|(_, devices)| devices).sum();
        if before < free {
            self.picks.insert(device, picks + 1);
            let at = whole_second(now);
            self.given.insert(device, Given { at, came: false, again: false });
            self.lapsing.push_back((at, device));
            self.counted.0 += 1;
            return Verdict::Place;
        }
        let window = pacing::window_for(self.devices() + 1, self.places());
        let until = whole_second(now.plus_millis(window.most_millis.saturating_add(LATE_MILLIS)));
        self.waiting.insert(device, Waiting { until, picks });
        self.until.insert((until, device));
        *self.by_picks.entry(picks).or_default() += 1;
        Verdict::Wait(window)
    }

    /// Whether there are places that nobody has and nobody who waits will take.
    pub(super) fn has_to_spare(&mut self, now: Timestamp) -> bool {
        self.pass_time(now);
        self.places() > self.given.len() + self.waiting.len()
    }

    /// A device does not train now: its place is another's.
    pub(super) fn release(&mut self, device: DeviceId, now: Timestamp) {
        self.pass_time(now);
        self.forget_waiting(device);
        if self.given.remove(&device).is_some() {
            self.openings += 1;
        }
    }

    /// A device has trained, and asks to join. It may come without a place: what it trained is not less good.
    pub(super) fn came(&mut self, device: DeviceId, now: Timestamp) {
        self.forget_waiting(device);
        let is_known = self.given.contains_key(&device);
        let given = self.given.entry(device).or_insert(Given { at: now, came: false, again: false });
        if given.came {
            return;
        }
        given.came = true;
        self.counted.1 += 1;
        if given.again {
            return;
        }
        if is_known {
            let took = now.millis_since(given.at);
            self.took.insert(self.took.partition_point(|other| *other <= took), took);
        } else {
            self.counted.0 += 1;
            *self.picks.entry(device).or_default() += 1;
        }
    }

    /// A round ended without a sum: those that came and are not `elsewhere` ask again, and those of them that are gone lose
    /// their places soon.
    pub(super) fn aborted(&mut self, elsewhere: impl Fn(DeviceId) -> bool, now: Timestamp) {
        let at = Timestamp(now.0.saturating_sub(self.kept_millis().saturating_sub(AGAIN_MILLIS)));
        let mut lapsing: Vec<_> = self.lapsing.drain(..).collect();
        for (device, given) in &mut self.given {
            if given.came && !elsewhere(*device) {
                *given = Given { at, came: false, again: true };
                self.counted.1 = self.counted.1.saturating_sub(1);
                lapsing.push((at, *device));
            }
        }
        lapsing.sort_by_key(|(at, _)| *at);
        self.lapsing = lapsing.into();
    }

    /// A version was made of so many of its rounds: its places are all free again, and what was seen says how many are given for
    /// the next. Of rounds that were not needed nobody is missing.
    pub(super) fn published(&mut self, (used, rounds): (u32, u32)) {
        let of_used = |devices: u64| devices * u64::from(used.min(rounds)) / u64::from(rounds.max(1));
        let (given, came) = (of_used(self.counted.0.into()), u64::from(self.counted.1));
        if came >= of_used(self.cohort as u64) {
            self.drop_out *= DROP_OUT_DECAY;
        } else if given > 0 {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a version has at most some hundred thousand devices"
            )]
            let missing = given.saturating_sub(came) as f64 / came.max(1) as f64;
            self.drop_out = f64::midpoint(self.drop_out, missing).min(MOST_DROP_OUT);
        }
        self.took_before = self.nine_of_ten().or(self.took_before);
        self.took.clear();
        self.counted = (0, 0);
        self.given.clear();
        self.lapsing.clear();
        self.openings += 1;
    }

    /// How long a place is kept for a device that does not come.
    fn kept_millis(&self) -> u64 {
        let took = self.nine_of_ten().max(self.took_before);
        let kept = took.map_or(FIRST_KEPT_MILLIS, |took| took.saturating_mul(KEPT_TIMES));
        kept.max(self.patience_millis).clamp(LEAST_KEPT_MILLIS, MOST_KEPT_MILLIS)
    }

    /// What nine of ten of those that came to this version took.
    fn nine_of_ten(&self) -> Option<u64> {
        self.took.get(self.took.len() * 9 / 10).copied()
    }

    /// Takes back the places of those that did not come, and forgets those that are not expected any more.
    pub(super) fn pass_time(&mut self, now: Timestamp) {
        match self.before {
            (0, _) => {}
            (devices, None) => {
                let until = now.plus_millis(pacing::window_for(devices, self.places()).most_millis);
                self.before.1 = Some(until);
            }
            (_, Some(until)) => {
                if until <= now {
                    self.before = (0, None);
                }
            }
        }
        let (mut lapsed, mut expired) = (false, false);
        let kept = if self.lapsing.is_empty() { 0 } else { self.kept_millis() };
        while let Some((at, device)) = self.lapsing.front().copied() {
            if at.plus_millis(kept) > now {
                break;
            }
            self.lapsing.pop_front();
            if self.given.get(&device).is_some_and(|given| given.at == at && !given.came) {
                self.given.remove(&device);
                lapsed = true;
            }
        }
        while let Some((until, device)) = self.until.first().copied() {
            if until > now {
                break;
            }
            self.forget_waiting(device);
            expired = true;
        }
        if lapsed || (expired && self.places() > self.given.len()) {
            self.openings += 1;
        }
    }

    fn forget_waiting(&mut self, device: DeviceId) {
        let Some(Waiting { until, picks }) = self.waiting.remove(&device) else { return };
        self.until.remove(&(until, device));
        if let Some(devices) = self.by_picks.get_mut(&picks) {
            *devices -= 1;
            if *devices == 0 {
                self.by_picks.remove(&picks);
            }
        }
    }
}

/// The end of its second: what happens at about the same time ends at the same time, and who waits for it is woken once.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp(time.0.div_ceil(1000).saturating_mul(1000))
}

#[cfg(test)]
mod tests;
