//! A base's weights on a candle device.

use candle_core::{DType, Device, Result, Tensor};

use super::open::open;
use crate::backend::device::{CandleDevice, DeviceError};
use crate::base::Base;
use crate::kernels::matmul::Precision;
use crate::kernels::matrix::{Matrix, Numbers};
use crate::model::projection::Projection;
use crate::model::weights::BlockWeights;

/// Dtype of weight matrices on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// All as f32.
    F32,
    /// bf16 where the base holds bf16, else f32.
    Bf16,
}

/// A base's weights on a device.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(super) device: Device,
    /// (vocab, hidden).
    pub(super) embed: Tensor,
    pub(super) blocks: Vec<Block>,
    /// (hidden).
    pub(super) norm: Tensor,
    /// (vocab, hidden); `None` where the LM head is tied to the embedding.
    head: Option<Tensor>,
}

/// One decoder block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) input_norm: Tensor,
    pub(super) post_norm: Tensor,
    /// QK norms, where the model has them, of queries and of keys.
    pub(super) head_norms: Option<[Tensor; 2]>,
    /// In the order of [`Projection::ALL`].
    linears: Vec<Linear>,
}

/// `y = x · Wᵀ + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    /// (outputs, inputs).
    pub(super) weight: Tensor,
    /// (outputs).
    pub(super) bias: Option<Tensor>,
}

impl Held {
    /// The dtype for a device and a requested precision: a GPU multiplies bf16 faster than f32, candle's CPU
    /// slower.
    pub(crate) fn on(device: CandleDevice, precision: Option<Precision>) -> Self {
        if device.is_gpu() && precision != Some(Precision::F32) { Self::Bf16 } else { Self::F32 }
    }
}

impl Loaded {
    /// Copies a base's weights to a device; fails if it cannot be opened or the weights do not fit.
    pub(crate) fn new(
        base: &Base,
        on: CandleDevice,
        precision: Option<Precision>,
    ) -> std::result::Result<Self, DeviceError> {
        let device = open(on)?;
        Self::held(base, device, Held::on(on, precision))
            .map_err(|error| DeviceError::NotLoaded { device: on, reason: error.to_string() })
    }

    pub(super) fn held(base: &Base, device: Device, held: Held) -> Result<Self> {
        if base.config().gemma.is_some() {
            candle_core::bail!("a Gemma 3 is computed by our own kernels only");
        }
        let weights = base.weights();
        let blocks =
            weights.blocks.iter().map(|block| Block::new(block, held, &device)).collect::<Result<_>>()?;
        Ok(Self {
            embed: matrix(&weights.embed, held, &device)?,
            blocks,
            norm: vector(&weights.norm, &device)?,
            head: weights.head.as_ref().map(|head| matrix(head, held, &device)).transpose()?,
            device,
        })
    }

    /// The LM head, which may be tied to the embedding: (vocab, hidden).
    pub(super) fn head(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embed)
    }
}

impl Block {
    fn new(block: &BlockWeights, held: Held, device: &Device) -> Result<Self> {
        let linear = |projection: Projection| {
            let linear = block.linear(projection);
            let bias = linear.bias.as_ref().map(|bias| vector(bias, device)).transpose()?;
            Ok(Linear { weight: matrix(&linear.weight, held, device)?, bias })
        };
        let head_norms = match &block.head_norms {
            Some([q, k]) => Some([vector(q, device)?, vector(k, device)?]),
            None => None,
        };
        Ok(Self {
            input_norm: vector(&block.input_norm, device)?,
            post_norm: vector(&block.post_norm, device)?,
            head_norms,
            linears: Projection::ALL.into_iter().map(linear).collect::<Result<_>>()?,
        })
    }

    /// The linear layer of this projection.
    pub(super) fn linear(&self, projection: Projection) -> &Linear {
        &self.linears[projection as usize]
    }
}

/// Names the precision of products with `base` on a device, and the vendor's library that computes them, if
/// any.
pub(crate) fn numbers(base: &Base, device: CandleDevice, precision: Option<Precision>) -> String {
    let bf16 =
        |block: &BlockWeights| matches!(block.linear(Projection::Q).weight.numbers(), Numbers::Bf16(_));
    let held = match Held::on(device, precision) {
        Held::Bf16 if base.weights().blocks.iter().any(bf16) => "bf16",
        Held::Bf16 | Held::F32 => "f32",
    };
    device.library().map_or_else(|| held.to_owned(), |library| format!("{held} by {library}"))
}

/// `x · Wᵀ` in the dtype of `w`, as f32; `x`: (rows, inputs), `w`: (outputs, inputs).
pub(super) fn product(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.to_dtype(w.dtype())?.matmul(&w.t()?)?.to_dtype(DType::F32)
}

/// `dy · W`, the gradient of `x`, in the dtype of `w`, as f32.
pub(super) fn matmul_backward(dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    dy.to_dtype(w.dtype())?.matmul(w)?.to_dtype(DType::F32)
}

fn vector(numbers: &[f32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(numbers, numbers.len(), device)
}

fn matrix(matrix: &Matrix, held: Held, device: &Device) -> Result<Tensor> {
    let shape = (matrix.rows(), matrix.columns());
    match (matrix.numbers(), held) {
        (Numbers::Bf16(numbers), Held::Bf16) => Tensor::from_slice(numbers, shape, device),
        (Numbers::F32(numbers), _) => Tensor::from_slice(numbers, shape, device),
        (Numbers::Bf16(_) | Numbers::F16(_) | Numbers::Quantized(_), _) => {
            let mut numbers = vec![0.0f32; shape.0 * shape.1];
            matrix.widen(0..shape.0, &mut numbers).map_err(candle_core::Error::wrap)?;
            Tensor::from_vec(numbers, shape, device)
        }
    }
}
