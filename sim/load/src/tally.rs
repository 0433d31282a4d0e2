//! What is counted while devices play: pure sums, which add up over processes.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use proto::ids::{SessionId, TaskId};
use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::words::PUBLISHED;

/// The most rounds that are told apart. Of those beyond, only the offers are counted.
pub(crate) const MOST_ROUNDS: usize = 100_000;

/// The question by which a device asks for work.
pub const CHECK_IN: &str = "check-in";

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Questions that were answered, by what they were and by the answer, from when each was to be sent.
    pub requests: BTreeMap<String, BTreeMap<String, Latency>>,
    /// Questions that got no answer, by what they were and why.
    pub failures: BTreeMap<String, BTreeMap<String, Failures>>,
    /// The same of questions before the load: enrollments, and one device's look at the coordinator. They are in no rate.
    pub before: BTreeMap<String, BTreeMap<String, Latency>>,
    /// Those of them that got no answer.
    pub failures_before: BTreeMap<String, BTreeMap<String, Failures>>,
    /// Questions that were out when the load ended.
    pub unanswered_at_end: u64,
    /// How far behind its time each question left, because this program was busy.
    pub late: Latency,
    /// Rounds that devices were offered a place in, by their session.
    pub rounds: BTreeMap<SessionId, Round>,
    /// Offers of a place in rounds beyond the first 100,000, which are not told apart.
    pub offers_not_told: u64,
    /// The newest version of each task that a device heard of.
    pub heard: BTreeMap<TaskId, u32>,
    /// Devices that came to hold a version, by task and version.
    pub installed: BTreeMap<TaskId, BTreeMap<u32, u64>>,
    /// Trainings that were played.
    pub trainings: u64,
    /// Devices that took no part, by why.
    pub declines: BTreeMap<String, u64>,
    /// Participations that ended without a version, by why.
    pub ended: BTreeMap<String, u64>,
    /// How often a device began again because of a base that it heard of for the first time.
    pub began_anew: u64,
    /// Times at which a device was to arrive.
    pub arrivals: u64,
    /// Those of them at which all were still busy.
    pub arrivals_missed: u64,
    /// Devices that could not be played: their files, their keys, or this program.
    pub broken: Failures,
    /// Devices for which all tasks are over.
    pub complete: u64,
    /// Bytes that the devices sent, within TLS.
    pub sent_bytes: u64,
    /// Bytes that they received.
    pub received_bytes: u64,
    /// By the second since 1970: check-ins answered, questions answered, questions without an answer.
    pub seconds: BTreeMap<u64, [u64; 3]>,
}

/// What did not work, of one kind and for one reason: questions without an answer, devices that cannot be played.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What was said of the first.
    pub example: String,
}

impl Failures {
    pub(crate) fn one_more(&mut self, example: &str) {
        if self.count == 0 {
            example.clone_into(&mut self.example);
        }
        self.count += 1;
    }

    fn add(&mut self, other: &Self) {
        if self.count == 0 {
            self.example.clone_from(&other.example);
        }
        self.count += other.count;
    }
}

/// A round, as its devices saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Its task.
    pub task: TaskId,
    /// The version that its devices trained from: all rounds that make the next one have the same.
    pub version: u32,
    /// Its number in the task.
    pub round: u64,
    /// Offers of a place in it.
    pub offered: u64,
    /// Devices whose whole masked input was taken, and that were told who is in the sum.
    pub counted: u64,
    /// How it ended; none where no device heard.
    pub outcome: Option<String>,
}

impl Tally {
    /// A question was answered, by so long after it was to be sent.
    pub(crate) fn answered(&mut self, (request, answer): (&str, &str), took: Duration, unix_secs: u64) {
        let answers = self.requests.entry(request.to_owned()).or_default();
        answers.entry(answer.to_owned()).or_default().record(took);
        let second = self.seconds.entry(unix_secs).or_default();
        second[0] += u64::from(request == CHECK_IN);
        second[1] += 1;
    }

    /// A question got no answer.
    pub(crate) fn failed(&mut self, (request, why): (&str, &str), example: &str, unix_secs: u64) {
        let whys = self.failures.entry(request.to_owned()).or_default();
        whys.entry(why.to_owned()).or_default().one_more(example);
        self.seconds.entry(unix_secs).or_default()[2] += 1;
    }

    /// The load begins: what was asked until now is none of it.
    pub(crate) fn begins(&mut self) {
        self.before = mem::take(&mut self.requests);
        self.failures_before = mem::take(&mut self.failures);
        self.seconds.clear();
    }

    /// A device heard of a version.
    pub(crate) fn heard(&mut self, task: TaskId, version: u32) {
        let newest = self.heard.entry(task).or_default();
        *newest = version.max(*newest);
    }

