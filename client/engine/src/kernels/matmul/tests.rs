//! Every path of the matrix products, compared with a plain loop in f64.

use half::{bf16, f16};

use super::*;
use crate::kernels::matmul::rows::side_by_side;
use crate::kernels::matrix::Numbers;
use crate::kernels::quantized::{BlockType, Blocks};
use crate::kernels::view::{View, ViewMut};

fn numbers(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * seed + (i / 7) as f32).sin() * (1.0 + (i % 5) as f32)).collect()
}

fn matrices(rows: usize, columns: usize) -> Vec<Matrix> {
    let plain = numbers(rows * columns, 0.37);
    let mut all = vec![
        Numbers::F32(plain.clone()),
        Numbers::F16(plain.iter().map(|x| f16::from_f32(*x)).collect()),
        Numbers::Bf16(plain.iter().map(|x| bf16::from_f32(*x)).collect()),
    ];
    if columns.is_multiple_of(32) {
        let blocks = Blocks::quantize(BlockType::Q8x0, &plain).unwrap();
        all.push(Numbers::Quantized(blocks));
    }
    all.into_iter().map(|numbers| Matrix::new(rows, columns, numbers).unwrap()).collect()
}

/// The largest error of `found` against `left · right + old` in f64, and the root mean square of `left · right`.
fn errors(found: &[f32], left: View<'_>, right: View<'_>, old: f64) -> (f64, f64) {
    let at = |view: &View<'_>, i: usize, j: usize| {
        f64::from(view.numbers[i * view.row_step + j * view.column_step])
    };
    let (mut most, mut square) = (0.0f64, 0.0f64);
    for i in 0..left.rows {
        for j in 0..right.columns {
            let dot: f64 = (0..left.columns).map(|k| at(&left, i, k) * at(&right, k, j)).sum();
            most = most.max((f64::from(found[i * right.columns + j]) - dot - old).abs());
            square += dot * dot;
        }
    }
    (most, (square / (left.rows * right.columns) as f64).sqrt())
}

fn in_pool(threads: usize, work: impl FnOnce(Team) + Send) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| work(Team::current()));
}

/// The precisions of this machine, with the allowed error.
fn precisions() -> Vec<(Precision, f64)> {
    let mut all = vec![(Precision::F32, 1e-5)];
    // Relative to the root mean square of the result, for the largest error of thousands of elements.
    for (integers, allowed) in [(Precision::Int16, 6e-3), (Precision::Int8, 0.2)] {
        if integers.or_finer() == integers {
            all.push((integers, allowed));
        } else {
            println!("there are no instructions for {integers:?}: it was not tried");
        }
    }
    all
}

