//! GGUF files: the header of a base, and the file of an adapter.

mod adapter;
mod header;
mod metadata;
mod names;

pub use adapter::{Architecture, ArchitectureError, gguf_adapter};
pub use header::GgufHeader;
pub use metadata::Metadata;
pub(crate) use names::LINEAR_LAYERS;
pub use names::{to_gguf, to_hugging_face};
