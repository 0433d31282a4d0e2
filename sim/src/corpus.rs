//! Text of nobody: what a simulated federation reads.
//!
//! [`base_corpus`] is general written English, for pre-training a small base
//! model. [`personas`] are invented people whose messages are spread over the
//! devices: all write in one chat register that the base model has never seen,
//! and each has a trade, habits and an amount of text of its own, so the
//! devices' data is far from alike. [`public_sample`] is a little of the same
//! register by people who are on no device.
//!
//! Everything is made by grammar from a seed; the same seed gives the same
//! bytes on every machine.

mod base;
mod chat;
mod dice;
mod grammar;
mod habits;
mod persona;
mod season;
mod trade;

pub use base::base_corpus;
pub use habits::{Casing, Habits};
pub use persona::{Persona, personas, public_sample};
pub use season::Season;
pub use trade::Trade;
