//! A PEFT folder: `adapter_config.json`, and the factors of each module in `adapter_model.safetensors`.

mod read;
mod write;

pub use read::{PeftError, read_peft};
pub use write::peft_files;

/// The file of a PEFT folder that says what the tensors mean.
pub const PEFT_CONFIG: &str = "adapter_config.json";

/// The file of a PEFT folder that holds the tensors.
pub const PEFT_TENSORS: &str = "adapter_model.safetensors";

/// The prefix of every tensor's name.
const PREFIX: &str = "base_model.model.";
