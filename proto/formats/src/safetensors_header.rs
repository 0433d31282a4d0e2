//! The header of a safetensors file: a length of 8 bytes, little-endian, and as much JSON.

use std::path::Path;

use safetensors::tensor::Metadata;

use crate::dtype::{FileDtype, TensorHeader};
use crate::error::FormatError;
use crate::file::OpenedFile;

/// The largest header that is read.
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// Opens a file of weights and reads its header: the tensors by their names, in the order in which they are in the file.
///
/// Returns an error where the file cannot be read, where the header is longer than 16 MiB or than the file, is no JSON of
/// this kind, or does not account for every byte after it.
pub fn open(path: &Path) -> Result<(OpenedFile, Vec<(String, TensorHeader)>), FormatError> {
    let mut opened = OpenedFile::new(path)?;
    opened.refuse_pointer()?;
    let mut len = [0; 8];
    len.copy_from_slice(opened.take(8)?);
    let len = u64::from_le_bytes(len);
    if len > MOST_HEADER_BYTES {
        let reason = format!("its header would have {len} bytes, {MOST_HEADER_BYTES} at most are read");
        return Err(FormatError::damaged(path, reason));
    }
    let header: Metadata = serde_json::from_slice(opened.take(len)?)
        .map_err(|error| FormatError::damaged(path, error.to_string()))?;
    let (start, data) = (8 + len, opened.len() - opened.position());
    if header.data_len() as u64 != data {
        let expected = header.data_len();
        let reason = format!("its tensors have {expected} bytes, after the header there are {data}");
        return Err(FormatError::damaged(path, reason));
    }
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let dtype = FileDtype::from_safetensors(info.dtype);
        let shape = info.shape.iter().map(|size| *size as u64).collect();
        tensors.push((name, TensorHeader { dtype, shape, start: start + info.data_offsets.0 as u64 }));
    }
    Ok((opened, tensors))
}
