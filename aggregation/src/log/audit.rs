//! All of a log, read by whoever wants to know who was enrolled.

use std::collections::{BTreeMap, HashMap, HashSet};

use thiserror::Error;

use super::{Book, Head, Leaf, Tree};
use crate::identity::IdentityPublic;

const DAY_SECS: u64 = 24 * 3600;

/// What an honest authority never writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A device has another identity key than before.
    #[error("entry {place} gives a device another identity key")]
    OtherIdentity {
        /// The entry.
        place: u64,
    },
    /// An identity key is that of two devices.
    #[error("entry {place} gives a second device the identity key of an earlier one")]
    OtherDevice {
        /// The entry.
        place: u64,
    },
    /// A device enrolled at another time than before.
    #[error("entry {place} says that a device enrolled at another time than an earlier entry did")]
    OtherTime {
        /// The entry.
        place: u64,
    },
    /// A device is older than what was written before it.
    #[error(
        "entry {place} says of a new device that it enrolled {days} days before the entries before it, which only a clock that was \
         set back would explain"
    )]
    Backdated {
        /// The entry.
        place: u64,
        /// By how much, in whole days.
        days: u64,
    },
    /// A device that was shut out was given a credential.
    #[error("entry {place} is a credential of a device that was shut out before")]
    Revoked {
        /// The entry.
        place: u64,
    },
    /// The entries are not those of the head.
    #[error("the entries are not those of the head")]
    Root,
    /// The head counts other devices than there are.
    #[error("the head counts {counted} devices, the entries have {found}")]
    Devices {
        /// By the head.
        counted: u64,
        /// In the entries.
        found: u64,
    },
}

/// A reading of a log from its first entry on.
#[derive(Debug, Default)]
pub struct Auditor {
    book: Book,
    devices: HashMap<[u8; 16], Device>,
    identities: HashMap<IdentityPublic, [u8; 16]>,
    revoked: HashSet<[u8; 16]>,
    versions: u64,
    /// The latest time at which the authority wrote an entry, by what it says of itself: that a device enrolled, or was shut out.
    /// Not that of a version, which is a coordinator's word; and it never goes back, so that neither an old entry between nor many
    /// small steps lead to the past.
    latest: u64,
    enrolled: BTreeMap<u64, u64>,
    faults: Vec<Fault>,
    /// Faults beyond those that are told.
    more_faults: u64,
}

#[derive(Debug)]
struct Device {
    identity: IdentityPublic,
    enrolled_unix_secs: u64,
    label: [u8; 16],
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The entries.
    pub size: u64,
    /// The devices that ever enrolled.
    pub devices: u64,
    /// Those of them that were shut out.
    pub revoked: u64,
    /// The versions.
    pub versions: u64,
    /// How many devices enrolled on each day since 1970 on which some did.
    pub enrolled: BTreeMap<u64, u64>,
    /// What an honest authority would not have written, the first [`MOST_FAULTS`] of it.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub more_faults: u64,
}

/// The most faults that are told one by one.
pub const MOST_FAULTS: usize = 20;

impl Auditor {
    /// The devices so far.
    pub fn devices(&self) -> u64 {
        self.devices.len() as u64
    }

    fn finds(&mut self, fault: Fault) {
        if self.faults.len() < MOST_FAULTS { self.faults.push(fault) } else { self.more_faults += 1 }
    }

    /// The entries so far.
    pub fn size(&self) -> u64 {
        self.book.size()
    }

    /// The tree over the entries so far.
    pub const fn tree(&self) -> &Tree {
        self.book.tree()
    }

    /// The devices whose last label this is.
    pub fn labeled(&self, label: &[u8; 16]) -> usize {
        self.devices.values().filter(|device| device.label == *label).count()
    }

    /// Reads the next entry.
    pub fn add(&mut self, leaf: &Leaf) {
        let place = self.book.append(leaf);
        match *leaf {
            Leaf::Credential { device, identity, enrolled_unix_secs, label, .. } => {
                if self.revoked.contains(&device) {
                    self.finds(Fault::Revoked { place });
                }
                if *self.identities.entry(identity).or_insert(device) != device {
                    self.finds(Fault::OtherDevice { place });
                }
                if let Some(known) = self.devices.get_mut(&device) {
                    let is_other = known.identity != identity;
                    let is_of_other_time = known.enrolled_unix_secs != enrolled_unix_secs;
                    known.label = label;
                    if is_other {
                        self.finds(Fault::OtherIdentity { place });
                    }
                    if is_of_other_time {
                        self.finds(Fault::OtherTime { place });
                    }
                } else {
                    let days = self.latest.saturating_sub(enrolled_unix_secs) / DAY_SECS;
                    // Clocks go a little wrong, and several hours of one night are nothing.
                    if days > 1 {
                        self.finds(Fault::Backdated { place, days });
                    }
                    self.latest = self.latest.max(enrolled_unix_secs);
                    *self.enrolled.entry(enrolled_unix_secs / DAY_SECS).or_default() += 1;
                    self.devices.insert(device, Device { identity, enrolled_unix_secs, label });
                }
            }
            Leaf::Revocation { device, unix_secs } => {
                self.revoked.insert(device);
                self.latest = self.latest.max(unix_secs);
            }
            Leaf::Version { .. } => self.versions += 1,
        }
    }

