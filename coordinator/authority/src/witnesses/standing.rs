//! What a witness's answer means, and when it is asked again; without any IO.

use proto::admin::WitnessStatus;
use proto::shown::shown;

/// How long it is waited after a first failure, in seconds; twice as long after each further one.
const AGAIN_SECS: u64 = 5;

/// The longest.
const MOST_AGAIN_SECS: u64 = 600;

/// The most of an answer that is shown, in characters.
const MOST_SHOWN: usize = 200;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its lines sign the head, if they hold.
    Signed,
    /// It saw so many entries last, and is to be shown what leads from there.
    Saw(u64),
    /// It does not sign.
    Trouble(Trouble),
}

/// Why a witness does not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It does not answer.
    #[error("{0}")]
    Away(String),
    /// It does not know the log.
    #[error("it does not know this log: give whoever runs it the log's key, which `nightshift health` shows")]
    Unknown,
    /// It knows the log by another key.
    #[error(
        "it knows this log by another key: give whoever runs it the log's key, which `nightshift health` shows"
    )]
    OtherKey,
    /// It does not understand what it was sent.
    #[error("it does not take what it was sent for a head of a log: {0}")]
    Malformed(String),
    /// It says that something is wrong with it.
    #[error("it answered {status}: {said}")]
    Failed {
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// It signed, and that could not be written down here.
    #[error("what it signed cannot be kept here: {0}")]
    NotKept(String),
    /// What it answers is no answer to that.
    #[error("what it answers is not taken: {0}")]
    Garbage(String),
    /// It saw more entries than there are.
    #[error("it saw {saw} entries, and there are {size} here")]
    Ahead {
        /// Those that it saw.
        saw: u64,
        /// Those that there are.
        size: u64,
    },
    /// It saw other entries.
    #[error("the log does not go on from the {seen} entries that it saw")]
    Forked {
        /// Those that it saw.
        seen: u64,
    },
}

impl Trouble {
    /// Whether it saw another log than there is here.
    pub const fn is_fork(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::Forked { .. } => true,
            Self::Away(_)
            | Self::Unknown
            | Self::OtherKey
            | Self::Malformed(_)
            | Self::Failed { .. }
            | Self::NotKept(_)
            | Self::Garbage(_) => false,
        }
    }
}

/// Reads an answer, which has a status, a kind and a body, to a head of `size` entries with what leads to it from `old`.
pub fn read((status, kind, body): (u16, &str, &str), (old, size): (u64, u64)) -> Reading {
    let said = || {
        let words: String = body.chars().take(MOST_SHOWN).collect();
        shown(words.trim()).to_string()
    };
    match status {
        200 => Reading::Signed,
        400 => Reading::Trouble(Trouble::Malformed(said())),
        403 => Reading::Trouble(Trouble::OtherKey),
        404 => Reading::Trouble(Trouble::Unknown),
        409 if kind == "text/x.tlog.size" => {
            let saw = body
                .strip_suffix('\n')
                .and_then(|saw| saw.parse::<u64>().ok().filter(|number| number.to_string() == saw));
            match saw {
                None => Reading::Trouble(Trouble::Garbage("it names no size".to_owned())),
                Some(saw) if saw > size => Reading::Trouble(Trouble::Ahead { saw, size }),
                Some(saw) if saw == old => {
                    Reading::Trouble(Trouble::Garbage("it refuses the size that it names".to_owned()))
                }
                Some(saw) => Reading::Saw(saw),
            }
        }
        // As many entries with another root, and a proof that does not lead there: ours is made of the entries that are here.
        409 | 422 => Reading::Trouble(Trouble::Forked { seen: old }),
        status => Reading::Trouble(Trouble::Failed { status, said: said() }),
    }
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It signs again.
    Signs,
    /// It saw another log.
    Fork(String),
    /// It does not sign, for another reason.
    Fails(String),
}

/// How a witness stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The entries that it saw, as far as is known.
    seen: u64,
    /// When it signed last, by its own clock or ours.
    signed_unix_secs: u64,
    /// Why it does not sign now, and since when.
    trouble: Option<(Trouble, u64)>,
    failures: u32,
    due_unix_secs: u64,
}

impl Standing {
    /// It signed a head of so many entries at this time, by what is kept.
    pub fn begins(&mut self, at: Option<(u64, u64)>) {
        if let Some((size, unix_secs)) = at {
            (self.seen, self.signed_unix_secs) = (size, unix_secs);
        }
    }

    /// The entries that it saw, as far as is known.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether it is asked now.
    pub const fn is_due(&self, now_unix_secs: u64) -> bool {
        // A clock that was ahead puts nobody off for longer than they would be.
        now_unix_secs >= self.due_unix_secs || self.due_unix_secs - now_unix_secs > MOST_AGAIN_SECS
    }

