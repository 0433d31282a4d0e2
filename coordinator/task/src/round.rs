//! One secure sum over one cohort, as a pure machine.
//!
//! Requests go in by [`Round::handle`], what must be done comes out by [`Round::poll_effect`], in order; the
//! shell makes each effect durable before it sends the next reply. Devices poll by repeating their request:
//! a repeat gets the same reply, another content under the same name is [`Rejection::Equivocation`].
//! What takes long goes out by [`Round::take_opening`], to be asked after each of these, and its result comes back
//! by [`Round::opened`]; what a round is asked in the meantime it answers. A file for each phase is below `round/`.

use std::collections::VecDeque;

use aggregation::{Context, DeviceIndex, IdentityPublic, IndexSet};
use proto::ids::{DeviceId, Digest, SessionId, Timestamp};
use proto::message::{LogOffer, Outcome, Rejection, Reply, Request};

use crate::enrollment_log::RoundLog;
use crate::spool::Spool;

mod advertise;
mod agree;
mod draw;
mod masked;
mod opening;
mod phase_name;
mod share;
mod standing;
mod unmask;

use advertise::AdvertisePhase;
use agree::AgreePhase;
use draw::DrawPhase;
use masked::{Done, MaskedPhase};
pub use opening::{Opened, Opening};
pub use phase_name::{PhaseName, Progress, Steps};
use share::SharePhase;
use unmask::UnmaskPhase;

/// What a round is opened with.
#[derive(Clone, Debug)]
pub struct RoundParams {
    /// What every signature and every mask of the round is bound to.
    pub context: Context,
    /// Most devices.
    pub cohort: usize,
    /// Fewest survivors for which the sum may be opened.
    pub report_goal: usize,
    /// Whose credentials count.
    pub authority: IdentityPublic,
    /// The log in which all its devices must be, below the head of its context; none where their authority keeps none.
    pub log: Option<RoundLog>,
    /// How long the first step waits, in milliseconds.
    pub join_millis: u64,
    /// How long each later step waits, in milliseconds.
    pub step_millis: u64,
    /// How long stragglers are waited for once the report goal is reached, in milliseconds.
    pub grace_millis: u64,
    /// What a device that must wait is told, in milliseconds.
    pub poll_millis: u64,
}

/// What the shell must do, in this order, before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Record which devices' inputs are in the sum; no other set may ever be opened for this round.
    FixSurvivors {
        /// Devices in the sum.
        survivors: Vec<DeviceId>,
    },
    /// Record that these devices spent one participation; they sent some of their masked input.
    Charge {
        /// Devices to charge.
        devices: Vec<DeviceId>,
    },
    /// Let this device join no more: what it shared did not open the sum.
    Exclude {
        /// Which.
        device: DeviceId,
        /// How that is known.
        why: String,
    },
    /// Apply the opened sum.
    Publish {
        /// Integer sum in the ring.
        sum: Vec<u32>,
        /// Devices in the sum.
        survivors: usize,
        /// Devices in the roster.
        cohort: usize,
        /// What stands for the roster.
        roster: Digest,
    },
    /// The round is over.
    End(Outcome),
}

#[derive(Debug)]
enum Phase {
    Advertise(AdvertisePhase),
    Draw(Box<DrawPhase>),
    Share(Box<SharePhase>),
    Masked(Box<MaskedPhase>),
    Agree(Box<AgreePhase>),
    Unmask(Box<UnmaskPhase>),
    Over { outcome: Outcome, members: Vec<DeviceId> },
}

impl Phase {
    fn name(&self) -> PhaseName {
        match self {
            Self::Advertise(_) => PhaseName::Advertise,
            Self::Draw(_) => PhaseName::Draw,
            Self::Share(_) => PhaseName::Share,
            Self::Masked(_) => PhaseName::Masked,
            Self::Agree(_) => PhaseName::Agree,
            Self::Unmask(_) => PhaseName::Unmask,
            Self::Over { .. } => PhaseName::Over,
        }
    }
}

/// What a phase's deadline or completion turns it into.
#[derive(Debug)]
enum Next {
    Stay(Phase),
    To(Phase, Vec<Effect>),
}

/// One secure sum over one cohort.
#[derive(Debug)]
pub struct Round {
    params: RoundParams,
    phase: Phase,
    /// Until inputs come.
    spool: Option<Box<dyn Spool>>,
    effects: VecDeque<Effect>,
    opened: Timestamp,
}

/// How soon a round may give its place to one about a longer log, in milliseconds: those who are in it join anew.
const REOPENED_MILLIS: u64 = 3_000;

