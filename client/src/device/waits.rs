//! What a device that runs waits for, told to its user; and how long one that runs once is not answered.

use std::fmt;
use std::time::Duration;

use session::conditions::Uptime;
use session::{Event, SessionState};

use proto::counted::counted;
use proto::message::{Rejection, Reply};

use super::clock;
use crate::transport::Transport;

/// How long a device waits for others of a round before its log says so, in milliseconds: most waits are shorter.
const UNSAID_MILLIS: u64 = 10_000;

/// How long a device that runs once goes on asking a coordinator that does nothing for it, in milliseconds, from the first
/// question on and the one that is out included.
const TRIED_MILLIS: u64 = 30_000;

/// The same.
pub(super) const TRIED: Duration = Duration::from_millis(TRIED_MILLIS);

/// A time between two tries that is longer than any takes, in milliseconds: the machine slept in it.
const ASLEEP_MILLIS: u64 = 150_000;

/// What an event says of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The coordinator told the device to ask again later.
    Wait,
    /// There is no text to train on.
    NoText(String),
    /// The coordinator answered something else.
    Answer,
    /// The coordinator did not answer, or, as this says, could not.
    NoAnswer(Option<String>),
    /// Nothing of others.
    Nothing,
}

impl Heard {
    /// Of an event.
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::Replied(Reply::Wait { .. }) => Self::Wait,
            Event::NoText(why) => Self::NoText(why.clone()),
            Event::Unreachable => Self::NoAnswer(None),
            Event::Rejected(rejection @ Rejection::Unavailable(_)) => {
                Self::NoAnswer(Some(rejection.to_string()))
            }
            Event::Replied(_)
            | Event::Rejected(_)
            | Event::CertificateEnded
            | Event::Renewed { .. }
            | Event::PlanLoaded(_)
            | Event::Loaded { .. } => Self::Answer,
            Event::Woke
            | Event::Trained(_)
            | Event::NotTrained(_)
            | Event::TrainerFailed(_)
            | Event::CannotTrain(_)
            | Event::NoWindow
            | Event::WindowOpened
            | Event::ClockStepped
            | Event::LeavesRound
            | Event::Recorded => Self::Nothing,
        }
    }
}

/// What a device waits for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    what: Option<String>,
    since: Option<Uptime>,
    /// What the log said last.
    said: Option<String>,
}

impl Waits {
    /// Takes what was heard in the state `before`, and the state that it led to. Gives what the log is to say of it now.
    pub(super) fn heard(
        &mut self,
        heard: &Heard,
        (before, after): (SessionState, SessionState),
        at: Uptime,
    ) -> Option<String> {
        match heard {
            Heard::Wait => self.begin(after.awaits().map(str::to_owned), at),
            // What ended says it already.
            Heard::NoText(why) => {
                self.begin(Some(format!("waiting for text to train on: {why}")), at);
                self.said.clone_from(&self.what);
            }
            Heard::Answer | Heard::Nothing if before == after => {}
            Heard::Answer | Heard::NoAnswer(_) | Heard::Nothing => {
                (self.what, self.since) = (None, None);
                if after == SessionState::Training {
                    self.said = None;
                }
            }
        }
        let waited = self.since.map_or(0, |since| at.0.saturating_sub(since.0));
        let is_due = after == SessionState::Waiting || waited >= UNSAID_MILLIS;
        if self.what.is_none() || self.what == self.said || !is_due {
            return None;
        }
        self.said.clone_from(&self.what);
        self.what.clone()
    }

    /// The same while a question in this state is not answered yet: where the coordinator said before that the device waits
    /// for others, it holds the question. One that has said nothing yet may not even have been reached.
    pub(super) fn held(&mut self, state: SessionState, at: Uptime) -> Option<String> {
        self.what.as_ref().and(state.awaits())?;
        self.heard(&Heard::Wait, (state, state), at)
    }

    fn begin(&mut self, what: Option<String>, at: Uptime) {
        if self.what != what {
            self.since = what.as_ref().map(|_| at);
            self.what = what;
        }
    }

    /// What the device does in this state, for people.
    pub(super) fn name(&self, state: SessionState) -> &str {
        self.what.as_deref().unwrap_or_else(|| state.as_str())
    }
}

/// How often, and for how long, nobody answered a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unanswered {
    since: Option<Uptime>,
    last: Option<Uptime>,
    tries: u32,
}

impl Unanswered {
    /// Takes that a question goes out.
    pub(super) fn asks(&mut self, at: Uptime) {
        self.wakes(at);
        self.since.get_or_insert(at);
        self.last = Some(at);
    }

