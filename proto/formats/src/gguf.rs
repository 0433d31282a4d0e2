//! GGUF files.

mod adapter;

pub use adapter::{Architecture, ArchitectureError, gguf_adapter};
