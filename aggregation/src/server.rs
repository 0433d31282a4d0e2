//! The server's side: a running sum of masked inputs, and the removal of what
//! is left of the masks.

mod attempt;
mod blame;
mod rebuild;
mod recovery;
mod session;
mod sum;
mod unmasking;

pub use self::{
    attempt::{Attempt, FailedAttempt, Lacking},
    rebuild::{Found, Further},
    recovery::{BadShares, Recovery, RecoveryError},
    sum::{RunningSum, SumError},
    unmasking::{UnmaskError, Unmasking},
};
