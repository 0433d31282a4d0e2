//! From options to a plan.
//!
//! [`PlanOptions`] is what a person says of a plan, on whichever command line, with the defaults of what is left unsaid;
//! [`PlanOptions::plan`] makes the plan of it, without a disk, a clock or randomness. The operator's `task create` and the
//! simulation flatten the same options, so that what is tried out in one is what the other starts.
//!
//! It names a command line's library and nothing else of a shell. Start at [`PlanOptions`].

mod compose;
mod options;

pub use compose::{PlanningError, Subject};
pub use options::{MethodName, MetricChoice, PlanOptions, Privacy};
