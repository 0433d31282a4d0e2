//! Types of numbers in a file, and what a header says of a tensor.

use std::fmt;

/// A block type of GGML: some numbers that share their scales, in a few bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GgmlType {
    /// 4 bits and a scale for 32 numbers.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 numbers.
    Q4_1,
    /// 5 bits and a scale for 32 numbers.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 numbers.
    Q5_1,
    /// 8 bits and a scale for 32 numbers.
    Q8_0,
    /// 2 bits, with 16 scales and minima of 4 bits for 256 numbers.
    Q2K,
    /// 3 bits, with 16 scales of 6 bits for 256 numbers.
    Q3K,
    /// 4 bits, with 8 scales and minima of 6 bits for 256 numbers.
    Q4K,
    /// 5 bits, with 8 scales and minima of 6 bits for 256 numbers.
    Q5K,
    /// 6 bits, with 16 scales of 8 bits for 256 numbers.
    Q6K,
}

/// What the table says of a type.
struct Row {
    number: u32,
    name: &'static str,
    /// Numbers in a block.
    block: u64,
    /// Bytes of a block.
    bytes: u64,
}

impl GgmlType {
    /// All block types that are known here, by their numbers.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    fn row(self) -> Row {
        let (number, name, block, bytes) = match self {
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q2K => (10, "Q2_K", 256, 84),
            Self::Q3K => (11, "Q3_K", 256, 110),
            Self::Q4K => (12, "Q4_K", 256, 144),
            Self::Q5K => (13, "Q5_K", 256, 176),
            Self::Q6K => (14, "Q6_K", 256, 210),
        };
        Row { number, name, block, bytes }
    }

    /// Its number in a GGUF file.
    pub fn number(self) -> u32 {
        self.row().number
    }

    /// Its name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Numbers in a block.
    pub fn block_size(self) -> u64 {
        self.row().block
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.row().bytes
    }
}

/// The type of a tensor's numbers in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileDtype {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Blocks of a few bits a number.
    Blocks(GgmlType),
    /// A type whose numbers are never read, by its name.
    Other(String),
}

/// Names of types in a GGUF file that are not read.
const OTHERS: [(u32, &str); 19] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl FileDtype {
    /// The type with this number in a GGUF file.
    pub fn from_gguf(number: u32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            30 => Self::Bf16,
            _ => {
                if let Some(blocks) = GgmlType::ALL.into_iter().find(|blocks| blocks.number() == number) {
                    return Self::Blocks(blocks);
                }
                let name = OTHERS.into_iter().find(|(other, _)| *other == number);
                Self::Other(name.map_or_else(|| format!("type {number}"), |(_, name)| name.to_owned()))
            }
        }
    }

    /// The type that a safetensors header names so.
    pub fn from_safetensors(dtype: safetensors::Dtype) -> Self {
        let known = [
            (safetensors::Dtype::F32, Self::F32),
            (safetensors::Dtype::F16, Self::F16),
            (safetensors::Dtype::BF16, Self::Bf16),
        ];
        let found = known.into_iter().find(|(known, _)| *known == dtype);
        found.map_or_else(|| Self::Other(dtype.to_string()), |(_, dtype)| dtype)
    }

    /// Bytes of `count` numbers. `None` where they are not whole blocks, where the bytes do not fit in 64 bits, and for
    /// [`Self::Other`].
    pub fn bytes(&self, count: u64) -> Option<u64> {
        let (block, bytes) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Blocks(blocks) => (blocks.block_size(), blocks.block_bytes()),
            Self::Other(_) => return None,
        };
        if count.is_multiple_of(block) { (count / block).checked_mul(bytes) } else { None }
    }
}

impl fmt::Display for FileDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Blocks(blocks) => blocks.name(),
            Self::Other(name) => name,
        })
    }
}

/// What a header says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorHeader {
    /// The type of its numbers.
    pub dtype: FileDtype,
    /// Outermost dimension first, such as (rows, columns).
    pub shape: Vec<u64>,
    /// The offset of its first byte from the beginning of the file. In a GGUF file, where the length of a tensor of
    /// [`FileDtype::Other`] is not known, that tensor's is `u64::MAX`.
    pub start: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_type_is_found_by_its_number() {
        for blocks in GgmlType::ALL {
            assert_eq!(FileDtype::from_gguf(blocks.number()), FileDtype::Blocks(blocks));
            assert_eq!(
                FileDtype::Blocks(blocks).bytes(512),
                Some(512 / blocks.block_size() * blocks.block_bytes())
            );
            assert_eq!(FileDtype::Blocks(blocks).bytes(16), None);
        }
        let names: Vec<String> =
            [0, 1, 30, 12, 20, 4].map(|number| FileDtype::from_gguf(number).to_string()).into();
        assert_eq!(names, ["F32", "F16", "BF16", "Q4_K", "IQ4_NL", "type 4"]);
        assert_eq!(FileDtype::from_gguf(20).bytes(256), None);
        assert_eq!(FileDtype::F32.bytes(u64::MAX), None);
    }
}
