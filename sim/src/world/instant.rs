//! What happens at one moment: whoever is due acts, in a random order, and hears what came of it together with others.

use proto::ids::Timestamp;
use rayon::prelude::*;
use session::{Action, Event};
use task::held::LONGEST_HELD_MILLIS;

use super::agenda::Ticket;
use super::node::{Doing, Moment, Next, Node};
use super::wire::News;
use super::{DAWN, Party, Trainer, World, WorldError, below};

/// So many devices work on what they hear at the same time: a bound on what is in memory for it.
const TOGETHER: usize = 64;

impl World {
    /// Lets every device whose turn it is do what it is about to do, in a random order; where there is none, those that have
    /// trained hear what of. Returns whether there was any.
    pub(super) fn act(&mut self, trainer: &mut impl Trainer) -> Result<bool, WorldError> {
        let mut due = self.agenda.take_due();
        for last in (1..due.len()).rev() {
            due.swap(last, below(&mut self.rng, last + 1));
        }
        let copies = self.copies_arrive();
        if due.is_empty() {
            return Ok(self.train(trainer)? || copies);
        }
        for turn in due {
            if self.nodes[turn.device].ticket == turn.ticket {
                self.take_turn(turn.device)?;
            }
            if self.news.len() >= TOGETHER {
                self.deliver()?;
            }
        }
        self.deliver()?;
        Ok(true)
    }

    /// Lets those train whose training is at its end. Returns whether there was any.
    fn train(&mut self, trainer: &mut impl Trainer) -> Result<bool, WorldError> {
        let mut batch = std::mem::take(&mut self.trained);
        if batch.is_empty() {
            return Ok(false);
        }
        batch.sort_by_key(|(index, _)| *index);
        let now = self.agenda.now();
        let newest = self.task.version();
        for ((index, work), result) in batch.iter().zip(trainer.train(&batch)) {
            if result.is_ok() {
                let behind = newest.saturating_sub(work.published.version);
                self.tally.stages.trained(*index, behind);
            }
            self.tell(*index, now, News::Event(result.map_or_else(Event::NotTrained, Event::Trained)));
        }
        drop(batch);
        self.deliver()?;
        Ok(true)
    }

    fn take_turn(&mut self, index: usize) -> Result<(), WorldError> {
        let now = self.agenda.now();
        let node = &mut self.nodes[index];
        if node.is_live() && now >= node.off_at {
            self.switches_off(index);
            return Ok(());
        }
        match std::mem::replace(&mut node.doing, Doing::Asleep) {
            Doing::Asleep => self.tell(index, now, News::Event(Event::Woke)),
            Doing::About(action) => self.perform(index, *action)?,
            Doing::Sending { bytes, twice } => self.arrives(index, &bytes, twice)?,
            Doing::Asking(question) => self.asks(index, *question),
            Doing::Held(held) => {
                if let Some(others) = self.held.get_mut(&held.question.awaits) {
                    others.remove(&index);
                }
                let since = held.question.until.0.saturating_sub(LONGEST_HELD_MILLIS);
                let held_millis = now.0.saturating_sub(since);
                let is_there = self.is_there();
                self.answer(
                    index,
                    is_there.then(|| Ok(held.question.awaits.after(held.answer, held_millis))),
                );
            }
            Doing::Training { breaks: true, .. } => self.goes_away(index),
            Doing::Training { work, breaks: false } => self.trained.push((index, work)),
            Doing::Gone if now < node.off_at => self.starts(index),
            Doing::Gone | Doing::Off => {
                node.doing = Doing::Off;
                self.gone.remove(&index);
                self.comes_or_waits(index);
            }
        }
        Ok(())
    }

