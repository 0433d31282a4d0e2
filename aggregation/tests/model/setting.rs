//! Who there is, and which rosters the coordinator shows them.

/// Devices, one bit each.
pub(crate) type Set = u16;

pub(crate) const fn has(set: Set, device: usize) -> bool {
    set >> device & 1 == 1
}

pub(crate) const fn size(set: Set) -> usize {
    set.count_ones() as usize
}

/// The devices of a set, in order.
pub(crate) fn devices(set: Set) -> impl Iterator<Item = usize> {
    (0..16).filter(move |device| has(set, *device))
}

/// Every subset, the largest first in the order of its bits.
pub(crate) fn subsets(of: Set) -> impl Iterator<Item = Set> {
    std::iter::successors(Some(of), move |last| (*last != 0).then(|| (last - 1) & of))
}

/// Which devices cannot be told apart so far: those with equal numbers.
#[derive(Clone, Debug)]
pub(crate) struct Classes(pub(crate) [u32; 16]);

impl Classes {
    /// With the devices in `set` told apart from the others.
    pub(crate) fn split(mut self, set: Set) -> Self {
        for (device, class) in self.0.iter_mut().enumerate() {
            *class = *class * 2 + u32::from(has(set, device));
        }
        self
    }

    /// Whether of every class the first ones are in the set: of the sets that
    /// are equal but for names exactly one is.
    pub(crate) fn is_first(&self, set: Set) -> bool {
        let follows = |device: usize| (0..device).rev().find(|other| self.0[*other] == self.0[device]);
        devices(set).all(|device| follows(device).is_none_or(|before| has(set, before)))
    }
}

/// A ring: places, and the parameters that go with it.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) order: Vec<usize>,
    pub(crate) neighbors: usize,
    pub(crate) threshold: usize,
    pub(crate) window_bound: usize,
}

/// One roster. A device has at most one advertisement in it.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub(crate) members: Set,
    /// Those that are in it with the advertisement they made after a restart.
    pub(crate) restarted: Set,
    pub(crate) ring: Option<Ring>,
    neighbors: [Set; 16],
}

impl Roster {
    pub(crate) fn complete(members: Set, restarted: Set) -> Self {
        let mut neighbors = [0; 16];
        for device in devices(members) {
            neighbors[device] = members & !(1 << device);
        }
        Self { members, restarted, ring: None, neighbors }
    }

    pub(crate) fn ring(ring: Ring, restarted: Set) -> Self {
        let (places, half) = (ring.order.len(), ring.neighbors / 2);
        let mut neighbors = [0; 16];
        let mut members = 0;
        for (at, device) in ring.order.iter().enumerate() {
            members |= 1 << device;
            for step in 1..=half {
                neighbors[*device] |=
                    1 << ring.order[(at + step) % places] | 1 << ring.order[(at + places - step) % places];
            }
        }
        Self { members, restarted, ring: Some(ring), neighbors }
    }

    pub(crate) fn neighbors(&self, device: usize) -> Set {
        self.neighbors[device]
    }

    /// Who holds shares of the device's seeds.
    pub(crate) fn holders(&self, device: usize) -> Set {
        let own = if self.ring.is_none() { 1 << device } else { 0 };
        self.neighbors[device] | own
    }

    /// Fewest shares that rebuild a seed.
    pub(crate) fn threshold(&self) -> usize {
        self.ring.as_ref().map_or(size(self.members) / 2 + 1, |ring| ring.threshold)
    }

    /// Whether each stretch of half as many places as there are neighbors has
    /// more of `set` in it than may be corrupt.
    pub(crate) fn has_no_thin_window(&self, set: Set) -> bool {
        self.fewest_in_a_window(set, usize::min).is_none_or(|(fewest, bound)| fewest > bound)
    }

    /// Whether the places of the corrupt are such as the parameters allow.
    pub(crate) fn bears(&self, corrupt: Set) -> bool {
        let few = |device| size(self.holders(device) & corrupt) < self.threshold();
        devices(self.members & !corrupt).all(few)
            && self.fewest_in_a_window(corrupt, usize::max).is_none_or(|(most, bound)| most <= bound)
    }

