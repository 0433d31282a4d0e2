//! Who may name whom, and in what words: the invariants of `ARCHITECTURE.md` that a machine can check.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "architecture/files.rs"]
mod files;
#[path = "architecture/floors.rs"]
mod floors;
#[path = "architecture/outside_tests.rs"]
mod outside_tests;
#[path = "architecture/packages.rs"]
mod packages;
#[path = "architecture/paths.rs"]
mod paths;
#[path = "architecture/rooms.rs"]
mod rooms;
#[path = "architecture/spelling.rs"]
mod spelling;
#[path = "architecture/tokens.rs"]
mod tokens;
