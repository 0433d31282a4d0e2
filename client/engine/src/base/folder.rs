//! A Hugging Face folder, held against the decoder that its config describes.

use std::collections::BTreeMap;
use std::path::Path;

use formats::{BaseFiles, OpenedFile, SmallFile, folder, safetensors_header};

use crate::base::error::BaseError;
use crate::base::plan::Plan;
use crate::base::tensor::{FileDtype, TensorInfo};
use crate::base::tokenizer::{TokenFiles, Tokens};
use crate::model::config::DecoderConfig;
use crate::model::weights::tensor_shapes;

/// What the numbers of a base in a folder may be stored as.
const KNOWN: &str = "F32, F16 or BF16";

/// Reads everything of a folder but its weights.
pub(super) fn plan(dir: &Path) -> Result<Plan, BaseError> {
    let config_file = folder::config(dir)?;
    let config = DecoderConfig::parse(&config_file.bytes)
        .map_err(|source| BaseError::Config { path: config_file.path.clone(), source })?;
    let (index, opened, entries) = weights(dir, &config)?;
    let read = folder::tokenizer_files(dir)?;
    let files = TokenFiles {
        tokenizer: &read.tokenizer.bytes,
        settings: bytes_of(read.settings.as_ref()),
        template: bytes_of(read.template.as_ref()),
        generation: bytes_of(read.generation.as_ref()),
    };
    let tokens = Tokens::parse(&files, &config)
        .map_err(|(name, reason)| BaseError::Tokenizer { path: dir.join(name), reason })?;
    Ok(Plan { config, tokens, files: BaseFiles::folder(config_file, index, opened, read), entries })
}

fn bytes_of(file: Option<&SmallFile>) -> Option<&[u8]> {
    file.map(|file| file.bytes.as_slice())
}

/// The index if there is one, the files of weights, and what is wanted of each of these.
type Weights = (Option<SmallFile>, Vec<OpenedFile>, Vec<Vec<TensorInfo>>);

/// Opens the files of weights and checks their headers against the config.
fn weights(dir: &Path, config: &DecoderConfig) -> Result<Weights, BaseError> {
    let folder::WeightFiles { list, index, files } = folder::weight_files(dir)?;
    let mut wanted = tensor_shapes(config);
    let (mut opened, mut entries) = (Vec::new(), Vec::new());
    for path in files {
        let (file, infos) = weight_file(&path, &mut wanted)?;
        opened.push(file);
        entries.push(infos);
    }
    match wanted.into_keys().next() {
        Some(tensor) => Err(BaseError::MissingTensor { path: list, tensor }),
        None => Ok((index, opened, entries)),
    }
}

/// Reads a header. What is found is taken out of `wanted`.
fn weight_file(
    path: &Path,
    wanted: &mut BTreeMap<String, Vec<usize>>,
) -> Result<(OpenedFile, Vec<TensorInfo>), BaseError> {
    let (opened, tensors) = safetensors_header::open(path)?;
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
    Ok((opened, entries))
}