    /// Compares what was read with the head over it.
    pub fn finish(self, head: &Head) -> Audited {
        let (found, mut faults) = (self.devices.len() as u64, self.faults);
        if head.size != self.book.size() || self.book.tree().root(head.size) != Some(head.root) {
            faults.push(Fault::Root);
        } else if head.devices != found {
            faults.push(Fault::Devices { counted: head.devices, found });
        }
        Audited {
            size: self.book.size(),
            devices: found,
            revoked: self.revoked.iter().filter(|device| self.devices.contains_key(*device)).count() as u64,
            versions: self.versions,
            enrolled: self.enrolled,
            faults,
            more_faults: self.more_faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;

    const NOW: u64 = 20_000 * DAY_SECS;

    fn credential(id: u8, identity: u8, enrolled_unix_secs: u64) -> Leaf {
        Leaf::Credential {
            device: [id; 16],
            identity: IdentityPublic([identity; 32]),
            expires_unix_secs: NOW,
            enrolled_unix_secs,
            label: [id; 16],
            attested: [0; 32],
        }
    }

    fn version(unix_secs: u64) -> Leaf {
        let (plan, adapter, roster) = ([1; 32], [2; 32], [3; 32]);
        Leaf::Version { task: [0; 16], version: 1, plan, adapter, roster, survivors: 4, unix_secs }
    }

    fn audited(leaves: &[Leaf]) -> Audited {
        let (mut auditor, mut book) = (Auditor::default(), Book::default());
        for leaf in leaves {
            auditor.add(leaf);
            book.append(leaf);
        }
        let head = book.next_head(&IdentityKey::from_seed(&[1; 32]), NOW);
        auditor.finish(head.head())
    }

    #[test]
    fn what_an_honest_authority_writes_has_no_fault() {
        let renewed = credential(1, 1, NOW);
        let revocation = Leaf::Revocation { device: [2; 16], unix_secs: NOW + DAY_SECS };
        let leaves = [
            credential(1, 1, NOW),
            credential(2, 2, NOW + 5),
            renewed,
            version(NOW + 9),
            revocation,
            credential(3, 3, NOW + DAY_SECS),
        ];
        let expected = Audited {
            size: 6,
            devices: 3,
            revoked: 1,
            versions: 1,
            enrolled: BTreeMap::from([(20_000, 2), (20_001, 1)]),
            faults: Vec::new(),
            more_faults: 0,
        };
        assert_eq!(audited(&leaves), expected);
    }

    #[test]
    fn what_no_honest_authority_writes_is_named() {
        let faults = |leaves: &[Leaf]| audited(leaves).faults;
        let first = || credential(1, 1, NOW);
        assert_eq!(faults(&[first(), credential(1, 9, NOW)]), [Fault::OtherIdentity { place: 1 }]);
        assert_eq!(faults(&[first(), credential(2, 1, NOW)]), [Fault::OtherDevice { place: 1 }]);
        assert_eq!(faults(&[first(), credential(1, 1, NOW - 5)]), [Fault::OtherTime { place: 1 }]);
        let backdated = credential(2, 2, NOW - 30 * DAY_SECS);
        assert_eq!(faults(&[first(), backdated.clone()]), [Fault::Backdated { place: 1, days: 30 }]);
        let shut_out = Leaf::Revocation { device: [7; 16], unix_secs: NOW };
        assert_eq!(faults(&[shut_out, backdated]), [Fault::Backdated { place: 1, days: 30 }]);
        let revoked = Leaf::Revocation { device: [1; 16], unix_secs: NOW };
        assert_eq!(faults(&[first(), revoked, first()]), [Fault::Revoked { place: 2 }]);
    }

    /// A coordinator says when a version was made.
    #[test]
    fn a_coordinator_s_word_accuses_no_authority_and_hides_nothing() {
        let ahead = version(NOW + 5000 * DAY_SECS);
        assert_eq!(audited(&[credential(1, 1, NOW), ahead, credential(2, 2, NOW + 5)]).faults, []);
        let year = 365 * DAY_SECS;
        let hidden = [
            credential(1, 1, NOW),
            version(NOW - year),
            credential(2, 2, NOW - year),
            credential(3, 3, NOW - year),
        ];
        let named = [Fault::Backdated { place: 2, days: 365 }, Fault::Backdated { place: 3, days: 365 }];
        assert_eq!(audited(&hidden).faults, named);
    }

    #[test]
    fn small_steps_into_the_past_are_named() {
        let step = 2 * DAY_SECS - 1;
        let stairs: Vec<Leaf> =
            (0_u8..=40).map(|at| credential(at, at, NOW - u64::from(at) * step)).collect();
        let Audited { faults, more_faults, .. } = audited(&stairs);
        assert_eq!(faults[0], Fault::Backdated { place: 2, days: 3 });
        assert_eq!(faults.len() as u64 + more_faults, 39);
        // An earlier revocation hides none either.
        let old = Leaf::Revocation { device: [1; 16], unix_secs: NOW - 40 * DAY_SECS };
        let leaves = [credential(1, 1, NOW), old, credential(2, 2, NOW - 40 * DAY_SECS)];
        assert_eq!(audited(&leaves).faults, [Fault::Backdated { place: 2, days: 40 }]);
    }

    #[test]
    fn entries_that_are_not_those_of_the_head_are_a_fault() {
        let (mut auditor, mut book) = (Auditor::default(), Book::default());
        book.append(&credential(1, 1, NOW));
        auditor.add(&credential(2, 2, NOW));
        let key = IdentityKey::from_seed(&[1; 32]);
        assert_eq!(auditor.finish(book.next_head(&key, NOW).head()).faults, [Fault::Root]);
        let mut auditor = Auditor::default();
        auditor.add(&credential(1, 1, NOW));
        let head = Head { devices: 7, ..*book.next_head(&key, NOW).head() };
        assert_eq!(auditor.finish(&head).faults, [Fault::Devices { counted: 7, found: 1 }]);
    }
}
