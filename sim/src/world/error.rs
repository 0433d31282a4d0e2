//! Why a world came to no end.

use proto::convert::WireError;
use proto::counted::counted;
use task::TaskError;

/// A world that did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The task cannot be started.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Nothing happens any more.
    #[error("the federation is stuck at version {version}: {why}")]
    Stuck {
        /// The newest version.
        version: u32,
        /// Why, as far as it is known.
        why: String,
    },
    /// It was waited longer for a version than somebody wants to.
    #[error(
        "version {version} waited {} for {}; after the first hour at most {most_there} {} there at a time{why}",
        counted(*hours, "simulated hour", "simulated hours"),
        counted(*wanted, "device", "devices"), were(*most_there)
    )]
    Waited {
        /// The version that did not come.
        version: u32,
        /// How long, in simulated hours.
        hours: u64,
        /// The fewest devices of which a version is made.
        wanted: u32,
        /// The most devices that were there at a time from an hour after the version before on.
        most_there: usize,
        /// What else is known, as a further clause.
        why: String,
    },
    /// Our own bytes could not be read back.
    #[error("the wire does not carry its own messages: {0}")]
    Wire(#[from] WireError),
    /// Our own bytes could not be read back.
    #[error("the wire does not carry its own messages: {0}")]
    Decode(#[from] prost::DecodeError),
}

fn were(devices: usize) -> &'static str {
    if devices == 1 { "was" } else { "were" }
}
