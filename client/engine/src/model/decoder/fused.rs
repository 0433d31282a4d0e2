//! Norm, SwiGLU and their backward passes, fused into the packing of matrix products as lazy rows.

use std::cell::RefCell;

use crate::kernels::matmul::{LazyRows, Make, Rows, TILE_ROWS, in_shares};
use crate::kernels::pool::Team;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::swiglu::Gate;
use crate::model::saved::{RowsToSave, Saved};

thread_local! {
    /// Each thread's buffers for saved rows widened to f32.
    static THREAD_SCRATCH: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

/// The norm of `x`, as lazy rows; with `save_to`, `x` is also rounded and saved.
pub(super) fn normed<'a>(
    norm: RmsNorm<'a>,
    x: &'a [f32],
    save_to: Option<Vec<RowsToSave<'a>>>,
    memory: &'a mut Vec<f32>,
) -> Rows<'a> {
    let columns = norm.weight.len();
    let mut save_to = save_to.into_iter().flatten();
    let makes = x.chunks(TILE_ROWS * columns).map(|x| {
        let save = save_to.next();
        let make: Make<'_> = Box::new(move |out| {
            if let Some(mut save) = save {
                save.store(x);
            }
            norm.some(x, out);
        });
        make
    });
    let (rows, makes) = (x.len() / columns, makes.collect());
    Rows::Lazy(LazyRows { rows, widths: vec![columns], makes, memory, wanted: false })
}

/// The gated `up`, as lazy rows; with `save_to`, `gate` and `up` are also rounded and saved.
pub(super) fn gated<'a>(
    through: Gate,
    (gate, up): (&'a [f32], &'a [f32]),
    columns: usize,
    save_to: Option<[Vec<RowsToSave<'a>>; 2]>,
    memory: &'a mut Vec<f32>,
) -> Rows<'a> {
    let mut save_to = save_to.into_iter().flat_map(|[gate, up]| gate.into_iter().zip(up));
    let halves = gate.chunks(TILE_ROWS * columns).zip(up.chunks(TILE_ROWS * columns));
    let makes = halves.map(|(gate, up)| {
        let save = save_to.next();
        let make: Make<'_> = Box::new(move |out| {
            if let Some((mut gate_save, mut up_save)) = save {
                gate_save.store(gate);
                up_save.store(up);
            }
            through.rows(out, gate, up);
        });
        make
    });
    let (rows, makes) = (gate.len() / columns, makes.collect());
    Rows::Lazy(LazyRows { rows, widths: vec![columns], makes, memory, wanted: false })
}

/// Gradients of `gate` and `up`, side by side, from the gradient `dy` of what was gated, as lazy rows. If
/// `wanted`, they are also written to `memory`.
pub(super) fn lazy_gate_and_up_backward<'a>(
    through: Gate,
    (gate, up): (&'a Saved, &'a Saved),
    dy: &'a [f32],
    columns: usize,
    (memory, wanted): (&'a mut Vec<f32>, bool),
) -> Rows<'a> {
    let halves = gate.parts(TILE_ROWS, columns).into_iter().zip(up.parts(TILE_ROWS, columns));
    let makes = halves.zip(dy.chunks(TILE_ROWS * columns)).map(|((gate, up), dy)| {
        let make: Make<'_> = Box::new(move |out| {
            THREAD_SCRATCH.with_borrow_mut(|[gate_memory, up_memory]| {
                let (gate, up) = (gate.read(gate_memory), up.read(up_memory));
                through.backward_rows(columns, gate, up, dy, out);
            });
        });
        make
    });
    let (rows, makes) = (dy.len() / columns, makes.collect());
    Rows::Lazy(LazyRows { rows, widths: vec![columns; 2], makes, memory, wanted })
}

/// `g` plus the gradient of a norm's input `x`, as lazy rows; `g` is updated as they are made.
pub(super) fn lazy_norm_backward<'a>(
    norm: RmsNorm<'a>,
    x: &'a Saved,
    dy: &'a [f32],
    g: &'a mut [f32],
    memory: &'a mut Vec<f32>,
) -> Rows<'a> {
    let (rows, columns) = (dy.len() / norm.weight.len(), norm.weight.len());
    let makes = add_backward(norm, x, dy, g).map(|add| {
        let make: Make<'_> = Box::new(move |out| out.copy_from_slice(add()));
        make
    });
    let makes = makes.collect();
    Rows::Lazy(LazyRows { rows, widths: vec![columns], makes, memory, wanted: false })
}

/// Adds the gradient of a norm's input `x` to `g`.
pub(super) fn norm_backward_in_memory(team: Team, norm: RmsNorm<'_>, x: &Saved, dy: &[f32], g: &mut [f32]) {
    let columns = norm.weight.len();
    let share = team.rows(dy.len().div_ceil(TILE_ROWS * columns), TILE_ROWS * columns);
    let parts = in_shares(add_backward(norm, x, dy, g), share);
    team.each(parts, |part| {
        for add in part {
            add();
        }
    });
}

/// For every [`TILE_ROWS`] rows, a closure that adds the gradient of the norm's input to those of `g`, and
/// returns them.
fn add_backward<'a>(
    norm: RmsNorm<'a>,
    x: &'a Saved,
    dy: &'a [f32],
    g: &'a mut [f32],
) -> impl Iterator<Item = impl FnOnce() -> &'a mut [f32] + Send> {
    let columns = norm.weight.len();
    let parts = x.parts(TILE_ROWS, columns).into_iter().zip(dy.chunks(TILE_ROWS * columns));
    parts.zip(g.chunks_mut(TILE_ROWS * columns)).map(move |((x, dy), g)| {
        move || {
            THREAD_SCRATCH.with_borrow_mut(|[memory, _]| norm.rows_backward(x.read(memory), dy, g));
            g
        }
    })
}
