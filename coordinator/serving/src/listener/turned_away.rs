//! What a listener did not let in, counted by kind: one warning a minute for each kind, however many there were.

use std::sync::atomic::{AtomicU64, Ordering};

use super::traffic::Traffic;

/// Why a peer or a call was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The connection sent nothing in time.
    Silent,
    /// The handshake was not over in time.
    SlowHandshake,
    /// The handshake failed: no TLS 1.3, or a certificate that is not good here.
    FailedHandshake,
    /// The oldest connection of its kind and network made room for a newer one.
    CrowdedOut,
    /// A device came while as many as there may be were connected.
    Full,
    /// A certificate names somebody who is not known, or was shut out.
    ShutOut,
    /// A peer without a certificate called something else than `Enroll`, or one that was shut out since called.
    NotEnrolled,
    /// A message was larger than its sender may send.
    TooLarge,
    /// A message was not complete in time.
    TooSlow,
    /// There was no room for another message in memory.
    NoMemory,
    /// A device called more often than it may, and was answered later.
    TooOften,
    /// The system gave the process no further descriptor.
    NoDescriptor,
}

/// Every reason, in the order of [`Reason`]: as a label, and in words.
const REASONS: [(Reason, &str, &str); 12] = [
    (Reason::Silent, "silent", "nothing was sent in time"),
    (Reason::SlowHandshake, "slow_handshake", "the handshake took too long"),
    (Reason::FailedHandshake, "failed_handshake", "the handshake failed"),
    (Reason::CrowdedOut, "crowded_out", "newer connections took the place"),
    (Reason::Full, "full", "too many devices are connected"),
    (Reason::ShutOut, "shut_out", "a certificate of somebody who is not known or was shut out"),
    (
        Reason::NotEnrolled,
        "not_enrolled",
        "a call without a certificate that was not `Enroll`, or of somebody who was shut out",
    ),
    (Reason::TooLarge, "too_large", "a message was too large"),
    (Reason::TooSlow, "too_slow", "a message was not complete in time"),
    (Reason::NoMemory, "no_memory", "no memory was left for another message"),
    (Reason::TooOften, "too_often", "a device called too often and was answered later"),
    (Reason::NoDescriptor, "no_descriptor", "the system gave no further file descriptor"),
];

/// How often each reason came up, and beside it what was let in.
#[derive(Debug, Default)]
pub struct TurnedAway {
    /// What was let in.
    pub traffic: Traffic,
    since_start: [AtomicU64; REASONS.len()],
    told: [AtomicU64; REASONS.len()],
}

/// What is to be told of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Why, in words.
    pub why: &'static str,
    /// How often since it was last told.
    pub times: u64,
    /// How often since the start.
    pub since_start: u64,
}

impl TurnedAway {
    /// Counts one.
    pub fn count(&self, reason: Reason) {
        for ((known, ..), counter) in REASONS.iter().zip(&self.since_start) {
            if *known == reason {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How often each reason came up since the start, such as did.
    pub fn since_start(&self) -> Vec<(&'static str, u64)> {
        let counters = REASONS.iter().zip(&self.since_start);
        let counts = counters.map(|((.., why), counter)| (*why, counter.load(Ordering::Relaxed)));
        counts.filter(|(_, times)| *times > 0).collect()
    }

    /// How often each reason came up since the start, by its label; also such as never did.
    pub fn by_reason(&self) -> Vec<(&'static str, u64)> {
        let counters = REASONS.iter().zip(&self.since_start);
        counters.map(|((_, label, _), counter)| (*label, counter.load(Ordering::Relaxed))).collect()
    }

    /// What has come up since this was last asked; to be asked once a minute.
    pub fn notices(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (((.., why), counter), told) in REASONS.iter().zip(&self.since_start).zip(&self.told) {
            let since_start = counter.load(Ordering::Relaxed);
            let times = since_start - told.swap(since_start, Ordering::Relaxed);
            if times > 0 {
                notices.push(Notice { why, times, since_start });
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_with_how_often_it_came_up() {
        let turned = TurnedAway::default();
        for reason in [Reason::Silent, Reason::NoDescriptor, Reason::Silent] {
            turned.count(reason);
        }
        let told = turned.notices();
        assert_eq!(told.iter().map(|notice| notice.times).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(told[0].why, "nothing was sent in time");
        assert_eq!(turned.notices(), []);
        turned.count(Reason::Silent);
        let again = [Notice { why: "nothing was sent in time", times: 1, since_start: 3 }];
        assert_eq!(turned.notices(), again);
        let since_start =
            [("nothing was sent in time", 3), ("the system gave no further file descriptor", 1)];
        assert_eq!(turned.since_start(), since_start);
        let labels = turned.by_reason();
        assert_eq!((labels.len(), labels[0], labels[1]), (12, ("silent", 3), ("slow_handshake", 0)));
    }
}
