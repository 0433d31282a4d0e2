//! What a device demands of a log.

use thiserror::Error;

use super::{Head, HeadError, ProofError, SignedHead, Witness, check_consistency, check_inclusions};
use crate::{advertisement::Advertisement, index::DeviceIndex, merkle::TreeHash};

const DAY_SECS: u64 = 24 * 3600;

/// How far ahead of a device's clock a head may be, in seconds: a day, as for certificates.
const CLOCK_SLACK_SECS: u64 = DAY_SECS;

/// What a device demands of the log of its authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The oldest head of which it takes part in a round, in seconds.
    pub longest_age_secs: u64,
    /// Who should have seen a head.
    pub witnesses: Vec<Witness>,
    /// How many of them must have.
    pub least_witnesses: usize,
    /// Most devices that enroll in a day, where there is a limit.
    pub most_enrolled_a_day: Option<u64>,
    /// Since when a device must be enrolled not to count as young, in seconds.
    pub least_age_secs: u64,
    /// The digest of the policy under which all of a roster must have been attested, where that is demanded.
    pub attested: Option<[u8; 32]>,
}

/// What a device keeps of the heads that it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The one with most leaves.
    pub head: Head,
    /// When the running day began, by the device's own clock, and with how many devices.
    pub day: (u64, u64),
}

/// Why a device takes part in no round about a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadRefusal {
    /// The text is no head of the device's authority.
    #[error("the head of the enrollment log: {0}")]
    Head(#[from] HeadError),
    /// It is too old.
    #[error("the head of the enrollment log is {hours} hours old, this device takes none older than {most}")]
    Old {
        /// Its age.
        hours: u64,
        /// The oldest.
        most: u64,
    },
    /// It is from a time to come.
    #[error("the head of the enrollment log is {hours} hours ahead of this device's clock; set the clock")]
    Ahead {
        /// How far.
        hours: u64,
    },
    /// It does not go on from what this device saw of the log, and it is shorter.
    #[error(
        "the enrollment log has {size} entries and had {seen} when this device saw it last: it was rolled back or forked"
    )]
    RolledBack {
        /// What it has.
        size: u64,
        /// What this device saw.
        seen: u64,
    },
    /// It does not go on from what this device saw of the log.
    #[error("the enrollment log does not go on from the {seen} entries that this device saw: it was forked")]
    Forked {
        /// What this device saw.
        seen: u64,
    },
    /// Too few witnesses saw it.
    #[error("{got} of the witnesses signed the head of the enrollment log, this device asks for {need}")]
    Witnesses {
        /// Those who did.
        got: usize,
        /// Those who must.
        need: usize,
    },
    /// Too many devices enrolled.
    #[error("{got} devices enrolled within {days} days, this device takes at most {most} a day")]
    Growth {
        /// Those who did.
        got: u64,
        /// In so many days.
        days: u64,
        /// The most in one.
        most: u64,
    },
}

/// Why a device takes part in no round with a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ListedError {
    /// An entry has no place in a log.
    #[error("roster entry {index} has no place in the enrollment log")]
    NoPlace {
        /// Which.
        index: DeviceIndex,
    },
    /// The entries are not below the head.
    #[error("the roster is not in the enrollment log: {0}")]
    Proof(#[from] ProofError),
    /// An entry was not attested under the policy that the device demands.
    #[error("roster entry {index} was not attested under the policy that this device demands")]
    Unattested {
        /// Which.
        index: DeviceIndex,
    },
    /// Too many enrolled only lately.
    #[error(
        "{got} devices of the roster enrolled within the last {hours} hours, this device takes at most {most}"
    )]
    Young {
        /// Those who did.
        got: usize,
        /// The most.
        most: usize,
        /// What counts as lately.
        hours: u64,
    },
}

