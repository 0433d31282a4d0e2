//! The output layer and the cross-entropy in one: no more logits exist at a time than one chunk of rows.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::gemm::{Matrix, MatrixMut, gemm};
use super::{exp, most, slice, sum};

/// Most logits that exist at a time.
const CHUNK: usize = 1 << 22;

/// Mean of `−log softmax(h · Wᵀ)[next token]` over all rows but the last of each sequence.
///
/// `h`: (batch · length, hidden), `w`: (vocab, hidden), result: (). The gradient, (softmax − one-hot) · W,
/// is made along with the loss, because it needs the same logits.
pub(crate) struct CrossEntropy {
    sequences: Vec<Vec<u32>>,
    wanted: Wanted,
    gradient: OnceLock<Gradient>,
}

/// Which gradients the loss will be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Loss,
    Hidden,
    HiddenAndWeight,
}

#[derive(Debug)]
struct Gradient {
    hidden: Vec<f32>,
    weight: Vec<f32>,
}

impl CrossEntropy {
    /// The loss of `sequences`, all of one length of two or more, with each token's rows in order in `hidden`.
    pub(crate) fn new(sequences: &[&[u32]], hidden: &Tensor, weight: &Tensor) -> Self {
        let wanted = match (hidden.track_op(), weight.track_op()) {
            (false, false) => Wanted::Loss,
            (true, false) => Wanted::Hidden,
            (_, true) => Wanted::HiddenAndWeight,
        };
        let sequences = sequences.iter().map(|sequence| sequence.to_vec()).collect();
        Self { sequences, wanted, gradient: OnceLock::new() }
    }
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        h: &CpuStorage,
        h_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (vocab, hidden) = w_layout.shape().dims2()?;
        let length = self.sequences.first().map_or(0, Vec::len);
        if length < 2 || h_layout.dims() != [self.sequences.len() * length, hidden] {
            bail!("{} sequences of {length} tokens do not fit {:?}", self.sequences.len(), h_layout.shape());
        }
        let targets = self.sequences.len() * (length - 1);
        let share = 1.0 / targets as f32;
        let (numbers, w) = (slice(h, h_layout)?, slice(w, w_layout)?);
        let mut gradient = Gradient {
            hidden: if self.wanted == Wanted::Loss { Vec::new() } else { vec![0.0; numbers.len()] },
            weight: if self.wanted == Wanted::HiddenAndWeight {
                vec![0.0; vocab * hidden]
            } else {
                Vec::new()
            },
        };
        let chunk = (CHUNK / vocab).max(1);
        let mut logits = vec![0.0; chunk.min(length - 1) * vocab];
        let mut total = 0.0f64;
        for (at, sequence) in self.sequences.iter().enumerate() {
            for first in (0..length - 1).step_by(chunk) {
                let rows = chunk.min(length - 1 - first);
                let from = at * length + first;
                let part = Matrix::whole(&numbers[from * hidden..(from + rows) * hidden], hidden);
                let logits = &mut logits[..rows * vocab];
                gemm(1.0, part, Matrix::whole(w, hidden).t(), 0.0, MatrixMut::whole(logits, vocab))?;
                for (row, &next) in logits.chunks_exact_mut(vocab).zip(&sequence[first + 1..]) {
                    let Some(next) = usize::try_from(next).ok().filter(|next| *next < vocab) else {
                        bail!("token {next} is not below {vocab}");
                    };
                    total += f64::from(row_loss(row, next, share));
                }
                if self.wanted == Wanted::Loss {
                    continue;
                }
                let logits = Matrix::whole(logits, vocab);
                let pull = &mut gradient.hidden[from * hidden..(from + rows) * hidden];
                gemm(1.0, logits, Matrix::whole(w, hidden), 0.0, MatrixMut::whole(pull, hidden))?;
                if self.wanted == Wanted::HiddenAndWeight {
                    gemm(1.0, logits.t(), part, 1.0, MatrixMut::whole(&mut gradient.weight, hidden))?;
                }
            }
        }
        if self.gradient.set(gradient).is_err() {
            bail!("a loss is computed once");
        }
        Ok((CpuStorage::F32(vec![narrow(total / targets as f64)]), ().into()))
    }

    fn bwd(
        &self,
        h: &Tensor,
        w: &Tensor,
        _loss: &Tensor,
        dloss: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(gradient) = self.gradient.get() else { bail!("a loss has a gradient after it is computed") };
        let factor = dloss.to_scalar::<f32>()?;
        let tensor = |values: &[f32], like: &Tensor| {
            Tensor::from_vec(
                values.iter().map(|x| x * factor).collect::<Vec<_>>(),
                like.shape(),
                like.device(),
            )
        };
        let dh = if h.track_op() { Some(tensor(&gradient.hidden, h)?) } else { None };
        let dw = if w.track_op() { Some(tensor(&gradient.weight, w)?) } else { None };
        Ok((dh, dw))
    }
}

/// The loss of one row of logits, which become `share · (softmax − one-hot)`.
fn row_loss(row: &mut [f32], next: usize, share: f32) -> f32 {
    let most = most(row);
    let chosen = row[next] - most;
    for x in &mut *row {
        *x = exp(*x - most);
    }
    let total = sum(|i| row[i], row.len());
    let factor = share / total;
    for x in &mut *row {
        *x *= factor;
    }
    row[next] -= share;
    total.ln() - chosen
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(x: f64) -> f32 {
    x as f32
}
