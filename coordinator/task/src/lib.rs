//! The coordinator's machines: what a task and its rounds do next, without any IO.
//!
//! A [`Task`] is one fine-tuning job over many versions; each version comes of a [`round::Round`], one secure sum over
//! one cohort. Both take requests and the time and give back replies and effects. [`optimizer`] turns a mean update
//! into the next version; [`spool`] says where unfinished inputs wait, [`worth`] what a plan's noise leaves to learn,
//! [`gain`] what devices measured of versions. [`held`] says what a question waits for that can only wait for others, and
//! [`EnrollmentLog`] is where everybody sees who was enrolled.
//!
//! This package deliberately does not know clocks, disks, networks, stores, threads or tensors: time and randomness are
//! arguments, and whoever drives a machine makes its effects durable. It never holds a contribution that is not masked.
//! Start at [`round::Round`].

mod enrollment_log;
pub mod gain;
pub mod held;
pub mod optimizer;
pub mod pacing;
pub mod round;
pub mod spool;
mod task;
pub mod worth;

pub use aggregation::log::EnrollmentLog;
pub use enrollment_log::RoundLog;
pub use task::{
    Counted, Earlier, Gathered, RollBackError, Spending, Task, TaskEffect, TaskError, TaskRecord,
};
