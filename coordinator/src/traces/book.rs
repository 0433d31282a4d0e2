//! The open rounds, each with its span and that of the step that it is in, as the machines of tasks tell of them.
//!
//! All spans of a round begin and end by one clock and under one lock, so that what a span holds lies within its time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use proto::ids::{SessionId, TaskId};
use proto::message::Outcome;
use task::round::{PhaseName, Progress};
use task::{Gathered, Task, TaskEffect};

use super::clock::Steady;

/// What is said of a round whose place another one took, since its log was outgrown.
const REPLACED: &str = "replaced";
/// What is said of a round that was open when the coordinator ended.
const UNFINISHED: &str = "unfinished";
/// What is said of an opening whose round ended before it.
const GIVEN_UP: &str = "given_up";

/// The spans that are open, and what makes them.
#[derive(Debug)]
pub(crate) struct Book {
    tracer: SdkTracer,
    clock: Steady,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rounds: BTreeMap<SessionId, OpenRound>,
    /// Tasks that an earlier process had begun, and of which no round was opened since.
    taken_up: BTreeMap<TaskId, SpanContext>,
    is_closed: bool,
}

#[derive(Debug)]
struct OpenRound {
    task: TaskId,
    span: Span,
    progress: Progress,
    step: Span,
    /// Whether the step's span has ended: the round is over, and its end is being written.
    is_over: bool,
    opening: Option<Span>,
}

/// A step of a task, whose decisions are being written.
#[derive(Debug)]
pub(crate) struct Writing {
    book: Arc<Book>,
    task: TaskId,
    began: SystemTime,
    rounds: Vec<Concerned>,
    /// A version that no round's sum was the last for.
    apart: Option<u32>,
    writes: Vec<Write>,
}

/// A round of which something is written.
#[derive(Debug)]
struct Concerned {
    session: SessionId,
    what: Vec<&'static str>,
    outcome: Option<Outcome>,
    version: Option<u32>,
    is_over: bool,
}

#[derive(Debug)]
struct Write {
    what: &'static str,
    began: SystemTime,
    ended: SystemTime,
}

/// A sum that is being opened. Its span ends with this.
#[derive(Debug)]
pub(crate) struct OpeningSum {
    book: Arc<Book>,
    session: SessionId,
    came: &'static str,
}

/// A request of a device whose answer is waited for. Its span ends with this.
#[derive(Debug)]
pub(crate) struct Asked {
    book: Arc<Book>,
    request: &'static str,
    /// The round that it is of, and its span.
    round: Option<(SessionId, SpanContext)>,
    began: SystemTime,
    answer: &'static str,
}

impl Book {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self { tracer, clock: Steady::from_now(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole after each change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(
        &self,
        name: &'static str,
        began: SystemTime,
        of: &[KeyValue],
        within: Option<&SpanContext>,
    ) -> Span {
        let parent = within
            .map_or_else(Context::new, |within| Context::new().with_remote_span_context(within.clone()));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Internal).with_start_time(began);
        self.tracer.build_with_context(builder.with_attributes(of.to_vec()), &parent)
    }

    /// A task that an earlier process had begun goes on in this one. The rounds that were open then are gone.
    pub(crate) fn takes_up(&self, task: &Task) {
        let record = task.record();
        if record.last_round == 0 || record.state.is_over() {
            return;
        }
        let sums = record.gathered.as_ref().map_or(0, Gathered::rounds);
        let of = [
            of_task(task.id()),
            KeyValue::new("nightshift.version", i64::from(task.version())),
            KeyValue::new("nightshift.last_round", number(record.last_round)),
            KeyValue::new("nightshift.sums", i64::from(sums)),
        ];
        let mut state = self.lock();
        let now = self.clock.now();
        let mut span = self.span("take up task", now, &of, None);
        state.taken_up.insert(task.id(), span.span_context().clone());
        span.end_with_timestamp(now);
    }

    /// A task's machine has taken a step and has decided this, which is to be written now.
    pub(crate) fn decided(self: &Arc<Self>, task: &Task, effects: &[TaskEffect]) -> Writing {
        let (id, open) = (task.id(), task.progress());
        let mut state = self.lock();
        let began = self.clock.now();
        let State { rounds: known, taken_up, is_closed } = &mut *state;
        let mut rounds = Vec::new();
        for progress in open {
            match known.get_mut(&progress.session) {
                Some(round) => {
                    if round.progress.phase != progress.phase {
                        round.end_step(began);
                        round.step = self.step(progress.phase, &round.span, began);
                    }
                    round.progress = progress;
                    let concerned = Concerned::of(round, effects, false);
                    rounds.extend((!concerned.what.is_empty()).then_some(concerned));
                }
                None if !*is_closed => {
                    let round = self.begins(task, progress, taken_up.remove(&id), began);
                    let mut concerned = Concerned::of(&round, effects, false);
                    concerned.what.insert(0, "round");
                    rounds.push(concerned);
                    known.insert(progress.session, round);
                }
                None => {}
            }
        }
        let sessions = task.open_rounds();
        for (session, round) in known {
            if round.task == id && !sessions.contains_key(session) {
                if !std::mem::replace(&mut round.is_over, true) {
                    round.end_step(began);
                }
                rounds.push(Concerned::of(round, effects, true));
            }
        }
        drop(state);
        let apart = effects.iter().find_map(|effect| match effect {
            TaskEffect::Commit { completed_by: None, version, .. } => Some(version.version),
            TaskEffect::Commit { completed_by: Some(_), .. }
            | TaskEffect::FixSurvivors { .. }
            | TaskEffect::Charge { .. }
            | TaskEffect::Gathered { .. }
            | TaskEffect::Excluded { .. }
            | TaskEffect::Aborted { .. }
            | TaskEffect::Paused { .. }
            | TaskEffect::End(_) => None,
        });
        Writing { book: Arc::clone(self), task: id, began, rounds, apart, writes: Vec::new() }
    }

