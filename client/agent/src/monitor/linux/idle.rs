//! How long nobody has used the machine: what logind says of the sessions, and what terminals and input devices show.
//!
//! The machine is in use while any session of a user is neither idle nor locked, whether it is in front, in the
//! background or from afar. A graphical session says itself when it is idle; one whose window manager never does (many
//! small ones do not, without an idle daemon beside them) is in use until it is locked or left. A session at a terminal
//! is as idle as its terminal. Whatever the sessions say, what terminals and input devices show counts as use, too.

use std::collections::BTreeMap;
use std::time::Duration;

use session::conditions::Reading;

use super::told::Told;

/// A moment by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since 1970, by the clock that people set.
    pub(super) wall: Duration,
    /// Since this program began to look, by the clock that nobody sets.
    pub(super) up: Duration,
}

impl Moment {
    /// What two stamps of one clock may be apart that are of one time.
    const DRIFT: Duration = Duration::from_secs(60);
}

/// What logind says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sessions {
    pub(super) all: Vec<Session>,
    /// Since when there has been no session of a user, as far as this program has seen; by `up`.
    pub(super) nobody_since: Option<Duration>,
}

/// A session of logind's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Session {
    /// Its object on the bus.
    pub(super) path: String,
    /// `user`, `user-early` and the like are people's; `greeter`, `background` and `manager` are not.
    pub(super) class: String,
    /// `opening`, `online`, `active` or `closing`.
    pub(super) state: String,
    /// `x11`, `wayland`, `tty` and the like.
    pub(super) kind: String,
    /// Below `/dev`, as `tty2` or `pts/0`; empty without one.
    pub(super) terminal: String,
    /// `IdleHint`.
    pub(super) idle: bool,
    /// `IdleSinceHint`, since 1970; zero where it is not said.
    pub(super) idle_since: Duration,
    /// Since when it was seen idle, by `up`.
    pub(super) idle_seen: Option<Duration>,
    /// Since when it was seen locked, by `up`.
    pub(super) locked_seen: Option<Duration>,
}

impl Session {
    /// Whether a person is behind it.
    pub(super) fn counts(&self) -> bool {
        self.class.starts_with("user") && self.state != "closing"
    }

    /// How long it has not been used.
    fn unused(&self, now: Moment, terminals: &BTreeMap<String, Duration>) -> Duration {
        let used = terminals.get(&self.terminal).filter(|_| self.kind == "tty");
        if let Some(used) = used {
            return now.wall.saturating_sub(*used);
        }
        let since = |seen: Option<Duration>| seen.map_or(Duration::ZERO, |seen| now.up.saturating_sub(seen));
        let idle = match (self.idle, self.idle_since) {
            (false, _) => Duration::ZERO,
            (true, Duration::ZERO) => since(self.idle_seen),
            // A stamp from the future is of a clock that was set: in use now.
            (true, stamp) => now.wall.saturating_sub(stamp),
        };
        idle.max(since(self.locked_seen))
    }
}

/// What terminals and input devices show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hands {
    /// When somebody typed at each terminal last, since 1970.
    pub(super) terminals: BTreeMap<String, Duration>,
    /// When an input device was plugged in last, since 1970.
    pub(super) plugged: Option<Duration>,
    /// Since when the counters of keyboards and mice are watched, by `up`; `None` where there are none.
    pub(super) watched: Option<Duration>,
    /// When such a counter moved last, by `up`.
    pub(super) moved: Option<Duration>,
}

impl Hands {
    /// How long they have shown nothing; `None` where nothing is there that could show it.
    fn unused(&self, now: Moment) -> Option<Duration> {
        // A stamp from the future is of a clock that was set back since; who types now makes a new one.
        let stamped = |stamp: &&Duration| **stamp <= now.wall + Moment::DRIFT;
        let newest = self.terminals.values().filter(stamped).max();
        let by_terminals = newest.map(|used| now.wall.saturating_sub(*used));
        let since = |at: Duration| now.up.saturating_sub(at);
        // Before they were watched, only terminals tell.
        let by_counters = match (self.moved, by_terminals) {
            (Some(moved), _) => Some(since(moved)),
            (None, None) => self.watched.map(since),
            (None, Some(_)) => None,
        };
        let known = by_terminals.into_iter().chain(by_counters).min()?;
        let plugged = self.plugged.as_ref().filter(stamped).map(|plugged| now.wall.saturating_sub(*plugged));
        Some(plugged.map_or(known, |plugged| known.min(plugged)))
    }
}

