//! Types of numbers in a file, as the types that memory can hold.

use candle_core::quantized::GgmlDType;
use formats::GgmlType;

use crate::base::tensor::FileDtype;

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

fn blocks_of(blocks: GgmlType) -> GgmlDType {
    match blocks {
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_large_in_memory_as_in_a_file() {
        for blocks in GgmlType::ALL {
            let held = blocks_of(blocks);
            let sizes = (held.block_size() as u64, held.type_size() as u64);
            assert_eq!(sizes, (blocks.block_size(), blocks.block_bytes()), "{}", blocks.name());
        }
    }
}