    /// Takes when the coordinator did something for this device, which may be in the middle of what was asked.
    pub(super) fn served(&mut self, at: Uptime) {
        if self.since.is_some_and(|since| since < at) {
            (self.since, self.tries) = (Some(at), 0);
        }
    }

    /// Since when a question is out, or is asked again and again.
    pub(super) fn since(&self) -> Option<Uptime> {
        self.since
    }

    /// Nobody tried while the machine slept, and the network of one that wakes up takes a moment.
    fn wakes(&mut self, at: Uptime) {
        if self.last.is_some_and(|last| at.0.saturating_sub(last.0) > ASLEEP_MILLIS) {
            *self = Self::default();
        }
    }

    /// Takes what was heard; gives how often it was tried, and for how many seconds, where that is too long for a device
    /// that runs once.
    pub(super) fn heard(&mut self, heard: &Heard, at: Uptime) -> Option<Tried> {
        match heard {
            Heard::Wait | Heard::Answer => {
                *self = Self::default();
                None
            }
            Heard::NoText(_) | Heard::Nothing => None,
            Heard::NoAnswer(_) => {
                self.wakes(at);
                self.last = Some(at);
                self.tries = self.tries.saturating_add(1);
                let millis = at.0.saturating_sub(self.since.get_or_insert(at).0);
                (millis >= TRIED_MILLIS).then_some(Tried { times: self.tries, secs: millis / 1000 })
            }
        }
    }
}

/// Ends when nothing came since then for as long as a device that runs once goes on asking; never where nobody asks so.
pub(super) async fn is_in_vain(transport: Transport, since: Option<Uptime>) {
    let Some(since) = since else { return std::future::pending().await };
    loop {
        let asked = clock::passed(since);
        let silent = transport.served_ago().map_or(asked, |ago| asked.min(ago));
        let left = TRIED.saturating_sub(silent);
        if left.is_zero() {
            return;
        }
        clock::wait(left).await;
    }
}

