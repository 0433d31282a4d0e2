//! What a plan needs to know of a base: its digest and the shapes of its linear layers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::adapter::Module;
use proto::ids::Digest;
use serde::Deserialize;

use crate::base_files::BaseFiles;
use crate::error::FormatError;
use crate::gguf::{GgufHeader, LINEAR_LAYERS, to_hugging_face};
use crate::location::{BaseLocation, locate};
use crate::{folder, safetensors_header};

/// Why a base has no layers for the targets of an adapter.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A word that names no linear layer.
    #[error(
        "unknown target `{0}`; known are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and all"
    )]
    Target(String),
    /// The weights lack a layer.
    #[error("the weights in {} have no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The base.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A layer's weight is no matrix, or has 2^32 or more rows or columns.
    #[error("the tensor `{tensor}` must be a matrix, found {found:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
    },
}

/// A frozen base, as far as a plan must know it.
///
/// Only the headers of the weights are understood; their numbers are hashed and nothing else. So a base that opens here
/// may still be one that no engine can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseInfo {
    path: PathBuf,
    files: Vec<PathBuf>,
    blocks: u64,
    /// The shapes of all tensors, by their Hugging Face names.
    shapes: BTreeMap<String, Vec<u64>>,
    digest: Digest,
}

impl BaseInfo {
    /// Reads a Hugging Face folder: `config.json`, `model.safetensors` (or the shards of
    /// `model.safetensors.index.json`), `tokenizer.json` and, if there, `tokenizer_config.json`,
    /// `chat_template.jinja` and `generation_config.json`. Or a GGUF file, which is itself `path`, or the only one
    /// in a folder without a `config.json`.
    ///
    /// Returns an error that names the file that is missing or wrong.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        match locate(path)? {
            BaseLocation::Gguf(file) => Self::open_gguf(&file),
            BaseLocation::Folder(dir) => Self::open_folder(&dir),
        }
    }

    fn open_gguf(path: &Path) -> Result<Self, FormatError> {
        let GgufHeader { opened, metadata, tensors } = GgufHeader::read(path)?;
        let architecture = metadata.text("general.architecture")?;
        let architecture =
            architecture.ok_or_else(|| metadata.wrong("general.architecture", "is missing"))?;
        let key = format!("{architecture}.block_count");
        let blocks = metadata.same(&key)?.ok_or_else(|| metadata.wrong(&key, "is missing"))?;
        let shapes =
            tensors.into_iter().map(|(name, tensor)| (to_hugging_face(&name), tensor.shape)).collect();
        let files = BaseFiles::gguf(opened);
        let paths = files.paths();
        let digest = files.read(|_, _| Ok::<_, FormatError>(()))?;
        Ok(Self { path: path.to_owned(), files: paths, blocks, shapes, digest })
    }

    fn open_folder(dir: &Path) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Config {
            num_hidden_layers: u64,
        }
        let config = folder::config(dir)?;
        let parsed: Config = serde_json::from_slice(&config.bytes)
            .map_err(|error| FormatError::damaged(&config.path, error.to_string()))?;
        let files = folder::weight_files(dir)?;
        let (mut weights, mut shapes) = (Vec::new(), BTreeMap::new());
        for file in files.files {
            let (opened, tensors) = safetensors_header::open(&file)?;
            weights.push(opened);
            for (name, tensor) in tensors {
                // As the engine: where two files have a tensor, the first one's is it.
                shapes.entry(folder::whole_name(name)).or_insert(tensor.shape);
            }
        }
        let tokenizer = folder::tokenizer_files(dir)?;
        let files = BaseFiles::folder(config, files.index, weights, tokenizer);
        let paths = files.paths();
        let digest = files.read(|_, _| Ok::<_, FormatError>(()))?;
        Ok(Self { path: dir.to_owned(), files: paths, blocks: parsed.num_hidden_layers, shapes, digest })
    }

    /// What names this base everywhere; [`BaseFiles::read`] says what goes into it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All its files, in the order of the digest. They lie in one folder; others beside them are not of the base.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The layers that an adapter of these targets (such as `q_proj` or `q`, or `all`) changes, block by
    /// block, in the order given. Returns an error for an unknown target and for a layer that the weights lack.
    pub fn modules(&self, targets: &[String]) -> Result<Vec<Module>, ModulesError> {
        let mut paths = Vec::new();
        for target in targets {
            if matches!(target.as_str(), "all" | "all-linear") {
                paths.extend(LINEAR_LAYERS.map(|(_, path)| path));
            } else {
                paths.push(linear_layer(target).ok_or_else(|| ModulesError::Target(target.clone()))?);
            }
        }
        let mut modules = Vec::new();
        if paths.is_empty() {
            return Ok(modules);
        }
        // However many blocks a config claims: the first one that is not there ends it.
        for block in 0..self.blocks {
            for path in &paths {
                modules.push(self.module(format!("model.layers.{block}.{path}"))?);
            }
        }
        Ok(modules)
    }

    fn module(&self, name: String) -> Result<Module, ModulesError> {
        let tensor = format!("{name}.weight");
        let Some(shape) = self.shapes.get(&tensor) else {
            return Err(ModulesError::MissingTensor { path: self.path.clone(), tensor });
        };
        let side = |size: u64| u32::try_from(size).ok();
        match shape.as_slice() {
            [outputs, inputs] => side(*outputs)
                .zip(side(*inputs))
                .map(|(outputs, inputs)| Module { name, inputs, outputs })
                .ok_or_else(|| ModulesError::Shape { tensor, found: shape.clone() }),
            _ => Err(ModulesError::Shape { tensor, found: shape.clone() }),
        }
    }
}

/// The linear layer that a target such as `q_proj` or `q` names, such as `self_attn.q_proj`.
fn linear_layer(target: &str) -> Option<&'static str> {
    let bare = target.strip_suffix("_proj").unwrap_or(target);
    let name = |path: &str| path.split_once('.').map(|(_, name)| name.to_owned());
    let mut paths = LINEAR_LAYERS.into_iter().map(|(_, path)| path);
    paths.find(|path| name(path) == Some(format!("{bare}_proj")))
}

#[cfg(test)]
mod tests;
