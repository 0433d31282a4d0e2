//! In a round: join, advertise keys, draw the graph, share seeds, charge, submit, agree, unmask.

use std::sync::Arc;

use aggregation::log::{Head, Seen};
use aggregation::{
    Advertised, Advertisement, Agreed, Context, Draw, MAX_COMPLETE, Masking, Roster, SealedShare, Shared,
    Signature, Submitted, UnmaskShares,
};
use proto::ids::{Digest, SessionId, Timestamp};
use proto::message::{Outcome, Rejection, Reply, Request, Window};
use proto::plan::{model_digest, rotation_seed};
use rand_core::CryptoRng;

use super::outside::REFUSED_MILLIS;
use super::state::SessionState;
use super::{Action, Ended, Event, LEAST_WAIT_MILLIS, MOST_ROUNDS_AHEAD, Session, Signed, Stage, Trained};
use crate::contribution::{MaskedInput, Sent, contribute};
use crate::spending::Charge;

/// Sessions in 24 hours, at most, in which a device takes part in drawing a graph.
const MOST_DRAWN_A_DAY: usize = 50;

const DAY_MILLIS: u64 = 24 * 3_600_000;

/// Where a device is in a round. Each step holds exactly what the next one needs.
#[derive(Debug)]
pub(super) enum Step {
    RecordingLog { round: RoundName, seen: Seen },
    Advertising { round: RoundName, advertised: Box<Advertised>, advertisement: Box<Advertisement> },
    RecordingDraw { times: Vec<Timestamp>, drawing: Box<Drawing> },
    Drawing(Box<Drawing>),
    Sharing { round: RoundName, shared: Shared, shares: Vec<SealedShare> },
    Charging { round: RoundName, masking: Masking },
    Submitting { round: RoundName, masked: Box<MaskedInput> },
    RecordingSignature { round: RoundName, end: InputEnd },
    Ending { round: RoundName, end: InputEnd },
    Agreeing { round: RoundName, agreed: Agreed, signature: Signature },
    RecordingAnswer { round: RoundName, transcript: Digest, shares: UnmaskShares },
    Unmasking { round: RoundName, shares: UnmaskShares },
}

/// A nonce on its way.
#[derive(Debug)]
pub(super) struct Drawing {
    round: RoundName,
    advertised: Advertised,
    draw: Draw,
    nonce: [u8; 32],
}

/// The end of a masked input.
#[derive(Debug)]
pub(super) struct InputEnd {
    submitted: Submitted,
    /// Over all chunks.
    digest: Digest,
    /// With whom the device masked.
    sharing: Signature,
}

/// Which round.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundName {
    session: SessionId,
    number: u64,
    /// The enrollment log that it is about.
    log: Option<Head>,
}

impl RoundName {
    /// The enrollment log that the round is about.
    pub(super) const fn log(self) -> Option<Head> {
        self.log
    }
}

impl Step {
    pub(super) fn state(&self) -> SessionState {
        match self {
            Self::RecordingLog { .. } => SessionState::RecordingLog,
            Self::Advertising { .. } => SessionState::Advertising,
            Self::RecordingDraw { .. } => SessionState::RecordingDraw,
            Self::Drawing(_) => SessionState::Drawing,
            Self::Sharing { .. } => SessionState::Sharing,
            Self::Charging { .. } => SessionState::Charging,
            Self::Submitting { .. } => SessionState::Submitting,
            Self::RecordingSignature { .. } => SessionState::RecordingSignature,
            Self::Ending { .. } => SessionState::Ending,
            Self::Agreeing { .. } => SessionState::Agreeing,
            Self::RecordingAnswer { .. } => SessionState::RecordingAnswer,
            Self::Unmasking { .. } => SessionState::Unmasking,
        }
    }

