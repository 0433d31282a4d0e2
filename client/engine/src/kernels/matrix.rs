//! Matrices of frozen weights, held in the type of their file.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::kernels::error::{Result, bail};
use crate::kernels::quantized::{BlockType, Blocks};
use crate::kernels::simd::{all_finite, largest_of, vectorized};

/// A row-major matrix.
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    numbers: Numbers,
    /// The largest absolute value of each row, computed on first use.
    largest: OnceLock<Vec<f32>>,
}

/// The elements of a matrix, in the type that they are held in.
pub(crate) enum Numbers {
    /// Single precision.
    F32(Vec<f32>),
    /// Half precision.
    F16(Vec<f16>),
    /// The upper 16 bits of single precision.
    Bf16(Vec<bf16>),
    /// Blocks of a GGML type, a few bits a value; each row is a whole number of blocks.
    Quantized(Blocks),
}

impl Matrix {
    /// A matrix of `rows` × `columns`; fails if `numbers` has another length or a row is not a whole number of blocks.
    pub(crate) fn new(rows: usize, columns: usize, numbers: Numbers) -> Result<Self> {
        let found = match &numbers {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::F16(numbers) => numbers.len(),
            Numbers::Bf16(numbers) => numbers.len(),
            Numbers::Quantized(blocks) => {
                let kind = blocks.kind();
                if !columns.is_multiple_of(kind.len()) {
                    bail!("rows of {columns} are not whole blocks of {} of {kind}", kind.len());
                }
                blocks.len()
            }
        };
        if rows.checked_mul(columns) != Some(found) {
            bail!("{rows} × {columns} are not {found} numbers");
        }
        Ok(Self { rows, columns, numbers, largest: OnceLock::new() })
    }

    /// A quantized matrix from the bytes of its blocks; fails if the bytes do not match the shape.
    pub(crate) fn quantized(rows: usize, columns: usize, kind: BlockType, bytes: Vec<u8>) -> Result<Self> {
        let expected = rows.checked_mul(columns / kind.len()).and_then(|n| n.checked_mul(kind.bytes()));
        if !columns.is_multiple_of(kind.len()) || expected != Some(bytes.len()) {
            bail!("{rows} × {columns} of {kind} are not {} bytes", bytes.len());
        }
        Self::new(rows, columns, Numbers::Quantized(Blocks::new(kind, bytes)?))
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Whether another matrix of f32, f16 or bf16 has the same shape and bits; never for blocks.
    pub(crate) fn has_bits_of(&self, other: &Self) -> bool {
        let is_same = match (&self.numbers, &other.numbers) {
            (Numbers::F32(left), Numbers::F32(right)) => {
                left.iter().map(|x| x.to_bits()).eq(right.iter().map(|x| x.to_bits()))
            }
            (Numbers::F16(left), Numbers::F16(right)) => {
                left.iter().map(|x| x.to_bits()).eq(right.iter().map(|x| x.to_bits()))
            }
            (Numbers::Bf16(left), Numbers::Bf16(right)) => {
                left.iter().map(|x| x.to_bits()).eq(right.iter().map(|x| x.to_bits()))
            }
            (Numbers::F32(_) | Numbers::F16(_) | Numbers::Bf16(_) | Numbers::Quantized(_), _) => false,
        };
        is_same && (self.rows, self.columns) == (other.rows, other.columns)
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Dequantizes whole rows to f32; fails if they are out of range, or if `out` is not of their length.
    pub(crate) fn widen(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let range = rows.start * self.columns..rows.end * self.columns;
        if rows.end > self.rows || out.len() != range.len() {
            bail!("rows {rows:?} of {} × {} do not fit {}", self.rows, self.columns, out.len());
        }
        match &self.numbers {
            Numbers::F32(numbers) => out.copy_from_slice(&numbers[range]),
            Numbers::F16(numbers) => numbers[range].convert_to_f32_slice(out),
            Numbers::Bf16(numbers) => widen_all(&numbers[range], out),
            Numbers::Quantized(blocks) => blocks.dequantize(range.start, out)?,
        }
        Ok(())
    }

    /// The largest absolute value of each row; fails if a value is not finite.
    pub(crate) fn largest(&self) -> Result<&[f32]> {
        if let Some(largest) = self.largest.get() {
            return Ok(largest);
        }
        let mut row = vec![0.0; self.columns];
        let mut all = Vec::with_capacity(self.rows);
        for at in 0..self.rows {
            self.widen(at..at + 1, &mut row)?;
            if !all_finite(&row) {
                bail!("row {at} has a number that is not finite");
            }
            all.push(largest_of(&row));
        }
        Ok(self.largest.get_or_init(|| all))
    }

    /// The same matrix, dequantized to f32.
    pub(crate) fn to_f32(&self) -> Result<Self> {
        let mut numbers = vec![0.0; self.rows * self.columns];
        self.widen(0..self.rows, &mut numbers)?;
        Self::new(self.rows, self.columns, Numbers::F32(numbers))
    }

    /// The same matrix, rounded to bf16.
    pub(crate) fn to_bf16(&self) -> Result<Self> {
        let mut row = vec![0.0; self.columns];
        let mut numbers = Vec::with_capacity(self.rows * self.columns);
        for at in 0..self.rows {
            self.widen(at..at + 1, &mut row)?;
            numbers.extend(row.iter().map(|x| bf16::from_f32(*x)));
        }
        Self::new(self.rows, self.columns, Numbers::Bf16(numbers))
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} of {}", self.rows, self.columns, self.numbers.name())
    }
}

impl Numbers {
    /// The type's name for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::F32(_) => "f32".to_owned(),
            Self::F16(_) => "f16".to_owned(),
            Self::Bf16(_) => "bf16".to_owned(),
            Self::Quantized(blocks) => blocks.kind().to_string(),
        }
    }
}

vectorized! {
    /// Converts bf16 to f32, without the test for signaling NaNs, which would cost more than the rest.
    fn widen_all(half: &[bf16], x: &mut [f32]) {
        for (x, half) in x.iter_mut().zip(half) {
            *x = f32::from_bits(u32::from(half.to_bits()) << 16);
        }
    }
}
