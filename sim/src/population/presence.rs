//! When devices of a population are there.

use proto::ids::Digest;

use super::dice::{below, millis, normal, of, uniform};
use super::scenario::{PresenceModel, PresenceTable};
use super::trace::Trace;
use crate::world::Stay;

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// The shortest stay of a night, in seconds: a quarter of an hour.
const SHORTEST: f64 = HOUR / 4.0;

/// How far from the mean hour a device comes at most, in seconds.
const FARTHEST: f64 = 6.0 * HOUR;

/// Days that are looked ahead for a stay: longer than a world lasts.
const DAYS_AHEAD: u64 = 64;

/// When devices are there.
#[derive(Clone, Debug)]
pub enum Presence {
    /// From a moment of the first seconds on, always.
    Always {
        /// Within which they come.
        arrive_secs: f64,
        /// Of the moments.
        seed: Digest,
    },
    /// In most nights of a time zone.
    Diurnal {
        /// What nights there are.
        nights: PresenceTable,
        /// Of each device's zone and nights.
        seed: Digest,
    },
    /// As was written down.
    Trace(Trace),
}

impl Presence {
    /// As the table says. A trace comes with the model of one.
    pub(super) fn new(table: &PresenceTable, trace: Option<Trace>, seed: Digest) -> Self {
        match (table.model, trace) {
            (_, Some(trace)) => Self::Trace(trace),
            (PresenceModel::Diurnal, None) => Self::Diurnal { nights: table.clone(), seed },
            (PresenceModel::Always | PresenceModel::Trace, None) => {
                Self::Always { arrive_secs: table.arrive_secs, seed }
            }
        }
    }

    /// The first stay of the device that ends after so many milliseconds since noon.
    pub fn stays(&self, device: usize, after_millis: u64) -> Option<Stay> {
        match self {
            Self::Always { arrive_secs, seed } => {
                let from_millis = millis(arrive_secs * uniform(&mut of(seed, device)));
                let stay = Stay { from_millis, ..Stay::ALWAYS };
                // Behind its end there is none, whoever asks for one stay after another.
                (after_millis < stay.until_millis).then_some(stay)
            }
            Self::Diurnal { nights, seed } => {
                let today = after_millis / 86_400_000;
                // One that began yesterday, by a clock that is ahead, may still go on.
                let days = today.saturating_sub(2)..today + DAYS_AHEAD;
                days.filter_map(|day| night(nights, seed, device, day))
                    .find(|stay| stay.until_millis > after_millis)
            }
            Self::Trace(trace) => trace.stay(device, after_millis),
        }
    }

    /// For each hour of the simulated clock's day, how many of so many devices are there in the mean, from the beginning to a
    /// moment; nothing for an hour that did not come.
    pub(super) fn by_hour(&self, devices: usize, until_millis: u64) -> [Option<f64>; 24] {
        const HOUR_MILLIS: u64 = 3_600_000;
        let mut there = [0_u64; 24];
        let mut passed = [0_u64; 24];
        let spread = |hours: &mut [u64; 24], from: u64, until: u64| {
            let mut at = from;
            while at < until {
                let next = (at / HOUR_MILLIS + 1) * HOUR_MILLIS;
                // The clock begins at noon.
                let hour = usize::try_from((at / HOUR_MILLIS + 12) % 24).unwrap_or(0);
                hours[hour] += next.min(until) - at;
                at = next;
            }
        };
        spread(&mut passed, 0, until_millis);
        for device in 0..devices {
            let mut after = 0;
            while let Some(stay) = self.stays(device, after).filter(|stay| stay.from_millis < until_millis) {
                spread(&mut there, stay.from_millis, stay.until_millis.min(until_millis));
                after = stay.until_millis;
            }
        }
        std::array::from_fn(|hour| (passed[hour] > 0).then(|| there[hour] as f64 / passed[hour] as f64))
    }

    /// The most devices that are there at a time, of so many, before a moment; and when that is first.
    pub(super) fn most_there(&self, devices: usize, before_millis: u64) -> (usize, u64) {
        let mut changes: Vec<(u64, bool)> = Vec::new();
        for device in 0..devices {
            let mut after = 0;
            while let Some(stay) = self.stays(device, after).filter(|stay| stay.from_millis < before_millis) {
                changes.extend([(stay.from_millis, true), (stay.until_millis, false)]);
                after = stay.until_millis;
            }
        }
        // Who goes is gone before another comes.
        changes.sort_unstable();
        let (mut there, mut most) = (0_usize, (0, 0));
        for (at, comes) in changes {
            there = if comes { there + 1 } else { there - 1 };
            if there > most.0 {
                most = (there, at);
            }
        }
        most
    }
}