    fn perform(&mut self, index: usize, action: Action) -> Result<(), WorldError> {
        match action {
            Action::Train(work) => {
                self.tally.trains();
                let takes = self.habits.trains_millis(index, &mut self.rng);
                let breaks = self.faults.breaks(&mut self.rng);
                self.nodes[index].doing = Doing::Training { work, breaks };
                self.enter(index, self.agenda.now().plus_millis(takes));
            }
            Action::Send(request) => self.send(index, &request)?,
            // No certificate of these devices ends.
            Action::Renew { .. } => self.tell(index, self.agenda.now(), News::Event(Event::Unreachable)),
            Action::LoadPlan(published) => self.load_plan(index, &published),
            Action::Load { published, frozen, before, .. } => self.load(index, &published, frozen, before),
            // A node writes down by itself and sleeps until its turn.
            Action::Sleep(_)
            | Action::RecordFound(_)
            | Action::Install(_)
            | Action::Charge(_)
            | Action::RecordDraws(_)
            | Action::RecordLog(_)
            | Action::RecordSignature(_)
            | Action::RecordAnswer(_) => self.tell(index, self.agenda.now(), News::Event(Event::Woke)),
        }
        Ok(())
    }

    /// What a device is to hear, and when. One that is switched off before never hears it.
    pub(super) fn tell(&mut self, index: usize, at: Timestamp, news: News) {
        let off_at = self.nodes[index].off_at;
        // No earlier entry counts any more.
        self.nodes[index].ticket = Ticket::default();
        if at < off_at {
            self.news.push((index, at, news));
        } else {
            self.enter(index, off_at);
        }
    }

    /// Lets all devices that have news work on it, at the same time: what one makes of its own touches nothing else. It does
    /// so now, also with what it hears only later: nothing but its being switched off comes between.
    pub(super) fn deliver(&mut self) -> Result<(), WorldError> {
        let mut news = std::mem::take(&mut self.news);
        if news.is_empty() {
            return Ok(());
        }
        news.sort_by_key(|(index, ..)| *index);
        let open = self.task.is_active().then(|| self.task.version());
        let mut rest = self.nodes.as_mut_slice();
        let mut passed = 0;
        let (disk, clock) = (self.disk.as_ref(), self.clock.as_ref());
        let mut jobs: Vec<(usize, &mut Node, Timestamp, News)> = Vec::with_capacity(news.len());
        for (index, at, news) in news {
            let Some((node, after)) = rest.split_at_mut(index - passed).1.split_first_mut() else { break };
            jobs.push((index, node, at, news));
            (rest, passed) = (after, index + 1);
        }
        let work = |(index, node, at, news): (usize, &mut Node, Timestamp, News)| {
            let (was_done, who) = (node.is_done(), Party::Device(index));
            let now = clock.reads(who, at);
            let ahead_millis = clock.ahead_millis(who, at.millis_since(DAWN));
            let moment = Moment { now, ahead_millis, open, disk };
            (index, at, was_done, news.event().map(|event| (node.works_on(event, &moment), now)))
        };
        // One alone is not worth another thread.
        let came: Vec<_> = if jobs.len() == 1 {
            jobs.into_iter().map(work).collect()
        } else {
            jobs.into_par_iter().map(work).collect()
        };
        for (index, at, was_done, next) in came {
            let is_done = self.nodes[index].is_done();
            self.unfinished = self.unfinished + usize::from(was_done) - usize::from(is_done);
            let (next, now) = next?;
            let (action, at) = match next {
                Next::Does(action) => (action, at),
                Next::Later { action, millis } => (action, at.plus_millis(millis)),
                Next::Dies { millis } => {
                    self.dies(index, millis);
                    continue;
                }
                Next::Vanishes => {
                    self.goes_away(index);
                    continue;
                }
            };
            if let Action::Sleep(until) = action {
                self.nodes[index].doing = Doing::Asleep;
                // One that is done asks no more.
                let until =
                    if is_done { self.nodes[index].off_at } else { at.plus_millis(until.millis_since(now)) };
                let until = self.until_set(Party::Device(index), until);
                if until < Timestamp(u64::MAX) {
                    self.enter(index, until);
                }
            } else {
                self.nodes[index].doing = Doing::About(Box::new(action));
                self.enter(index, at);
            }
        }
        Ok(())
    }
}
