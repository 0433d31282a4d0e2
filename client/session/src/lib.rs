//! The device's side of the protocol: pure machines that decide, and the device's own limits.
//!
//! [`Session`] says what the shell must do next and takes what came of it. [`policy`] holds the device's own limits,
//! [`spending`] what its ledger says was spent, [`contribution`] is the one place where an update becomes something
//! that may be sent, and [`conditions`] judges when a device may train. Time and randomness are arguments: nothing here
//! reads a clock, a disk or a network, and nothing links a runtime. Start at [`Session`].

pub mod conditions;
pub mod contribution;
mod log_policy;
mod machine;
pub mod policy;
pub mod spending;
pub mod update;

pub use log_policy::{LogPolicy, WitnessKey};
pub use machine::{
    Action, Device, Ended, Event, LackingBase, Lifetime, LoadedBefore, Session, SessionState, Signed,
    Withheld, Work,
};
