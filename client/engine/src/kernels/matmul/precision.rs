//! The precisions of matrix products, and which of them the CPU has instructions for.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use crate::kernels::instructions::{Vectors, vectors};

/// Number format in which matrix products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    F32,
    /// 16-bit integers with a scale for each row of a block, accumulated exactly: more precise than bf16.
    Int16,
    /// The same with 8 bits, at twice the throughput: about as precise as PyTorch's backward pass in bf16.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        })
    }
}

impl Precision {
    /// Precision of the forward pass: never `Int8`, because a rounding error of the forward pass reaches every later
    /// value. (Only the output layer uses `Int8`, for a loss with its gradient: see `cross_entropy`.)
    pub(crate) fn forward(self) -> Self {
        match self {
            Self::F32 => Self::F32,
            Self::Int16 | Self::Int8 => Self::Int16,
        }
    }

    /// The fastest precision of this CPU that is more precise than bf16.
    pub fn fine() -> Self {
        Self::Int16.or_finer()
    }

    /// The fastest precision of this CPU.
    pub fn fastest() -> Self {
        Self::Int8.or_finer()
    }

    /// This precision, or the next higher one that the CPU has instructions for; at last `F32`.
    pub(crate) fn or_finer(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if available(self) {
            return self;
        }
        match self {
            Self::Int8 => Self::Int16.or_finer(),
            Self::Int16 | Self::F32 => Self::F32,
        }
    }
}

/// Whether there is a packed kernel for this precision and CPU.
///
/// `Int16` is not, with AVX-512 but no VNNI: multiplications and additions would compete for the same execution units,
/// and f32 is as fast.
#[cfg(target_arch = "x86_64")]
pub(crate) fn available(precision: Precision) -> bool {
    match precision {
        Precision::F32 => vectors() >= Vectors::Avx2,
        Precision::Int16 => matches!(vectors(), Vectors::Avx2 | Vectors::Vnni),
        Precision::Int8 => vectors() == Vectors::Vnni,
    }
}

/// Whether the kernel for this precision is the one for AVX-512, and not that for AVX2.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_wide(precision: Precision) -> bool {
    match precision {
        Precision::F32 => vectors() >= Vectors::Avx512,
        Precision::Int16 | Precision::Int8 => vectors() == Vectors::Vnni,
    }
}

#[cfg(target_arch = "x86_64")]
impl Precision {
    /// Values packed in a 32-bit word.
    pub(super) fn in_a_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Int16 => 2,
            Self::Int8 => 4,
        }
    }
}
