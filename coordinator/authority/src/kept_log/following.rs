//! Why a copy does not follow the log that it is of.

use aggregation::log::HeadError;
use shell::store::StoreError;

/// What is to be done where a log went back, or on along another branch.
const ADVICE: &str = "the authority's state folder came back from an old backup, or somebody else has its key. Put a newer copy of that \
                      folder back; where there is none, stop this coordinator, run `nightshift store forget-log`, and start it again: \
                      it reads the log anew. Until then devices that enroll take part in nothing, and rounds end when the last head \
                      that was read is a day old";

/// What came of a log elsewhere is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The store of the copy failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The head is not readable, or of another authority.
    #[error("the head that the enrollment authority sent is not taken: {0}")]
    Head(#[from] HeadError),
    /// An entry is none.
    #[error("entry {place} that the enrollment authority sent of its log is none that this version knows")]
    Entry {
        /// Where.
        place: u64,
    },
    /// The entries do not reach to the head.
    #[error("the enrollment authority signed a head over {size} entries of its log, and sent {have} of them")]
    Incomplete {
        /// Those of the head.
        size: u64,
        /// Those that are here or came.
        have: u64,
    },
    /// It is shorter than the copy, and the copy goes on from it.
    #[error(
        "the enrollment authority's log has {size} entries, and {here} of it were read here before: it went back. It is refused: {ADVICE}"
    )]
    Shorter {
        /// Its entries.
        size: u64,
        /// Those of the copy.
        here: u64,
    },
    /// It does not go on from the copy.
    #[error(
        "the enrollment authority's log of {size} entries does not go on from the {here} that were read here before: it is another \
         branch. It is refused: {ADVICE}"
    )]
    OtherBranch {
        /// Its entries.
        size: u64,
        /// Those of the copy.
        here: u64,
    },
}