    /// It signed a head.
    pub fn signed(&mut self, size: u64, now_unix_secs: u64) -> Option<Said> {
        let was = self.trouble.take();
        *self = Self { seen: size, signed_unix_secs: now_unix_secs, ..Self::default() };
        was.map(|_| Said::Signs)
    }

    /// It did not. What is worth a line is what is new.
    pub fn failed(&mut self, trouble: Trouble, now_unix_secs: u64) -> Option<Said> {
        let wait = AGAIN_SECS.saturating_mul(1 << self.failures.min(16)).min(MOST_AGAIN_SECS);
        self.failures = self.failures.saturating_add(1);
        self.due_unix_secs = now_unix_secs.saturating_add(wait);
        let before = self.trouble.take();
        let since = before.as_ref().map_or(now_unix_secs, |(_, since)| *since);
        let is_known = before
            .is_some_and(|(before, _)| std::mem::discriminant(&before) == std::mem::discriminant(&trouble));
        let words = trouble.to_string();
        let said = if trouble.is_fork() { Said::Fork(words) } else { Said::Fails(words) };
        self.trouble = Some((trouble, since));
        (!is_known).then_some(said)
    }

    /// How it is, in words.
    pub fn status(&self, name: &str) -> WitnessStatus {
        let (trouble, since) =
            self.trouble.as_ref().map(|(trouble, since)| (trouble.to_string(), *since)).unzip();
        WitnessStatus {
            name: name.to_owned(),
            signed_size: if self.signed_unix_secs == 0 { 0 } else { self.seen },
            signed_unix_secs: self.signed_unix_secs,
            trouble,
            trouble_since_unix_secs: since.unwrap_or(0),
            saw_other_log: self.trouble.as_ref().is_some_and(|(trouble, _)| trouble.is_fork()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const SIZE: &str = "text/x.tlog.size";

    fn trouble(status: u16, kind: &str, body: &str) -> Trouble {
        let Reading::Trouble(trouble) = read((status, kind, body), (5, 9)) else {
            panic!("{status} {body:?}")
        };
        trouble
    }

    #[test]
    fn each_answer_means_what_the_protocol_says() {
        assert_eq!(read((200, "text/plain", "a line"), (5, 9)), Reading::Signed);
        for saw in [0, 4, 6, 9] {
            assert_eq!(read((409, SIZE, &format!("{saw}\n")), (5, 9)), Reading::Saw(saw));
        }
        assert_eq!(trouble(409, SIZE, "10\n"), Trouble::Ahead { saw: 10, size: 9 });
        for garbage in ["", "6", "06\n", "+6\n", "six\n", "6\n\n", "5\n", "18446744073709551616\n"] {
            assert!(matches!(trouble(409, SIZE, garbage), Trouble::Garbage(_)), "{garbage:?}");
        }
        assert_eq!(trouble(409, "text/plain", "6\n"), Trouble::Forked { seen: 5 });
        assert_eq!(trouble(422, "text/plain", "no"), Trouble::Forked { seen: 5 });
        assert_eq!(trouble(404, "", ""), Trouble::Unknown);
        assert_eq!(trouble(403, "", ""), Trouble::OtherKey);
        assert_eq!(trouble(400, "", " why\n"), Trouble::Malformed("why".to_owned()));
        let long = "\u{1b}[2J".repeat(500);
        let Trouble::Failed { status: 503, said } = trouble(503, "", &long) else { panic!("it failed") };
        assert!(said.len() < 2000 && !said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn it_is_asked_again_ever_later_and_each_thing_is_said_once() {
        let (mut standing, away) = (Standing::default(), || Trouble::Away("away".to_owned()));
        assert!(standing.is_due(NOW));
        assert_eq!(standing.failed(away(), NOW), Some(Said::Fails("away".to_owned())));
        let mut waits = Vec::new();
        let mut now = NOW;
        for _ in 0..9 {
            let wait = (0..=MOST_AGAIN_SECS).find(|wait| standing.is_due(now + wait)).unwrap();
            waits.push(wait);
            now += wait;
            assert_eq!(standing.failed(away(), now), None);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        let status = standing.status("w");
        assert_eq!((status.trouble_since_unix_secs, status.saw_other_log), (NOW, false));
        let fork = standing.failed(Trouble::Forked { seen: 5 }, now);
        assert!(matches!(fork, Some(Said::Fork(_))) && standing.status("w").saw_other_log);
        assert_eq!(standing.failed(Trouble::Forked { seen: 6 }, now), None);
        assert_eq!(standing.signed(7, now), Some(Said::Signs));
        assert_eq!(standing.signed(8, now), None);
        assert!(standing.is_due(now) && standing.seen() == 8);
        let status = standing.status("w");
        assert_eq!((status.signed_size, status.signed_unix_secs, status.trouble), (8, now, None));
    }

    #[test]
    fn a_clock_that_was_ahead_puts_nobody_off() {
        let mut standing = Standing::default();
        standing.failed(Trouble::Unknown, NOW + 1_000_000);
        assert!(standing.is_due(NOW));
    }
}