    /// A round was opened.
    fn begins(
        &self,
        task: &Task,
        progress: Progress,
        before: Option<SpanContext>,
        now: SystemTime,
    ) -> OpenRound {
        let of = [
            of_task(task.id()),
            KeyValue::new("nightshift.round", number(progress.round)),
            KeyValue::new("nightshift.session", progress.session.to_string()),
            // What it is to make.
            KeyValue::new("nightshift.version", i64::from(task.version()) + 1),
        ];
        let mut span = self.span("round", now, &of, None);
        if let Some(before) = before {
            span.set_attribute(KeyValue::new("nightshift.after_restart", true));
            span.add_link(before, Vec::new());
        }
        let step = self.step(progress.phase, &span, now);
        OpenRound { task: task.id(), span, progress, step, is_over: false, opening: None }
    }

    fn step(&self, phase: PhaseName, round: &Span, now: SystemTime) -> Span {
        self.span(phase.as_str(), now, &[], Some(round.span_context()))
    }

    /// A sum is opened from now on.
    pub(crate) fn opens(self: &Arc<Self>, session: SessionId) -> OpeningSum {
        let mut state = self.lock();
        if let Some(round) = state.rounds.get_mut(&session) {
            let Progress { joined: _, shared, survivors, .. } = round.progress;
            let survivors = survivors.unwrap_or_default();
            let of = [
                // The seeds that are rebuilt: of the masks that each survivor put on by itself, and of those that the missing
                // have in common with survivors.
                KeyValue::new("nightshift.masks.survivors", count(survivors)),
                KeyValue::new(
                    "nightshift.masks.missing",
                    count(shared.unwrap_or_default().saturating_sub(survivors)),
                ),
            ];
            round.opening =
                Some(self.span("open sum", self.clock.now(), &of, Some(round.step.span_context())));
        }
        OpeningSum { book: Arc::clone(self), session, came: "broken" }
    }

    /// A device asks something.
    pub(crate) fn asked(self: &Arc<Self>, request: &'static str, session: Option<SessionId>) -> Asked {
        let state = self.lock();
        let round = session.and_then(|session| {
            let round = state.rounds.get(&session)?;
            Some((session, round.span.span_context().clone()))
        });
        let began = self.clock.now();
        Asked { book: Arc::clone(self), request, round, began, answer: "gone" }
    }

    /// The coordinator ends: nothing is open any more, and nothing begins.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.is_closed = true;
        for round in std::mem::take(&mut state.rounds).into_values() {
            round.end(UNFINISHED, None, now);
        }
    }
}

impl OpenRound {
    /// The step is over, and with it what is done in it.
    fn end_step(&mut self, now: SystemTime) {
        if let Some(mut opening) = self.opening.take() {
            opening.set_attribute(KeyValue::new("nightshift.outcome", GIVEN_UP));
            opening.end_with_timestamp(now);
        }
        self.step.end_with_timestamp(now);
    }

    fn end(mut self, outcome: &'static str, version: Option<u32>, now: SystemTime) {
        if !self.is_over {
            self.end_step(now);
        }
        let Progress { joined, shared, survivors, .. } = self.progress;
        let counts = [("joined", Some(joined)), ("shared", shared), ("survivors", survivors)];
        let counts = counts.map(|(what, devices)| {
            KeyValue::new(format!("nightshift.{what}"), count(devices.unwrap_or_default()))
        });
        self.span.set_attributes(counts);
        self.span.set_attribute(KeyValue::new("nightshift.outcome", outcome));
        if let Some(version) = version {
            self.span.set_attribute(KeyValue::new("nightshift.version_made", i64::from(version)));
        }
        self.span.set_status(if outcome == Outcome::Published.word() {
            Status::Ok
        } else {
            Status::error(outcome)
        });
        self.span.end_with_timestamp(now);
    }
}

