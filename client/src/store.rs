//! What the device keeps: a [`Ledger`] of what it ever contributed, which only
//! grows, and a small [`State`] of named values, which change.

mod ledger;
mod state;

pub use ledger::{Ledger, LedgerError, Opened};
pub use state::{State, StateError};
