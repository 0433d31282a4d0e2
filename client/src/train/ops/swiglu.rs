//! `y = gate · σ(gate) · up` (Shazeer 2020, arXiv 2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{read, sigmoid, slice};

/// `gate` and `up`: (rows, intermediate).
pub(crate) struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(gate, gate_layout)?, slice(up, up_layout)?);
        let y = gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u).collect();
        Ok((CpuStorage::F32(y), gate_layout.shape().clone()))
    }

    /// With `s = σ(gate)`: `dup = dy · gate · s`, `dgate = dy · up · s · (1 + gate · (1 − s))`.
    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (mut dgate, mut dup) = (vec![0.0f32; gate.elem_count()], vec![0.0f32; gate.elem_count()]);
        read(&dy.contiguous()?, |dy| {
            read(gate, |gate| {
                read(up, |up| {
                    let inputs = gate.iter().zip(up).zip(dy);
                    for ((dg, du), ((g, u), dy)) in dgate.iter_mut().zip(&mut dup).zip(inputs) {
                        let s = sigmoid(*g);
                        *du = dy * g * s;
                        *dg = dy * u * s * (1.0 + g * (1.0 - s));
                    }
                    Ok(())
                })
            })
        })?;
        let tensor = |values| Tensor::from_vec(values, gate.shape(), gate.device());
        Ok((Some(tensor(dgate)?), Some(tensor(dup)?)))
    }
}
