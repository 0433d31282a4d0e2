//! Files of other programs: what is in them, and nothing of what is computed with it.
//!
//! Bases, read only. [`locate`] says whether a path is a Hugging Face [`folder`] or a GGUF file. Headers give the name,
//! shape, [`FileDtype`] and position of each tensor ([`safetensors_header`], [`gguf::GgufHeader`]); [`BaseFiles`] reads all
//! files once and computes the digest that names the base everywhere. [`BaseInfo`] is what a plan needs of a base, without
//! its weights. [`HubCache`] finds what an earlier fetch from the hub left on this machine.
//!
//! Adapters: [`peft_files`] and [`read_peft`] are the two directions of a PEFT folder, [`gguf::gguf_adapter`] makes the one
//! file that llama.cpp loads, and [`Manifest`] is what stands beside each of them and says where the numbers came from.
//! These take and give bytes: whoever has a disk writes and reads the files. [`held`] says what a folder holds that is not to
//! be written over, [`leftovers`] what an earlier export left in it.
//!
//! A file of a base is foreign and may be hostile: only regular files are opened, and every count and length is held
//! against a limit, or against the file's length, before memory is allocated for it. There are no tensors and no
//! tokenizers here, and a decoder's config is known by its number of blocks only. Start at [`BaseInfo`].

mod base;
mod base_files;
mod dtype;
mod error;
mod family;
mod file;
pub mod folder;
pub mod gguf;
mod hub_cache;
mod location;
mod manifest;
mod peft;
pub mod safetensors_header;
mod target;

pub use base::{BaseInfo, ModulesError};
pub use base_files::BaseFiles;
pub use dtype::{FileDtype, GgmlType, TensorHeader};
pub use error::{ExportError, FormatError};
pub use family::{Family, FamilyError};
pub use file::{BLOCK_BYTES, FileStream, OpenedFile, SmallFile};
pub use gguf::{Architecture, ArchitectureError, gguf_adapter};
pub use hub_cache::{HubCache, is_commit};
pub use location::{BaseLocation, is_gguf, locate, name_of_base};
pub use manifest::{
    MANIFEST_FILE, Manifest, ManifestError, Origin, Personal, Release, SignedRelease, Version,
};
pub use peft::{PEFT_CONFIG, PEFT_TENSORS, PeftError, peft_files, read_peft};
pub use target::{held, leftovers};

#[cfg(test)]
mod tests;
