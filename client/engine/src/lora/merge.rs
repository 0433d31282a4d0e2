//! Merging of an adapter into its base: the result is a Hugging Face folder of its own.
//!
//! Each matrix that the adapter changes becomes `W + s · B · A`, computed in f32 a few rows at a time and
//! rounded once. Matrices keep the dtype in which the base holds them. Quantized ones are written in bf16:
//! whoever wants them quantized again should quantize the sum, not the base. Vectors are written in the dtype
//! of the embedding where that loses nothing, else in f32.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use proto::adapter::{AdapterSpec, LoraPair};
use proto::ids::Digest;
use ring::digest::{Context, SHA256};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::base::Base;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::lora::layout::AdapterLayout;
use crate::model::projection::Projection;
use crate::model::weights::{norm_offset, norms};
use proto::files;
use proto::files::Audience;
use proto::files::FileError;

mod companions;
mod error;

pub use error::MergeError;

/// The most bytes of tensors in one file.
pub const MOST_SHARD_BYTES: u64 = 4_000_000_000;

/// Values widened to f32 at a time, or one row if it is longer.
const ROWS_NUMBERS: usize = 1 << 18;

/// Writes `base` with an adapter merged into it to `folder`, which must be new or empty: `model.safetensors`,
/// or shards of at most `most_shard_bytes` with their index, and copies of the other files in the folder
/// `source` that the base was read from. For a GGUF file, `config.json`, `tokenizer.json` and
/// `tokenizer_config.json` are generated from it.
///
/// Only their owner may read the files, because they hold what was learned from a person. Returns the name and
/// the SHA-256 of each. Fails if the adapter does not fit the base, a merged value overflows its dtype, a GGUF
/// base has no `config.json` that describes it, or the disk fails; what is written by then is whole files.
pub fn write_merged(
    folder: &Path,
    base: &Base,
    source: &Path,
    (spec, frozen, trained): (&AdapterSpec, &[f32], &[f32]),
    most_shard_bytes: u64,
) -> Result<Vec<(String, Digest)>, MergeError> {
    AdapterLayout::new(base, spec)?;
    let pairs = spec.pairs(frozen, trained)?;
    let companions = companions::of(base, source)?;
    files::create_folder(folder)?;
    let mut there = std::fs::read_dir(folder).map_err(FileError::io("list", folder))?;
    if there.next().is_some() {
        return Err(MergeError::NotEmpty(folder.to_owned()));
    }
    let tensors = tensors(base, &pairs);
    let (mut written, mut index) = (Vec::new(), Map::new());
    let shards = shards(&tensors, most_shard_bytes);
    for (at, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", at + 1),
        };
        let digest = write_shard(&folder.join(&name), shard, spec.scale(), spec.rank as usize)?;
        index.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
        written.push((name, digest));
    }
    let mut small = companions;
    if shards.len() > 1 {
        let total: u64 = tensors.iter().map(Tensor::bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": index });
        let name = "model.safetensors.index.json";
        let bytes = serde_json::to_vec_pretty(&index)
            .map_err(|error| MergeError::Text { name, reason: error.to_string() })?;
        small.push((name.to_owned(), bytes));
    }
    // `config.json` comes last: without it the folder is no base yet.
    small.sort_by_key(|(name, _)| name == "config.json");
    for (name, bytes) in small {
        files::write(&folder.join(&name), &bytes, Audience::Owner)?;
        written.push((name, Digest::of(&bytes)));
    }
    Ok(written)
}

/// A tensor to write.
struct Tensor<'a> {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    numbers: Source<'a>,
}

enum Source<'a> {
    Vector(Cow<'a, [f32]>),
    Matrix(&'a Matrix, Option<&'a LoraPair<'a>>),
}

impl Tensor<'_> {
    fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8) as u64
    }
}

/// All tensors of a base, in the order of its blocks.
fn tensors<'a>(base: &'a Base, pairs: &'a [LoraPair<'a>]) -> Vec<Tensor<'a>> {
    let weights = base.weights();
    let of_vectors = dtype(&weights.embed);
    let mut tensors = Vec::new();
    let matrix = |name: String, matrix: &'a Matrix, pair| Tensor {
        name: format!("{name}.weight"),
        shape: vec![matrix.rows(), matrix.columns()],
        dtype: dtype(matrix),
        numbers: Source::Matrix(matrix, pair),
    };
    let vector = |name: String, vector: Cow<'a, [f32]>| Tensor {
        name,
        shape: vec![vector.len()],
        dtype: if fits(&vector, of_vectors) { of_vectors } else { Dtype::F32 },
        numbers: Source::Vector(vector),
    };
    let offset = norm_offset(base.config());
    let of_norm = |weights: &'a [f32]| {
        if offset > 0.0 {
            Cow::Owned(weights.iter().map(|weight| weight - offset).collect())
        } else {
            Cow::Borrowed(weights)
        }
    };
    tensors.push(matrix("model.embed_tokens".to_owned(), &weights.embed, None));
    for (layer, block) in weights.blocks.iter().enumerate() {
        let norm = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let of_stream =
            [&block.input_norm, &block.post_norm].into_iter().chain(block.output_norms.iter().flatten());
        for (name, weights) in norms(base.config()).iter().zip(of_stream) {
            tensors.push(vector(norm(name), of_norm(weights)));
        }
        if let Some([queries, keys]) = &block.head_norms {
            tensors.push(vector(norm("self_attn.q_norm"), of_norm(queries)));
            tensors.push(vector(norm("self_attn.k_norm"), of_norm(keys)));
        }
        for projection in Projection::ALL {
            let (name, linear) = (projection.name(layer), block.linear(projection));
            if let Some(bias) = &linear.bias {
                tensors.push(vector(format!("{name}.bias"), Cow::Borrowed(bias)));
            }
            let pair = pairs.iter().find(|pair| pair.module.name == name);
            tensors.push(matrix(name, &linear.weight, pair));
        }
    }
    tensors.push(vector("model.norm.weight".to_owned(), of_norm(&weights.norm)));
    tensors.extend(weights.head.as_ref().map(|head| matrix("lm_head".to_owned(), head, None)));
    tensors
}

