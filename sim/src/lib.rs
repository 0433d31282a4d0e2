//! A whole federation in one process, driving the production machines.

pub mod corpus;
pub mod report;
pub mod summary;
pub mod table;