    fn fewest_in_a_window(&self, set: Set, pick: fn(usize, usize) -> usize) -> Option<(usize, usize)> {
        let ring = self.ring.as_ref()?;
        let (places, half) = (ring.order.len(), ring.neighbors / 2);
        let inside = |at: usize| (at..at + half).filter(|at| has(set, ring.order[at % places])).count();
        (0..places).map(inside).reduce(pick).map(|count| (count, ring.window_bound))
    }
}

/// An advertisement of an honest device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advertisement {
    pub(crate) device: usize,
    /// Made after a restart.
    pub(crate) second: bool,
    /// The rosters that it is in, one bit each.
    pub(crate) rosters: u8,
}

/// Who is corrupt and which rosters there are.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) corrupt: Set,
    pub(crate) rosters: Vec<Roster>,
    /// Those of honest devices, by device.
    pub(crate) advertisements: Vec<Advertisement>,
    pub(crate) classes: Classes,
}

impl Setting {
    pub(crate) fn new(corrupt: Set, rosters: Vec<Roster>) -> Self {
        let mut advertisements = Vec::new();
        let mut classes = Classes([0; 16]).split(corrupt);
        for roster in &rosters {
            classes = classes.split(roster.members).split(roster.restarted);
            if let Some(ring) = &roster.ring {
                // No two places on a ring are alike.
                for device in &ring.order {
                    classes.0[*device] = 1000 + u32::try_from(*device).unwrap();
                }
            }
        }
        for device in (0..16).filter(|device| !has(corrupt, *device)) {
            for second in [false, true] {
                let within = rosters.iter().enumerate().filter(|(_, roster)| {
                    has(roster.members, device) && has(roster.restarted, device) == second
                });
                let rosters = within.map(|(index, _)| 1 << index).sum();
                if rosters != 0 {
                    advertisements.push(Advertisement { device, second, rosters });
                }
            }
        }
        Self { corrupt, rosters, advertisements, classes }
    }

    /// The devices that restarted and advertised again.
    pub(crate) fn restarted(&self) -> Set {
        self.rosters.iter().fold(0, |set, roster| set | roster.restarted)
    }

    /// The honest advertisement of a member of a roster.
    pub(crate) fn advertisement(&self, roster: usize, device: usize) -> Option<usize> {
        let of = |one: &Advertisement| one.device == device && one.rosters >> roster & 1 == 1;
        self.advertisements.iter().position(of)
    }
}

/// Rosters over the complete graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Complete {
    pub(crate) honest: usize,
    /// Corrupt devices in all.
    pub(crate) corrupt: usize,
    /// Corrupt devices in one roster.
    pub(crate) corrupt_of_roster: usize,
    pub(crate) smallest: usize,
    pub(crate) largest: usize,
    /// One or two rosters.
    pub(crate) rosters: usize,
    /// Devices that restart.
    pub(crate) restarts: usize,
}

impl Complete {
    /// Every choice of rosters, but for names.
    pub(crate) fn settings(self) -> Vec<Setting> {
        let (all, honest): (Set, Set) = ((1 << (self.honest + self.corrupt)) - 1, (1 << self.honest) - 1);
        let corrupt = all & !honest;
        let names = Classes([0; 16]).split(corrupt);
        let fits = |classes: &Classes, members: Set| {
            let complete = Roster::complete(members, 0);
            classes.is_first(members)
                && (self.smallest..=self.largest).contains(&size(members))
                && size(members & corrupt) <= self.corrupt_of_roster
                && complete.bears(corrupt)
        };
        let mut settings = Vec::new();
        for one in subsets(all).filter(|one| fits(&names, *one)) {
            if self.rosters == 1 {
                settings.push(Setting::new(corrupt, vec![Roster::complete(one, 0)]));
                continue;
            }
            let classes = names.clone().split(one);
            for other in subsets(all).filter(|other| fits(&classes, *other)) {
                let classes = classes.clone().split(other);
                let both = one & other & honest;
                for restarted in
                    subsets(both).filter(|set| classes.is_first(*set) && size(*set) <= self.restarts)
                {
                    // The rosters may change their names if nobody restarts.
                    if restarted != 0 || (one != other && size(one) >= size(other)) {
                        let rosters = vec![Roster::complete(one, 0), Roster::complete(other, restarted)];
                        settings.push(Setting::new(corrupt, rosters));
                    }
                }
            }
        }
        settings
    }
}