impl Concerned {
    fn of(round: &OpenRound, effects: &[TaskEffect], is_over: bool) -> Self {
        let (session, number) = (round.progress.session, round.progress.round);
        let mut concerned = Self { session, what: Vec::new(), outcome: None, version: None, is_over };
        for effect in effects {
            let (of, what) = match effect {
                TaskEffect::FixSurvivors { round, .. } => (*round, "survivors"),
                TaskEffect::Charge { round, .. } => (*round, "charges"),
                TaskEffect::Gathered { round } => (*round, "sum"),
                TaskEffect::Commit { completed_by: Some(round), .. } => (*round, "version"),
                TaskEffect::Excluded { round, .. } => (*round, "exclusion"),
                TaskEffect::Aborted { round, .. } => (*round, "end"),
                TaskEffect::Commit { completed_by: None, .. }
                | TaskEffect::Paused { .. }
                | TaskEffect::End(_) => continue,
            };
            if of != number {
                continue;
            }
            concerned.what.push(what);
            match effect {
                TaskEffect::Gathered { .. } => concerned.outcome = Some(Outcome::Published),
                TaskEffect::Commit { version, .. } => {
                    (concerned.outcome, concerned.version) =
                        (Some(Outcome::Published), Some(version.version));
                }
                TaskEffect::Aborted { outcome, .. } => concerned.outcome = Some(*outcome),
                TaskEffect::FixSurvivors { .. }
                | TaskEffect::Charge { .. }
                | TaskEffect::Excluded { .. }
                | TaskEffect::Paused { .. }
                | TaskEffect::End(_) => {}
            }
        }
        concerned
    }
}

impl Writing {
    /// Measures how long a write takes.
    pub(crate) fn write<T>(&mut self, what: &'static str, write: impl FnOnce() -> T) -> T {
        let began = self.book.clock.now();
        let done = write();
        self.writes.push(Write { what, began, ended: self.book.clock.now() });
        done
    }

    /// Everything is durable, or could not be written now.
    pub(crate) fn ended(self, is_saved: bool) {
        let Self { book, task, began, rounds, apart, writes } = self;
        if rounds.is_empty() && apart.is_none() {
            return;
        }
        let commit = |within: Option<&SpanContext>, of: Vec<KeyValue>, now: SystemTime| {
            let mut span = book.span("commit", began, &of, within);
            for Write { what, began, ended } in &writes {
                book.span(what, *began, &[], Some(span.span_context())).end_with_timestamp(*ended);
            }
            if !is_saved {
                span.set_status(Status::error("the disk did not take it"));
            }
            span.end_with_timestamp(now);
        };
        let mut state = book.lock();
        let now = book.clock.now();
        if let Some(version) = apart {
            commit(
                None,
                vec![of_task(task), KeyValue::new("nightshift.version_made", i64::from(version))],
                now,
            );
        }
        for Concerned { session, what, outcome, version, is_over } in rounds {
            let Some(round) = state.rounds.get(&session) else { continue };
            if !writes.is_empty() && !what.is_empty() {
                commit(
                    Some(round.span.span_context()),
                    vec![KeyValue::new("nightshift.what", what.join(", "))],
                    now,
                );
            }
            if is_over
                && is_saved
                && let Some(round) = state.rounds.remove(&session)
            {
                round.end(outcome.map_or(REPLACED, Outcome::word), version, now);
            }
        }
    }
}

impl OpeningSum {
    /// What came of it.
    pub(crate) fn came(&mut self, came: &'static str) {
        self.came = came;
    }
}

impl Drop for OpeningSum {
    fn drop(&mut self) {
        let mut state = self.book.lock();
        let opening = state.rounds.get_mut(&self.session).and_then(|round| round.opening.take());
        if let Some(mut span) = opening {
            span.set_attribute(KeyValue::new("nightshift.outcome", self.came));
            span.end_with_timestamp(self.book.clock.now());
        }
    }
}

impl Asked {
    /// What it is answered.
    pub(crate) fn answered(&mut self, answer: &'static str) {
        self.answer = answer;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Self { book, request, round, began, answer } = self;
        let state = book.lock();
        if state.is_closed {
            return;
        }
        let open = round.as_ref().filter(|(session, _)| state.rounds.contains_key(session));
        let of = [KeyValue::new("nightshift.answer", *answer)];
        let builder = SpanBuilder::from_name(format!("request {request}"))
            .with_kind(SpanKind::Server)
            .with_start_time(*began)
            .with_attributes(of);
        let (within, links) = match (open, round.as_ref()) {
            (Some((_, span)), _) => (Context::new().with_remote_span_context(span.clone()), Vec::new()),
            // Its round ended before the answer was given: it does not fit into that one's time.
            (None, Some((_, span))) => (Context::new(), vec![Link::with_context(span.clone())]),
            (None, None) => (Context::new(), Vec::new()),
        };
        let mut span = book.tracer.build_with_context(builder.with_links(links), &within);
        span.end_with_timestamp(book.clock.now());
    }
}

fn of_task(task: TaskId) -> KeyValue {
    KeyValue::new("nightshift.task", task.to_string())
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(devices: usize) -> i64 {
    i64::try_from(devices).unwrap_or(i64::MAX)
}
