//! How far devices come with a version, counted for operators: each device once in every step that it reached.
//!
//! Nothing here decides anything, and nothing of it is durable: after a start the newest version is counted anew. Memory is
//! bounded by [`MOST_COUNTED`] devices and the reasons that there are.

use std::collections::BTreeMap;

use proto::admin::Funnel;
use proto::ids::{DeviceId, Timestamp};
use proto::message::{CheckIn, DeclineReason, Outcome, Reply, Request};

/// Devices that are told apart with one version.
const MOST_COUNTED: usize = 1 << 16;

/// Since when devices are counted with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Since the version is there.
    FromItsBeginning,
    /// Since the coordinator was started, when the version was there already.
    FromTheStart,
}

/// How far a device came; each step has those before it behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// It asked for work, and was given or refused this.
    Offered,
    /// It was given it, and has not given it up since.
    Assigned,
    /// It has trained and asked to join a round.
    Trained,
    /// It joined one.
    Joined,
    /// Its whole input came.
    Submitted,
    /// It is in the sum.
    Counted,
}

impl Step {
    /// The step that a request is for, if it is one that is counted.
    pub(super) fn of(request: &Request) -> Option<Self> {
        match request {
            Request::CheckIn(CheckIn { only_keeps: false, .. }) => Some(Self::Offered),
            Request::Join { .. } => Some(Self::Trained),
            Request::Advertise { .. } => Some(Self::Joined),
            Request::MaskedDone { .. } => Some(Self::Submitted),
            // It asks for no work.
            Request::CheckIn(CheckIn { only_keeps: true, .. })
            | Request::Fetch { .. }
            | Request::Decline { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::Agree { .. }
            | Request::Unmask { .. } => None,
        }
    }

    /// The step that was reached where a request for this one got an answer that is no rejection; none where the round that it
    /// is of was over.
    fn reached(self, reply: &Reply) -> Option<Self> {
        match (self, reply) {
            (_, Reply::Over(_)) => None,
            (Self::Offered, Reply::Assignment(_)) => Some(Self::Assigned),
            (step, _) => Some(step),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Reached {
    step: Step,
    /// The round that it joined last, and that to which its whole input came; 0 where there is none.
    joined: u64,
    submitted: u64,
    missing: bool,
}

/// What is counted of a task.
#[derive(Debug)]
pub(super) struct Funnels {
    version: u32,
    since: Timestamp,
    whole: bool,
    reached: BTreeMap<DeviceId, Reached>,
    overflowed: bool,
    last_offered: Timestamp,
    last: Option<Funnel>,
    /// What was counted until the task was over; nobody is told apart any more.
    ended: Option<Funnel>,
    /// When each reason was given first and last.
    reasons: BTreeMap<DeclineReason, (Timestamp, Timestamp)>,
}

impl Funnels {
    /// Counts devices that train from this version, which may be there for a while already.
    pub(super) fn new(version: u32) -> Self {
        Self {
            version,
            since: Timestamp(0),
            whole: false,
            reached: BTreeMap::new(),
            overflowed: false,
            last_offered: Timestamp(0),
            last: None,
            ended: None,
            reasons: BTreeMap::new(),
        }
    }

    /// Says when counting begins; `whole` where that is when the version is there.
    pub(super) fn begin(&mut self, now: Timestamp, whole: Counted) {
        self.since = now;
        self.whole = match whole {
            Counted::FromItsBeginning => true,
            Counted::FromTheStart => false,
        };
    }

    /// The one of the version before, where it was counted.
    pub(super) fn last(&self) -> Option<Funnel> {
        self.last
    }

    /// When a reason was given first and last.
    pub(super) fn given(&self, reason: DeclineReason) -> (Timestamp, Timestamp) {
        self.reasons.get(&reason).copied().unwrap_or_default()
    }

    /// A device had an answer that is no rejection to a request for a step, in this round if in any.
    pub(super) fn saw(&mut self, device: DeviceId, asked: Step, reply: &Reply, round: u64, now: Timestamp) {
        let Some(step) = asked.reached(reply) else { return };
        if step <= Step::Assigned {
            self.last_offered = now;
        }
        let Some(reached) = self.entry(device) else { return };
        reached.step = reached.step.max(step);
        match step {
            Step::Joined => (reached.joined, reached.missing) = (round, false),
            Step::Submitted => reached.submitted = round,
            Step::Offered | Step::Assigned | Step::Trained | Step::Counted => {}
        }
    }

    /// A device gave a reason not to take part.
    pub(super) fn declined(&mut self, device: DeviceId, reason: DeclineReason, now: Timestamp) {
        self.reasons.entry(reason).or_insert((now, now)).1 = now;
        self.gave_up(device);
    }

    /// A device does not train what it was given: it was offered it, and that is all.
    pub(super) fn gave_up(&mut self, device: DeviceId) {
        if let Some(reached) = self.reached.get_mut(&device).filter(|reached| reached.step == Step::Assigned)
        {
            reached.step = Step::Offered;
        }
    }

    /// A round ended without a version.
    pub(super) fn aborted(&mut self, round: u64, outcome: Outcome) {
        let waited_for_inputs = match outcome {
            Outcome::TooFewSurvivors | Outcome::NoQuorum | Outcome::NotRecovered => true,
            Outcome::Published
            | Outcome::TooFewJoined
            | Outcome::NotDrawn
            | Outcome::TooFewShared
            | Outcome::Stopped => false,
        };
        if waited_for_inputs {
            self.miss(round, |reached| reached.submitted != round);
        }
    }

    /// A round gave its sum.
    pub(super) fn gathered(&mut self, round: u64, survivors: &[DeviceId]) {
        for device in survivors {
            if let Some(reached) = self.entry(*device) {
                reached.step = Step::Counted;
            }
        }
        self.miss(round, |reached| reached.step < Step::Counted);
    }

    /// Another version is the newest, whatever it came from.
    pub(super) fn next(&mut self, made: u32, now: Timestamp) {
        let last = self.counts();
        let reasons = std::mem::take(&mut self.reasons);
        *self = Self { last: Some(last), reasons, ..Self::new(made) };
        self.begin(now, Counted::FromItsBeginning);
    }

    /// The task is over: what was counted stays, and who was counted is let go.
    pub(super) fn end(&mut self) {
        self.ended = Some(self.counts());
        self.reached = BTreeMap::new();
    }

    /// The newest version's.
    pub(super) fn counts(&self) -> Funnel {
        if let Some(ended) = self.ended {
            return ended;
        }
        let count = |is: &dyn Fn(&Reached) -> bool| {
            u32::try_from(self.reached.values().filter(|reached| is(reached)).count()).unwrap_or(u32::MAX)
        };
        let from = |step: Step| count(&|reached| reached.step >= step);
        Funnel {
            version: self.version,
            since_unix_millis: self.since.0,
            whole: self.whole,
            offered: from(Step::Offered),
            assigned: from(Step::Assigned),
            trained: from(Step::Trained),
            joined: from(Step::Joined),
            submitted: from(Step::Submitted),
            counted: from(Step::Counted),
            missing: count(&|reached| reached.missing),
            overflowed: self.overflowed,
            last_offered_unix_millis: self.last_offered.0,
        }
    }

    fn miss(&mut self, round: u64, is_missing: impl Fn(&Reached) -> bool) {
        for reached in self.reached.values_mut().filter(|reached| reached.joined == round) {
            reached.missing |= is_missing(reached);
        }
    }

    fn entry(&mut self, device: DeviceId) -> Option<&mut Reached> {
        if self.reached.len() >= MOST_COUNTED && !self.reached.contains_key(&device) {
            self.overflowed = true;
            return None;
        }
        let new = Reached { step: Step::Offered, joined: 0, submitted: 0, missing: false };
        Some(self.reached.entry(device).or_insert(new))
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::SessionId;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn device(id: u16) -> DeviceId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        DeviceId(bytes)
    }

    fn offer() -> Reply {
        Reply::Offer { session: SessionId([1; 32]), round: 1, log: None }
    }

    fn saw(funnels: &mut Funnels, id: u16, step: Step, round: u64) {
        funnels.saw(device(id), step, &offer(), round, NOW);
    }

    #[test]
    fn a_device_is_counted_once_in_every_step_that_it_reached_and_in_those_before() {
        let mut funnels = Funnels::new(3);
        for _ in 0..3 {
            saw(&mut funnels, 1, Step::Trained, 0);
        }
        saw(&mut funnels, 2, Step::Offered, 0);
        // It asks again, which takes nothing away.
        saw(&mut funnels, 1, Step::Offered, 0);
        let counts = funnels.counts();
        assert_eq!((counts.offered, counts.assigned, counts.trained, counts.joined), (2, 1, 1, 0));
        assert_eq!((counts.version, counts.last_offered_unix_millis, counts.whole), (3, NOW.0, false));
    }

    #[test]
    fn who_declines_what_it_was_given_has_it_no_more_until_it_is_given_it_again() {
        let mut funnels = Funnels::new(0);
        let assigned = |funnels: &Funnels| (funnels.counts().offered, funnels.counts().assigned);
        for id in 1..=3 {
            saw(&mut funnels, id, Step::Assigned, 0);
        }
        funnels.declined(device(1), DeclineReason::Noise, NOW);
        funnels.gave_up(device(2));
        assert_eq!(assigned(&funnels), (3, 1));
        saw(&mut funnels, 1, Step::Assigned, 0);
        assert_eq!(assigned(&funnels), (3, 2));
        // What it has trained stays trained, and one that nobody has heard of is none.
        saw(&mut funnels, 3, Step::Trained, 0);
        funnels.declined(device(3), DeclineReason::Noise, NOW);
        funnels.declined(device(9), DeclineReason::Noise, NOW);
        assert_eq!((assigned(&funnels), funnels.counts().trained), ((3, 2), 1));
    }

    #[test]
    fn who_joined_and_is_not_in_the_sum_is_missing_and_the_next_version_begins_at_nothing() {
        let mut funnels = Funnels::new(0);
        for id in 1..=3 {
            saw(&mut funnels, id, Step::Joined, 7);
        }
        for id in 1..=2 {
            saw(&mut funnels, id, Step::Submitted, 7);
        }
        funnels.declined(device(4), DeclineReason::Noise, NOW);
        funnels.gathered(7, &[device(1), device(2)]);
        funnels.next(1, Timestamp(2_000));
        let last = funnels.last.unwrap();
        assert_eq!((last.joined, last.submitted, last.counted, last.missing), (3, 2, 2, 1));
        let now = funnels.counts();
        assert_eq!((now.version, now.since_unix_millis, now.whole, now.offered), (1, 2_000, true, 0));
        assert!(
            funnels.reasons.contains_key(&DeclineReason::Noise),
            "it stands as long as the device keeps to it"
        );
    }

    #[test]
    fn who_left_a_round_that_failed_is_missing_until_it_joins_another() {
        let mut funnels = Funnels::new(0);
        for id in 1..=3 {
            saw(&mut funnels, id, Step::Joined, 7);
        }
        // Nobody was asked for an input yet.
        funnels.aborted(7, Outcome::TooFewJoined);
        assert_eq!(funnels.counts().missing, 0);
        saw(&mut funnels, 1, Step::Submitted, 7);
        funnels.aborted(7, Outcome::TooFewSurvivors);
        assert_eq!(funnels.counts().missing, 2);
        saw(&mut funnels, 2, Step::Joined, 8);
        assert_eq!(funnels.counts().missing, 1);
        // What it sent to the round before is not of this one.
        saw(&mut funnels, 1, Step::Joined, 8);
        funnels.aborted(8, Outcome::NoQuorum);
        assert_eq!(funnels.counts().missing, 3);
    }

    #[test]
    fn what_a_device_asks_of_a_round_that_is_over_is_no_step_of_the_next_version() {
        let mut funnels = Funnels::new(1);
        funnels.saw(device(1), Step::Submitted, &Reply::Over(Outcome::Published), 7, NOW);
        assert_eq!(funnels.counts().offered, 0);
    }

    #[test]
    fn a_crowd_beyond_what_is_counted_is_said_to_be_one() {
        let mut funnels = Funnels::new(0);
        for id in 0..=u16::MAX {
            saw(&mut funnels, id, Step::Offered, 0);
        }
        assert!(!funnels.counts().overflowed);
        funnels.saw(DeviceId([0xff; 16]), Step::Trained, &offer(), 0, NOW);
        // Who is known already is counted on.
        saw(&mut funnels, 9, Step::Trained, 0);
        let counts = funnels.counts();
        assert!(counts.overflowed);
        assert_eq!((counts.offered, counts.trained), (1 << 16, 1));
    }

    #[test]
    fn a_reason_is_known_since_it_was_given_first() {
        let mut funnels = Funnels::new(0);
        funnels.declined(device(1), DeclineReason::Noise, Timestamp(5));
        funnels.declined(device(2), DeclineReason::Noise, Timestamp(9));
        assert_eq!(funnels.reasons[&DeclineReason::Noise], (Timestamp(5), Timestamp(9)));
    }
}