#[test]
fn products_of_every_type_agree_with_a_plain_loop_in_both_directions() {
    for (rows, outputs, inputs) in
        [(1, 1, 1), (5, 47, 33), (8, 48, 64), (19, 130, 352), (21, 700, 96), (37, 150, 352)]
    {
        let x = numbers(rows * inputs, 0.91);
        let dy = numbers(rows * outputs, 0.53);
        let factors = (numbers(3 * inputs, 0.2), numbers(outputs * 3, 0.7));
        let pair = LowRank { scale: 0.25, rank: 3, a: &factors.0, b: &factors.1 };
        for matrix in matrices(outputs, inputs) {
            for pairs in [[None, None], [None, Some(pair)], [Some(pair), Some(pair)]] {
                let weight = Weight { matrix: &matrix, pairs };
                let mut wide = vec![0.0; outputs * inputs];
                weight.widen(0, &mut wide).unwrap();
                let w = View::whole(&wide, inputs);
                for (precision, allowed) in precisions() {
                    for threads in [1, 3] {
                        in_pool(threads, |team| {
                            let mut scratch = Scratch::default();
                            let (mut y, mut dx) = (vec![f32::NAN; rows * outputs], vec![2.0; rows * inputs]);
                            let products =
                                vec![(weight, Destination::overwrite(ViewMut::whole(&mut y, outputs)))];
                            let x = View::whole(&x, inputs);
                            forward(team, precision, &mut scratch, x, products).unwrap();
                            let (most, size) = errors(&y, x, w.t(), 0.0);
                            assert!(most <= allowed * size + 1e-5, "{matrix:?} {precision:?} {most} {size}");
                            let dy = View::whole(&dy, outputs);
                            let into = Destination::add(ViewMut::whole(&mut dx, inputs));
                            backward(team, precision, &mut scratch, dy, &[weight], into).unwrap();
                            let (most, size) = errors(&dx, dy, w, 2.0);
                            assert!(most <= allowed * size + 1e-5, "{matrix:?} {precision:?} {most} {size}");
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let (rows, outputs, inputs) = (37, 300, 160);
    let (x, dy) = (numbers(rows * inputs, 0.3), numbers(rows * outputs, 0.8));
    for matrix in matrices(outputs, inputs) {
        for (precision, _) in precisions() {
            let mut results = Vec::new();
            for threads in [1, 2, 5] {
                in_pool(threads, |team| {
                    let weight = Weight { matrix: &matrix, pairs: [None; 2] };
                    let (mut y, mut dx) = (vec![0.0; rows * outputs], vec![0.0; rows * inputs]);
                    let mut scratch = Scratch::default();
                    let products = vec![(weight, Destination::overwrite(ViewMut::whole(&mut y, outputs)))];
                    forward(team, precision, &mut scratch, View::whole(&x, inputs), products).unwrap();
                    let into = Destination::overwrite(ViewMut::whole(&mut dx, inputs));
                    let dy = View::whole(&dy, outputs);
                    backward(team, precision, &mut scratch, dy, &[weight], into).unwrap();
                    y.extend(dx);
                    results.push(y.into_iter().map(f32::to_bits).collect::<Vec<_>>());
                });
            }
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{matrix:?} {precision:?}");
        }
    }
}

#[test]
fn numbers_at_the_edges_neither_overflow_nor_hide() {
    let (rows, inner) = (9, 640);
    for (precision, allowed) in precisions() {
        // All values equal, which gives the largest sums; then one outlier among small values.
        for make in [|_: usize| 3.0e4f32, |i: usize| if i % 640 == 5 { 1e6 } else { 1.0 }] {
            let x: Vec<f32> = (0..rows * inner).map(make).collect();
            let matrix = Matrix::new(50, inner, Numbers::F32((0..50 * inner).map(make).collect())).unwrap();
            let mut y = vec![0.0; rows * 50];
            let weight = Weight { matrix: &matrix, pairs: [None; 2] };
            let products = vec![(weight, Destination::overwrite(ViewMut::whole(&mut y, 50)))];
            forward(Team::ALONE, precision, &mut Scratch::default(), View::whole(&x, inner), products)
                .unwrap();
            let expected: f64 = (0..inner).map(|i| f64::from(make(i)).powi(2)).sum();
            for y in y {
                assert!((f64::from(y) / expected - 1.0).abs() < allowed, "{precision:?}: {y} {expected}");
            }
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; rows * inner];
            x[3 * inner + 400] = bad;
            let matrix = Matrix::new(2, inner, Numbers::F32(vec![1.0; 2 * inner])).unwrap();
            let mut y = vec![0.0; rows * 2];
            let weight = Weight { matrix: &matrix, pairs: [None; 2] };
            let products = vec![(weight, Destination::overwrite(ViewMut::whole(&mut y, 2)))];
            forward(Team::ALONE, precision, &mut Scratch::default(), View::whole(&x, inner), products)
                .unwrap();
            assert!(!y[6].is_finite() && y[4].is_finite(), "{precision:?} {y:?}");
        }
    }
}

/// Two matrices side by side, computed when they are packed: the product is bit-identical to that of rows in memory.
#[test]
fn rows_that_are_made_give_the_bits_of_those_in_memory() {
    for rows in [7, 37] {
        made_rows(rows);
    }
}

fn made_rows(rows: usize) {
    let (outputs, inputs) = ([300, 130], 160);
    let dys: Vec<Vec<f32>> = outputs.iter().map(|outputs| numbers(rows * outputs, 0.8)).collect();
    let factors: Vec<_> =
        outputs.iter().map(|outputs| (numbers(3 * inputs, 0.2), numbers(outputs * 3, 0.7))).collect();
    let kinds = matrices(32, inputs).len();
    // Both of one type; then bf16 beside quantized, and quantized beside f32.
    let same = (0..kinds).map(|kind| [kind; 2]);
    for kind in same.chain([[2, kinds - 1], [kinds - 1, 0]]) {
        let of_kind = |i: usize| matrices(outputs[i], inputs).swap_remove(kind[i]);
        let weights: Vec<Matrix> = (0..2).map(of_kind).collect();
        for with_pair in [false, true] {
            let pairs = |i: usize| {
                let (a, b) = (&factors[i].0[..], &factors[i].1[..]);
                [None, with_pair.then_some(LowRank { scale: 0.25, rank: 3, a, b })]
            };
            let weights: Vec<_> = (0..2).map(|i| Weight { matrix: &weights[i], pairs: pairs(i) }).collect();
            for (precision, allowed) in precisions() {
                let views =
                    || outputs.iter().zip(&dys).map(|(outputs, dy)| View::whole(dy, *outputs)).collect();
                let run = |dys: Rows<'_>| {
                    let (mut dx, mut scratch) = (vec![2.0; rows * inputs], Scratch::default());
                    in_pool(2, |team| {
                        let into = Destination::add(ViewMut::whole(&mut dx, inputs));
                        backward(team, precision, &mut scratch, dys, &weights, into).unwrap();
                    });
                    dx
                };
                let expected = run(Rows::InMemory(views()));
                for wanted in [false, true] {
                    let mut memory = vec![f32::NAN; 5];
                    let makes = (0..rows).step_by(TILE_ROWS).map(|first| {
                        let views: Vec<View<'_>> = views();
                        let make: Make<'_> = Box::new(move |out| {
                            let row = views.iter().map(|view| view.columns).sum::<usize>();
                            for (i, out) in out.chunks_exact_mut(row).enumerate() {
                                let numbers = views.iter().flat_map(|view| view.row(first + i));
                                out.iter_mut().zip(numbers).for_each(|(out, x)| *out = *x);
                            }
                        });
                        make
                    });
                    let makes = makes.collect();
                    let made =
                        LazyRows { rows, widths: outputs.to_vec(), makes, memory: &mut memory, wanted };
                    let found = run(Rows::Lazy(made));
                    let case = format!("{kind:?} {precision:?}, pair {with_pair}, wanted {wanted}");
                    assert!(found.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits()), "{case}");
                    if wanted {
                        let there = side_by_side(&memory, &outputs);
                        for (view, dy) in there.iter().zip(&dys) {
                            let row = |i: usize| &dy[i * view.columns..(i + 1) * view.columns];
                            assert!((0..rows).all(|i| view.row(i) == row(i)), "{case}");
                        }
                    }
                }
                // And equal to the sum of both products, within the allowed error.
                let mut sum = vec![0.0f64; rows * inputs];
                for (weight, dy) in weights.iter().zip(&dys) {
                    let outputs = weight.matrix.rows();
                    let mut wide = vec![0.0; outputs * inputs];
                    weight.widen(0, &mut wide).unwrap();
                    for (at, sum) in sum.iter_mut().enumerate() {
                        let (i, j) = (at / inputs, at % inputs);
                        *sum += (0..outputs)
                            .map(|k| f64::from(dy[i * outputs + k]) * f64::from(wide[k * inputs + j]))
                            .sum::<f64>();
                    }
                }
                let size = (sum.iter().map(|x| x * x).sum::<f64>() / sum.len() as f64).sqrt();
                let most = expected.iter().zip(&sum).map(|(x, y)| (f64::from(*x) - y - 2.0).abs());
                let most = most.fold(0.0, f64::max);
                assert!(most <= allowed * size + 1e-5, "{kind:?} {precision:?}: {most} {size}");
            }
        }
    }
}