/// How long nobody has used the machine. `clock_set` is when the wall's clock was last seen to jump, by `up`: what was
/// stamped before is not compared with what it says now. A machine that slept has jumped, too.
pub(super) fn idle(
    now: Moment,
    told: &Told<Sessions>,
    hands: &Hands,
    clock_set: Option<Duration>,
) -> Reading<Duration> {
    let by_hands = hands.unused(now);
    let (by_sessions, source) = match told {
        Told::Trouble(why) => return Reading::unknown(why.clone()),
        Told::Absent(why) if by_hands.is_none() => {
            return Reading::unknown(format!("{why}, no terminals in /dev, no keyboard and no mouse"));
        }
        Told::Absent(_) => (None, "terminals and input devices"),
        Told::Value(sessions) => {
            let people = sessions.all.iter().filter(|session| session.counts());
            let least = people.map(|session| session.unused(now, &hands.terminals)).min();
            let nobody = sessions.nobody_since.map(|since| now.up.saturating_sub(since));
            let source = if by_hands.is_some() {
                "logind IdleHint, terminals and input devices"
            } else {
                "logind IdleHint"
            };
            (least.or(nobody), source)
        }
    };
    let jumped = clock_set.map(|at| now.up.saturating_sub(at));
    let least = by_sessions.into_iter().chain(by_hands).chain(jumped).min();
    least.map_or_else(|| Reading::unknown(source), |idle| Reading::of(idle, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { wall: secs(1_000_000), up: secs(5_000) };

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// So many seconds before now.
    fn wall_ago(ago: u64) -> Duration {
        NOW.wall.saturating_sub(secs(ago))
    }

    fn up_ago(ago: u64) -> Duration {
        NOW.up.saturating_sub(secs(ago))
    }

    fn session() -> Session {
        Session {
            path: "/a".into(),
            class: "user".into(),
            state: "active".into(),
            kind: "wayland".into(),
            terminal: String::new(),
            idle: false,
            idle_since: Duration::ZERO,
            idle_seen: None,
            locked_seen: None,
        }
    }

    /// Idle for so long.
    fn idle_for(idle: u64) -> Session {
        Session { idle: true, idle_since: wall_ago(idle), idle_seen: Some(secs(0)), ..session() }
    }

    fn typed(terminals: &[(&str, u64)]) -> Hands {
        let used = |(name, ago): &(&str, u64)| ((*name).to_owned(), wall_ago(*ago));
        Hands { terminals: terminals.iter().map(used).collect(), ..Hands::default() }
    }

    fn by(sessions: &[Session], hands: &Hands) -> u64 {
        let told = Told::Value(Sessions { all: sessions.to_vec(), nobody_since: Some(secs(4_000)) });
        idle(NOW, &told, hands, None).value.unwrap().as_secs()
    }

    #[test]
    fn a_session_that_is_neither_idle_nor_locked_is_use() {
        let none = Hands::default();
        assert_eq!(by(&[idle_for(600)], &none), 600);
        assert_eq!(by(&[idle_for(600), idle_for(70)], &none), 70);
        assert_eq!(by(&[idle_for(600), session()], &none), 0);
        let in_background = Session { state: "online".into(), ..session() };
        assert_eq!(by(&[idle_for(600), in_background], &none), 0);
    }

    #[test]
    fn sessions_of_no_person_and_sessions_that_close_do_not_count() {
        let none = Hands::default();
        let greeter = Session { class: "greeter".into(), ..session() };
        let closing = Session { state: "closing".into(), ..session() };
        let manager = Session { class: "manager".into(), ..session() };
        let root_at_a_console = Session { class: "user-early".into(), ..session() };
        assert_eq!(by(&[idle_for(600), greeter.clone(), closing.clone(), manager], &none), 600);
        assert_eq!(by(&[idle_for(600), root_at_a_console], &none), 0);
        // Nobody since 4000 by the clock that says 5000.
        assert_eq!(by(&[greeter, closing], &none), 1000);
        assert_eq!(by(&[], &typed(&[("tty1", 50)])), 50);
    }

    #[test]
    fn a_locked_session_is_unused_since_it_was_seen_locked() {
        let locked = Session { locked_seen: Some(up_ago(40)), ..session() };
        assert_eq!(by(std::slice::from_ref(&locked), &Hands::default()), 40);
        let idle_before = Session { locked_seen: locked.locked_seen, ..idle_for(100) };
        assert_eq!(by(&[idle_before], &Hands::default()), 100);
        // Somebody types a password.
        let typing = Hands { watched: Some(secs(0)), moved: Some(NOW.up), ..Hands::default() };
        assert_eq!(by(&[locked], &typing), 0);
    }

    #[test]
    fn a_session_that_does_not_say_since_when_is_idle_since_it_was_seen() {
        let seen = Session { idle_since: Duration::ZERO, idle_seen: Some(up_ago(33)), ..idle_for(600) };
        assert_eq!(by(&[seen], &Hands::default()), 33);
    }

    #[test]
    fn a_session_at_a_terminal_is_as_idle_as_its_terminal() {
        let shell = Session { kind: "tty".into(), terminal: "pts/0".into(), ..session() };
        assert_eq!(by(std::slice::from_ref(&shell), &typed(&[("pts/0", 400)])), 400);
        assert_eq!(by(&[shell.clone(), idle_for(900)], &typed(&[("pts/0", 400), ("tty1", 20)])), 20);
        // From afar and without a terminal it is what its hint says.
        let without = Session { terminal: String::new(), ..shell.clone() };
        assert_eq!(by(&[without], &typed(&[("pts/0", 400)])), 0);
        let unseen = Session { terminal: "pts/7".into(), ..shell };
        assert_eq!(by(&[unseen], &typed(&[("pts/0", 400)])), 0);
    }

    #[test]
    fn input_counts_even_where_the_session_says_that_it_is_idle() {
        let moved = Hands { watched: Some(secs(0)), moved: Some(up_ago(3)), ..Hands::default() };
        assert_eq!(by(&[idle_for(600)], &moved), 3);
        let plugged = Hands { plugged: Some(wall_ago(9)), ..typed(&[("tty1", 700)]) };
        assert_eq!(by(&[idle_for(600)], &plugged), 9);
    }

    #[test]
    fn a_stamp_from_the_future_is_use_and_so_is_a_clock_that_jumped() {
        let future = Session { idle_since: NOW.wall + secs(100), ..idle_for(600) };
        assert_eq!(by(&[future], &Hands::default()), 0);
        let terminals =
            Hands { terminals: [("tty1".to_owned(), NOW.wall + secs(60))].into(), ..Hands::default() };
        assert_eq!(by(&[idle_for(600)], &terminals), 0);
        let told = Told::Value(Sessions { all: vec![idle_for(86_400)], nobody_since: None });
        let after = idle(NOW, &told, &Hands::default(), Some(up_ago(7)));
        assert_eq!(after.value, Some(secs(7)));
    }

    #[test]
    fn without_logind_terminals_and_input_devices_tell() {
        let absent = Told::Absent("no logind on the bus".to_owned());
        let told = |hands: &Hands| idle(NOW, &absent, hands, None);
        let source = "terminals and input devices";
        assert_eq!(told(&typed(&[("tty1", 90), ("pts/3", 30)])), Reading::of(secs(30), source));
        // What is only watched is known from then on.
        let watched = Hands { watched: Some(up_ago(12)), ..Hands::default() };
        assert_eq!(told(&watched), Reading::of(secs(12), source));
        assert_eq!(told(&Hands { watched: Some(NOW.up), ..typed(&[("tty1", 90)]) }).value, Some(secs(90)));
        let nothing = told(&Hands { plugged: Some(secs(1)), ..Hands::default() });
        let why = "no logind on the bus, no terminals in /dev, no keyboard and no mouse";
        assert_eq!(nothing, Reading::unknown(why));
    }

    #[test]
    fn trouble_with_logind_is_not_made_up_for_by_terminals() {
        let trouble = Told::Trouble("logind does not answer".to_owned());
        let told = idle(NOW, &trouble, &typed(&[("tty1", 9_000)]), None);
        assert_eq!(told, Reading::unknown("logind does not answer"));
    }
}
