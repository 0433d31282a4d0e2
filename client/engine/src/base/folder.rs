//! A Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::base::error::BaseError;
use crate::base::files::{Opened, Small, damaged};
use crate::base::plan::{Plan, WeightFile};
use crate::base::tensor::{FileDtype, TensorInfo};
use crate::base::tokenizer::{TokenFiles, Tokens};
use crate::model::config::DecoderConfig;
use crate::model::weights::tensor_shapes;

/// The largest header that is read.
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// What the numbers of a base in a folder may be stored as.
const STORED: [(Dtype, FileDtype); 3] =
    [(Dtype::F32, FileDtype::F32), (Dtype::F16, FileDtype::F16), (Dtype::BF16, FileDtype::Bf16)];

/// Reads everything of a folder but its weights.
pub(super) fn plan(dir: &Path) -> Result<Plan, BaseError> {
    let config_file = Small::read(dir.join("config.json"))?;
    let config = DecoderConfig::parse(&config_file.bytes)
        .map_err(|source| BaseError::Config { path: config_file.path.clone(), source })?;
    let mut before = vec![config_file];
    let weights = weight_files(dir, &config, &mut before)?;
    let tokenizer = Small::read(dir.join("tokenizer.json"))?;
    let [settings, template, generation] = [
        Small::read_if_there(dir.join("tokenizer_config.json"))?,
        Small::read_if_there(dir.join("chat_template.jinja"))?,
        Small::read_if_there(dir.join("generation_config.json"))?,
    ];
    let files = TokenFiles {
        tokenizer: &tokenizer.bytes,
        settings: bytes_of(settings.as_ref()),
        template: bytes_of(template.as_ref()),
        generation: bytes_of(generation.as_ref()),
    };
    let tokens = Tokens::parse(&files, &config)
        .map_err(|(name, reason)| BaseError::Tokenizer { path: dir.join(name), reason })?;
    let after = [Some(tokenizer), settings, template, generation].into_iter().flatten().collect();
    Ok(Plan { config, tokens, before, weights, after })
}

fn bytes_of(file: Option<&Small>) -> Option<&[u8]> {
    file.map(|file| file.bytes.as_slice())
}

/// The files of weights, with the headers checked against the config; an index is added to `before`.
fn weight_files(
    dir: &Path,
    config: &DecoderConfig,
    before: &mut Vec<Small>,
) -> Result<Vec<WeightFile>, BaseError> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    let (list, files) = if single.exists() || !index.exists() {
        (single.clone(), vec![single])
    } else {
        let small = Small::read(index.clone())?;
        let names = shards(&index, &small.bytes)?;
        before.push(small);
        (index, names.into_iter().map(|name| dir.join(name)).collect())
    };
    let mut wanted = tensor_shapes(config);
    let mut weights = Vec::new();
    for path in files {
        weights.push(weight_file(&path, &mut wanted)?);
    }
    match wanted.into_keys().next() {
        Some(tensor) => Err(BaseError::MissingTensor { path: list, tensor }),
        None => Ok(weights),
    }
}

/// The names of the files in an index, in order and once each.
pub(super) fn shards(path: &Path, bytes: &[u8]) -> Result<Vec<String>, BaseError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(bytes).map_err(|error| damaged(path, error.to_string()))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    // An index may only name files beside it.
    match files.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => Err(damaged(path, format!("`{name}` is not the name of a file in this folder"))),
        None => Ok(files),
    }
}

/// Reads a header: a length of 8 bytes, little-endian, and as much JSON. What is found is taken out of `wanted`.
fn weight_file(path: &Path, wanted: &mut BTreeMap<String, Vec<usize>>) -> Result<WeightFile, BaseError> {
    let mut opened = Opened::new(path)?;
    let mut len = [0; 8];
    len.copy_from_slice(opened.take(8)?);
    let len = u64::from_le_bytes(len);
    if len > MOST_HEADER_BYTES {
        return Err(damaged(
            path,
            format!("its header would have {len} bytes, {MOST_HEADER_BYTES} at most are read"),
        ));
    }
    let header: Metadata =
        serde_json::from_slice(opened.take(len)?).map_err(|error| damaged(path, error.to_string()))?;
    let (start, data) = (8 + len, opened.len() - opened.position());
    if header.data_len() as u64 != data {
        let expected = header.data_len();
        return Err(damaged(
            path,
            format!("its tensors have {expected} bytes, after the header there are {data}"),
        ));
    }
    let mut entries = Vec::new();
    for name in header.offset_keys() {
        let (Some(info), Some(expected)) = (header.info(&name), wanted.remove(&name)) else { continue };
        if info.shape != expected {
            let (path, found) = (path.to_owned(), info.shape.clone());
            return Err(BaseError::Shape { path, tensor: name, expected, found });
        }
        let Some((_, stored)) = STORED.into_iter().find(|(dtype, _)| *dtype == info.dtype) else {
            let (path, found) = (path.to_owned(), info.dtype.to_string());
            return Err(BaseError::Dtype { path, tensor: name, known: "F32, F16 or BF16", found });
        };
        let start = start + info.data_offsets.0 as u64;
        entries.push(TensorInfo { name, stored, shape: expected, start, interleaved: None });
    }
    Ok(WeightFile { opened, entries })
}
