//! A whole federation in one process, driving the production machines.
//!
//! [`world`] holds both sides' machines, virtual time, the wire and [`faults`]; [`run`](mod@run) makes it a run
//! on a base and users' text by a [`scenario`]; [`demo`] is the run without arguments, on text that [`corpus`]
//! invents. In [`classes`] some devices train less
//! than others. [`summary`], [`table`] and [`report`] say what came of it. [`population`] is of many more devices than a
//! cohort, without a model. [`bench`](mod@bench) measures one round without training.
//!
//! It deliberately has no transport, no store and no hub: both sides' shells are left out, and the machines' time is
//! virtual. Nothing here is linked into a device or a coordinator, and nothing of the protocol is written here a second
//! time. Start at [`world`], or at [`run`](mod@run) for what a scenario becomes.
//!
//! A scenario of one's own:
//!
//! ```no_run
#![doc = include_str!("../examples/scenario.rs")]
//! ```

// What a scenario of one's own needs beside the simulation.
pub use engine;

/// The words of plans and adapters, as the production machines use them.
pub mod words {
    pub use proto::{adapter, ids, plan, training};
}

pub mod bench;
mod central;
pub mod classes;
pub mod compare;
pub mod corpus;
pub mod demo;
mod epsilon;
pub mod events;
pub mod faults;
mod flat;
pub mod inputs;
pub mod make_base;
pub mod make_data;
pub mod measure;
pub mod output;
pub mod place;
pub mod plain;
pub mod population;
pub mod public;
pub mod record;
pub mod report;
pub mod run;
pub mod samples;
pub mod scenario;
pub mod summary;
pub mod table;
pub mod world;
pub mod yardsticks;
