//! Types of numbers in a file, as the types that memory can hold.

use formats::GgmlType;

use crate::base::tensor::FileDtype;
use crate::kernels::quantized::BlockType;

impl FileDtype {
    /// The type, where its numbers can be held.
    pub(super) fn of(dtype: &formats::FileDtype) -> Option<Self> {
        match dtype {
            formats::FileDtype::F32 => Some(Self::F32),
            formats::FileDtype::F16 => Some(Self::F16),
            formats::FileDtype::Bf16 => Some(Self::Bf16),
            formats::FileDtype::Blocks(blocks) => Some(Self::Blocks(blocks_of(*blocks))),
            formats::FileDtype::Other(_) => None,
        }
    }
}

fn blocks_of(blocks: GgmlType) -> BlockType {
    match blocks {
        GgmlType::Q4_0 => BlockType::Q4x0,
        GgmlType::Q4_1 => BlockType::Q4x1,
        GgmlType::Q5_0 => BlockType::Q5x0,
        GgmlType::Q5_1 => BlockType::Q5x1,
        GgmlType::Q8_0 => BlockType::Q8x0,
        GgmlType::Q2K => BlockType::Q2K,
        GgmlType::Q3K => BlockType::Q3K,
        GgmlType::Q4K => BlockType::Q4K,
        GgmlType::Q5K => BlockType::Q5K,
        GgmlType::Q6K => BlockType::Q6K,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_large_in_memory_as_in_a_file() {
        for blocks in GgmlType::ALL {
            let held = blocks_of(blocks);
            let sizes = (held.len() as u64, held.bytes() as u64);
            assert_eq!(sizes, (blocks.block_size(), blocks.block_bytes()), "{held}");
            assert_eq!(held.name(), blocks.name());
        }
    }
}