impl Round {
    /// Opens a round that waits for devices to advertise keys. Their inputs wait in `spool`.
    pub fn new(params: RoundParams, spool: Box<dyn Spool>, now: Timestamp) -> Self {
        let deadline = now.plus_millis(params.join_millis);
        Self::until(params, spool, (now, deadline))
    }

    /// The same, which waits for them until this time.
    pub(crate) fn until(
        params: RoundParams,
        spool: Box<dyn Spool>,
        (opened, deadline): (Timestamp, Timestamp),
    ) -> Self {
        let phase = Phase::Advertise(AdvertisePhase::new(deadline));
        Self { params, phase, spool: Some(spool), effects: VecDeque::new(), opened }
    }

    /// Until when it waits for devices to advertise, where a round about a log of so many leaves is to take its place: this
    /// one's log is shorter, so that who enrolled or renewed meanwhile could not be in it, and too few are in it yet. Not
    /// again and again, and never for longer.
    pub(crate) fn outgrown_by(&self, leaves: u64, now: Timestamp) -> Option<Timestamp> {
        let is_shorter = self.params.log.as_ref().is_some_and(|log| log.head().head().size < leaves);
        match &self.phase {
            Phase::Advertise(phase)
                if is_shorter
                    && phase.joined() < self.params.report_goal
                    && now.millis_since(self.opened) >= REOPENED_MILLIS =>
            {
                Some(phase.deadline())
            }
            Phase::Advertise(_)
            | Phase::Draw(_)
            | Phase::Share(_)
            | Phase::Masked(_)
            | Phase::Agree(_)
            | Phase::Unmask(_)
            | Phase::Over { .. } => None,
        }
    }

    /// What a device is shown of the enrollment log that has seen so many of its leaves.
    pub(crate) fn log_offer(&self, seen: u64) -> Option<LogOffer> {
        self.params.log.as_ref().map(|log| log.offer(seen))
    }

    /// The round's session.
    pub fn session(&self) -> SessionId {
        SessionId(self.params.context.session.0)
    }

    /// The round's number in its task.
    pub fn number(&self) -> u64 {
        self.params.context.round
    }

    /// The step that the round is in.
    pub fn phase(&self) -> PhaseName {
        self.phase.name()
    }

    /// The devices in it.
    pub fn members(&self) -> Vec<DeviceId> {
        match &self.phase {
            Phase::Advertise(phase) => phase.members(),
            Phase::Draw(phase) => phase.members(),
            Phase::Share(phase) => phase.joined.devices.clone(),
            Phase::Masked(phase) => phase.shared.joined.devices.clone(),
            Phase::Agree(phase) => phase.masked.shared.joined.devices.clone(),
            Phase::Unmask(phase) => phase.agreed.masked.shared.joined.devices.clone(),
            Phase::Over { members, .. } => members.clone(),
        }
    }

    /// Whether a device is in it.
    pub fn has_member(&self, device: DeviceId) -> bool {
        match &self.phase {
            Phase::Advertise(phase) => phase.has(device),
            Phase::Draw(phase) => phase.has(device),
            Phase::Share(phase) => phase.joined.devices.contains(&device),
            Phase::Masked(phase) => phase.shared.joined.devices.contains(&device),
            Phase::Agree(phase) => phase.masked.shared.joined.devices.contains(&device),
            Phase::Unmask(phase) => phase.agreed.masked.shared.joined.devices.contains(&device),
            Phase::Over { members, .. } => members.contains(&device),
        }
    }

    /// How many devices joined.
    pub fn joined(&self) -> usize {
        match &self.phase {
            Phase::Advertise(phase) => phase.joined(),
            Phase::Draw(_)
            | Phase::Share(_)
            | Phase::Masked(_)
            | Phase::Agree(_)
            | Phase::Unmask(_)
            | Phase::Over { .. } => self.members().len(),
        }
    }

    /// Whether devices may still join.
    pub fn is_joinable(&self) -> bool {
        matches!(self.phase, Phase::Advertise(_))
    }

