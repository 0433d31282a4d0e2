//! In what numbers products are computed, and which of them the CPU has instructions for.

use crate::kernels::instructions::{Vectors, vectors};

/// In what numbers products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32.
    Single,
    /// 16-bit integers with a scale for each row of a block, summed up exactly: finer than bf16.
    Short,
    /// The same of 8 bits, twice as many at a time: about as fine as what PyTorch's backward pass makes of bf16.
    Byte,
}

impl Arithmetic {
    /// What products are computed in on the way there, where there is no other: what is rounded there is rounded in
    /// every number that comes of it.
    pub(crate) fn there(self) -> Self {
        match self {
            Self::Single => Self::Single,
            Self::Short | Self::Byte => Self::Short,
        }
    }

    /// The fastest that this CPU has and that is finer than bf16.
    pub fn fine() -> Self {
        Self::Short.or_finer()
    }

    /// The fastest that this CPU has.
    pub fn fastest() -> Self {
        Self::Byte.or_finer()
    }

    /// This one, or the next finer one that the CPU has instructions for.
    pub(crate) fn or_finer(self) -> Self {
        if available(self) {
            return self;
        }
        match self {
            Self::Byte => Self::Short.or_finer(),
            Self::Short | Self::Single => Self::Single,
        }
    }
}

/// Whether this CPU has instructions for it.
///
/// With AVX-512 and no VNNI the sums of 16-bit integers' products would take the units that make these: f32 is as fast.
pub(crate) fn available(arithmetic: Arithmetic) -> bool {
    match arithmetic {
        Arithmetic::Single => vectors() >= Vectors::Avx2,
        Arithmetic::Short => matches!(vectors(), Vectors::Avx2 | Vectors::Vnni),
        Arithmetic::Byte => vectors() == Vectors::Vnni,
    }
}

/// Whether it is done with AVX-512.
pub(super) fn is_wide(arithmetic: Arithmetic) -> bool {
    match arithmetic {
        Arithmetic::Single => vectors() >= Vectors::Avx512,
        Arithmetic::Short | Arithmetic::Byte => vectors() == Vectors::Vnni,
    }
}

impl Arithmetic {
    /// Numbers of one word.
    pub(super) fn in_a_word(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Short => 2,
            Self::Byte => 4,
        }
    }
}
