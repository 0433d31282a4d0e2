//! What a trainer in a process of its own can do wrong. Each is an event with a name: the device goes on.

/// How a trainer broke, where it is a process of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainerFault {
    /// It could not be started at all.
    #[error("it could not be started: {0}")]
    NotStarted(String),
    /// A protection without which it does not train cannot be had here.
    #[error("it does not train without a protection that cannot be had here: {0}")]
    Unprotected(String),
    /// It was ended by a signal: by the system, or by somebody.
    #[error("it was ended by signal {signal}")]
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// It ended by itself in the middle of its work.
    #[error("it ended in the middle of its work, with exit code {code}")]
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// It has a mistake. What it said of that could quote the user's text, and is not kept.
    #[error("it stopped itself because of a mistake in it")]
    Panicked,
    /// It needed more memory than it may have, or than there was.
    #[error("it needed more memory than there is for it; set `recompute = true`, or close other programs")]
    OutOfMemory,
    /// It said nothing for so long.
    #[error("it said nothing for {secs} seconds and was ended")]
    Silent {
        /// How long.
        secs: u64,
    },
    /// What it said is nothing that it may say, or not then.
    #[error("it said what makes no sense: {0}")]
    Nonsense(String),
    /// Its update is not one of this training.
    #[error("it gave {found} parameters where {expected} are trained")]
    WrongLength {
        /// How many parameters came.
        found: usize,
        /// How many are trained.
        expected: usize,
    },
    /// Its update cannot be contributed.
    #[error("it gave an update with a number that is not finite")]
    NotFinite,
}
