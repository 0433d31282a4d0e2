//! A load on a running coordinator: many real devices in one process, over real TLS and the real protocol, without training.
//!
//! [`cli`] is what people type, [`shape`] and [`shard`] say who begins when and in which process, [`report`] is what came of
//! it, [`tally`] what was counted, and [`latency`] how long things took. The device is the production machine of
//! `nightshift-session`; it talks and enrolls by the code of `nightshift-client`, and nothing of the protocol is written here a
//! second time.
//!
//! It deliberately has no coordinator, no text and no training, and keeps no ledger: nobody's privacy is spent. Start at
//! [`cli`], or at [`report::Report`] for what comes out.

mod away;
mod carried;
pub mod cli;
mod clock;
mod common;
mod descriptors;
mod enrolling;
pub mod generator;
pub mod latency;
mod light;
mod memory;
mod options;
mod place;
mod player;
pub mod report;
mod run;
pub mod shape;
pub mod shard;
pub mod tally;
mod text;
mod tokens;
mod words;
