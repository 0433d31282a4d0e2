//! What a device asks and what the coordinator answers, after the bytes were checked.
//!
//! Every request is idempotent: asking again is polling. A [`Rejection`] changes nothing.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use aggregation::{Advertisement, Evidence, IndexSet, SealedShare, Signature, TreeHash, UnmaskShares};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::adapter::Class;
use crate::ids::{Digest, SessionId, TaskId};

mod outcome;

pub use outcome::Outcome;

/// Bytes of an artefact in one [`Chunk`].
pub const CHUNK_BYTES: usize = 1 << 19;

/// Coordinates of a masked input in one [`Request::MaskedChunk`].
pub const CHUNK_COORDINATES: usize = 1 << 15;

/// The hash by which a device declares a masked input to be whole: SHA-256 over the SHA-256 of each of its packed chunks, in
/// order. Each byte is hashed once, with its chunk.
pub fn input_digest(chunks: &[Digest]) -> Digest {
    let all: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.0).collect();
    Digest::of(&all)
}

/// The most versions that a device is told of at a time.
pub const MOST_LATEST: usize = 64;

/// The largest message that either side reads.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// What a device asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Is there work, or a newer version?
    CheckIn(CheckIn),
    /// A part of an artefact.
    Fetch {
        /// Its hash.
        digest: Digest,
        /// First byte.
        offset: u64,
    },
    /// This device has finished training for the next version and would take part in a round.
    Join {
        /// The task.
        task: TaskId,
        /// The version that it trained from.
        version: u32,
        /// How much of the adapter it trained, where that is not all of it.
        class: Option<Class>,
        /// The leaves of the enrollment log that it has seen; 0 for none.
        log_seen: u64,
    },
    /// This device will not train for the task.
    Decline {
        /// The task.
        task: TaskId,
        /// Why, as a category.
        reason: DeclineReason,
    },
    /// Step 1: one-time keys.
    Advertise {
        /// The round's session.
        session: SessionId,
        /// Signed keys and commitments.
        advertisement: Box<Advertisement>,
    },
    /// Between steps 1 and 2, in a cohort above [`aggregation::MAX_COMPLETE`]: this device's nonce for the
    /// draw of the graph.
    Draw {
        /// The round's session.
        session: SessionId,
        /// What it committed to.
        nonce: [u8; 32],
    },
    /// Step 2: sealed shares for the neighbours.
    ShareKeys {
        /// The round's session.
        session: SessionId,
        /// One for each neighbour.
        shares: Vec<SealedShare>,
    },
    /// Step 3: a part of the masked input.
    MaskedChunk {
        /// The round's session.
        session: SessionId,
        /// First coordinate, a multiple of [`CHUNK_COORDINATES`].
        offset: u64,
        /// Packed coordinates.
        packed: Vec<u8>,
    },
    /// Step 3, its end: all chunks were sent. Repeated until the survivors are fixed.
    MaskedDone {
        /// The round's session.
        session: SessionId,
        /// What its chunks are: [`input_digest`].
        digest: Digest,
        /// With whom the device masked: its signature over the roster and the sharers.
        sharing: Signature,
    },
    /// Step 4: the device's one signature over the round's transcript.
    Agree {
        /// The round's session.
        session: SessionId,
        /// The signature.
        signature: Signature,
    },
    /// Step 5: shares that open the sum.
    Unmask {
        /// The round's session.
        session: SessionId,
        /// Own-mask shares of survivors, key shares of the missing.
        shares: UnmaskShares,
    },
}

impl Request {
    /// The request's name in logs and rejections.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CheckIn(_) => "check-in",
            Self::Fetch { .. } => "fetch",
            Self::Join { .. } => "join",
            Self::Decline { .. } => "decline",
            Self::Advertise { .. } => "advertise",
            Self::Draw { .. } => "draw",
            Self::ShareKeys { .. } => "share keys",
            Self::MaskedChunk { .. } => "masked chunk",
            Self::MaskedDone { .. } => "masked done",
            Self::Agree { .. } => "agree",
            Self::Unmask { .. } => "unmask",
        }
    }

    /// The session that the request belongs to, if to one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::CheckIn(_) | Self::Fetch { .. } | Self::Join { .. } | Self::Decline { .. } => None,
            Self::Advertise { session, .. }
            | Self::Draw { session, .. }
            | Self::ShareKeys { session, .. }
            | Self::MaskedChunk { session, .. }
            | Self::MaskedDone { session, .. }
            | Self::Agree { session, .. }
            | Self::Unmask { session, .. } => Some(*session),
        }
    }
}

/// What a device says of itself when it asks for work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckIn {
    /// It asks for newer versions and takes no work: its user's conditions allow no training now.
    pub only_keeps: bool,
    /// The tasks that it declined and would decline again, at most [`MOST_LATEST`]: it is offered the others.
    pub declined: Vec<TaskId>,
}

