//! What is fuzzed: every decoder, and both machines.
//!
//! A target takes any bytes. It must not panic, and what it asserts must hold. `fuzz/` runs the targets under
//! libFuzzer; `tests/corpora.rs` replays the inputs that are worth keeping. [`TARGETS`] lists them all. Start at
//! [`task`] for the machines; the rest are a few lines each.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a target fails by panicking")]

mod bases;
mod checkpoints;
mod coordinator_files;
mod device_files;
mod enrollment_log;
mod folder;
mod foreign;
mod node;
mod numbers;
mod peft;
mod plan;
mod seeds;
mod session;
mod tape;
mod task;
mod wire;
mod world;

pub use bases::{base, gguf};
pub use checkpoints::checkpoint;
pub use coordinator_files::{configuration, coordinator_record, key_files, signing_request};
pub use device_files::{device_record, ledger, model_config, names, text};
pub use enrollment_log::enrollment_log;
pub use foreign::{template, tokenizer};
pub use numbers::{numbers, shares};
pub use peft::peft_folder;
pub use plan::{adapter, plan};
pub use seeds::seeds;
pub use session::session;
pub use task::task;
pub use wire::{admin_reply, admin_request, enroll_reply, enroll_request, rejection, reply, request};

/// A target: any bytes, and a panic where something does not hold.
pub type Target = fn(&[u8]);

/// All targets, by the names of their files in `fuzz/fuzz_targets`.
pub const TARGETS: [(&str, Target); 29] = [
    ("adapter", adapter),
    ("admin_reply", admin_reply),
    ("admin_request", admin_request),
    ("base", base),
    ("checkpoint", checkpoint),
    ("configuration", configuration),
    ("coordinator_record", coordinator_record),
    ("device_record", device_record),
    ("enroll_reply", enroll_reply),
    ("enroll_request", enroll_request),
    ("enrollment_log", enrollment_log),
    ("gguf", gguf),
    ("key_files", key_files),
    ("ledger", ledger),
    ("model_config", model_config),
    ("names", names),
    ("numbers", numbers),
    ("peft_folder", peft_folder),
    ("plan", plan),
    ("rejection", rejection),
    ("reply", reply),
    ("request", request),
    ("session", session),
    ("shares", shares),
    ("signing_request", signing_request),
    ("task", task),
    ("template", template),
    ("text", text),
    ("tokenizer", tokenizer),
];