/// The dtype in which a matrix is written.
fn dtype(matrix: &Matrix) -> Dtype {
    match matrix.numbers() {
        Numbers::F32(_) => Dtype::F32,
        Numbers::F16(_) => Dtype::F16,
        Numbers::Bf16(_) | Numbers::Quantized(_) => Dtype::BF16,
    }
}

/// Whether a dtype holds all values exactly.
fn fits(numbers: &[f32], dtype: Dtype) -> bool {
    let same = |narrow: fn(f32) -> f32| numbers.iter().all(|x| narrow(*x).to_bits() == x.to_bits());
    if dtype == Dtype::F16 {
        same(|x| f16::from_f32(x).to_f32())
    } else if dtype == Dtype::BF16 {
        same(|x| bf16::from_f32(x).to_f32())
    } else {
        true
    }
}

/// Splits tensors, in order, into shards of at most `most` bytes; a larger tensor gets a shard of its own.
fn shards<'a, 't>(tensors: &'t [Tensor<'a>], most: u64) -> Vec<&'t [Tensor<'a>]> {
    let (mut shards, mut first, mut bytes) = (Vec::new(), 0, 0u64);
    for (at, tensor) in tensors.iter().enumerate() {
        if at > first && bytes.saturating_add(tensor.bytes()) > most {
            shards.extend(tensors.get(first..at));
            (first, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(tensor.bytes());
    }
    shards.extend(tensors.get(first..));
    shards
}

/// A file that is hashed as it is written.
struct Hashed<'f> {
    file: BufWriter<&'f mut File>,
    context: Context,
}

impl Hashed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.context.update(bytes);
        self.file.write_all(bytes)
    }
}

fn write_shard(path: &Path, tensors: &[Tensor<'_>], scale: f32, rank: usize) -> Result<Digest, MergeError> {
    let mut digest = Digest([0; 32]);
    files::write_with(path, Audience::Owner, |file| {
        let mut out = Hashed { file: BufWriter::new(file), context: Context::new(&SHA256) };
        let fail = || FileError::io("write", path);
        out.put(&header(tensors)?).map_err(fail())?;
        for tensor in tensors {
            let mut bytes = Vec::new();
            match &tensor.numbers {
                Source::Vector(vector) => {
                    narrow(tensor, vector, &mut bytes)?;
                    out.put(&bytes).map_err(fail())?;
                }
                Source::Matrix(matrix, pair) => {
                    let columns = matrix.columns();
                    let step = (ROWS_NUMBERS / columns.max(1)).max(1);
                    let mut numbers = Vec::new();
                    for first in (0..matrix.rows()).step_by(step) {
                        let rows = first..(first + step).min(matrix.rows());
                        numbers.resize(rows.len() * columns, 0.0);
                        matrix.widen(rows.clone(), &mut numbers)?;
                        if let Some(pair) = pair {
                            let b = pair.b.get(rows.start * rank..rows.end * rank).unwrap_or_default();
                            add(&mut numbers, columns, (scale, rank), b, &pair.a);
                        }
                        bytes.clear();
                        narrow(tensor, &numbers, &mut bytes)?;
                        out.put(&bytes).map_err(fail())?;
                    }
                }
            }
        }
        out.file.flush().map_err(fail())?;
        digest.0.copy_from_slice(out.context.finish().as_ref());
        Ok::<_, MergeError>(())
    })?;
    Ok(digest)
}

/// Adds `scale · b · a` to some rows, with `b` (rows, rank) and `a` (rank, columns).
fn add(numbers: &mut [f32], columns: usize, (scale, rank): (f32, usize), b: &[f32], a: &[f32]) {
    for (row, b) in numbers.chunks_exact_mut(columns.max(1)).zip(b.chunks_exact(rank.max(1))) {
        for (factor, a) in b.iter().zip(a.chunks_exact(columns.max(1))) {
            let factor = scale * factor;
            row.iter_mut().zip(a).for_each(|(x, a)| *x += factor * a);
        }
    }
}

/// Appends values in the tensor's dtype to `out`; fails if one is then not finite.
fn narrow(tensor: &Tensor<'_>, numbers: &[f32], out: &mut Vec<u8>) -> Result<(), MergeError> {
    let finite = if tensor.dtype == Dtype::F16 {
        out.extend(numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
        numbers.iter().all(|x| f16::from_f32(*x).is_finite())
    } else if tensor.dtype == Dtype::BF16 {
        out.extend(numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
        numbers.iter().all(|x| bf16::from_f32(*x).is_finite())
    } else {
        out.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        numbers.iter().all(|x| x.is_finite())
    };
    if finite {
        return Ok(());
    }
    Err(MergeError::Overflow { tensor: tensor.name.clone(), dtype: tensor.dtype })
}

/// The header of a safetensors file: the length of the JSON in 8 bytes, little-endian, and the JSON, padded
/// with spaces to a multiple of 8 bytes.
fn header(tensors: &[Tensor<'_>]) -> Result<Vec<u8>, MergeError> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let entry = json!({
            "dtype": tensor.dtype.to_string(), "shape": tensor.shape, "data_offsets": [start, end],
        });
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    let reason = |error: serde_json::Error| error.to_string();
    let mut json = serde_json::to_vec(&header)
        .map_err(|error| MergeError::Text { name: "model.safetensors", reason: reason(error) })?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
