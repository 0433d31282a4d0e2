//! The way back through one block.

use candle_core::Result;

use super::Decoder;
use crate::train::base::Projection;
use crate::train::change::gradients;
use crate::train::gemm::gemm;
use crate::train::ops::{swiglu, swiglu_back};
use crate::train::product::{Add, Scratch, backward};
use crate::train::sized::sized;
use crate::train::view::{View, ViewMut};
use crate::train::wanted::Wanted;
use crate::train::weights::BlockWeights;
use crate::train::workspace::Workspace;

impl Decoder<'_> {
    /// From the gradient of a block's result in `space.g` to that of its input, which is made only if something
    /// `below` has a gradient.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing")]
    pub(super) fn block_back(
        &self,
        space: &mut Workspace,
        keep: usize,
        layer: usize,
        block: &BlockWeights,
        (batch, length): (usize, usize),
        wanted: &mut Wanted<'_>,
        below: bool,
    ) -> Result<()> {
        let (rows, hidden, team) = (batch * length, self.config.hidden_size, self.team);
        let Workspace {
            g,
            normed,
            dnormed,
            inner,
            dinner,
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
            ..
        } = space;
        let kept = &mut kept[keep];
        let g = &mut g[..rows * hidden];
        let learns = |wanted: &Wanted<'_>, projections: &[Projection]| {
            projections.iter().any(|projection| wanted.wants(self.changes, (layer, *projection)))
        };

        kept.gate.give(team, gate);
        kept.up.give(team, up);
        if learns(wanted, &[Projection::Down]) {
            swiglu(team, gate, up, sized(inner, gate.len()));
            self.linear_gradients(layer, block, inner, &[(Projection::Down, &*g)], wanted)?;
        }
        let dinner = sized(dinner, gate.len());
        self.backward(scratch, layer, block, &[(Projection::Down, &*g)], dinner)?;
        swiglu_back(team, gate, up, dinner);
        let norm = self.norm(&block.post_norm);
        let middle = kept.middle.read(team, earlier);
        let terms: [(_, &[f32]); 2] = [(Projection::Gate, gate), (Projection::Up, up)];
        if learns(wanted, &[Projection::Gate, Projection::Up]) {
            norm.forward(team, middle, sized(normed, rows * hidden));
            self.linear_gradients(layer, block, normed, &terms, wanted)?;
        }
        let dnormed = sized(dnormed, rows * hidden);
        self.backward(scratch, layer, block, &terms, dnormed)?;
        norm.backward(team, middle, dnormed, g);
        if let Some(rest) = wanted.embedding() {
            norm.weight_back(middle, dnormed, &mut rest.norms[layer][1]);
        }

        kept.q.give(team, q);
        kept.k.give(team, k);
        kept.v.give(team, v);
        if learns(wanted, &[Projection::O]) {
            kept.mixed.give(team, mixed);
            self.linear_gradients(layer, block, mixed, &[(Projection::O, &*g)], wanted)?;
        }
        let dmixed = sized(dmixed, q.len());
        self.backward(scratch, layer, block, &[(Projection::O, &*g)], dmixed)?;
        let attention = self.attention(length, 0);
        let (dq, dk, dv) = (sized(dq, q.len()), sized(dk, k.len()), sized(dv, v.len()));
        attention.backward(team, (q, k, v), (&kept.logs, dmixed), (dq, dk, dv))?;
        attention.turn_back(team, dq, dk);
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
        let x = kept.x.read(team, earlier);
        let terms: [(_, &[f32]); 3] = [(Projection::Q, dq), (Projection::K, dk), (Projection::V, dv)];
        if learns(wanted, &[Projection::Q, Projection::K, Projection::V]) {
            norm.forward(team, x, sized(normed, rows * hidden));
            self.linear_gradients(layer, block, normed, &terms, wanted)?;
        }
        if below {
            self.backward(scratch, layer, block, &terms, dnormed)?;
            norm.backward(team, x, dnormed, g);
            if let Some(rest) = wanted.embedding() {
                norm.weight_back(x, dnormed, &mut rest.norms[layer][0]);
            }
        }
        Ok(())
    }

    /// The gradient of a block's layers' common input.
    fn backward(
        &self,
        scratch: &mut Scratch,
        layer: usize,
        block: &BlockWeights,
        terms: &[(Projection, &[f32])],
        dx: &mut [f32],
    ) -> Result<()> {
        let mut inputs = 1;
        let mut products = Vec::with_capacity(terms.len());
        for (projection, dy) in terms {
            let matrix = &block.linear(*projection).weight;
            inputs = matrix.columns();
            products
                .push((View::whole(dy, matrix.rows()), self.changes.weight((layer, *projection), matrix)));
        }
        let dx = ViewMut::whole(dx, inputs);
        backward(self.team, self.arithmetic, scratch, &products, dx, Add::ToNothing)
    }

    /// What is wanted of some linear layers of one block with one input.
    fn linear_gradients(
        &self,
        layer: usize,
        block: &BlockWeights,
        x: &[f32],
        terms: &[(Projection, &[f32])],
        wanted: &mut Wanted<'_>,
    ) -> Result<()> {
        let mut changed = Vec::with_capacity(terms.len());
        let mut inputs = 1;
        for (projection, dy) in terms {
            let matrix = &block.linear(*projection).weight;
            inputs = matrix.columns();
            let (x, dy) = (View::whole(x, inputs), View::whole(dy, matrix.rows()));
            match wanted {
                Wanted::Adapter(_) => {
                    changed.extend(self.changes.layer((layer, *projection)).map(|change| (change, dy)));
                }
                Wanted::Weights(weights) => {
                    let Some(dw) = weights.linears.get_mut(&(layer, *projection)) else { continue };
                    let parts = ViewMut::whole(dw, inputs).row_parts(96).into_iter().enumerate().collect();
                    self.team.try_each(parts, |(i, dw): (usize, ViewMut<'_>)| {
                        gemm(1.0, dy.columns(i * 96..i * 96 + dw.rows()).t(), x, 1.0, dw)
                    })?;
                }
            }
        }
        match wanted {
            Wanted::Adapter(into) if !changed.is_empty() => {
                gradients(self.team, View::whole(x, inputs), &changed, into)
            }
            Wanted::Adapter(_) | Wanted::Weights(_) => Ok(()),
        }
    }
}
