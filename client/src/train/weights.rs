//! A decoder's frozen weights, held in the type in which they came.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use candle_core::quantized::{GgmlDType, QuantizedType};
use candle_core::{CpuStorage, Result, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::base::Projection;
use super::config::DecoderConfig;
use super::ops::{all_finite, largest_of, vectorised};

/// All weights of a decoder.
#[derive(Debug)]
pub(crate) struct Weights {
    /// (vocab, hidden).
    pub(crate) embed: Matrix,
    pub(crate) blocks: Vec<BlockWeights>,
    /// (hidden).
    pub(crate) norm: Vec<f32>,
    /// (vocab, hidden); none where it is the embedding.
    pub(crate) head: Option<Matrix>,
}

/// One decoder block.
#[derive(Debug)]
pub(crate) struct BlockWeights {
    /// (hidden).
    pub(crate) input_norm: Vec<f32>,
    /// (hidden).
    pub(crate) post_norm: Vec<f32>,
    /// (head width) each, of the queries and of the keys, where the family has them.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    /// In the order of [`Projection::ALL`].
    linears: [Linear; 7],
}

/// A linear layer `y = x · Wᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `W`: (outputs, inputs).
    pub(crate) weight: Matrix,
    /// (outputs).
    pub(crate) bias: Option<Vec<f32>>,
}

/// A matrix, row by row.
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    numbers: Numbers,
    /// The largest absolute number of each row, once it was asked for.
    largest: OnceLock<Vec<f32>>,
}

/// What a matrix's numbers are held as.
pub(crate) enum Numbers {
    /// Single precision.
    F32(Vec<f32>),
    /// Half precision.
    F16(Vec<f16>),
    /// The upper half of single precision.
    Bf16(Vec<bf16>),
    /// Blocks of a few bits a number; a row is a whole number of blocks.
    Quantized(Box<dyn QuantizedType>),
}

/// A tensor of a base as it was read, under its Hugging Face name.
#[derive(Debug)]
pub(crate) enum Read {
    /// Two dimensions.
    Matrix(Matrix),
    /// One dimension.
    Vector(Vec<f32>),
}

/// The tensors that a base of this shape must have, by their names in a Hugging Face folder.
pub(crate) fn tensor_shapes(config: &DecoderConfig) -> BTreeMap<String, Vec<usize>> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut shapes = BTreeMap::new();
    shapes.insert("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]);
    shapes.insert("model.norm.weight".to_owned(), vec![hidden]);
    if !config.tied {
        shapes.insert("lm_head.weight".to_owned(), vec![vocab, hidden]);
    }
    for layer in 0..config.num_layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.insert(format!("model.layers.{layer}.{norm}.weight"), vec![hidden]);
        }
        if config.qk_norm {
            for norm in ["q_norm", "k_norm"] {
                shapes.insert(format!("model.layers.{layer}.self_attn.{norm}.weight"), vec![config.head_dim]);
            }
        }
        for projection in Projection::ALL {
            let ((outputs, inputs), name) = (projection.shape(config), projection.name(layer));
            shapes.insert(format!("{name}.weight"), vec![outputs, inputs]);
            if has_bias(config, projection) {
                shapes.insert(format!("{name}.bias"), vec![outputs]);
            }
        }
    }
    shapes
}

fn has_bias(config: &DecoderConfig, projection: Projection) -> bool {
    match projection {
        Projection::Q | Projection::K | Projection::V => config.qkv_bias,
        Projection::O => config.output_bias,
        Projection::Gate | Projection::Up | Projection::Down => false,
    }
}

impl Weights {
    /// Puts tensors in their places; fails with the name of one of [`tensor_shapes`] that is not there, or that
    /// has another number of dimensions.
    pub(crate) fn new(
        config: &DecoderConfig,
        mut tensors: BTreeMap<String, Read>,
    ) -> std::result::Result<Self, String> {
        let matrix = |tensors: &mut BTreeMap<String, Read>, name: String| match tensors.remove(&name) {
            Some(Read::Matrix(matrix)) => Ok(matrix),
            Some(Read::Vector(_)) | None => Err(name),
        };
        let vector = |tensors: &mut BTreeMap<String, Read>, name: String| match tensors.remove(&name) {
            Some(Read::Vector(vector)) => Ok(vector),
            Some(Read::Matrix(_)) | None => Err(name),
        };
        let all = &mut tensors;
        let embed = matrix(all, "model.embed_tokens.weight".to_owned())?;
        let head = if config.tied { None } else { Some(matrix(all, "lm_head.weight".to_owned())?) };
        let mut blocks = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            let mut linears = Vec::with_capacity(Projection::ALL.len());
            for projection in Projection::ALL {
                let name = projection.name(layer);
                let weight = matrix(all, format!("{name}.weight"))?;
                let bias = if has_bias(config, projection) {
                    Some(vector(all, format!("{name}.bias"))?)
                } else {
                    None
                };
                linears.push(Linear { weight, bias });
            }
            let mut norm = |name: &str| vector(all, format!("model.layers.{layer}.{name}.weight"));
            let head_norms = if config.qk_norm {
                Some([norm("self_attn.q_norm")?, norm("self_attn.k_norm")?])
            } else {
                None
            };
            let (input_norm, post_norm) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
            let linears = linears.try_into().map_err(|_| Projection::Q.name(layer))?;
            blocks.push(BlockWeights { input_norm, post_norm, head_norms, linears });
        }
        let norm = vector(all, "model.norm.weight".to_owned())?;
        Ok(Self { embed, blocks, norm, head })
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = self.blocks.iter().flat_map(|block| &block.linears).map(|linear| &linear.weight);
        linears.chain([&self.embed]).chain(&self.head)
    }

    /// Whether any matrix is held as f32.
    pub(crate) fn is_single(&self) -> bool {
        self.matrices().any(|matrix| matches!(matrix.numbers, Numbers::F32(_)))
    }

    /// Numbers in all matrices.
    pub(crate) fn parameters(&self) -> usize {
        self.matrices().map(|matrix| matrix.rows * matrix.columns).sum()
    }

    /// The output layer: (vocab, hidden).
    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embed)
    }
}