    /// A device is offered a place in a round that trains from a version.
    pub(crate) fn offered(&mut self, session: SessionId, (task, version): (TaskId, u32), round: u64) {
        if self.rounds.len() >= MOST_ROUNDS && !self.rounds.contains_key(&session) {
            self.offers_not_told += 1;
            return;
        }
        let new = Round { task, version, round, offered: 0, counted: 0, outcome: None };
        self.rounds.entry(session).or_insert(new).offered += 1;
    }

    /// A device heard who is in the sum of a round that it sent its input to.
    pub(crate) fn counted(&mut self, session: SessionId) {
        if let Some(round) = self.rounds.get_mut(&session) {
            round.counted += 1;
        }
    }

    /// A device heard how a round ended.
    pub(crate) fn over(&mut self, session: SessionId, outcome: &str) {
        if let Some(round) = self.rounds.get_mut(&session) {
            round.outcome = Some(outcome.to_owned());
        }
    }

    /// One more of what is counted by a word.
    pub(crate) fn one_more(counts: &mut BTreeMap<String, u64>, word: &str) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }

    /// Answered questions of a kind.
    pub fn count_of(&self, request: &str) -> u64 {
        self.requests.get(request).map_or(0, |answers| answers.values().map(Latency::count).sum())
    }

    /// All answered questions of the load.
    pub fn answered_in_all(&self) -> u64 {
        self.requests.values().flat_map(BTreeMap::values).map(Latency::count).sum()
    }

    /// All questions of the load without an answer.
    pub fn failed_in_all(&self) -> u64 {
        self.failures.values().flat_map(BTreeMap::values).map(|failures| failures.count).sum()
    }

    /// Versions that rounds of this load made. One may take several rounds: it is there when a device heard of it.
    pub fn versions(&self) -> u64 {
        let published = self.rounds.values().filter(|round| round.outcome.as_deref() == Some(PUBLISHED));
        let is_there =
            |(task, from): &(TaskId, u32)| self.heard.get(task).is_some_and(|newest| newest > from);
        let made: BTreeSet<(TaskId, u32)> =
            published.map(|round| (round.task, round.version)).filter(is_there).collect();
        made.len() as u64
    }

    /// Rounds of which somebody heard how they ended.
    pub fn ended_rounds(&self) -> u64 {
        self.rounds.values().filter(|round| round.outcome.is_some()).count() as u64
    }

    /// Rounds by how they ended.
    pub fn outcomes(&self) -> BTreeMap<&str, u64> {
        let mut outcomes = BTreeMap::new();
        for round in self.rounds.values() {
            *outcomes.entry(round.outcome.as_deref().unwrap_or("not heard")).or_default() += 1;
        }
        outcomes
    }

    /// Takes all of another process.
    pub(crate) fn add(&mut self, other: &Self) {
        for (known, others) in [(&mut self.requests, &other.requests), (&mut self.before, &other.before)] {
            for (request, answers) in others {
                let known = known.entry(request.clone()).or_default();
                for (answer, latency) in answers {
                    known.entry(answer.clone()).or_default().add(latency);
                }
            }
        }
        for (known, others) in
            [(&mut self.failures, &other.failures), (&mut self.failures_before, &other.failures_before)]
        {
            for (request, whys) in others {
                let known = known.entry(request.clone()).or_default();
                for (why, failures) in whys {
                    known.entry(why.clone()).or_default().add(failures);
                }
            }
        }
        for (task, version) in &other.heard {
            self.heard(*task, *version);
        }
        self.broken.add(&other.broken);
        for (session, round) in &other.rounds {
            match self.rounds.get_mut(session) {
                None => drop(self.rounds.insert(*session, round.clone())),
                Some(known) => {
                    known.offered += round.offered;
                    known.counted += round.counted;
                    if known.outcome.is_none() {
                        known.outcome.clone_from(&round.outcome);
                    }
                }
            }
        }
        for (task, versions) in &other.installed {
            let known = self.installed.entry(*task).or_default();
            for (version, devices) in versions {
                *known.entry(*version).or_default() += devices;
            }
        }
        for (known, others) in [(&mut self.declines, &other.declines), (&mut self.ended, &other.ended)] {
            for (word, count) in others {
                *known.entry(word.clone()).or_default() += count;
            }
        }
        for (second, counts) in &other.seconds {
            let known = self.seconds.entry(*second).or_default();
            for (sum, count) in known.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        self.late.add(&other.late);
        for (sum, count) in [
            (&mut self.unanswered_at_end, other.unanswered_at_end),
            (&mut self.offers_not_told, other.offers_not_told),
            (&mut self.trainings, other.trainings),
            (&mut self.began_anew, other.began_anew),
            (&mut self.arrivals, other.arrivals),
            (&mut self.arrivals_missed, other.arrivals_missed),
            (&mut self.complete, other.complete),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.received_bytes, other.received_bytes),
        ] {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId([1; 16]);
    const SESSION: SessionId = SessionId([2; 32]);

    /// Every field has something in it, so that one which is not added shows.
    fn tally(times: u64) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..times {
            tally.answered(("enroll", "enrolled"), Duration::from_millis(1), 6);
            tally.failed(("enroll", "connection refused"), "as was said", 6);
        }
        tally.begins();
        tally.heard(TASK, 0);
        for i in 0..times {
            tally.broken.one_more("no keys");
            tally.answered((CHECK_IN, "wait"), Duration::from_millis(i), 7);
            tally.failed(("join", "connection refused"), "as was said", 7);
            tally.late.record(Duration::from_micros(i));
            tally.offered(SESSION, (TASK, 0), 3);
            tally.counted(SESSION);
            *tally.installed.entry(TASK).or_default().entry(1).or_default() += 1;
            Tally::one_more(&mut tally.declines, "noise");
            Tally::one_more(&mut tally.ended, "stale");
        }
        let counts = [
            &mut tally.unanswered_at_end,
            &mut tally.offers_not_told,
            &mut tally.trainings,
            &mut tally.began_anew,
            &mut tally.arrivals,
            &mut tally.arrivals_missed,
            &mut tally.complete,
            &mut tally.sent_bytes,
            &mut tally.received_bytes,
        ];
        for count in counts {
            *count = times;
        }
        tally
    }

    #[test]
    fn what_two_processes_counted_is_the_sum_of_both_and_a_round_is_one() {
        let mut sum = tally(3);
        let mut other = tally(2);
        other.over(SESSION, PUBLISHED);
        other.heard(TASK, 1);
        sum.add(&other);
        let mut alone = tally(5);
        alone.over(SESSION, PUBLISHED);
        alone.heard(TASK, 1);
        // The same moments were not measured by both.
        for one in [&mut sum, &mut alone] {
            assert_eq!((one.late.count(), one.count_of(CHECK_IN)), (5, 5));
            one.late = Latency::default();
            one.requests.clear();
        }
        assert_eq!(sum, alone);
        assert_eq!((sum.versions(), sum.ended_rounds(), sum.failed_in_all()), (1, 1, 5));
        assert_eq!(sum.outcomes(), BTreeMap::from([(PUBLISHED, 1)]));
    }

    #[test]
    fn a_version_of_two_rounds_is_one_and_is_there_when_a_device_hears_of_it() {
        let mut tally = Tally::default();
        for (session, from) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            tally.offered(SessionId([session; 32]), (TASK, from), session.into());
        }
        let publish = |tally: &mut Tally, session| tally.over(SessionId([session; 32]), PUBLISHED);
        tally.heard(TASK, 0);
        publish(&mut tally, 1);
        // Its first round is in it, and it waits for the second.
        assert_eq!((tally.versions(), tally.ended_rounds()), (0, 1));
        publish(&mut tally, 2);
        tally.heard(TASK, 1);
        assert_eq!((tally.versions(), tally.ended_rounds()), (1, 2));
        publish(&mut tally, 3);
        assert_eq!((tally.versions(), tally.ended_rounds()), (1, 3));
        publish(&mut tally, 4);
        tally.heard(TASK, 2);
        // What is heard late takes nothing back.
        tally.heard(TASK, 1);
        assert_eq!((tally.versions(), tally.ended_rounds()), (2, 4));
        // A version that others made is none of this load.
        tally.heard(TaskId([9; 16]), 5);
        assert_eq!(tally.versions(), 2);
    }

    #[test]
    fn of_rounds_beyond_the_most_only_the_offers_are_counted() {
        let mut tally = Tally::default();
        let session = |number: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            SessionId(bytes)
        };
        for number in 0..MOST_ROUNDS as u64 {
            tally.offered(session(number), (TASK, 0), number);
        }
        for _ in 0..2 {
            tally.offered(session(0), (TASK, 0), 0);
            tally.offered(session(MOST_ROUNDS as u64), (TASK, 0), 7);
        }
        assert_eq!((tally.rounds.len(), tally.offers_not_told), (MOST_ROUNDS, 2));
        assert_eq!(tally.rounds[&session(0)].offered, 3);
    }

    #[test]
    fn a_tally_is_read_back_as_it_was_written() {
        let tally = tally(4);
        let text = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    }
}