impl Watch {
    /// Looks at a head. `path` shows that the longer of it and of what was seen goes on from the other. Returns what
    /// is to be kept, durably, before anything is signed about the head.
    pub fn accept(
        &self,
        seen: Option<&Seen>,
        signed: &SignedHead,
        path: &[TreeHash],
        now_unix_secs: u64,
    ) -> Result<Seen, HeadRefusal> {
        let head = *signed.head();
        let age = now_unix_secs.saturating_sub(head.unix_secs);
        if age > self.longest_age_secs {
            return Err(HeadRefusal::Old { hours: age.div_ceil(3600), most: self.longest_age_secs / 3600 });
        }
        let ahead = head.unix_secs.saturating_sub(now_unix_secs);
        if ahead > CLOCK_SLACK_SECS {
            return Err(HeadRefusal::Ahead { hours: ahead / 3600 });
        }
        let got = signed.seen_by(&self.witnesses);
        if got < self.least_witnesses {
            return Err(HeadRefusal::Witnesses { got, need: self.least_witnesses });
        }
        let Some(seen) = seen else {
            return Ok(Seen { head, day: (now_unix_secs, head.devices) });
        };
        let at = |head: &Head| (head.size, head.root);
        let (new, last) = (at(&head), at(&seen.head));
        // A round that was opened earlier is about an earlier head of the same log.
        if new.0 < last.0 {
            let holds = check_consistency((new.0, &new.1), (last.0, &last.1), path);
            let refused = HeadRefusal::RolledBack { size: new.0, seen: last.0 };
            return holds.map(|()| *seen).map_err(|_| refused);
        }
        let forked = HeadRefusal::Forked { seen: last.0 };
        check_consistency((last.0, &last.1), (new.0, &new.1), path).map_err(|_| forked)?;
        // Of the same entries there are as many devices, and of more not fewer.
        let counts = (seen.head.devices, head.devices);
        if counts.1 < counts.0 || (new.0 == last.0 && counts.0 != counts.1) {
            return Err(forked);
        }
        let (since, devices) = seen.day;
        let elapsed = now_unix_secs.saturating_sub(since);
        let days = (elapsed / DAY_SECS).max(1);
        let got = head.devices.saturating_sub(devices);
        match self.most_enrolled_a_day {
            Some(most) if got > most.saturating_mul(days) => Err(HeadRefusal::Growth { got, days, most }),
            Some(_) | None => {
                let day = if elapsed >= DAY_SECS {
                    (now_unix_secs, head.devices)
                } else {
                    // A clock that was ahead does not make a day without end.
                    (since.min(now_unix_secs), devices)
                };
                Ok(Seen { head, day })
            }
        }
    }

    /// Fails unless all entries of a roster are leaves below the head that its round is about, and no more than
    /// `most_young` of them enrolled only lately. Whoever counts on an entry verifies its credential, which is what
    /// the leaf is of.
    pub fn check_listed(
        &self,
        head: &Head,
        entries: &[Advertisement],
        nodes: &[TreeHash],
        most_young: usize,
        now_unix_secs: u64,
    ) -> Result<(), ListedError> {
        let mut leaves = Vec::with_capacity(entries.len());
        let mut got = 0;
        for (index, entry) in entries.iter().enumerate() {
            let index = DeviceIndex::from(u16::try_from(index).unwrap_or(u16::MAX));
            let listed = entry.credential.logged.zip(entry.credential.leaf());
            let (logged, (place, leaf)) = listed.ok_or(ListedError::NoPlace { index })?;
            leaves.push((place, leaf.hash()));
            let age = now_unix_secs.saturating_sub(logged.enrolled_unix_secs);
            got += usize::from(age < self.least_age_secs);
            if self.attested.is_some_and(|policy| policy != logged.attested) {
                return Err(ListedError::Unattested { index });
            }
        }
        leaves.sort_unstable();
        check_inclusions(&leaves, (head.size, &head.root), nodes)?;
        if got > most_young {
            let hours = self.least_age_secs.div_ceil(3600);
            return Err(ListedError::Young { got, most: most_young, hours });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
