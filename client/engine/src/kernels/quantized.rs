//! Block-quantized weights: the types of llama.cpp's GGUF files, dequantized to f32.
//!
//! A row is a whole number of blocks. A block holds the quantized values of 32 weights, or of 256 for the K types, with
//! scales and minimums in f16 or in a few bits each. The layouts are those of `ggml-quants.c` in
//! <https://github.com/ggml-org/ggml>; the order of the operations is theirs too, so that the results have the same
//! bits.

use std::fmt;

use half::f16;

use crate::kernels::error::{Result, bail};

/// How the values of a block are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockType {
    /// 4 bits and a scale.
    Q4x0,
    /// 4 bits, a scale and a minimum.
    Q4x1,
    /// 5 bits and a scale.
    Q5x0,
    /// 5 bits, a scale and a minimum.
    Q5x1,
    /// 8 bits and a scale.
    Q8x0,
    /// 2 bits; 16 scales and minimums of 4 bits.
    Q2K,
    /// 3 bits; 16 scales of 6 bits.
    Q3K,
    /// 4 bits; 8 scales and minimums of 6 bits.
    Q4K,
    /// 5 bits; 8 scales and minimums of 6 bits.
    Q5K,
    /// 6 bits; 16 scales of 8 bits.
    Q6K,
}

/// Quantized blocks, one after the other.
#[derive(Clone)]
pub(crate) struct Blocks {
    kind: BlockType,
    bytes: Vec<u8>,
}

impl BlockType {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 10] = [
        Self::Q4x0,
        Self::Q4x1,
        Self::Q5x0,
        Self::Q5x1,
        Self::Q8x0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Weights of a block.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Q4x0 | Self::Q4x1 | Self::Q5x0 | Self::Q5x1 | Self::Q8x0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Q4x0 => 18,
            Self::Q4x1 => 20,
            Self::Q5x0 => 22,
            Self::Q5x1 => 24,
            Self::Q8x0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The name that GGUF gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q4x0 => "Q4_0",
            Self::Q4x1 => "Q4_1",
            Self::Q5x0 => "Q5_0",
            Self::Q5x1 => "Q5_1",
            Self::Q8x0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Dequantizes one block: [`Self::bytes`] bytes to [`Self::len`] weights.
    fn dequantize(self, block: &[u8], out: &mut [f32]) {
        match self {
            Self::Q4x0 => q4_0(block, out),
            Self::Q4x1 => q4_1(block, out),
            Self::Q5x0 => q5_0(block, out),
            Self::Q5x1 => q5_1(block, out),
            Self::Q8x0 => q8_0(block, out),
            Self::Q2K => q2_k(block, out),
            Self::Q3K => q3_k(block, out),
            Self::Q4K => q4_k(block, out),
            Self::Q5K => q5_k(block, out),
            Self::Q6K => q6_k(block, out),
        }
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Blocks {
    /// Blocks of these bytes; fails where they are not whole blocks.
    pub(crate) fn new(kind: BlockType, bytes: Vec<u8>) -> Result<Self> {
        if !bytes.len().is_multiple_of(kind.bytes()) {
            bail!("{} bytes are not whole blocks of {kind}", bytes.len());
        }
        Ok(Self { kind, bytes })
    }

    /// Weights quantized to 4 or 8 bits with a scale, the nearest there are; fails for other types, and where the weights
    /// are not whole blocks.
    pub(crate) fn quantize(kind: BlockType, weights: &[f32]) -> Result<Self> {
        let quantize = match kind {
            BlockType::Q4x0 => to_q4_0,
            BlockType::Q8x0 => to_q8_0,
            BlockType::Q4x1
            | BlockType::Q5x0
            | BlockType::Q5x1
            | BlockType::Q2K
            | BlockType::Q3K
            | BlockType::Q4K
            | BlockType::Q5K
            | BlockType::Q6K => bail!("weights are not quantized to {kind} here"),
        };
        if !weights.len().is_multiple_of(kind.len()) {
            bail!("{} weights are not whole blocks of {kind}", weights.len());
        }
        let mut bytes = Vec::with_capacity(weights.len() / kind.len() * kind.bytes());
        weights.chunks_exact(kind.len()).for_each(|block| quantize(block, &mut bytes));
        Ok(Self { kind, bytes })
    }

    /// How they are quantized.
    pub(crate) fn kind(&self) -> BlockType {
        self.kind
    }

    /// Weights of all blocks.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.kind.bytes() * self.kind.len()
    }

    /// The bytes of all blocks.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Dequantizes the weights from `first` on to `out`; fails where either is no whole number of blocks, or there are
    /// not so many.
    pub(crate) fn dequantize(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let (len, size) = (self.kind.len(), self.kind.bytes());
        let whole = first.is_multiple_of(len) && out.len().is_multiple_of(len);
        let blocks = self.bytes.get(first / len * size..(first + out.len()) / len * size);
        let (true, Some(blocks)) = (whole, blocks) else {
            bail!("{} weights from {first} on are not whole blocks of {}", out.len(), self.kind);
        };
        for (block, out) in blocks.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
            self.kind.dequantize(block, out);
        }
        Ok(())
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weights in {}", self.len(), self.kind)
    }
}

