//! Names of files and tensors in a PEFT folder.

/// The file of a PEFT folder that says what the tensors mean.
pub const PEFT_CONFIG: &str = "adapter_config.json";

/// The file of a PEFT folder that holds the tensors.
pub const PEFT_TENSORS: &str = "adapter_model.safetensors";

/// The prefix of every tensor's name.
pub(super) const PREFIX: &str = "base_model.model.";
