//! How many refusals of an operator are written down: whoever asks again and again must not fill the disk. Pure.

use std::collections::BTreeMap;

use proto::ids::{Serial, Timestamp};

/// Refusals of one certificate that are written in an hour.
const AN_HOUR: u32 = 20;

const HOUR_MILLIS: u64 = 3_600_000;

/// What was refused of each certificate within its hour. There are no more of them than certificates that are good.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Serial, Counted>);

#[derive(Debug)]
struct Counted {
    began: Timestamp,
    written: u32,
    unwritten: u64,
}

impl Refusals {
    /// Whether a refusal is written down, and how many before it were not.
    pub(super) fn may_write(&mut self, serial: Serial, now: Timestamp) -> Option<u64> {
        let new = Counted { began: now, written: 0, unwritten: 0 };
        let counted = self.0.entry(serial).or_insert(new);
        if now.millis_since(counted.began) >= HOUR_MILLIS {
            (counted.began, counted.written) = (now, 0);
        }
        if counted.written >= AN_HOUR {
            counted.unwritten += 1;
            return None;
        }
        counted.written += 1;
        Some(std::mem::take(&mut counted.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_an_hour_are_written_and_the_next_says_how_many_were_not() {
        let mut refusals = Refusals::default();
        let (one, other) = (Serial([1; 16]), Serial([2; 16]));
        let written = (0..50).filter(|at| refusals.may_write(one, Timestamp(*at)).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(refusals.may_write(other, Timestamp(50)), Some(0), "others' are others'");
        assert_eq!(refusals.may_write(one, Timestamp(HOUR_MILLIS - 1)), None);
        assert_eq!(refusals.may_write(one, Timestamp(HOUR_MILLIS)), Some(31));
        assert_eq!(refusals.may_write(one, Timestamp(HOUR_MILLIS)), Some(0));
    }
}
