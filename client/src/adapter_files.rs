//! Adapters in folders: those that other programs read and write, and the one that this device has installed.
//!
//! What is in the files stands in [`formats`]; this is the disk. Every file is whole or absent, and the manifest is
//! written last.

use std::path::{Path, PathBuf};

use formats::{
    ExportError, MANIFEST_FILE, Manifest, ManifestError, Origin, PEFT_CONFIG, PEFT_TENSORS, PeftError,
    Version, gguf_adapter, peft_files,
};
use proto::adapter::AdapterSpec;
use proto::ids::{Digest, TaskId};
use proto::message::Published;
use proto::plan::vector_from_bytes;
use serde::Deserialize;

use crate::files::{self, Audience, FileError};
use crate::store::current_folder;
use engine::Base;
use engine::lora::merge::MOST_SHARD_BYTES;
use engine::{MergeError, write_merged};
use engine::{ModuleError, check_modules};

/// The file of an adapter for llama.cpp.
pub const GGUF_FILE: &str = "adapter.gguf";

/// An adapter that cannot be written to a folder or read from one.
#[derive(Debug, thiserror::Error)]
pub enum AdapterFileError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// The adapter has no place in the form.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The merged base cannot be written.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The adapter's tensors are in a file that may run code when it is read.
    #[error(
        "{} has adapter_model.bin, which is not read because it may run code; write it anew by Python's \
         PeftModel.from_pretrained(BASE, IN).save_pretrained(OUT)",
        folder.display()
    )]
    Pickled {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds no adapter that can be used.
    #[error("{}: {source}", folder.display())]
    Peft {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: PeftError,
    },
    /// The manifest, or what it says.
    #[error("{}: {source}", folder.display())]
    Manifest {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The adapter is for another base.
    #[error("{} is for the base {expected}; this one is {found}", folder.display())]
    OtherBase {
        /// The folder.
        folder: PathBuf,
        /// The base in the manifest.
        expected: Digest,
        /// The base that was given.
        found: Digest,
    },
    /// The adapter changes layers that the base does not have, or has in another shape.
    #[error("{} does not fit the base: {source}", folder.display())]
    Modules {
        /// The folder.
        folder: PathBuf,
        /// Which layer.
        source: Box<ModuleError>,
    },
    /// This device has not installed anything.
    #[error(
        "nothing is installed in {}; name a folder with `--adapter`, or let `nightshift-agent run` fetch a version",
        .0.display()
    )]
    NothingInstalled(PathBuf),
    /// This device holds versions of several tasks.
    #[error("versions of several tasks are installed: {tasks}; choose one by `--task`")]
    SeveralTasks {
        /// Which.
        tasks: String,
    },
    /// What is installed is not whole.
    #[error("{} is damaged: {reason}; let `nightshift-agent run` install a version again", path.display())]
    Installed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// An adapter with its numbers, and where they came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Its shape.
    pub spec: AdapterSpec,
    /// What every device has alike.
    pub frozen: Vec<f32>,
    /// What was trained.
    pub trained: Vec<f32>,
    /// Where the numbers came from.
    pub origin: Origin,
}

/// Writes a PEFT folder and its manifest. `base_name` is where a reader finds the base.
pub fn write_peft(
    folder: &Path,
    adapter: &Adapter,
    base: Digest,
    base_name: &str,
) -> Result<(), AdapterFileError> {
    let files = peft_files(&adapter.spec, &adapter.frozen, &adapter.trained, base_name)?;
    write(folder, &files, base, adapter.origin.clone())
}

/// Writes [`GGUF_FILE`], an adapter for llama.cpp beside a GGUF file of the same base, and its manifest.
pub fn write_gguf(folder: &Path, adapter: &Adapter, base: &Base) -> Result<(), AdapterFileError> {
    let architecture = base.config().architecture();
    let bytes = gguf_adapter(&adapter.spec, &adapter.frozen, &adapter.trained, architecture)?;
    write(folder, &[(GGUF_FILE, bytes)], base.digest(), adapter.origin.clone())
}

/// Writes the base with the adapter in it, and a manifest. `source` is where the base was read from.
pub fn write_whole(
    folder: &Path,
    adapter: &Adapter,
    base: &Base,
    source: &Path,
) -> Result<(), AdapterFileError> {
    let vectors = (&adapter.spec, adapter.frozen.as_slice(), adapter.trained.as_slice());
    let files = write_merged(folder, base, source, vectors, MOST_SHARD_BYTES)?;
    write_manifest(folder, &Manifest::new(base.digest(), adapter.origin.clone(), files))
}

/// The tensors of an adapter as older versions of PEFT wrote them.
const PICKLED: &str = "adapter_model.bin";

/// The largest texts of a PEFT folder, and the largest tensors: those of an adapter are small beside its base.
const MOST_TEXT_BYTES: u64 = 1 << 20;
const MOST_TENSOR_BYTES: u64 = 4 << 30;

