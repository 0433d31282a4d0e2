//! What goes wrong in a world, and how often, by its seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::ids::Digest;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use sim::world::{Carriage, Clock, Disk, Fate, Leg, Network, Party, Record};

use super::liar::{Liar, Lie};

/// For so long a clock says what it says: as long as some rounds.
const SET_MILLIS: u64 = 90_000;

/// How often things went wrong, whoever counted it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) lost: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) device_deaths: AtomicU64,
    pub(crate) coordinator_deaths: AtomicU64,
    pub(crate) device_disks: AtomicU64,
    pub(crate) coordinator_disks: AtomicU64,
    pub(crate) lies: AtomicU64,
}

pub(crate) fn count(of: &AtomicU64) {
    of.fetch_add(1, Ordering::Relaxed);
}

/// How often things go wrong, in ten thousand, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    lost: u64,
    repeated: u64,
    copies: u64,
    late: u64,
    longest_millis: u64,
    device_dies: u64,
    coordinator_dies: u64,
    device_full: u64,
    coordinator_full: u64,
    clocks: u64,
    pub(crate) broken_permille: u32,
    lie: Option<Lie>,
    counts: Arc<Counts>,
}

impl Weather {
    /// Of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut number = 0;
        let mut pick = |of: [u64; 3]| {
            number += 1;
            of[usize::try_from(mix(&[seed, 0xea, number]) % 3).unwrap()]
        };
        Self {
            lost: pick([0, 200, 800]),
            repeated: pick([0, 300, 1_000]),
            copies: pick([0, 300, 1_500]),
            late: pick([0, 1_000, 5_000]),
            longest_millis: pick([500, 3_000, 8_000]),
            device_dies: pick([0, 60, 300]),
            coordinator_dies: pick([0, 100, 500]),
            device_full: pick([0, 40, 200]),
            coordinator_full: pick([0, 80, 400]),
            clocks: pick([0, 500, 2_000]),
            broken_permille: u32::try_from(pick([0, 0, 20])).unwrap(),
            lie: Lie::of(mix(&[seed, 0x11])),
            counts: Arc::default(),
        }
    }

    /// Nothing goes wrong.
    pub(crate) fn calm() -> Self {
        Self::default()
    }

    /// Somebody lies like this, and nothing else goes wrong.
    pub(crate) fn with(lie: Lie) -> Self {
        Self { lie: Some(lie), ..Self::default() }
    }

    pub(crate) fn faults(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct Air {
    weather: Weather,
    liar: Liar,
}

impl Air {
    pub(crate) fn of(seed: u64, weather: &Weather) -> Self {
        Self { weather: weather.clone(), liar: Liar::new(seed, weather.lie) }
    }
}

fn chance(rng: &mut ChaCha20Rng, of_ten_thousand: u64) -> bool {
    of_ten_thousand > 0 && rng.next_u64() % 10_000 < of_ten_thousand
}

impl Network for Air {
    fn carry(&mut self, _: usize, leg: Leg, _: usize, rng: &mut ChaCha20Rng) -> Carriage {
        let (weather, counts) = (&self.weather, &self.weather.counts);
        if chance(rng, weather.lost) {
            count(&counts.lost);
            return Carriage::Lost;
        }
        let twice = matches!(leg, Leg::Request) && chance(rng, weather.repeated);
        if twice {
            count(&counts.repeated);
        }
        let later_millis = if chance(rng, weather.late) {
            count(&counts.late);
            1 + rng.next_u64() % weather.longest_millis
        } else {
            0
        };
        Carriage::Arrives { later_millis, twice }
    }

    fn touches(&mut self, device: usize, leg: Leg, bytes: &mut Vec<u8>, rng: &mut ChaCha20Rng) -> bool {
        let is_touched = self.liar.touches(device, leg, bytes, rng);
        if is_touched {
            count(&self.weather.counts.lies);
        }
        is_touched
    }

    fn copies(&mut self, _: usize, rng: &mut ChaCha20Rng) -> Option<u64> {
        let weather = &self.weather;
        let often = weather.copies + self.liar.copies();
        if !chance(rng, often) {
            return None;
        }
        count(&weather.counts.copies);
        // Some before the request itself, most behind it, some in a later round.
        Some(match rng.next_u32() % 4 {
            0 => 0,
            1 | 2 => rng.next_u64() % 5_000,
            _ => rng.next_u64() % 120_000,
        })
    }
}

/// The disks.
#[derive(Debug)]
pub(crate) struct Disks {
    seed: u64,
    weather: Weather,
}

impl Disks {
    pub(crate) fn of(seed: u64, weather: &Weather) -> Self {
        Self { seed, weather: weather.clone() }
    }
}

impl Disk for Disks {
    fn writes(&self, who: Party, what: Record, number: u32) -> Fate {
        let (weather, counts) = (&self.weather, &self.weather.counts);
        let (dies, full, deaths, disks) = match who {
            Party::Coordinator => (
                weather.coordinator_dies,
                weather.coordinator_full,
                &counts.coordinator_deaths,
                &counts.coordinator_disks,
            ),
            Party::Device(_) => {
                (weather.device_dies, weather.device_full, &counts.device_deaths, &counts.device_disks)
            }
        };
        let drawn = mix(&[self.seed, 0xd1, name(who), u64::from(number), what as u64]);
        let (of, rest) = (drawn % 10_000, drawn / 10_000);
        let millis = 500 + rest / 2 % 25_000;
        if of < dies {
            count(deaths);
            Fate::Dies { kept: rest.is_multiple_of(2), millis }
        } else if of < dies + full {
            count(disks);
            Fate::Full { millis }
        } else {
            Fate::Kept
        }
    }
}

/// The clocks: each says for a while what it says.
#[derive(Debug)]
pub(crate) struct Clocks {
    seed: u64,
    often: u64,
}

impl Clocks {
    pub(crate) fn of(seed: u64, weather: &Weather) -> Self {
        Self { seed, often: weather.clocks }
    }
}

impl Clock for Clocks {
    fn ahead_millis(&self, who: Party, millis: u64) -> i64 {
        let part = millis / SET_MILLIS;
        let drawn = mix(&[self.seed, 0xc1, name(who), part]);
        // All are right at first.
        if part == 0 || drawn % 10_000 >= self.often {
            return 0;
        }
        // Who is more than a day ahead takes the enrollment log for an old one, until its clock is right again.
        let hours: i64 = [1, -1, 2, -2, 1, -1, 2, -2, 30, -30][usize::try_from(drawn / 10_000 % 10).unwrap()];
        hours * 3_600_000 + i64::try_from(drawn >> 32).unwrap() % 3_600_000
    }

    fn set_next(&self, who: Party, after_millis: u64) -> Option<u64> {
        if self.often == 0 {
            return None;
        }
        let (now, next) = (self.ahead_millis(who, after_millis), after_millis / SET_MILLIS + 1);
        // Looked at again then, where nothing is set as far as this looks: a later setting must not be slept past.
        let look = next + 16;
        let set = (next..look).map(|part| part * SET_MILLIS).find(|at| self.ahead_millis(who, *at) != now);
        set.or(Some(look * SET_MILLIS))
    }
}

fn name(who: Party) -> u64 {
    match who {
        Party::Coordinator => 0,
        Party::Device(place) => 1 + place as u64,
    }
}

/// A number that looks drawn, by these.
pub(crate) fn mix(of: &[u64]) -> u64 {
    let bytes: Vec<u8> = of.iter().flat_map(|word| word.to_le_bytes()).collect();
    u64::from_le_bytes(Digest::of(&bytes).0[..8].try_into().unwrap())
}
