//! The coordinator's side: the production machine on a thread of its own, and the bytes in front of it.
//!
//! A desk takes a request as bytes and gives the reply as bytes, from any thread. Bytes become words and words
//! bytes on the asking thread, as in the coordinator's service; the machine sees one request after the other.
//! Effects are taken as performed: nothing is written to a disk but, if asked for, inputs that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use prost::Message;
use proto::convert::{reply_to_wire, request_from_wire};
use proto::ids::{DeviceId, SessionId, Timestamp};
use proto::message::{Outcome, Rejection, Reply, Request};
use proto::wire;
use rayon::ThreadPool;
use task::round::{Effect, Round, RoundParams};
use task::spool::Spooler;

use super::BenchError;
use super::clock::timed;

/// Where devices ask.
#[derive(Debug)]
pub(super) struct Desk {
    calls: Sender<Call>,
    busy: Arc<Busy>,
}

/// The coordinator's seconds so far.
#[derive(Debug, Default)]
struct Busy(AtomicU64);

enum Call {
    Ask { from: DeviceId, request: Request, answer: Sender<Result<Reply, Rejection>> },
    Close { closed: Sender<()> },
    Finish { end: Sender<End> },
}

/// How a round ended.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) outcome: Option<Outcome>,
    /// The sum that was published.
    pub(super) sum: Option<Vec<u32>>,
}

impl Desk {
    /// Opens a round whose machine works on the threads of `pool`, and keeps one of them.
    pub(super) fn open(
        params: RoundParams,
        spooler: &dyn Spooler,
        now: Timestamp,
        pool: &ThreadPool,
    ) -> Result<Self, BenchError> {
        let (calls, called) = channel();
        let busy = Arc::new(Busy::default());
        let spool = spooler.open(SessionId(params.context.session.0))?;
        let round = Round::new(params, spool, now);
        let clerk = Clerk { round, now, busy: Arc::clone(&busy), end: End::default() };
        pool.spawn(move || clerk.work(&called));
        Ok(Self { calls, busy })
    }

    /// Answers one request.
    pub(super) fn answer(&self, from: DeviceId, bytes: &[u8]) -> Result<Vec<u8>, BenchError> {
        let request = self.busy.during(|| -> Result<Request, BenchError> {
            Ok(request_from_wire(wire::Request::decode(bytes)?)?)
        })?;
        let name = request.name();
        let reply = self
            .call(|answer| Call::Ask { from, request, answer })?
            .map_err(|rejection| BenchError::Rejected { request: name, rejection })?;
        Ok(self.busy.during(|| reply_to_wire(reply).encode_to_vec()))
    }

    /// Everybody who will come has come: lets the open step run out of time unless it has closed by itself.
    pub(super) fn close_step(&self) -> Result<(), BenchError> {
        self.call(|closed| Call::Close { closed })
    }

    /// How the round ended.
    pub(super) fn finish(&self) -> Result<End, BenchError> {
        self.call(|end| Call::Finish { end })
    }

    /// How long the coordinator has worked, waiting left out.
    pub(super) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.0.load(Ordering::Relaxed))
    }

    fn call<T>(&self, call: impl FnOnce(Sender<T>) -> Call) -> Result<T, BenchError> {
        let (answer, answered) = channel();
        self.calls.send(call(answer)).map_err(|_| BenchError::Gone)?;
        answered.recv().map_err(|_| BenchError::Gone)
    }
}

impl Busy {
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let (result, took) = timed(work);
        self.0.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }
}

/// Who sits at the desk.
struct Clerk {
    round: Round,
    now: Timestamp,
    busy: Arc<Busy>,
    end: End,
}

impl Clerk {
    fn work(mut self, calls: &Receiver<Call>) {
        let mut open = self.round.phase();
        for call in calls {
            // Whoever asked and has gone needs no answer.
            match call {
                Call::Ask { from, request, answer } => {
                    drop(answer.send(self.act(|round, now| round.handle(from, request, now))));
                }
                Call::Close { closed } => {
                    if self.round.phase() == open {
                        self.now = self.round.poll_timeout().unwrap_or(self.now);
                        self.act(Round::handle_timeout);
                    }
                    open = self.round.phase();
                    closed.send(()).unwrap_or_default();
                }
                Call::Finish { end } => drop(end.send(std::mem::take(&mut self.end))),
            }
        }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Round, Timestamp) -> T) -> T {
        let Self { round, now, busy, end } = self;
        busy.during(|| {
            let result = act(round, *now);
            round.open_in_place(*now);
            while let Some(effect) = round.poll_effect() {
                match effect {
                    Effect::FixSurvivors { .. } | Effect::Charge { .. } | Effect::Exclude { .. } => {}
                    Effect::Publish { sum, .. } => end.sum = Some(sum),
                    Effect::End(outcome) => end.outcome = Some(outcome),
                }
            }
            result
        })
    }
}
