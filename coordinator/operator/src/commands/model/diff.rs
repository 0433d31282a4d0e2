//! `nightshift model diff`: by how much two versions differ, layer by layer.
//!
//! A version changes each matrix of the base by a product of low rank, `P`. Norms and inner products of two such are those of
//! the whole matrices, and follow from the factors: `⟨B₁·A₁, B₂·A₂⟩ = Σ (B₁ᵀ·B₂) ∘ (A₁·A₂ᵀ)`.

use std::collections::BTreeMap;

use clap::ValueEnum;
use coordinator::cli::CliError;
use proto::adapter::{AdapterError, FoldedPair, State};
use proto::admin::TaskStatus;
use proto::ids::TaskId;
use proto::linear::dot;
use serde::Serialize;

use crate::output::table;

/// What a line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::commands) enum By {
    /// One layer of the base, with all its matrices.
    Layer,
    /// One kind of matrix, such as `self_attn.q_proj`, in all layers.
    Matrix,
    /// Each matrix of each layer.
    Module,
}

/// How two versions differ.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    task: TaskId,
    from: u32,
    to: u32,
    all: Row,
    layers: Vec<Row>,
    matrices: Vec<Row>,
    modules: Vec<Row>,
}

/// How a part of two versions differs; each norm is of what a version adds to the base (Frobenius).
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    what: String,
    norm_from: f64,
    norm_to: f64,
    /// Of the difference.
    change: f64,
    /// The change over the norm of the first; none where that is 0.
    relative: Option<f64>,
    /// Of the angle between both; none where one is 0.
    cosine: Option<f64>,
}

/// Squares of both norms, and the inner product.
#[derive(Clone, Copy, Debug, Default)]
struct Inner {
    from: f64,
    to: f64,
    both: f64,
}

impl Inner {
    fn plus(self, other: Self) -> Self {
        Self { from: self.from + other.from, to: self.to + other.to, both: self.both + other.both }
    }

    fn row(self, what: &str) -> Row {
        let Self { from, to, both } = self;
        let (norm_from, norm_to) = (from.sqrt(), to.sqrt());
        // What rounds to less than nothing is nothing.
        let change = (from - 2.0 * both + to).max(0.0).sqrt();
        let cosine = (both / (norm_from * norm_to)).clamp(-1.0, 1.0);
        Row {
            what: what.to_owned(),
            norm_from,
            norm_to,
            change,
            relative: (norm_from > 0.0).then(|| change / norm_from),
            cosine: (norm_from > 0.0 && norm_to > 0.0).then_some(cosine),
        }
    }
}

/// How two versions of a task differ. Fails where they are not of one adapter.
pub(super) fn difference(
    task: &TaskStatus,
    (from, first): (u32, &State),
    (to, second): (u32, &State),
) -> Result<Difference, CliError> {
    let (first, second) =
        (products(first).map_err(CliError::internal)?, products(second).map_err(CliError::internal)?);
    let mut modules = Vec::new();
    for (x, y) in first.iter().zip(&second) {
        if x.module != y.module {
            return Err(CliError::Internal(format!(
                "both versions are of one plan, but one has {} where the other has {}",
                x.module.name, y.module.name
            )));
        }
        let inner = Inner { from: inner(x, x), to: inner(y, y), both: inner(x, y) };
        modules.push((x.module.name.clone(), inner));
    }
    let all = modules.iter().fold(Inner::default(), |sum, (_, inner)| sum.plus(*inner));
    let grouped = |name: &dyn Fn(&str) -> String| {
        let mut order = Vec::new();
        let mut sums = BTreeMap::<String, Inner>::new();
        for (module, inner) in &modules {
            let name = name(module);
            if !sums.contains_key(&name) {
                order.push(name.clone());
            }
            let sum = sums.entry(name).or_default();
            *sum = sum.plus(*inner);
        }
        order.iter().filter_map(|name| Some(sums.get(name)?.row(name))).collect::<Vec<Row>>()
    };
    Ok(Difference {
        task: task.task,
        from,
        to,
        all: all.row("all"),
        layers: grouped(&|module| parts(module).0),
        matrices: grouped(&|module| parts(module).1),
        modules: grouped(&str::to_owned),
    })
}

/// What a version adds to the base, matrix by matrix, the scale inside.
fn products(state: &State) -> Result<Vec<FoldedPair>, AdapterError> {
    let State { spec, frozen, folded, trained } = state;
    let pairs = spec.pairs(frozen, trained)?;
    Ok(folded.plus(&pairs, spec.rank, spec.scale(), u32::MAX).pairs().to_vec())
}