/// The number in f16 at the beginning of `bytes`.
fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Low and high four bits of each byte, the first half of a block and the second.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let (d, quants) = (half(block), &block[2..18]);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), q) in low.iter_mut().zip(high).zip(quants) {
        *low = f32::from(i16::from(q & 15) - 8) * d;
        *high = f32::from(i16::from(q >> 4) - 8) * d;
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, min, quants) = (half(block), half(&block[2..]), &block[4..20]);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), q) in low.iter_mut().zip(high).zip(quants) {
        *low = f32::from(q & 15) * d + min;
        *high = f32::from(q >> 4) * d + min;
    }
}

/// The fifth bits of a block, as 16 of the first half and 16 of the second.
fn fifth_bits(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The two values of 5 bits at `j` and `j + 16`.
fn five_bits(q: u8, fifth: u32, j: usize) -> (i16, i16) {
    let bit = |at: usize| if fifth >> at & 1 == 1 { 16 } else { 0 };
    (i16::from(q & 15) + bit(j), i16::from(q >> 4) + bit(j + 16))
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, fifth, quants) = (half(block), fifth_bits(&block[2..]), &block[6..22]);
    let (first, second) = out.split_at_mut(16);
    for (j, ((first, second), q)) in first.iter_mut().zip(second).zip(quants).enumerate() {
        let (low, high) = five_bits(*q, fifth, j);
        (*first, *second) = (f32::from(low - 16) * d, f32::from(high - 16) * d);
    }
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, min, fifth) = (half(block), half(&block[2..]), fifth_bits(&block[4..]));
    let (first, second) = out.split_at_mut(16);
    for (j, ((first, second), q)) in first.iter_mut().zip(second).zip(&block[8..24]).enumerate() {
        let (low, high) = five_bits(*q, fifth, j);
        (*first, *second) = (f32::from(low) * d + min, f32::from(high) * d + min);
    }
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block);
    for (out, q) in out.iter_mut().zip(&block[2..34]) {
        *out = f32::from(q.cast_signed()) * d;
    }
}

/// 16 groups of 16 weights: scales and minimums (16), quants (64), scale, scale of the minimums.
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(&block[80..]), half(&block[82..]));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let (which, shift, from) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
        let scale = scales[group];
        let (dl, ml) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
        for (out, q) in out.iter_mut().zip(&quants[which * 32 + from..]) {
            *out = dl * f32::from(q >> shift & 3) - ml;
        }
    }
}

/// 16 groups of 16 weights: high bits (32), quants (64), scales (12), scale.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (mask, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(&block[108..]);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        // Four bits of a scale in the first eight bytes, two more in the last four.
        let low = if group < 8 { packed[group] & 15 } else { packed[group - 8] >> 4 };
        let high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
        let dl = d * f32::from(i16::from(low | high << 4) - 32);
        let (which, shift, from) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
        let bit = 1u8 << (group / 2);
        let groups = quants[which * 32 + from..].iter().zip(&mask[from..]);
        for (out, (q, mask)) in out.iter_mut().zip(groups) {
            let low = i16::from(q >> shift & 3);
            *out = dl * f32::from(if mask & bit == 0 { low - 4 } else { low });
        }
    }
}

/// The scale and the minimum of 6 bits of one of 8 groups of 32 weights.
fn scale_and_min(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// 8 groups of 32 weights: scale, scale of the minimums, scales and minimums (12), quants (128).
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin, packed, quants) = (half(block), half(&block[2..]), &block[4..16], &block[16..144]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(packed, group);
        let (dl, ml, shift) = (d * scale, dmin * min, group % 2 * 4);
        for (out, q) in out.iter_mut().zip(&quants[group / 2 * 32..]) {
            *out = dl * f32::from(q >> shift & 15) - ml;
        }
    }
}

/// Like [`q4_k`], with the fifth bits (32) before the quants.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin, packed) = (half(block), half(&block[2..]), &block[4..16]);
    let (fifth, quants) = (&block[16..48], &block[48..176]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(packed, group);
        let (dl, ml, shift) = (d * scale, dmin * min, group % 2 * 4);
        for (out, (q, fifth)) in out.iter_mut().zip(quants[group / 2 * 32..].iter().zip(fifth)) {
            *out = dl * f32::from((q >> shift & 15) + (fifth >> group & 1) * 16) - ml;
        }
    }
}

/// 16 groups of 16 weights: low bits (128), high bits (64), scales (16), scale.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half(&block[208..]));
    for (row, out) in out.chunks_exact_mut(32).enumerate() {
        // Four rows of 32 share 64 bytes of low bits and 32 of high bits.
        let (half, row) = (row / 4, row % 4);
        let low = &low[half * 64 + row % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        for (l, (out, (low, high))) in out.iter_mut().zip(low.iter().zip(high)).enumerate() {
            let q = (low >> (row / 2 * 4) & 15) | (high >> (row * 2) & 3) << 4;
            let scale = scales[half * 8 + row * 2 + l / 16].cast_signed();
            *out = d * f32::from(scale) * f32::from(i16::from(q) - 32);
        }
    }
}

