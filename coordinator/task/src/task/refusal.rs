//! Why a task does not do what its operator asks.

use proto::adapter::AdapterError;

/// Why a task does not go back to a version.
#[derive(Debug, thiserror::Error)]
pub enum RollBackError {
    /// No further version may come.
    #[error("the task is over: no further version comes")]
    Over,
    /// There is no such version.
    #[error("the task has versions 0 to {newest}, not {version}")]
    Unknown {
        /// What was asked for.
        version: u32,
        /// The newest.
        newest: u32,
    },
    /// The newest version has these parameters already.
    #[error("version {newest}, the newest, has the parameters of version {version} already")]
    Same {
        /// What was asked for.
        version: u32,
        /// The newest.
        newest: u32,
    },
    /// Devices have begun to give their inputs.
    #[error(
        "round {round} is under way, and its devices have finished their work: ask again when it is over"
    )]
    UnderWay {
        /// The round.
        round: u64,
    },
    /// The parameters are none of the task's.
    #[error("the stored parameters of version {version} cannot be used: {source}")]
    Parameters {
        /// What was asked for.
        version: u32,
        /// Why.
        source: AdapterError,
    },
}