    pub(super) fn action(&self, trained: &Trained) -> Action {
        let task = trained.work.published.task;
        match self {
            Self::Advertising { round, advertisement, .. } => Action::Send(Request::Advertise {
                session: round.session,
                advertisement: advertisement.clone(),
            }),
            Self::RecordingLog { seen, .. } => Action::RecordLog(*seen),
            Self::RecordingDraw { times, .. } => Action::RecordDraws(times.clone()),
            Self::Drawing(drawing) => {
                Action::Send(Request::Draw { session: drawing.round.session, nonce: drawing.nonce })
            }
            Self::Sharing { round, shares, .. } => {
                Action::Send(Request::ShareKeys { session: round.session, shares: shares.clone() })
            }
            Self::Charging { round, .. } => {
                let mechanism = &trained.work.mechanism;
                let bits = mechanism.contribution_len() as u64 * u64::from(mechanism.ring_bits());
                Action::Charge(Charge {
                    task,
                    version: trained.work.published.version,
                    round: round.number,
                    plan: trained.work.published.plan,
                    cost: trained.work.plan.participation_cost(),
                    delta: trained.work.plan.privacy.delta,
                    bytes: bits.div_ceil(8),
                    examples: trained.update.examples(),
                })
            }
            Self::Submitting { round, masked } => {
                let (offset, packed) = masked.chunk();
                let (session, packed) = (round.session, packed.to_vec());
                Action::Send(Request::MaskedChunk { session, offset, packed })
            }
            Self::RecordingSignature { round, end } => {
                let statement = Digest(end.submitted.sharing().digest());
                Action::RecordSignature(Signed { task, round: round.number, statement })
            }
            Self::Ending { round, end } => Action::Send(Request::MaskedDone {
                session: round.session,
                digest: end.digest,
                sharing: end.sharing,
            }),
            Self::RecordingAnswer { round, transcript, .. } => {
                Action::RecordAnswer(Signed { task, round: round.number, statement: *transcript })
            }
            Self::Agreeing { round, signature, .. } => {
                Action::Send(Request::Agree { session: round.session, signature: *signature })
            }
            Self::Unmasking { round, shares } => {
                Action::Send(Request::Unmask { session: round.session, shares: shares.clone() })
            }
        }
    }

    /// The name of the request that the step sends.
    fn request(&self) -> &'static str {
        match self {
            Self::RecordingLog { .. } | Self::Advertising { .. } => "advertise",
            Self::RecordingDraw { .. } | Self::Drawing(_) => "draw",
            Self::Sharing { .. } => "share keys",
            Self::Charging { .. } | Self::Submitting { .. } => "masked input",
            Self::RecordingSignature { .. } | Self::Ending { .. } => "masked done",
            Self::Agreeing { .. } => "agree",
            Self::RecordingAnswer { .. } | Self::Unmasking { .. } => "unmask",
        }
    }
}

/// What a step's answer leads to.
enum Turn {
    Step(Step),
    /// Ask the same again within a window.
    Again(Step, Window),
    Leave(Ended),
    Over(Outcome),
}