impl BlockWeights {
    /// The linear layer of this projection.
    pub(crate) fn linear(&self, projection: Projection) -> &Linear {
        match projection {
            Projection::Q => &self.linears[0],
            Projection::K => &self.linears[1],
            Projection::V => &self.linears[2],
            Projection::O => &self.linears[3],
            Projection::Gate => &self.linears[4],
            Projection::Up => &self.linears[5],
            Projection::Down => &self.linears[6],
        }
    }
}

impl Matrix {
    /// A matrix of `rows` × `columns`; fails when there are not so many numbers.
    pub(crate) fn new(rows: usize, columns: usize, numbers: Numbers) -> Result<Self> {
        let found = match &numbers {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::F16(numbers) => numbers.len(),
            Numbers::Bf16(numbers) => numbers.len(),
            Numbers::Quantized(blocks) => {
                let (block, dtype) = (blocks.block_size(), blocks.dtype());
                if !columns.is_multiple_of(block) {
                    bail!("rows of {columns} are not whole blocks of {block} of {dtype:?}");
                }
                blocks.storage_size_in_bytes() / dtype.type_size() * block
            }
        };
        if rows.checked_mul(columns) != Some(found) {
            bail!("{rows} × {columns} are not {found} numbers");
        }
        Ok(Self { rows, columns, numbers, largest: OnceLock::new() })
    }

    /// A quantised matrix from the bytes of its blocks.
    pub(crate) fn quantized(rows: usize, columns: usize, dtype: GgmlDType, bytes: &[u8]) -> Result<Self> {
        let whole = columns.is_multiple_of(dtype.block_size());
        let expected =
            rows.checked_mul(columns / dtype.block_size()).and_then(|n| n.checked_mul(dtype.type_size()));
        if !whole || expected != Some(bytes.len()) {
            bail!("{rows} × {columns} of {dtype:?} are not {} bytes", bytes.len());
        }
        Self::new(rows, columns, Numbers::Quantized(dtype.from_data(bytes.into())))
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Writes whole rows as f32 to `out`, which is as long as they are.
    pub(crate) fn widen(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let range = rows.start * self.columns..rows.end * self.columns;
        if rows.end > self.rows || out.len() != range.len() {
            bail!("rows {rows:?} of {} × {} do not fit {}", self.rows, self.columns, out.len());
        }
        match &self.numbers {
            Numbers::F32(numbers) => out.copy_from_slice(&numbers[range]),
            Numbers::F16(numbers) => numbers[range].convert_to_f32_slice(out),
            Numbers::Bf16(numbers) => widen_all(&numbers[range], out),
            Numbers::Quantized(blocks) => {
                let Ok(ids) = rows.map(u32::try_from).collect::<std::result::Result<Vec<_>, _>>() else {
                    bail!("a row above 2^32");
                };
                let CpuStorage::F32(numbers) = blocks.embedding(&ids, self.rows, self.columns)? else {
                    bail!("dequantised numbers are not f32");
                };
                out.copy_from_slice(&numbers);
            }
        }
        Ok(())
    }

    /// The largest absolute number of each row; fails where a number is not finite.
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

    /// The same matrix, held as f32.
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
    /// The type's name as a person writes it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::F32(_) => "f32".to_owned(),
            Self::F16(_) => "f16".to_owned(),
            Self::Bf16(_) => "bf16".to_owned(),
            Self::Quantized(blocks) => format!("{:?}", blocks.dtype()),
        }
    }
}

vectorised! {
    /// Every number as f32, without a test for signalling NaNs, which costs more than all else.
    fn widen_all(half: &[bf16], x: &mut [f32]) {
        for (x, half) in x.iter_mut().zip(half) {
            *x = f32::from_bits(u32::from(half.to_bits()) << 16);
        }
    }
}