/// When a device asks again, in milliseconds from now: at a moment of its own choice between two, so that devices that
/// were told at the same time do not come at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub least_millis: u64,
    /// Not after; not below the other.
    pub most_millis: u64,
}

impl Window {
    /// No choice.
    pub const fn at(millis: u64) -> Self {
        Self { least_millis: millis, most_millis: millis }
    }

    /// From half of a time to half as much again.
    pub const fn around(millis: u64) -> Self {
        Self { least_millis: millis / 2, most_millis: millis.saturating_add(millis / 2) }
    }

    /// A moment in it, each as likely as any other.
    pub fn choose(self, rng: &mut impl Rng) -> u64 {
        let choices = self.most_millis.saturating_sub(self.least_millis).saturating_add(1);
        let chosen = (u128::from(rng.next_u64()) * u128::from(choices)) >> 64;
        self.least_millis.saturating_add(u64::try_from(chosen).unwrap_or(0))
    }
}

/// A version of a task's adapter, as published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The task.
    pub task: TaskId,
    /// The version.
    pub version: u32,
    /// The plan's hash.
    pub plan: Digest,
    /// The hash of the trained parameters.
    pub adapter: Digest,
    /// The hash of what earlier epochs left, where factors were drawn anew before.
    #[serde(default)]
    pub folded: Option<Digest>,
    /// The L2 bound of updates that are trained from it.
    pub clip_norm: f64,
}

/// What a device is to train from, and what the coordinator knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The version.
    pub published: Published,
    /// What the version's gain is measured against; `None` where it is not to be.
    pub before: Option<Before>,
    /// The tasks in which the coordinator charged the device, this one first, at most [`MOST_LATEST`].
    pub charges: Vec<Charged>,
}

/// How often the coordinator charged a device in a task: no more than the device's own ledger says, unless the ledger
/// was lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Charged {
    /// The task's newest version, of which the device asks for the plan.
    pub published: Published,
    /// Rounds.
    pub rounds: u32,
}

/// A version before another one, by what it consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// The version.
    pub version: u32,
    /// The hash of its trained parameters.
    pub adapter: Digest,
    /// The hash of what earlier epochs left, where factors were drawn anew before.
    pub folded: Option<Digest>,
}

/// What an assignment is about.
impl Deref for Assignment {
    type Target = Published;

    fn deref(&self) -> &Published {
        &self.published
    }
}

/// Why a device does not take part in a task. Only the category: the numbers stay on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// The plan cannot be followed.
    Plan,
    /// The task, or its base, is not one that its user allows.
    NotAllowed,
    /// It holds another base.
    Base,
    /// Too few devices to hide among.
    Cohort,
    /// Too little noise, or none of the devices' own.
    Noise,
    /// One more round would pass its ε.
    Epsilon,
    /// It took part as often as it may.
    Participations,
    /// The adapter is larger than it trains, and the plan takes no smaller part.
    Size,
    /// It lacks the memory for the training.
    Memory,
    /// The training is more work than it does in a round.
    Work,
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "the plan cannot be followed",
            Self::NotAllowed => "the task or its base is not one that they allow",
            Self::Base => "they hold another base",
            Self::Cohort => "too few devices to hide among",
            Self::Noise => "too little noise of the devices' own",
            Self::Epsilon => "their ε is spent, or stated at too large a δ",
            Self::Participations => "they took part as often as they may",
            Self::Size => "the adapter is larger than they train",
            Self::Memory => "they lack the memory",
            Self::Work => "more work than they do in a round",
        })
    }
}

/// A part of an artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Length of the whole artefact.
    pub total_bytes: u64,
    /// First byte of this part.
    pub offset: u64,
    /// The part.
    pub bytes: Vec<u8>,
}

/// What the coordinator answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Nothing yet: ask the same again within the given window.
    Wait {
        /// When to ask again, from now.
        retry: Window,
        /// In the answer to a check-in, the newest version of each task that the device took part in, and of the newest task,
        /// which is the last.
        latest: Vec<Published>,
        /// All tasks are over: there will be no more work for this device.
        complete: bool,
    },
    /// To a check-in: train from this version.
    Assignment(Assignment),
    /// To a fetch.
    Chunk(Chunk),
    /// To a join: the round to advertise keys for.
    Offer {
        /// The round's session.
        session: SessionId,
        /// Its number in the task.
        round: u64,
        /// The enrollment log that the round is about, where there is one.
        log: Option<LogOffer>,
    },
    /// To step 1: everybody's advertisement. To a draw: the roster of the next one, if some did not take part in the
    /// last.
    Roster {
        /// In roster order.
        entries: Vec<Advertisement>,
        /// What shows that they are in the enrollment log, below the head that the round is about
        /// ([`aggregation::log::Watch::check_listed`]).
        listed: Vec<TreeHash>,
    },
    /// To a draw: everybody's nonce, in roster order.
    Drawn(Vec<[u8; 32]>),
    /// To step 2: who shared, and what was sealed for this device.
    Inbox {
        /// The devices that shared.
        sharers: IndexSet,
        /// Shares for this device.
        shares: Vec<SealedShare>,
    },
    /// To a chunk, and to a device that declines.
    Received,
    /// To step 3: the devices whose masked inputs are counted.
    Survivors(IndexSet),
    /// To step 4: a signature of every survivor, of a quorum of them over one transcript.
    Evidence(Evidence),
    /// To step 5, and to whatever comes after a round has ended.
    Over(Outcome),
}

