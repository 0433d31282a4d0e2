//! A Hugging Face folder, held against the decoder that its config describes.

use std::collections::BTreeMap;
use std::path::Path;

use formats::{BaseFiles, OpenedFile, SmallFile, TensorHeader, folder, safetensors_header};

use crate::base::error::BaseError;
use crate::base::plan::Plan;
use crate::base::tensor::{FileDtype, TensorInfo};
use crate::base::tokenizer::{TokenFiles, Tokens};
use crate::model::config::DecoderConfig;
use crate::model::weights::{HEAD, tensor_shapes};

/// What the numbers of a base in a folder may be stored as.
const KNOWN: &str = "F32, F16 or BF16";

/// Reads everything of a folder but its weights.
pub(super) fn plan(dir: &Path) -> Result<Plan, BaseError> {
    let config_file = folder::config(dir)?;
    let config = DecoderConfig::parse(&config_file.bytes)
        .map_err(|source| BaseError::Config { path: config_file.path.clone(), source })?;
    let (may_be_tied, mut config) = (config.tied, config);
    let (index, opened, entries) = weights(dir, &mut config)?;
    let read = folder::tokenizer_files(dir)?;
    let files = TokenFiles {
        tokenizer: &read.tokenizer.bytes,
        settings: bytes_of(read.settings.as_ref()),
        template: bytes_of(read.template.as_ref()),
        generation: bytes_of(read.generation.as_ref()),
    };
    let tokens = Tokens::parse(&files, &config)
        .map_err(|(name, reason)| BaseError::Tokenizer { path: dir.join(name), reason })?;
    Ok(Plan {
        config,
        tokens,
        files: BaseFiles::folder(config_file, index, opened, read),
        may_be_tied,
        entries,
    })
}

fn bytes_of(file: Option<&SmallFile>) -> Option<&[u8]> {
    file.map(|file| file.bytes.as_slice())
}

/// The index if there is one, the files of weights, and what is wanted of each of these.
type Weights = (Option<SmallFile>, Vec<OpenedFile>, Vec<Vec<TensorInfo>>);

/// What old files of Llamas hold beside the weights: numbers that follow from the config.
const DERIVED: &str = ".rotary_emb.inv_freq";

/// Opens the files of weights and checks their headers against the config. A head of its own counts, whatever the config
/// says: transformers ties it to the embedding only where both are the same, or it is not there.
fn weights(dir: &Path, config: &mut DecoderConfig) -> Result<Weights, BaseError> {
    let folder::WeightFiles { list, index, files } = folder::weight_files(dir)?;
    let (mut opened, mut headers) = (Vec::new(), Vec::new());
    for path in &files {
        let (file, tensors) = safetensors_header::open(path)?;
        opened.push(file);
        let named = tensors.into_iter().map(|(name, header)| (folder::whole_name(name), header));
        headers.push(named.collect::<Vec<_>>());
    }
    let has_head = headers.iter().flatten().any(|(name, _)| name == HEAD);
    config.tied = config.tied && !has_head;
    let shapes = tensor_shapes(config);
    let mut wanted = shapes.clone();
    let mut entries = Vec::new();
    for (path, tensors) in files.iter().zip(headers) {
        let is_unknown = |name: &str| !shapes.contains_key(name) && !name.ends_with(DERIVED);
        if let Some((name, _)) = tensors.iter().find(|(name, _)| is_unknown(name)) {
            return Err(BaseError::UnknownTensor { path: path.clone(), tensor: name.clone() });
        }
        entries.push(wanted_of(path, tensors, &mut wanted)?);
    }
    match wanted.into_keys().next() {
        Some(tensor) => Err(BaseError::MissingTensor { path: list, tensor }),
        None => Ok((index, opened, entries)),
    }
}

/// What is wanted of a file's tensors. What is found is taken out of `wanted`, so that where two files have a tensor,
/// the first one's is it.
fn wanted_of(
    path: &Path,
    tensors: Vec<(String, TensorHeader)>,
    wanted: &mut BTreeMap<String, Vec<usize>>,
) -> Result<Vec<TensorInfo>, BaseError> {
    let mut entries = Vec::new();
    for (name, header) in tensors {
        let Some(expected) = wanted.remove(&name) else { continue };
        if !header.shape.iter().copied().eq(expected.iter().map(|size| *size as u64)) {
            let (path, found) = (path.to_owned(), header.shape);
            return Err(BaseError::Shape { path, tensor: name, expected, found });
        }
        let Some(stored) = FileDtype::of(&header.dtype) else {
            let (path, found) = (path.to_owned(), header.dtype.to_string());
            return Err(BaseError::Dtype { path, tensor: name, known: KNOWN, found });
        };
        entries.push(TensorInfo { name, stored, shape: expected, start: header.start, interleaved: None });
    }
    Ok(entries)
}
