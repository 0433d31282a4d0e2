//! In what numbers products are computed, and which of them the CPU has instructions for.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use crate::kernels::instructions::{Vectors, vectors};

/// In what numbers products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    F32,
    /// 16-bit integers with a scale for each row of a block, summed up exactly: finer than bf16.
    Int16,
    /// The same of 8 bits, twice as many at a time: about as fine as what PyTorch's backward pass makes of bf16.
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
    /// What products are computed in on the way there, where there is no other: what is rounded there is rounded in
    /// every number that comes of it.
    pub(crate) fn forward(self) -> Self {
        match self {
            Self::F32 => Self::F32,
            Self::Int16 | Self::Int8 => Self::Int16,
        }
    }

    /// The fastest that this CPU has and that is finer than bf16.
    pub fn fine() -> Self {
        Self::Int16.or_finer()
    }

    /// The fastest that this CPU has.
    pub fn fastest() -> Self {
        Self::Int8.or_finer()
    }

    /// This one, or the next finer one that the CPU has instructions for.
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

/// Whether this CPU has instructions for it.
///
/// With AVX-512 and no VNNI the sums of 16-bit integers' products would take the units that make these: f32 is as fast.
#[cfg(target_arch = "x86_64")]
pub(crate) fn available(precision: Precision) -> bool {
    match precision {
        Precision::F32 => vectors() >= Vectors::Avx2,
        Precision::Int16 => matches!(vectors(), Vectors::Avx2 | Vectors::Vnni),
        Precision::Int8 => vectors() == Vectors::Vnni,
    }
}

/// Whether it is done with AVX-512.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_wide(precision: Precision) -> bool {
    match precision {
        Precision::F32 => vectors() >= Vectors::Avx512,
        Precision::Int16 | Precision::Int8 => vectors() == Vectors::Vnni,
    }
}

#[cfg(target_arch = "x86_64")]
impl Precision {
    /// Numbers of one word.
    pub(super) fn in_a_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Int16 => 2,
            Self::Int8 => 4,
        }
    }
}
