//! A tensor's numbers: from the type that a file has them in to the type that memory has them in.

use formats::{BLOCK_BYTES, FileStream, FormatError};
use half::{bf16, f16};

use crate::kernels::error::ShapeError;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::quantized::BlockType;
use crate::kernels::simd::all_finite;
use crate::model::weights::Read;

/// What the numbers of a base's matrices are held as, whatever their file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightDtype {
    /// As they are stored: single or half precision, or blocks of a few bits a number.
    #[default]
    AsStored,
    /// Single precision.
    F32,
    /// The upper half of single precision.
    Bf16,
}

/// What a file has a tensor's numbers as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileDtype {
    F32,
    F16,
    Bf16,
    /// Blocks of a few bits a number.
    Blocks(BlockType),
}

impl FileDtype {
    /// Bytes of `count` numbers, which are whole blocks; none where they are not, or are too many.
    pub(super) fn bytes(self, count: u64) -> Option<u64> {
        let (block, size) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Blocks(dtype) => (dtype.len() as u64, dtype.bytes() as u64),
        };
        if count.is_multiple_of(block) { (count / block).checked_mul(size) } else { None }
    }
}

/// A tensor in a file of weights, under its Hugging Face name.
#[derive(Debug)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) stored: FileDtype,
    /// Rows and columns, or one length.
    pub(super) shape: Vec<usize>,
    /// Where it begins in the file.
    pub(super) start: u64,
    /// The width of a head whose rows are in interleaved order: pairs that turn together are neighbours.
    pub(super) interleaved: Option<usize>,
}

impl TensorInfo {
    /// Numbers in it; its shape has been checked against the file's length.
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where it ends in the file.
    pub(super) fn end(&self) -> u64 {
        let bytes = self.stored.bytes(self.count() as u64).unwrap_or(u64::MAX);
        self.start.saturating_add(bytes)
    }

    /// Bytes that it takes in memory.
    pub(super) fn held_bytes(&self, dtype: WeightDtype) -> u64 {
        let count = self.count() as u64;
        match (dtype, self.shape.len()) {
            (WeightDtype::F32, _) | (_, 0 | 1) => count.saturating_mul(4),
            (WeightDtype::Bf16, _) => count.saturating_mul(2),
            (WeightDtype::AsStored, _) => self.stored.bytes(count).unwrap_or(u64::MAX),
        }
    }

