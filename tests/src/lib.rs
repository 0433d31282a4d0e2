//! Suites that need more than one package; this library holds their shared helpers.

pub mod fuzz;