/// What was tried in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    times: u32,
    secs: u64,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tried {} in {} s", counted(self.times, "time", "times"), self.secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SessionState::{Advertising, CheckingIn, Sharing, Training, Waiting};

    #[test]
    fn a_wait_for_others_is_named_at_once_and_logged_when_it_lasts() {
        let mut waits = Waits::default();
        let mut at = |heard: &Heard, states, secs: u64| waits.heard(heard, states, Uptime(secs * 1000));
        assert_eq!(at(&Heard::Wait, (Advertising, Advertising), 1), None);
        assert_eq!(at(&Heard::Nothing, (Advertising, Advertising), 2), None);
        assert_eq!(at(&Heard::Wait, (Advertising, Advertising), 10), None);
        let said = at(&Heard::Wait, (Advertising, Advertising), 11);
        assert_eq!(said.as_deref(), Some("waiting for others to join the round"));
        assert_eq!(at(&Heard::Wait, (Advertising, Advertising), 60), None);
        assert_eq!(waits.name(Advertising), "waiting for others to join the round");
        // A step of its own is no wait, and one that is short is not logged.
        assert_eq!(waits.heard(&Heard::Answer, (Advertising, Sharing), Uptime(61_000)), None);
        assert_eq!(waits.name(Sharing), "sharing seeds");
        assert_eq!(waits.heard(&Heard::Wait, (Sharing, Sharing), Uptime(61_250)), None);
        assert_eq!(waits.name(Sharing), "waiting for others of the round to share seeds");
    }

    #[test]
    fn a_question_that_is_held_goes_on_with_what_its_coordinator_said() {
        let mut waits = Waits::default();
        // Nothing was said yet: it may not have been reached.
        assert_eq!(
            (waits.held(Advertising, Uptime(19_000)), waits.name(Advertising)),
            (None, "advertising keys")
        );
        assert_eq!(waits.heard(&Heard::Wait, (Advertising, Advertising), Uptime(20_000)), None);
        let others = "waiting for others to join the round";
        assert_eq!((waits.held(Advertising, Uptime(22_000)), waits.name(Advertising)), (None, others));
        assert_eq!(waits.held(Advertising, Uptime(30_000)).as_deref(), Some(others));
        assert_eq!(waits.held(Advertising, Uptime(32_000)), None);
        // Who cannot reach it knows no more what it waits for.
        assert_eq!(waits.heard(&Heard::NoAnswer(None), (Advertising, Advertising), Uptime(92_000)), None);
        assert_eq!(waits.name(Advertising), "advertising keys");
    }

    #[test]
    fn that_there_is_no_work_is_logged_at_once_and_once_until_it_has_trained() {
        let mut waits = Waits::default();
        let no_work = "waiting for work: the coordinator has none for this device now";
        let mut again = |secs: u64| {
            let said = waits.heard(&Heard::Wait, (CheckingIn, Waiting), Uptime(secs * 1000));
            assert_eq!(waits.name(Waiting), no_work);
            assert_eq!(waits.heard(&Heard::Nothing, (Waiting, CheckingIn), Uptime(secs * 1000)), None);
            said
        };
        assert_eq!(again(0).as_deref(), Some(no_work));
        assert_eq!((again(30), again(60)), (None, None));
        assert_eq!(waits.heard(&Heard::Answer, (CheckingIn, Training), Uptime(90_000)), None);
        let said = waits.heard(&Heard::Wait, (CheckingIn, Waiting), Uptime(120_000));
        assert_eq!(said.as_deref(), Some(no_work));
    }

    #[test]
    fn a_device_is_unanswered_too_long_after_half_a_minute_without_any_answer() {
        let mut unanswered = Unanswered::default();
        let in_vain = Heard::NoAnswer(None);
        for millis in [500, 1_000, 8_000, 30_499] {
            assert_eq!(unanswered.heard(&in_vain, Uptime(millis)), None, "{millis}");
        }
        let tried = unanswered.heard(&in_vain, Uptime(30_500)).unwrap();
        assert_eq!(tried.to_string(), "tried 5 times in 30 s");
        // One answer, be it that there is nothing to do, and the time begins anew.
        assert_eq!(unanswered.heard(&Heard::Wait, Uptime(31_000)), None);
        assert_eq!(unanswered.heard(&in_vain, Uptime(70_000)), None);
        assert_eq!(unanswered.heard(&in_vain, Uptime(99_999)), None);
        assert!(unanswered.heard(&in_vain, Uptime(100_000)).is_some());
    }

    #[test]
    fn a_question_that_is_out_counts_and_what_came_of_it_begins_the_time_anew() {
        let mut unanswered = Unanswered::default();
        unanswered.asks(Uptime(1_000));
        assert_eq!(unanswered.since(), Some(Uptime(1_000)));
        let tried = unanswered.heard(&Heard::NoAnswer(None), Uptime(31_000)).unwrap();
        assert_eq!(tried.to_string(), "tried 1 time in 30 s");
        // A large artifact comes in parts: its end is not heard for long, and its parts are.
        let mut unanswered = Unanswered::default();
        unanswered.asks(Uptime(1_000));
        unanswered.served(Uptime(50_000));
        assert_eq!(unanswered.heard(&Heard::NoAnswer(None), Uptime(55_000)), None);
        assert!(unanswered.heard(&Heard::NoAnswer(None), Uptime(80_000)).is_some());
        // What came before anything was asked is no answer to it, and who sleeps asks nothing.
        let mut unanswered = Unanswered::default();
        unanswered.served(Uptime(500));
        assert_eq!(unanswered.since(), None);
        unanswered.asks(Uptime(1_000));
        unanswered.served(Uptime(500));
        assert_eq!(unanswered.since(), Some(Uptime(1_000)));
        unanswered.asks(Uptime(8 * 3_600_000));
        assert_eq!(unanswered.since(), Some(Uptime(8 * 3_600_000)));
    }

    #[test]
    fn a_machine_that_slept_between_two_tries_has_not_tried_all_the_while() {
        let mut unanswered = Unanswered::default();
        let in_vain = Heard::NoAnswer(None);
        assert_eq!(unanswered.heard(&in_vain, Uptime(1_000)), None);
        let woke = 8 * 3_600_000;
        assert_eq!(unanswered.heard(&in_vain, Uptime(woke)), None);
        // A call that waits for its answer is no sleep.
        let tried = unanswered.heard(&in_vain, Uptime(woke + 61_000)).unwrap();
        assert_eq!(tried.to_string(), "tried 2 times in 61 s");
    }

    #[test]
    fn a_coordinator_that_cannot_answer_is_none_that_answers() {
        let unavailable = Event::Rejected(Rejection::Unavailable("its disk is full".to_owned()));
        let Heard::NoAnswer(Some(why)) = Heard::of(&unavailable) else { panic!("{unavailable:?}") };
        assert!(why.contains("its disk is full"), "{why}");
        assert_eq!(Heard::of(&Event::Rejected(Rejection::UnknownTask)), Heard::Answer);
    }
}
