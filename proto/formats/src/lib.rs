//! What comes out of a task or of a training, in the forms that other programs load; and such forms read back.
//!
//! Bytes in and out: whoever has a disk writes and reads the files. [`peft_files`] and [`read_peft`] are the two
//! directions of a PEFT folder, [`gguf_adapter`] makes the one file that llama.cpp loads, and [`Manifest`] is what
//! stands beside each of them and says where the numbers came from.

use proto::adapter::AdapterError;

mod gguf;
mod manifest;
mod peft;

pub use gguf::{Architecture, ArchitectureError, gguf_adapter};
pub use manifest::{
    MANIFEST_FILE, Manifest, ManifestError, Origin, Personal, Release, SignedRelease, Version,
};
pub use peft::{PEFT_CONFIG, PEFT_TENSORS, PeftError, peft_files, read_peft};

/// An adapter that cannot be laid out in another program's form.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The parameters are not of the adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Two modules would be written under one name.
    #[error("the adapter names `{0}` twice")]
    RepeatedModule(String),
    /// A module that has no name in a GGUF file.
    #[error(
        "`{0}` has no name in a GGUF file; llama.cpp can load adapters of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj"
    )]
    UnknownModule(String),
    /// The rows of queries or keys are not whole heads.
    #[error("`{module}` has {outputs} rows, which are not {heads} heads of an even width")]
    Heads {
        /// The module.
        module: String,
        /// Its rows.
        outputs: u32,
        /// Heads of the base.
        heads: u32,
    },
    /// A tensor has no place in the file's format.
    #[error("the adapter cannot be laid out: {0}")]
    Layout(#[from] safetensors::SafeTensorError),
    /// The configuration has no place in JSON.
    #[error("the adapter's configuration cannot be written: {0}")]
    Config(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests;
