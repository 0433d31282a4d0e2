//! What the steps of a round are called, and how far a round is.

use std::collections::BTreeMap;
use std::fmt;

use proto::ids::SessionId;

/// The rounds of a task that are open, and the step of each.
pub type Steps = BTreeMap<SessionId, PhaseName>;

/// The step that a round is in, without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseName {
    /// Step 1: devices advertise their keys.
    Advertise,
    /// Between steps 1 and 2, for a large cohort: the graph is drawn.
    Draw,
    /// Step 2: devices share their seeds.
    Share,
    /// Step 3: masked inputs come.
    Masked,
    /// Step 4: the survivors sign who they are.
    Agree,
    /// Step 5: shares come that open the sum.
    Unmask,
    /// The round has ended.
    Over,
}

/// How far an open round is, in numbers that are there without going through its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The round's session.
    pub session: SessionId,
    /// Its number in its task.
    pub round: u64,
    /// The step that it is in.
    pub phase: PhaseName,
    /// Devices that advertised their keys.
    pub joined: usize,
    /// Devices that shared their seeds; none before that step.
    pub shared: Option<usize>,
    /// Devices whose masked input is whole; none before that step.
    pub survivors: Option<usize>,
}

impl PhaseName {
    /// The name, as devices and operators read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Advertise => "advertise keys",
            Self::Draw => "draw",
            Self::Share => "share keys",
            Self::Masked => "masked input",
            Self::Agree => "consistency",
            Self::Unmask => "unmask",
            Self::Over => "over",
        }
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