/// The stay of a device that begins on a day of its own clock, if it comes on that day. World time begins at noon of day 0.
fn night(nights: &PresenceTable, seed: &Digest, device: usize, day: u64) -> Option<Stay> {
    let mut rng = of(seed, device);
    let zone = nights.zones[below(&mut rng, nights.zones.len())];
    // Each day has words of its own.
    rng.set_word_pos(1024 * u128::from(day + 1));
    if uniform(&mut rng) >= nights.days {
        return None;
    }
    let spread = nights.hours_spread * HOUR;
    let off = (spread * normal(&mut rng)).clamp(-FARTHEST, FARTHEST);
    let hours = (nights.hours * HOUR + spread * normal(&mut rng)).clamp(SHORTEST, DAY - HOUR);
    let from = day as f64 * DAY + nights.from_hour * HOUR + off - 12.0 * HOUR - zone * HOUR;
    let stay = Stay { from_millis: millis(from), until_millis: millis(from + hours) };
    (stay.from_millis < stay.until_millis).then_some(stay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_each_hour_of_the_day_are_counted_in_the_mean() {
        let csv = "device,from,to\na,0,5400\nb,1800,3600\nc,90000,97200\n";
        let presence = Presence::Trace(Trace::read(csv.as_bytes()).unwrap());
        // Noon and one o'clock come twice: on the second day only `c` is there, from one to three.
        let hours = presence.by_hour(3, 26 * 3_600_000);
        assert_eq!((hours[12], hours[13], hours[14]), (Some(0.75), Some(0.75), Some(0.0)));
        assert_eq!(hours[0], Some(0.0));
        assert_eq!(presence.by_hour(3, 3_600_000)[13], None);
        let seed = Digest([9; 32]);
        let always = Presence::Always { arrive_secs: 0.0, seed };
        assert_eq!(always.by_hour(3, 3_600_000)[12], Some(3.0));
        assert_eq!(always.most_there(3, 1000), (3, 0));
        assert_eq!(always.stays(0, u64::MAX), None);
    }

    fn diurnal(zones: Vec<f64>) -> Presence {
        let table = PresenceTable { model: PresenceModel::Diurnal, zones, ..PresenceTable::default() };
        Presence::new(&table, None, Digest([9; 32]))
    }

    /// Which part of so many devices is there at an hour after noon of the first day.
    fn part(presence: &Presence, hour: u64) -> f64 {
        let now = hour * 3_600_000;
        let is_there =
            |device: &usize| presence.stays(*device, now).is_some_and(|stay| stay.from_millis <= now);
        (0..2000).filter(is_there).count() as f64 / 2000.0
    }

    #[test]
    fn devices_come_in_their_nights_and_not_at_noon() {
        let presence = diurnal(vec![0.0]);
        // Three in the night, and noon, of the first two days.
        for (hour, least, most) in [(0, 0.0, 0.01), (15, 0.7, 0.85), (24, 0.0, 0.01), (39, 0.7, 0.85)] {
            let part = part(&presence, hour);
            assert!((least..=most).contains(&part), "{part} at hour {hour}");
        }
    }

    #[test]
    fn zones_spread_devices_over_the_day() {
        let presence = diurnal((-2..=3).map(|zone| f64::from(zone * 4)).collect());
        for hour in [24, 30, 36, 42] {
            let part = part(&presence, hour);
            assert!((0.15..0.35).contains(&part), "{part} at hour {hour}");
        }
    }

    #[test]
    fn stays_of_a_device_go_on_in_time() {
        let presence = diurnal(vec![-8.0, 5.5]);
        for device in 0..200 {
            let mut after = 0;
            for _ in 0..20 {
                let stay = presence.stays(device, after).unwrap();
                assert!(stay.until_millis > after && stay.from_millis < stay.until_millis, "{stay:?}");
                after = stay.until_millis;
            }
        }
    }

    #[test]
    fn the_most_that_are_there_at_a_time_are_counted() {
        let csv = "device,from,to\na,0,10\nb,5,20\nc,10,12\nd,19,30\n";
        let trace = Presence::Trace(Trace::read(csv.as_bytes()).unwrap());
        assert_eq!(trace.most_there(4, u64::MAX), (2, 5_000));
        assert_eq!(trace.most_there(1, u64::MAX), (1, 0));
    }
}