    /// Reads its numbers: vectors as f32, matrices as `dtype` says; fails where one is not finite.
    ///
    /// The file's bytes are in memory a block at a time, those of quantised matrices a tensor at a time.
    pub(super) fn read(&self, stream: &mut FileStream<'_>, dtype: WeightDtype) -> Result<Read, FormatError> {
        stream.skim_to(self.start)?;
        let wrong = |stream: &FileStream<'_>, what: String| {
            FormatError::damaged(stream.path(), format!("`{}`: {what}", self.name))
        };
        if let &[rows, columns] = self.shape.as_slice() {
            let matrix = self.matrix(stream, dtype, rows, columns)?;
            let checked = matrix.and_then(|matrix| matrix.largest().map(drop).map(|()| matrix));
            return checked.map(Read::Matrix).map_err(|error| wrong(stream, error.to_string()));
        }
        let vector = self.vector(stream)?;
        if all_finite(&vector) {
            Ok(Read::Vector(vector))
        } else {
            Err(wrong(stream, "it has a number that is not finite".to_owned()))
        }
    }

    fn vector(&self, stream: &mut FileStream<'_>) -> Result<Vec<f32>, FormatError> {
        let mut numbers = self.plain(stream, f32::from_le_bytes, f16::to_f32, bf16::to_f32)?;
        self.straighten(&mut numbers, 1);
        Ok(numbers)
    }

    fn matrix(
        &self,
        stream: &mut FileStream<'_>,
        dtype: WeightDtype,
        rows: usize,
        columns: usize,
    ) -> Result<Result<Matrix, ShapeError>, FormatError> {
        let numbers = match (self.stored, dtype) {
            (FileDtype::Blocks(blocks), _) => {
                let size = columns / blocks.len() * blocks.bytes();
                let mut bytes = vec![0; rows * size];
                for block in bytes.chunks_mut(BLOCK_BYTES) {
                    stream.fill(block)?;
                }
                self.straighten(&mut bytes, size);
                let matrix = Matrix::quantized(rows, columns, blocks, bytes);
                return Ok(match dtype {
                    WeightDtype::AsStored => matrix,
                    WeightDtype::F32 => matrix.and_then(|matrix| matrix.to_f32()),
                    WeightDtype::Bf16 => matrix.and_then(|matrix| matrix.to_bf16()),
                });
            }
            (FileDtype::F32, WeightDtype::AsStored) | (_, WeightDtype::F32) => {
                let mut numbers = self.plain(stream, f32::from_le_bytes, f16::to_f32, bf16::to_f32)?;
                self.straighten(&mut numbers, columns);
                Numbers::F32(numbers)
            }
            (FileDtype::F16, WeightDtype::AsStored) => {
                let mut numbers = self.plain(
                    stream,
                    |x| f16::from_f32(f32::from_le_bytes(x)),
                    |x| x,
                    |x| f16::from_f32(x.to_f32()),
                )?;
                self.straighten(&mut numbers, columns);
                Numbers::F16(numbers)
            }
            (FileDtype::Bf16, WeightDtype::AsStored) | (_, WeightDtype::Bf16) => {
                let mut numbers = self.plain(
                    stream,
                    |x| bf16::from_f32(f32::from_le_bytes(x)),
                    |x| bf16::from_f32(x.to_f32()),
                    |x| x,
                )?;
                self.straighten(&mut numbers, columns);
                Numbers::Bf16(numbers)
            }
        };
        Ok(Matrix::new(rows, columns, numbers))
    }

    /// Its numbers, one by one; none for quantised tensors, which have no numbers of their own.
    fn plain<T>(
        &self,
        stream: &mut FileStream<'_>,
        from_f32: impl Fn([u8; 4]) -> T,
        from_f16: impl Fn(f16) -> T,
        from_bf16: impl Fn(bf16) -> T,
    ) -> Result<Vec<T>, FormatError> {
        let mut numbers = Vec::with_capacity(self.count());
        let mut left = self.stored.bytes(self.count() as u64).unwrap_or(0);
        let mut block = vec![0; BLOCK_BYTES];
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let bytes = &mut block[..size];
            stream.fill(bytes)?;
            left -= size as u64;
            let (words, halves) = (bytes.as_chunks().0.iter(), bytes.as_chunks().0.iter());
            match self.stored {
                FileDtype::F32 => numbers.extend(words.map(|x| from_f32(*x))),
                FileDtype::F16 => numbers.extend(halves.map(|x| from_f16(f16::from_le_bytes(*x)))),
                FileDtype::Bf16 => numbers.extend(halves.map(|x| from_bf16(bf16::from_le_bytes(*x)))),
                FileDtype::Blocks(_) => {}
            }
        }
        Ok(numbers)
    }

    /// Puts the rows of interleaved heads, each of `size` elements, where Hugging Face's files have them: the first
    /// numbers of all pairs, then the second ones.
    fn straighten<T: Copy>(&self, elements: &mut [T], size: usize) {
        let Some(width) = self.interleaved else { return };
        let mut straight = Vec::with_capacity(width * size);
        for head in elements.chunks_exact_mut(width * size) {
            straight.clear();
            for second in [0, 1] {
                for pair in 0..width / 2 {
                    let row = 2 * pair + second;
                    straight.extend_from_slice(&head[row * size..(row + 1) * size]);
                }
            }
            head.copy_from_slice(&straight);
        }
    }
}
