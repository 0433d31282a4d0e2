//! Inputs of products that are made where they are packed, and the gradients of those that were.

use std::cell::RefCell;

use crate::kernels::matmul::{Made, Make, Rows, TOGETHER, in_shares};
use crate::kernels::pool::Team;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::swiglu::{swiglu_back_some, swiglu_some};
use crate::model::saved::{RowsToStore, Stored};

thread_local! {
    /// What each thread widens rows into, used again by its next ones.
    static OWN: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

/// The normed rows of `x`, which are rounded and kept too where there are places.
pub(super) fn normed<'a>(
    norm: RmsNorm<'a>,
    x: &'a [f32],
    places: Option<Vec<RowsToStore<'a>>>,
    memory: &'a mut Vec<f32>,
) -> Rows<'a> {
    let columns = norm.weight.len();
    let mut places = places.into_iter().flatten();
    let makes = x.chunks(TOGETHER * columns).map(|x| {
        let place = places.next();
        let make: Make<'_> = Box::new(move |out| {
            if let Some(mut place) = place {
                place.store(x);
            }
            norm.some(x, out);
        });
        make
    });
    let (rows, makes) = (x.len() / columns, makes.collect());
    Rows::Made(Made { rows, widths: vec![columns], makes, memory, wanted: false })
}

/// What becomes of the two halves of the feed-forward part, which are rounded and kept too where there are places.
pub(super) fn gated<'a>(
    (gate, up): (&'a [f32], &'a [f32]),
    columns: usize,
    places: Option<[Vec<RowsToStore<'a>>; 2]>,
    memory: &'a mut Vec<f32>,
) -> Rows<'a> {
    let mut places = places.into_iter().flat_map(|[gate, up]| gate.into_iter().zip(up));
    let halves = gate.chunks(TOGETHER * columns).zip(up.chunks(TOGETHER * columns));
    let makes = halves.map(|(gate, up)| {
        let place = places.next();
        let make: Make<'_> = Box::new(move |out| {
            if let Some((mut gate_place, mut up_place)) = place {
                gate_place.store(gate);
                up_place.store(up);
            }
            swiglu_some(out, gate, up);
        });
        make
    });
    let (rows, makes) = (gate.len() / columns, makes.collect());
    Rows::Made(Made { rows, widths: vec![columns], makes, memory, wanted: false })
}

/// The gradients of the two halves of the feed-forward part, side by side.
pub(super) fn halves_back<'a>(
    (gate, up): (&'a Stored, &'a Stored),
    dy: &'a [f32],
    columns: usize,
    (memory, wanted): (&'a mut Vec<f32>, bool),
) -> Rows<'a> {
    let halves = gate.parts(TOGETHER, columns).into_iter().zip(up.parts(TOGETHER, columns));
    let makes = halves.zip(dy.chunks(TOGETHER * columns)).map(|((gate, up), dy)| {
        let make: Make<'_> = Box::new(move |out| {
            OWN.with_borrow_mut(|[gate_memory, up_memory]| {
                let (gate, up) = (gate.read(gate_memory), up.read(up_memory));
                swiglu_back_some(columns, gate, up, dy, out);
            });
        });
        make
    });
    let (rows, makes) = (dy.len() / columns, makes.collect());
    Rows::Made(Made { rows, widths: vec![columns; 2], makes, memory, wanted })
}

/// `g`, to which the gradient of a norm's input `x` is added.
pub(super) fn norm_back<'a>(
    norm: RmsNorm<'a>,
    x: &'a Stored,
    dy: &'a [f32],
    g: &'a mut [f32],
    memory: &'a mut Vec<f32>,
) -> Rows<'a> {
    let (rows, columns) = (dy.len() / norm.weight.len(), norm.weight.len());
    let makes = add_back(norm, x, dy, g).map(|add| {
        let make: Make<'_> = Box::new(move |out| out.copy_from_slice(add()));
        make
    });
    let makes = makes.collect();
    Rows::Made(Made { rows, widths: vec![columns], makes, memory, wanted: false })
}

/// Adds the gradient of a norm's input `x` to `g`.
pub(super) fn norm_back_now(team: Team, norm: RmsNorm<'_>, x: &Stored, dy: &[f32], g: &mut [f32]) {
    let columns = norm.weight.len();
    let share = team.rows(dy.len().div_ceil(TOGETHER * columns), TOGETHER * columns);
    let parts = in_shares(add_back(norm, x, dy, g), share);
    team.each(parts, |part| {
        for add in part {
            add();
        }
    });
}

/// For every few rows, what adds the gradient to those of `g`, and gives them.
fn add_back<'a>(
    norm: RmsNorm<'a>,
    x: &'a Stored,
    dy: &'a [f32],
    g: &'a mut [f32],
) -> impl Iterator<Item = impl FnOnce() -> &'a mut [f32] + Send> {
    let columns = norm.weight.len();
    let parts = x.parts(TOGETHER, columns).into_iter().zip(dy.chunks(TOGETHER * columns));
    parts.zip(g.chunks_mut(TOGETHER * columns)).map(move |((x, dy), g)| {
        move || {
            OWN.with_borrow_mut(|[memory, _]| norm.some_back(x.read(memory), dy, g));
            g
        }
    })
}