/// Reads a PEFT folder of anybody's as an adapter of `base`. Where it has a manifest of ours, its base must be this one,
/// its files must be the ones that were hashed, and its signature, if there is one, must fit; by whose key it is, the origin
/// says. Fails with the file, the setting, the tensor or the module that is wrong.
pub fn read_peft(folder: &Path, base: &Base) -> Result<Adapter, AdapterFileError> {
    let read = |name: &str, most_bytes| {
        let path = folder.join(name);
        files::read_regular(&path, most_bytes).map_err(FileError::io("read", &path))
    };
    if !folder.join(PEFT_TENSORS).exists() && folder.join(PICKLED).exists() {
        return Err(AdapterFileError::Pickled { folder: folder.to_owned() });
    }
    let config = read(PEFT_CONFIG, MOST_TEXT_BYTES)?;
    let tensors = read(PEFT_TENSORS, MOST_TENSOR_BYTES)?;
    let origin = match read(MANIFEST_FILE, MOST_TEXT_BYTES) {
        Ok(bytes) => {
            let refuse = |source| AdapterFileError::Manifest { folder: folder.to_owned(), source };
            let manifest = Manifest::parse(&bytes).map_err(refuse)?;
            if manifest.base != base.digest() {
                let (expected, found) = (manifest.base, base.digest());
                return Err(AdapterFileError::OtherBase { folder: folder.to_owned(), expected, found });
            }
            manifest.check_file(PEFT_CONFIG, &config).map_err(refuse)?;
            manifest.check_file(PEFT_TENSORS, &tensors).map_err(refuse)?;
            manifest.origin
        }
        Err(error) if error.is_absent() => Origin::Unknown,
        Err(error) => return Err(error.into()),
    };
    let (spec, trained) = formats::read_peft(&config, &tensors)
        .map_err(|source| AdapterFileError::Peft { folder: folder.to_owned(), source })?;
    check_modules(base, &spec).map_err(|source| AdapterFileError::Modules {
        folder: folder.to_owned(),
        source: Box::new(source),
    })?;
    Ok(Adapter { spec, frozen: Vec::new(), trained, origin })
}

/// Reads the version that `nightshift-agent run` installed below `state_dir` as an adapter of `base`: of `task`, or of the
/// only task of which there is one.
pub fn read_installed(
    state_dir: &Path,
    task: Option<TaskId>,
    base: &Base,
) -> Result<Adapter, AdapterFileError> {
    #[derive(Deserialize)]
    struct Installed {
        published: Published,
        base: Digest,
        shipped: AdapterSpec,
        shipped_digest: Digest,
    }
    let folder = current_folder(state_dir, task).map_err(|tasks| AdapterFileError::SeveralTasks {
        tasks: tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })?;
    let folder = folder.ok_or_else(|| AdapterFileError::NothingInstalled(state_dir.join("installed")))?;
    let path = folder.join("manifest.json");
    let bytes = files::read(&path)?;
    let damaged = |path: &Path, reason: String| AdapterFileError::Installed { path: path.to_owned(), reason };
    let installed: Installed =
        serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error.to_string()))?;
    if installed.base != base.digest() {
        let (expected, found) = (installed.base, base.digest());
        return Err(AdapterFileError::OtherBase { folder, expected, found });
    }
    let numbers = |path: &Path, digest: Digest| {
        let bytes = files::read(path)?;
        if Digest::of(&bytes) != digest {
            return Err(damaged(path, format!("its bytes do not hash to {digest}")));
        }
        vector_from_bytes(&bytes).ok_or_else(|| damaged(path, "it is no list of numbers".to_owned()))
    };
    let published = installed.published;
    numbers(&folder.join("adapter.f32"), published.adapter)?;
    let trained = numbers(&folder.join("shipped.f32"), installed.shipped_digest)?;
    let spec = installed.shipped;
    check_modules(base, &spec)
        .map_err(|source| AdapterFileError::Modules { folder, source: Box::new(source) })?;
    let Published { task, version, plan, adapter, folded: _, clip_norm: _ } = published;
    let origin = Origin::Version(Version { task, version, plan, adapter });
    Ok(Adapter { spec, frozen: Vec::new(), trained, origin })
}

fn write(
    folder: &Path,
    files: &[(&'static str, Vec<u8>)],
    base: Digest,
    origin: Origin,
) -> Result<(), AdapterFileError> {
    let hashes = files.iter().map(|(name, bytes)| ((*name).to_owned(), Digest::of(bytes)));
    let manifest = Manifest::new(base, origin, hashes);
    let leftovers = formats::leftovers(folder, &manifest);
    files::create_folder(folder)?;
    for (name, bytes) in files {
        files::write(&folder.join(name), bytes, Audience::Owner)?;
    }
    write_manifest(folder, &manifest)?;
    // Beside what was written they would be taken for it.
    for path in leftovers {
        std::fs::remove_file(&path).map_err(FileError::io("remove", &path))?;
    }
    Ok(())
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), AdapterFileError> {
    let bytes = manifest
        .to_bytes()
        .map_err(|source| AdapterFileError::Manifest { folder: folder.to_owned(), source })?;
    Ok(files::write(&folder.join(MANIFEST_FILE), &bytes, Audience::Owner)?)
}

#[cfg(test)]
mod tests;