impl Reply {
    /// An answer that says no more than when to ask again.
    pub fn wait(retry_millis: u64) -> Self {
        Self::Wait { retry: Window::at(retry_millis), latest: Vec::new(), complete: false }
    }

    /// The reply's name in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Wait { .. } => "wait",
            Self::Assignment(_) => "assignment",
            Self::Chunk(_) => "chunk",
            Self::Offer { .. } => "offer",
            Self::Roster { .. } => "roster",
            Self::Drawn(_) => "drawn",
            Self::Inbox { .. } => "inbox",
            Self::Received => "received",
            Self::Survivors(_) => "survivors",
            Self::Evidence(_) => "evidence",
            Self::Over(_) => "over",
        }
    }
}

/// An enrollment log as a coordinator shows it to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOffer {
    /// A head of it, as the authority signed it ([`aggregation::log::SignedHead`]).
    pub head: String,
    /// What shows that the longer of this log and of what the device has seen goes on from the other.
    pub consistency: Vec<TreeHash>,
}

/// A part of an enrollment log, for whoever reads all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// The log's newest head, as a signed text.
    pub head: String,
    /// Entries in order ([`aggregation::log::Leaf`]).
    pub entries: Vec<Vec<u8>>,
}

/// A request turned away. The peer's fault, or the peer's clock; it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The message cannot be read.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which part.
        what: Cow<'static, str>,
        /// Why.
        why: String,
    },
    /// The certificate does not say which device this is, or the device is revoked.
    #[error(
        "this device is not enrolled here, or was revoked; enroll it anew, with a new token and an empty state folder"
    )]
    NotEnrolled,
    /// No such task, or it is over.
    #[error("no such task, or it is over")]
    UnknownTask,
    /// No such round, or it has ended.
    #[error("no such round, or it has ended")]
    UnknownSession,
    /// No such artefact, or an offset beyond it.
    #[error("no such artefact, or it is shorter")]
    UnknownArtifact,
    /// The device trained from another version than the current one.
    #[error("trained from version {found}, the current one is {current}")]
    Stale {
        /// What the device trained from.
        found: u32,
        /// The current version.
        current: u32,
    },
    /// The device has taken part as often as the plan allows.
    #[error("this device took part in {0} rounds, as many as the plan allows")]
    ParticipationsSpent(u32),
    /// The device is not of this round.
    #[error("this device is not in the round's roster")]
    NotInRoster,
    /// The request belongs to another step than the one that the round is in.
    #[error("`{request}` does not belong to the step `{phase}`")]
    WrongPhase {
        /// The request.
        request: Cow<'static, str>,
        /// The round's step.
        phase: Cow<'static, str>,
    },
    /// The device sent something else under the same name before.
    #[error("a different `{0}` came from this device before")]
    Equivocation(Cow<'static, str>),
    /// The device's masked input was not complete in time, so it is not in the sum.
    #[error("the masked input came too late to be counted")]
    LeftOut,
    /// The content breaks the protocol.
    #[error("`{request}` is not acceptable: {why}")]
    Unacceptable {
        /// The request.
        request: Cow<'static, str>,
        /// Why.
        why: String,
    },
    /// The coordinator is busy, stopping, or cannot reach its store.
    #[error("the coordinator cannot answer now: {0}")]
    Unavailable(String),
}

impl Rejection {
    /// Why, to be said of somebody who is known to have been turned away: without the request that was.
    pub fn reason(&self) -> String {
        match self {
            Self::Unacceptable { why, .. } => why.clone(),
            Self::Malformed { .. }
            | Self::NotEnrolled
            | Self::UnknownTask
            | Self::UnknownSession
            | Self::UnknownArtifact
            | Self::Stale { .. }
            | Self::ParticipationsSpent(_)
            | Self::NotInRoster
            | Self::WrongPhase { .. }
            | Self::Equivocation(_)
            | Self::LeftOut
            | Self::Unavailable(_) => self.to_string(),
        }
    }
}