/// The largest absolute weight gets the largest absolute value, −8.
fn to_q4_0(block: &[f32], bytes: &mut Vec<u8>) {
    let most = block.iter().fold(0.0f32, |most, x| if x.abs() > most.abs() { *x } else { most });
    let d = most / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes.extend(f16::from_f32(d).to_le_bytes());
    let (low, high) = block.split_at(16);
    let quant = |x: f32| truncated(x * inverse + 8.5).min(15);
    bytes.extend(low.iter().zip(high).map(|(low, high)| quant(*low) | quant(*high) << 4));
}

fn to_q8_0(block: &[f32], bytes: &mut Vec<u8>) {
    let most = block.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let d = most / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes.extend(f16::from_f32(d).to_le_bytes());
    bytes.extend(block.iter().map(|x| rounded(x * inverse).cast_unsigned()));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the integer part, of numbers from 0.5 to 16.5"
)]
fn truncated(x: f32) -> u8 {
    x as u8
}

#[expect(clippy::cast_possible_truncation, reason = "rounded, of numbers from −127 to 127")]
fn rounded(x: f32) -> i8 {
    x.round() as i8
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    fn candles(kind: BlockType) -> GgmlDType {
        match kind {
            BlockType::Q4x0 => GgmlDType::Q4_0,
            BlockType::Q4x1 => GgmlDType::Q4_1,
            BlockType::Q5x0 => GgmlDType::Q5_0,
            BlockType::Q5x1 => GgmlDType::Q5_1,
            BlockType::Q8x0 => GgmlDType::Q8_0,
            BlockType::Q2K => GgmlDType::Q2K,
            BlockType::Q3K => GgmlDType::Q3K,
            BlockType::Q4K => GgmlDType::Q4K,
            BlockType::Q5K => GgmlDType::Q5K,
            BlockType::Q6K => GgmlDType::Q6K,
        }
    }

    #[test]
    fn every_type_is_dequantized_to_the_bits_that_candle_gives() {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        for kind in BlockType::ALL {
            let theirs = candles(kind);
            assert_eq!((theirs.block_size(), theirs.type_size()), (kind.len(), kind.bytes()), "{kind}");
            let count = 64;
            let mut bytes = vec![0; count * kind.bytes()];
            rng.fill_bytes(&mut bytes);
            // Scales that are numbers: random bits are infinite or none in one of thirty.
            for block in bytes.chunks_exact_mut(kind.bytes()) {
                let scales: &[usize] = match kind {
                    BlockType::Q4x0 | BlockType::Q5x0 | BlockType::Q8x0 => &[0],
                    BlockType::Q4x1 | BlockType::Q5x1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
                    BlockType::Q2K => &[80, 82],
                    BlockType::Q3K => &[108],
                    BlockType::Q6K => &[208],
                };
                for at in scales {
                    block[at + 1] &= 0xbf;
                }
            }
            let expected = theirs.from_data(bytes.clone().into());
            let storage = QTensor::new(QStorage::Cpu(expected), count * kind.len()).unwrap();
            let expected = storage.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
            let mut found = vec![0.0; expected.len()];
            Blocks::new(kind, bytes).unwrap().dequantize(0, &mut found).unwrap();
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&expected), "{kind}");
        }
    }

    #[test]
    fn weights_are_quantized_to_the_bytes_that_candle_gives() {
        let mut rng = ChaCha20Rng::from_seed([8; 32]);
        let mut weights: Vec<f32> = (0..960).map(|_| rng.next_u32() as f32 / 2_147_483_648.0 - 1.0).collect();
        weights[32..64].fill(0.0);
        let tensor = Tensor::new(weights.as_slice(), &Device::Cpu).unwrap();
        for kind in [BlockType::Q4x0, BlockType::Q8x0] {
            let expected = QTensor::quantize(&tensor, candles(kind)).unwrap();
            let found = Blocks::quantize(kind, &weights).unwrap();
            assert_eq!(found.as_bytes(), &*expected.data().unwrap(), "{kind}");
        }
        assert!(Blocks::quantize(BlockType::Q4x0, &weights[..33]).is_err());
        assert!(Blocks::quantize(BlockType::Q6K, &weights[..256]).is_err());
    }

    #[test]
    fn what_is_no_whole_block_is_refused() {
        assert!(Blocks::new(BlockType::Q8x0, vec![0; 35]).is_err());
        let blocks = Blocks::new(BlockType::Q8x0, vec![0; 68]).unwrap();
        assert_eq!(blocks.len(), 64);
        assert!(blocks.dequantize(16, &mut [0.0; 32]).is_err());
        assert!(blocks.dequantize(32, &mut [0.0; 64]).is_err());
        assert!(blocks.dequantize(32, &mut [0.0; 32]).is_ok());
    }
}