    /// How the round ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Over { outcome, .. } => Some(outcome),
            Phase::Advertise(_)
            | Phase::Draw(_)
            | Phase::Share(_)
            | Phase::Masked(_)
            | Phase::Agree(_)
            | Phase::Unmask(_) => None,
        }
    }

    /// Answers one request. A rejection never changes the round.
    pub fn handle(&mut self, from: DeviceId, request: Request, now: Timestamp) -> Result<Reply, Rejection> {
        self.handle_timeout(now);
        let reply = self.answer(from, request, now);
        self.advance(now);
        reply
    }

    /// Closes whatever is due, but for the last step, which an opening ends. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while self.poll_timeout().is_some_and(|due| due <= now) {
            let before = self.phase.name();
            self.advance(now);
            if self.phase.name() == before {
                break;
            }
        }
    }

    /// When the open step is due to close, if it is; not while an opening is under way.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Advertise(phase) => Some(phase.deadline()),
            Phase::Draw(phase) => Some(phase.deadline(&self.params)),
            Phase::Share(phase) => Some(phase.deadline()),
            Phase::Masked(phase) => Some(phase.deadline(&self.params)),
            Phase::Agree(phase) => Some(phase.deadline()),
            Phase::Unmask(phase) => phase.deadline(),
            Phase::Over { .. } => None,
        }
    }

    /// The next thing that the shell must do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The sum, if it is due to be opened. The round has it no more until it is told by [`Round::opened`] what came
    /// of it.
    pub fn take_opening(&mut self, now: Timestamp) -> Option<Opening> {
        let session = self.session();
        match &mut self.phase {
            Phase::Unmask(phase) => phase.take_opening(session, now),
            Phase::Advertise(_)
            | Phase::Draw(_)
            | Phase::Share(_)
            | Phase::Masked(_)
            | Phase::Agree(_)
            | Phase::Over { .. } => None,
        }
    }

    /// Takes what came of an opening. That of another round, or of one that was aborted meanwhile, is dropped.
    pub fn opened(&mut self, opened: Opened) {
        if opened.session != self.session() {
            return;
        }
        let next = match self.leave_phase() {
            Phase::Unmask(phase) => phase.opened(opened),
            phase @ (Phase::Advertise(_)
            | Phase::Draw(_)
            | Phase::Share(_)
            | Phase::Masked(_)
            | Phase::Agree(_)
            | Phase::Over { .. }) => Next::Stay(phase),
        };
        self.enter(next);
    }

    /// Opens the sum here and now if that is due: for simulations and tests, in which nobody else waits.
    pub fn open_in_place(&mut self, now: Timestamp) {
        while let Some(opening) = self.take_opening(now) {
            self.opened(opening.run());
        }
    }

    /// Ends the round at once. What comes of an opening that is under way does not count any more. Devices that sent
    /// some of their input are charged all the same.
    pub fn abort(&mut self, outcome: Outcome) {
        let charge = match &self.phase {
            Phase::Masked(phase) => Some(phase.charge()),
            Phase::Advertise(_) | Phase::Draw(_) | Phase::Share(_) | Phase::Agree(_) | Phase::Unmask(_) => {
                None
            }
            Phase::Over { .. } => return,
        };
        let members = self.members();
        self.effects.extend(charge);
        self.effects.push_back(Effect::End(outcome));
        self.phase = Phase::Over { outcome, members };
    }

    fn answer(&mut self, from: DeviceId, request: Request, now: Timestamp) -> Result<Reply, Rejection> {
        let poll = Reply::wait(self.params.poll_millis);
        let name = request.name();
        if let Phase::Over { outcome, members } = &self.phase {
            let known = members.contains(&from);
            return if known { Ok(Reply::Over(*outcome)) } else { Err(Rejection::UnknownSession) };
        }
        match (request, &mut self.phase) {
            (Request::Advertise { advertisement, .. }, phase) => match phase {
                Phase::Advertise(phase) => {
                    phase.accept(from, *advertisement, &self.params, now)?;
                    Ok(poll)
                }
                Phase::Draw(phase) => phase.repeat(from, &advertisement),
                Phase::Share(phase) => phase.joined.repeat(from, &advertisement),
                Phase::Masked(phase) => phase.shared.joined.repeat(from, &advertisement),
                Phase::Agree(phase) => phase.masked.shared.joined.repeat(from, &advertisement),
                Phase::Unmask(phase) => phase.agreed.masked.shared.joined.repeat(from, &advertisement),
                Phase::Over { .. } => Err(Rejection::UnknownSession),
            },
            (Request::Draw { nonce, .. }, phase) => match phase {
                Phase::Draw(phase) => Ok(phase.accept(from, nonce, &self.params, now)?.unwrap_or(poll)),
                Phase::Share(phase) => phase.joined.repeat_draw(from, nonce),
                Phase::Masked(phase) => phase.shared.joined.repeat_draw(from, nonce),
                Phase::Agree(phase) => phase.masked.shared.joined.repeat_draw(from, nonce),
                Phase::Unmask(phase) => phase.agreed.masked.shared.joined.repeat_draw(from, nonce),
                Phase::Advertise(_) | Phase::Over { .. } => Err(wrong(name, phase.name())),
            },
            (Request::ShareKeys { shares, .. }, phase) => match phase {
                Phase::Share(phase) => {
                    phase.accept(from, shares)?;
                    Ok(poll)
                }
                Phase::Masked(phase) => phase.shared.repeat(from, &shares),
                Phase::Agree(phase) => phase.masked.shared.repeat(from, &shares),
                Phase::Unmask(phase) => phase.agreed.masked.shared.repeat(from, &shares),
                Phase::Advertise(_) | Phase::Draw(_) | Phase::Over { .. } => Err(wrong(name, phase.name())),
            },
            (Request::MaskedChunk { offset, packed, .. }, phase) => match phase {
                Phase::Masked(phase) => {
                    phase.accept_chunk(from, offset, &packed, &self.params)?;
                    Ok(Reply::Received)
                }
                Phase::Agree(phase) => Err(phase.masked.too_late(from)),
                Phase::Unmask(phase) => Err(phase.agreed.masked.too_late(from)),
                Phase::Advertise(_) | Phase::Draw(_) | Phase::Share(_) | Phase::Over { .. } => {
                    Err(wrong(name, phase.name()))
                }
            },
            (Request::MaskedDone { digest, sharing, .. }, phase) => match phase {
                Phase::Masked(phase) => {
                    phase.accept_done(from, Done { digest, sharing }, &self.params, now)?;
                    Ok(poll)
                }
                Phase::Agree(phase) => phase.masked.repeat(from, Done { digest, sharing }),
                Phase::Unmask(phase) => phase.agreed.masked.repeat(from, Done { digest, sharing }),
                Phase::Advertise(_) | Phase::Draw(_) | Phase::Share(_) | Phase::Over { .. } => {
                    Err(wrong(name, phase.name()))
                }
            },
            (Request::Agree { signature, .. }, phase) => match phase {
                Phase::Agree(phase) => {
                    phase.accept(from, signature)?;
                    Ok(poll)
                }
                Phase::Unmask(phase) => phase.agreed.repeat(from, signature),
                Phase::Advertise(_)
                | Phase::Draw(_)
                | Phase::Share(_)
                | Phase::Masked(_)
                | Phase::Over { .. } => Err(wrong(name, phase.name())),
            },
            (Request::Unmask { shares, .. }, phase) => match phase {
                Phase::Unmask(phase) => {
                    phase.accept(from, shares)?;
                    Ok(poll)
                }
                Phase::Advertise(_)
                | Phase::Draw(_)
                | Phase::Share(_)
                | Phase::Masked(_)
                | Phase::Agree(_)
                | Phase::Over { .. } => Err(wrong(name, phase.name())),
            },
            (
                Request::CheckIn(_) | Request::Fetch { .. } | Request::Join { .. } | Request::Decline { .. },
                phase,
            ) => Err(wrong(name, phase.name())),
        }
    }

    /// Moves on as far as what has come, and the time, allow.
    fn advance(&mut self, now: Timestamp) {
        loop {
            let next = match self.leave_phase() {
                Phase::Advertise(phase) => phase.next(&self.params, now),
                Phase::Draw(phase) => phase.next(&self.params, now),
                Phase::Share(phase) => phase.next(&self.params, &mut self.spool, now),
                Phase::Masked(phase) => phase.next(&self.params, now),
                Phase::Agree(phase) => phase.next(&self.params, now),
                phase @ (Phase::Unmask(_) | Phase::Over { .. }) => Next::Stay(phase),
            };
            let stays = matches!(next, Next::Stay(_));
            self.enter(next);
            if stays {
                return;
            }
        }
    }

    fn leave_phase(&mut self) -> Phase {
        let over = Phase::Over { outcome: Outcome::Stopped, members: Vec::new() };
        std::mem::replace(&mut self.phase, over)
    }

    fn enter(&mut self, next: Next) {
        match next {
            Next::Stay(phase) => self.phase = phase,
            Next::To(phase, effects) => {
                self.phase = phase;
                self.effects.extend(effects);
            }
        }
    }
}

fn wrong(request: &'static str, phase: PhaseName) -> Rejection {
    Rejection::WrongPhase { request: request.into(), phase: phase.as_str().into() }
}

/// Ends a round, after what still has to be done.
fn end(outcome: Outcome, members: Vec<DeviceId>, mut effects: Vec<Effect>) -> Next {
    effects.push(Effect::End(outcome));
    Next::To(Phase::Over { outcome, members }, effects)
}

fn unacceptable(request: &'static str, why: &impl ToString) -> Rejection {
    Rejection::Unacceptable { request: request.into(), why: why.to_string() }
}

/// The set of these places of a roster of `len`.
fn places<'a>(len: usize, indices: impl Iterator<Item = &'a DeviceIndex>) -> IndexSet {
    let mut set = IndexSet::new(len);
    for index in indices {
        #[expect(clippy::expect_used, reason = "a place comes from this very roster")]
        set.insert(*index).expect("a place of the roster");
    }
    set
}
