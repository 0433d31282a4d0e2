//! A whole federation in one process, driving the production machines.
