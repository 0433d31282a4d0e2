//! A PEFT folder: `adapter_config.json`, and the factors of each module in `adapter_model.safetensors`.

mod names;
mod read;
mod targets;
mod write;

pub use names::{PEFT_CONFIG, PEFT_TENSORS};
pub use read::{PeftError, read_peft};
pub use write::peft_files;
