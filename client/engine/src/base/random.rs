//! A base of random weights, to measure how fast a shape trains.

use std::collections::BTreeMap;

use half::bf16;
use proto::ids::Digest;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tokenizers::Tokenizer;
use tokenizers::models::wordlevel::WordLevel;

use crate::base::plan::Parts;
use crate::base::tokenizer::{Special, Tokens};
use crate::kernels::error::{ShapeError, bail};
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::quantized::{BlockType, Blocks};
use crate::model::config::DecoderConfig;
use crate::model::weights::{Read, Weights, norm_offset, tensor_shapes};

/// What random weights are held as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Single precision.
    F32,
    /// The upper half of single precision.
    Bf16,
    /// Blocks of four bits a number.
    Q4,
    /// Blocks of eight bits a number.
    Q8,
}

/// The parts of a base of this shape with random weights and no words; fails when the shape cannot be held so.
pub(super) fn random(config: DecoderConfig, filled: Filled, seed: u64) -> Result<Parts, ShapeError> {
    config.check().map_err(ShapeError::new)?;
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut found = BTreeMap::new();
    for (name, shape) in tensor_shapes(&config) {
        let read = match *shape.as_slice() {
            [rows, columns] => Read::Matrix(matrix(&mut rng, filled, rows, columns)?),
            _ if name.ends_with("norm.weight") || name.ends_with("layernorm.weight") => {
                Read::Vector(vec![1.0 - norm_offset(&config); shape.iter().product()])
            }
            _ => Read::Vector(vec![0.0; shape.iter().product()]),
        };
        found.insert(name, read);
    }
    let weights = Weights::new(&config, found).map_err(ShapeError::new)?;
    let special = Special { bos: Some(0), ..Special::default() };
    let tokenizer = Tokenizer::new(WordLevel::default());
    let tokens = Tokens::new(tokenizer, special, config.vocab_size).map_err(ShapeError::new)?;
    let digest = Digest::of(format!("nightshift random base v1 {config:?} {filled:?} {seed}").as_bytes());
    Ok(Parts { config, weights, tokens, digest })
}

fn matrix(rng: &mut ChaCha20Rng, filled: Filled, rows: usize, columns: usize) -> Result<Matrix, ShapeError> {
    // Of the standard deviation 0.02, as the families begin.
    let mut number = || (rng.next_u32() as f32 / 2_147_483_648.0 - 1.0) * 0.034_64;
    let count = rows * columns;
    let blocks = |kind: BlockType, number: &mut dyn FnMut() -> f32| {
        if !columns.is_multiple_of(kind.len()) {
            bail!("rows of {columns} are not whole blocks of {} of {kind}", kind.len());
        }
        let mut bytes = Vec::with_capacity(count / kind.len() * kind.bytes());
        let mut wide = vec![0.0; columns];
        for _ in 0..rows {
            wide.fill_with(&mut *number);
            bytes.extend_from_slice(Blocks::quantize(kind, &wide)?.as_bytes());
        }
        Matrix::quantized(rows, columns, kind, bytes)
    };
    match filled {
        Filled::F32 => Matrix::new(rows, columns, Numbers::F32((0..count).map(|_| number()).collect())),
        Filled::Bf16 => {
            let numbers = (0..count).map(|_| bf16::from_f32(number())).collect();
            Matrix::new(rows, columns, Numbers::Bf16(numbers))
        }
        Filled::Q4 => blocks(BlockType::Q4x0, &mut number),
        Filled::Q8 => blocks(BlockType::Q8x0, &mut number),
    }
}
