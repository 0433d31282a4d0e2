//! The backward pass of one block.

use super::{Decoder, fused};
use crate::kernels::buffer::resized;
use crate::kernels::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::matmul::{Destination, Rows, Scratch, backward};
use crate::kernels::view::{View, ViewMut};
use crate::model::batch::BatchShape;
use crate::model::delta::gradients;
use crate::model::gradient_target::GradientTarget;
use crate::model::projection::Projection;
use crate::model::saved::Saved;
use crate::model::weights::BlockWeights;
use crate::model::workspace::Workspace;

impl Decoder<'_> {
    /// Turns the gradient of a block's output in `space.g` into that of its input, and adds the gradients of
    /// the block's weights to `wanted`.
    ///
    /// `keep` is the index of the block's saved activations. The input's gradient is only computed if something
    /// `below` has a gradient.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing")]
    pub(super) fn block_backward(
        &self,
        space: &mut Workspace,
        keep: usize,
        layer: usize,
        block: &BlockWeights,
        shape: BatchShape,
        wanted: &mut GradientTarget<'_>,
        below: bool,
    ) -> Result<()> {
        let (rows, hidden, team) = (shape.rows(), self.config.hidden_size, self.team);
        let Workspace {
            g,
            normed,
            dnormed,
            inner,
            dinner,
            dhalves,
            dmixed,
            dq,
            dk,
            dv,
            q,
            k,
            v,
            raw,
            mixed,
            gate,
            up,
            earlier,
            kept,
            scratch,
            output,
            ..
        } = space;
        let kept = &mut kept[keep];
        let g = &mut g[..rows * hidden];
        let learns = |wanted: &GradientTarget<'_>, projections: &[Projection]| {
            projections.iter().any(|projection| wanted.wants(self.deltas, (layer, *projection)))
        };

        let columns = self.config.intermediate_size;
        if learns(wanted, &[Projection::Down]) {
            let (gate, up) = (kept.gate.read(team, gate), kept.up.read(team, up));
            self.gate().forward(team, gate, up, resized(inner, rows * columns));
        }
        // Gradients of what attention and MLP gave, where that is normed before it is added to the stream.
        let output_backward =
            |norm: &[f32], kept: &Saved, g: &[f32], output: &mut Vec<f32>, earlier: &mut Vec<f32>| {
                let output = resized(output, rows * hidden);
                output.fill(0.0);
                self.norm(norm).backward(team, kept.read(team, earlier), g, output);
            };
        if let Some([_, norm]) = &block.output_norms {
            output_backward(norm, &kept.outputs[1], g, output, earlier);
        }
        let dy = if block.output_norms.is_some() { &output[..] } else { &g[..] };
        if learns(wanted, &[Projection::Down]) {
            let terms = [(Projection::Down, View::whole(dy, hidden))];
            self.linear_gradients(layer, block, inner, &terms, wanted)?;
        }
        let dinner = resized(dinner, rows * columns);
        let dy = View::whole(dy, hidden).into();
        self.backward(scratch, layer, block, dy, &[Projection::Down], dinner)?;
        let halves = [Projection::Gate, Projection::Up];
        let learned = learns(wanted, &halves);
        let dys = fused::lazy_gate_and_up_backward(
            self.gate(),
            (&kept.gate, &kept.up),
            dinner,
            columns,
            (dhalves, learned),
        );
        let dnormed = resized(dnormed, rows * hidden);
        self.backward(scratch, layer, block, dys, &halves, dnormed)?;
        let norm = self.norm(&block.post_norm);
        if learned {
            norm.forward(team, kept.middle.read(team, earlier), resized(normed, rows * hidden));
            let all = View::whole(dhalves, 2 * columns);
            let terms = [
                (Projection::Gate, all.columns(0..columns)),
                (Projection::Up, all.columns(columns..2 * columns)),
            ];
            self.linear_gradients(layer, block, normed, &terms, wanted)?;
        }
        if let Some(rest) = wanted.embedding() {
            norm.weight_backward(kept.middle.read(team, earlier), dnormed, &mut rest.norms[layer][1]);
        }
        let dmixed = resized(dmixed, rows * self.config.num_heads * self.config.head_dim);
        let dy = match &block.output_norms {
            None => fused::lazy_norm_backward(norm, &kept.middle, dnormed, g, normed),
            Some([attention, _]) => {
                fused::norm_backward_in_memory(team, norm, &kept.middle, dnormed, g);
                output_backward(attention, &kept.outputs[0], g, output, earlier);
                View::whole(output, hidden).into()
            }
        };
        self.backward(scratch, layer, block, dy, &[Projection::O], dmixed)?;
        if learns(wanted, &[Projection::O]) {
            kept.mixed.give(team, mixed);
            let dy = if block.output_norms.is_some() { &output[..] } else { &g[..] };
            let terms = [(Projection::O, View::whole(dy, hidden))];
            self.linear_gradients(layer, block, mixed, &terms, wanted)?;
        }

        kept.q.give(team, q);
        kept.k.give(team, k);
        kept.v.give(team, v);
        let attention = self.attention(layer, shape.sequence_len, 0);
        let (dq, dk, dv) = (resized(dq, q.len()), resized(dk, k.len()), resized(dv, v.len()));
        attention.backward(team, (q, k, v), (&kept.logs, dmixed), (dq, dk, dv))?;
        attention.rotate_backward(team, dq, dk);
        if let Some([q_norm, k_norm]) = &block.head_norms {
            let [raw_q, raw_k] = raw;
            kept.raw[0].give(team, raw_q);
            kept.raw[1].give(team, raw_k);
            for (raw, d, turned, weight) in
                [(raw_q, &mut *dq, &mut *q, q_norm), (raw_k, &mut *dk, &mut *k, k_norm)]
            {
                turned.copy_from_slice(d);
                d.fill(0.0);
                self.norm(weight).backward(team, raw, turned, d);
            }
        }
        let norm = self.norm(&block.input_norm);
        let views = [&*dq, &*dk, &*dv].map(|d| View::whole(d, d.len() / rows));
        let inputs = [Projection::Q, Projection::K, Projection::V];
        if learns(wanted, &inputs) {
            norm.forward(team, kept.x.read(team, earlier), resized(normed, rows * hidden));
            let terms: [_; 3] = std::array::from_fn(|i| (inputs[i], views[i]));
            self.linear_gradients(layer, block, normed, &terms, wanted)?;
        }
        if below {
            self.backward(scratch, layer, block, Rows::InMemory(views.to_vec()), &inputs, dnormed)?;
            fused::norm_backward_in_memory(team, norm, &kept.x, dnormed, g);
            if let Some(rest) = wanted.embedding() {
                norm.weight_backward(kept.x.read(team, earlier), dnormed, &mut rest.norms[layer][0]);
            }
        }
        Ok(())
    }

    /// Gradient of the common input of linear layers of a block: `dx = Σ dy · W`, with the LoRA deltas in `W`.
    fn backward(
        &self,
        scratch: &mut Scratch,
        layer: usize,
        block: &BlockWeights,
        dys: Rows<'_>,
        projections: &[Projection],
        dx: &mut [f32],
    ) -> Result<()> {
        let weight = |projection: &Projection| {
            self.deltas.weight((layer, *projection), &block.linear(*projection).weight)
        };
        let weights: Vec<_> = projections.iter().map(weight).collect();
        let inputs = weights.first().map_or(1, |weight| weight.matrix.columns());
        let dx = Destination::overwrite(ViewMut::whole(dx, inputs));
        backward(self.team, self.precision, scratch, dys, &weights, dx)
    }

    /// Adds to `wanted` the gradients of linear layers of one block that share the input `x`, given the
    /// gradients of their outputs in `terms`.
    fn linear_gradients(
        &self,
        layer: usize,
        block: &BlockWeights,
        x: &[f32],
        terms: &[(Projection, View<'_>)],
        wanted: &mut GradientTarget<'_>,
    ) -> Result<()> {
        let mut changed = Vec::with_capacity(terms.len());
        let mut inputs = 1;
        for (projection, dy) in terms {
            let matrix = &block.linear(*projection).weight;
            inputs = matrix.columns();
            let (x, dy) = (View::whole(x, inputs), *dy);
            match wanted {
                GradientTarget::Adapter(_) => {
                    changed.extend(self.deltas.layer((layer, *projection)).map(|delta| (delta, dy)));
                }
                GradientTarget::Weights(weights) => {
                    let Some(dw) = weights.linears.get_mut(&(layer, *projection)) else { continue };
                    let parts = ViewMut::whole(dw, inputs).row_parts(96).into_iter().enumerate().collect();
                    self.team.try_each(parts, |(i, dw): (usize, ViewMut<'_>)| {
                        gemm(1.0, dy.columns(i * 96..i * 96 + dw.rows()).t(), x, 1.0, dw)
                    })?;
                }
            }
        }
        match wanted {
            GradientTarget::Adapter(into) if !changed.is_empty() => {
                gradients(self.team, View::whole(x, inputs), &changed, into)
            }
            GradientTarget::Adapter(_) | GradientTarget::Weights(_) => Ok(()),
        }
    }
}