impl Session {
    pub(super) fn joining(
        self,
        trained: Trained,
        event: Event,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Self {
        match event {
            Event::Replied(Reply::Offer { session, round, log }) => {
                let task = trained.work.published.task;
                if self.signed.get(&task).is_some_and(|last| round <= *last) {
                    // It may have helped to open this round's sum: a second sum of almost the same devices would
                    // show the difference.
                    return self.end(Ended::SignedBefore { task, round }, now.plus_millis(60_000));
                }
                let last = self.signed.get(&task).copied().unwrap_or(0);
                if round > last.saturating_add(MOST_ROUNDS_AHEAD) {
                    return self.end(Ended::RoundTooFar { task, round, last }, now.plus_millis(60_000));
                }
                let seen = match self.look_at_log(log, now) {
                    Ok(seen) => seen,
                    Err(why) => return self.without_log(trained, why, now, rng),
                };
                let log = seen.map(|(head, _)| head);
                let round = RoundName { session, number: round, log };
                let new = seen.map(|(_, seen)| seen).filter(|seen| self.seen != Some(*seen));
                let step = match new {
                    // Written down before anything is signed about it.
                    Some(seen) => Step::RecordingLog { round, seen },
                    None => self.advertising(&trained, round, rng),
                };
                self.to(Stage::Round { trained, step: Box::new(step) })
            }
            Event::Replied(Reply::Wait { retry, .. }) => {
                self.again(Stage::Joining { trained }, now, retry, rng)
            }
            Event::Replied(other) => {
                let why = Ended::WrongReply { request: "join", reply: other.name() };
                self.end(why, now.plus_millis(60_000))
            }
            Event::Rejected(rejection) => self.rejected(rejection, now),
            Event::Woke
            | Event::Unreachable
            | Event::PlanLoaded(_)
            | Event::Loaded { .. }
            | Event::Trained(_)
            | Event::NotTrained(_)
            | Event::NoText(_)
            | Event::TrainerFailed(_)
            | Event::CannotTrain(_)
            | Event::NoWindow
            | Event::WindowOpened
            | Event::ClockStepped
            | Event::CertificateEnded
            | Event::Renewed { .. }
            | Event::LeavesRound
            | Event::Recorded => self.to(Stage::Joining { trained }),
        }
    }

    /// Fresh keys for a round, signed.
    fn advertising(&self, trained: &Trained, round: RoundName, rng: &mut impl CryptoRng) -> Step {
        let (identity, credential) = (&self.device.identity, self.credential.clone());
        let (advertised, advertisement) = Advertised::new(context(trained, round), identity, credential, rng);
        let advertised = Box::new(advertised);
        Step::Advertising { round, advertised, advertisement: Box::new(advertisement) }
    }

    pub(super) fn inside(
        mut self,
        trained: Trained,
        step: Step,
        event: Event,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let turn = match event {
            Event::Replied(Reply::Over(outcome)) => Turn::Over(outcome),
            Event::Replied(Reply::Wait { retry, .. }) => Turn::Again(step, retry),
            Event::Replied(reply) => self.replied(&trained, step, reply, now, rng),
            Event::Recorded => self.recorded(&trained, step, now, rng),
            // The round is gone, or goes on without this device; the update is still good: the version decides.
            Event::Rejected(Rejection::UnknownSession) => Turn::Over(Outcome::Stopped),
            Event::Rejected(Rejection::NotInRoster)
                if matches!(step, Step::Advertising { .. } | Step::Drawing(_)) =>
            {
                Turn::Over(Outcome::Stopped)
            }
            Event::Rejected(rejection) => return self.rejected(rejection, now),
            Event::LeavesRound => return self.join_another(trained, now, rng),
            Event::Woke
            | Event::Unreachable
            | Event::PlanLoaded(_)
            | Event::Loaded { .. }
            | Event::Trained(_)
            | Event::NotTrained(_)
            | Event::NoText(_)
            | Event::TrainerFailed(_)
            | Event::CannotTrain(_)
            | Event::NoWindow
            | Event::WindowOpened
            | Event::ClockStepped
            | Event::CertificateEnded
            | Event::Renewed { .. } => Turn::Step(step),
        };
        match turn {
            Turn::Step(step) => self.to(Stage::Round { trained, step: Box::new(step) }),
            Turn::Again(step, window) => {
                self.again(Stage::Round { trained, step: Box::new(step) }, now, window, rng)
            }
            Turn::Leave(why @ (Ended::Draws(_) | Ended::Listed(_))) => {
                self.end(why, now.plus_millis(REFUSED_MILLIS))
            }
            Turn::Leave(why) => self.end(why, now.plus_millis(60_000)),
            Turn::Over(Outcome::Published) => self.wait(now.plus_millis(LEAST_WAIT_MILLIS)),
            Turn::Over(outcome) => {
                self.ended = Some(Ended::Round(outcome));
                self.join_another(trained, now, rng)
            }
        }
    }

    /// The update of a round that came to nothing is contributed to another one, where the policy admits a further charge.
    fn join_another(self, trained: Trained, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        let (task, plan) = (trained.work.published.task, &trained.work.plan);
        match self.device.policy.admit(task, plan, &self.device.bases, &self.spending, now) {
            Ok(()) => self.again(Stage::Joining { trained }, now, Window::at(LEAST_WAIT_MILLIS), rng),
            Err(breach) => self.end(breach, now.plus_millis(LEAST_WAIT_MILLIS)),
        }
    }

    fn replied(
        &mut self,
        trained: &Trained,
        step: Step,
        reply: Reply,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Turn {
        match (step, reply) {
            (Step::Advertising { round, advertised, .. }, Reply::Roster { entries, listed }) => {
                match self.check_listed(trained, round, (&entries, &listed), now) {
                    Ok(()) => self.met(trained, round, *advertised, (entries, 0), now, rng),
                    Err(error) => Turn::Leave(error.into()),
                }
            }
            (Step::Drawing(drawing), Reply::Roster { entries, listed }) => {
                let Drawing { round, advertised, draw, .. } = *drawing;
                match self.check_listed(trained, round, (&entries, &listed), now) {
                    Ok(()) => self.met(trained, round, advertised, (entries, draw.attempt() + 1), now, rng),
                    Err(error) => Turn::Leave(error.into()),
                }
            }
            (Step::Drawing(drawing), Reply::Drawn(nonces)) => {
                let Drawing { round, advertised, draw, .. } = *drawing;
                match draw.finish(&nonces) {
                    Ok(roster) => self.share(trained, round, advertised, roster, now, rng),
                    Err(error) => Turn::Leave(error.into()),
                }
            }
            (Step::Sharing { round, shared, .. }, Reply::Inbox { sharers, shares }) => {
                match shared.receive(sharers, shares) {
                    Ok(masking) => Turn::Step(Step::Charging { round, masking }),
                    Err(refusal) => Turn::Leave(refusal.into()),
                }
            }
            (Step::Submitting { round, masked }, Reply::Received) => {
                match masked.advance(&self.device.identity) {
                    Ok(Sent::Partly(masked)) => {
                        Turn::Step(Step::Submitting { round, masked: Box::new(masked) })
                    }
                    Ok(Sent::Whole { submitted, digest, sharing }) => {
                        let end = InputEnd { submitted, digest, sharing };
                        Turn::Step(Step::RecordingSignature { round, end })
                    }
                    Err(refusal) => Turn::Leave(refusal.into()),
                }
            }
            (Step::Ending { round, end }, Reply::Survivors(survivors)) => {
                match end.submitted.agree(survivors, &self.device.identity) {
                    Ok((agreed, signature)) => Turn::Step(Step::Agreeing { round, agreed, signature }),
                    Err(refusal) => Turn::Leave(refusal.into()),
                }
            }
            (Step::Agreeing { round, agreed, .. }, Reply::Evidence(evidence)) => {
                let transcript = Digest(agreed.transcript().digest());
                match agreed.unmask(&evidence) {
                    Ok(shares) => Turn::Step(Step::RecordingAnswer { round, transcript, shares }),
                    Err(refusal) => Turn::Leave(refusal.into()),
                }
            }
            (step, reply) => Turn::Leave(Ended::WrongReply { request: step.request(), reply: reply.name() }),
        }
    }

    /// The devices of the round are known: shares with them, or first draws who is whose neighbour.
    fn met(
        &mut self,
        trained: &Trained,
        round: RoundName,
        mut advertised: Advertised,
        (cohort, attempt): (Vec<Advertisement>, u8),
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Turn {
        if cohort.len() <= MAX_COMPLETE {
            return match Roster::new(cohort) {
                Ok(roster) => self.share(trained, round, advertised, roster, now, rng),
                Err(error) => Turn::Leave(error.into()),
            };
        }
        let draw = match Draw::new(&context(trained, round), cohort, attempt) {
            Ok(draw) => draw,
            Err(error) => return Turn::Leave(error.into()),
        };
        if attempt == 0 && !self.may_draw(now) {
            return Turn::Leave(Ended::Draws(MOST_DRAWN_A_DAY));
        }
        match advertised.reveal(&draw) {
            Ok(nonce) => {
                let drawing = Box::new(Drawing { round, advertised, draw, nonce });
                // Of a session's draws the first counts, before its nonce leaves.
                if attempt > 0 {
                    return Turn::Step(Step::Drawing(drawing));
                }
                Turn::Step(Step::RecordingDraw { times: self.drawn.clone(), drawing })
            }
            Err(refusal) => Turn::Leave(refusal.into()),
        }
    }

    /// Counts one more session in which this device opens its commitment, if it may. Whoever could see ever more
    /// orders of the graph would at last see one that suits it.
    fn may_draw(&mut self, now: Timestamp) -> bool {
        self.drawn.retain(|at| now.millis_since(*at) < DAY_MILLIS);
        let may = self.drawn.len() < MOST_DRAWN_A_DAY;
        if may {
            self.drawn.push(now);
        }
        may
    }

    fn share(
        &self,
        trained: &Trained,
        round: RoundName,
        advertised: Advertised,
        roster: Roster,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Turn {
        let smallest = self.device.policy.smallest_cohort.max(trained.work.plan.round.report_goal);
        let (authority, secs) = (&self.device.authority, now.as_secs());
        match advertised.share(roster, authority, secs, smallest as usize, rng) {
            Ok((shared, shares)) => Turn::Step(Step::Sharing { round, shared, shares }),
            Err(refusal) => Turn::Leave(refusal.into()),
        }
    }

    fn recorded(&mut self, trained: &Trained, step: Step, now: Timestamp, rng: &mut impl CryptoRng) -> Turn {
        if let Action::Charge(charge) = step.action(trained) {
            self.spending.add(&charge, now);
        }
        match step {
            Step::Charging { round, masking } => {
                let (mechanism, metrics) = (&trained.work.mechanism, &trained.work.plan.privacy.metrics);
                match contribute(
                    mechanism,
                    metrics,
                    &trained.update,
                    &rotation_seed(&round.session),
                    masking,
                    rng,
                ) {
                    Ok(masked) => Turn::Step(Step::Submitting { round, masked: Box::new(masked) }),
                    Err(error) => Turn::Leave(error.into()),
                }
            }
            Step::RecordingLog { round, seen } => {
                self.seen = Some(seen);
                Turn::Step(self.advertising(trained, round, rng))
            }
            Step::RecordingDraw { drawing, .. } => Turn::Step(Step::Drawing(drawing)),
            Step::RecordingSignature { round, end } => {
                self.signed.insert(trained.work.published.task, round.number);
                Turn::Step(Step::Ending { round, end })
            }
            Step::RecordingAnswer { round, shares, .. } => Turn::Step(Step::Unmasking { round, shares }),
            step @ (Step::Advertising { .. }
            | Step::Drawing(_)
            | Step::Sharing { .. }
            | Step::Submitting { .. }
            | Step::Ending { .. }
            | Step::Agreeing { .. }
            | Step::Unmasking { .. }) => Turn::Step(step),
        }
    }
}

/// What the device itself says the round is about; the coordinator's word is not asked.
fn context(trained: &Trained, round: RoundName) -> Context {
    let work = Arc::as_ref(&trained.work);
    Context {
        session: aggregation::SessionId(round.session.0),
        task: aggregation::TaskId(work.published.task.0),
        round: round.number,
        model_digest: aggregation::ModelDigest(
            model_digest(&work.plan, &work.published, work.against.as_ref()).0,
        ),
        plan_digest: aggregation::PlanDigest(work.published.plan.0),
        len: work.mechanism.contribution_len(),
        ring_bits: work.mechanism.ring_bits(),
        report_goal: work.plan.round.report_goal as usize,
        cohort: work.plan.round.cohort as usize,
        corrupt: work.plan.corrupt_devices(),
        missing_fraction_permille: work.plan.round.missing_permille,
        log: round.log,
    }
}