/// `⟨B₁·A₁, B₂·A₂⟩`.
fn inner(x: &FoldedPair, y: &FoldedPair) -> f64 {
    let rows = |pair: &FoldedPair| -> Vec<Vec<f64>> {
        let inputs = pair.module.inputs as usize;
        pair.a.chunks_exact(inputs.max(1)).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
    };
    let (xa, ya) = (rows(x), rows(y));
    let columns = |pair: &FoldedPair, rank: usize| -> Vec<Vec<f64>> {
        (0..rank).map(|k| pair.b.iter().skip(k).step_by(rank).map(|x| f64::from(*x)).collect()).collect()
    };
    let (xb, yb) = (columns(x, xa.len()), columns(y, ya.len()));
    let of = |(a, b): (&Vec<f64>, &Vec<f64>)| -> f64 {
        ya.iter().zip(&yb).map(|(other_a, other_b)| dot(a, other_a) * dot(b, other_b)).sum()
    };
    xa.iter().zip(&xb).map(of).sum()
}

/// The layer that a matrix is in, and what it is called there; both its own name where that has no layer.
fn parts(module: &str) -> (String, String) {
    let mut names = module.split('.');
    if names.any(|name| name == "layers")
        && let Some(layer) = names.next()
    {
        let rest: Vec<&str> = names.collect();
        return (format!("layer {layer}"), rest.join("."));
    }
    (module.to_owned(), module.to_owned())
}

pub(super) fn text(difference: &Difference, by: By) -> String {
    let (head, rows) = match by {
        By::Layer => ("LAYER", &difference.layers),
        By::Matrix => ("MATRIX", &difference.matrices),
        By::Module => ("MODULE", &difference.modules),
    };
    let cells = |row: &Row| {
        let number =
            |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"));
        vec![
            row.what.clone(),
            format!("{:.4}", row.norm_from),
            format!("{:.4}", row.norm_to),
            format!("{:.4}", row.change),
            number(row.relative),
            number(row.cosine),
        ]
    };
    let (from, to) = (format!("NORM OF {}", difference.from), format!("NORM OF {}", difference.to));
    let head = [head, &from, &to, "CHANGE", "RELATIVE", "COSINE"];
    let rows: Vec<Vec<String>> = rows.iter().chain([&difference.all]).map(cells).collect();
    table(&head, &rows)
}

#[cfg(test)]
mod tests {
    use proto::adapter::Module;

    use super::*;

    fn pair(name: &str, a: &[f32], b: &[f32], inputs: u32, outputs: u32) -> FoldedPair {
        FoldedPair { module: Module { name: name.into(), inputs, outputs }, a: a.to_vec(), b: b.to_vec() }
    }

    /// The whole matrix, row by row.
    fn dense(pair: &FoldedPair) -> Vec<f64> {
        let (inputs, outputs) = (pair.module.inputs as usize, pair.module.outputs as usize);
        let rank = pair.a.len() / inputs;
        let mut out = vec![0.0; inputs * outputs];
        for row in 0..outputs {
            for k in 0..rank {
                for column in 0..inputs {
                    let (a, b) = (pair.a[k * inputs + column], pair.b[row * rank + k]);
                    out[row * inputs + column] += f64::from(a) * f64::from(b);
                }
            }
        }
        out
    }

    #[test]
    fn the_inner_product_is_that_of_the_whole_matrices() {
        let x = pair("m", &[1.0, 2.0, 3.0, 0.5, -1.0, 2.0], &[1.0, 0.25, -2.0, 1.5], 3, 2);
        // Of another rank.
        let y = pair("m", &[0.5, 1.0, -1.0], &[2.0, 3.0], 3, 2);
        for (x, y) in [(&x, &y), (&x, &x), (&y, &y)] {
            let expected: f64 = dense(x).iter().zip(dense(y)).map(|(a, b)| a * b).sum();
            assert!((inner(x, y) - expected).abs() < 1e-12, "{} {expected}", inner(x, y));
        }
    }

    #[test]
    fn a_row_says_how_far_and_in_which_direction() {
        let twice = Inner { from: 4.0, to: 16.0, both: 8.0 }.row("m");
        assert_eq!((twice.norm_from, twice.norm_to, twice.change), (2.0, 4.0, 2.0));
        assert_eq!((twice.relative, twice.cosine), (Some(1.0), Some(1.0)));
        let back = Inner { from: 4.0, to: 4.0, both: -4.0 }.row("m");
        assert_eq!((back.change, back.relative, back.cosine), (4.0, Some(2.0), Some(-1.0)));
        let from_nothing = Inner { from: 0.0, to: 4.0, both: 0.0 }.row("m");
        assert_eq!((from_nothing.change, from_nothing.relative, from_nothing.cosine), (2.0, None, None));
    }

    #[test]
    fn a_matrix_has_a_layer_and_a_name_in_it() {
        let parts = |name| parts(name);
        assert_eq!(parts("model.layers.7.mlp.up_proj"), ("layer 7".into(), "mlp.up_proj".into()));
        assert_eq!(parts("lm_head"), ("lm_head".into(), "lm_head".into()));
    }
}
