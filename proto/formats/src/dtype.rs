//! What the header of a GGUF file says of a tensor.

use candle_core::quantized::GgmlDType;

use crate::base::tensor::FileDtype;

/// What the numbers of a tensor may be held as, as an error says it.
pub(super) const KNOWN: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K or Q6_K";

/// A tensor in the header.
#[derive(Debug)]
pub(super) struct Info {
    /// Outermost first, like everywhere but in the file.
    pub(super) shape: Vec<u64>,
    /// The number of its type.
    pub(super) kind: u32,
    /// Where it begins in the file.
    pub(super) start: u64,
}

impl Info {
    /// Its type and its sizes, where the first can be held and the second fit in memory.
    pub(super) fn held(&self) -> Option<(FileDtype, Vec<usize>)> {
        let sizes = self.shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
        Some((stored(self.kind)?, sizes))
    }
}

pub(super) fn stored(kind: u32) -> Option<FileDtype> {
    match kind {
        0 => Some(FileDtype::F32),
        1 => Some(FileDtype::F16),
        2 => Some(FileDtype::Blocks(GgmlDType::Q4_0)),
        3 => Some(FileDtype::Blocks(GgmlDType::Q4_1)),
        6 => Some(FileDtype::Blocks(GgmlDType::Q5_0)),
        7 => Some(FileDtype::Blocks(GgmlDType::Q5_1)),
        8 => Some(FileDtype::Blocks(GgmlDType::Q8_0)),
        10 => Some(FileDtype::Blocks(GgmlDType::Q2K)),
        11 => Some(FileDtype::Blocks(GgmlDType::Q3K)),
        12 => Some(FileDtype::Blocks(GgmlDType::Q4K)),
        13 => Some(FileDtype::Blocks(GgmlDType::Q5K)),
        14 => Some(FileDtype::Blocks(GgmlDType::Q6K)),
        30 => Some(FileDtype::Bf16),
        _ => None,
    }
}

/// The name of a type that cannot be held.
pub(super) fn kind_name(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("type {kind}"),
    };
    name.to_owned()
}
