//! What a device keeps: a [`Ledger`] of what it ever contributed, which only grows, a small [`State`] of named values,
//! which change, the versions that it holds, artefacts that were fetched, and the sealed [`Checkpoint`] of a training.

mod artifact_cache;
mod bases;
mod checkpoint;
mod device_store;
mod error;
mod installed;
mod journal;
mod ledger;
mod recovery;
mod sealing;
mod seen_log;
mod state;
mod turned_away;

pub use artifact_cache::DEFAULT_CACHE_MIB;
pub use bases::{FetchedBaseError, FetchedBases};
pub(crate) use checkpoint::is_over;
pub use checkpoint::{Checkpoint, CheckpointFileError};
pub use device_store::{Declined, DeviceStore, Entry, short_name};
pub use error::DeviceStoreError;
pub use installed::DEFAULT_INSTALLED_MIB;
pub(crate) use installed::current_folder;
pub use journal::{Journal, Note};
pub use ledger::{Ledger, LedgerError, Opened};
pub use sealing::SealError;
pub use seen_log::SeenLog;
pub use state::{State, StateError};
pub use turned_away::TurnedAway;
