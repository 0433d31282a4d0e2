//! The server's side: a running sum of masked inputs, and the removal of what
//! is left of the masks.

mod rebuild;
mod recovery;
mod sum;
mod unmasking;

pub use self::{
    recovery::{BadShares, Recovery, RecoveryError},
    sum::{RunningSum, SumError},
    unmasking::{UnmaskError, Unmasking},
};
