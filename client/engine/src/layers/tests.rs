//! Gradients compared with central differences, and vectorized functions with plain ones.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::attention::Attention;
use super::cross_entropy::{Loss, cross_entropy};
use super::rms_norm::RmsNorm;
use super::rope::Rope;
use super::swiglu::Gate;
use crate::kernels::matmul::{Precision, Scratch, Weight};
use crate::kernels::matrix::{Matrix, Numbers};
use crate::kernels::pool::Team;
use crate::kernels::simd::{exp, most, sum};

/// Uniform random values in −1 … 1.
fn random(seed: u8, len: usize) -> Vec<f32> {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    (0..len).map(|_| rng.next_u32() as f32 / 2_147_483_648.0 - 1.0).collect()
}

/// Compares gradients of `Σ c · f(inputs)`, `c` random, with central differences, for every element of every input.
///
/// `backward` takes the inputs and `c`, and returns the inputs' gradients.
fn check(
    lens: &[usize],
    f: impl Fn(&[Vec<f32>]) -> Vec<f32>,
    backward: impl Fn(&[Vec<f32>], &[f32]) -> Vec<Vec<f32>>,
) {
    let inputs: Vec<Vec<f32>> = (1..).zip(lens).map(|(seed, len)| random(seed, *len)).collect();
    let c = random(77, f(&inputs).len());
    let value = |inputs: &[Vec<f32>]| -> f64 {
        f(inputs).iter().zip(&c).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
    };
    let gradients = backward(&inputs, &c);
    assert_eq!(gradients.len(), inputs.len());
    for (i, gradient) in gradients.iter().enumerate() {
        assert_eq!(gradient.len(), inputs[i].len());
        for (at, found) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut inputs = inputs.clone();
                inputs[i][at] += by;
                value(&inputs)
            };
            let expected = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            assert!(
                (f64::from(*found) - expected).abs() < 1e-3 * (1.0 + expected.abs()),
                "input {i} at {at}: {found}, by differences {expected}"
            );
        }
    }
}

#[test]
fn the_gradient_of_the_norm_agrees_with_differences() {
    fn norm(weight: &[f32]) -> RmsNorm<'_> {
        RmsNorm { weight, eps: 0.01 }
    }
    check(
        &[3 * 19, 19],
        |x| {
            let mut y = vec![0.0; 3 * 19];
            norm(&x[1]).forward(Team::ALONE, &x[0], &mut y);
            y
        },
        |x, dy| {
            let (mut dx, mut dw) = (vec![0.0; 3 * 19], vec![0.0; 19]);
            norm(&x[1]).backward(Team::ALONE, &x[0], dy, &mut dx);
            norm(&x[1]).weight_backward(&x[0], dy, &mut dw);
            vec![dx, dw]
        },
    );
}

#[test]
fn the_gradient_of_the_feed_forward_gate_agrees_with_differences() {
    for gate in [Gate::Silu, Gate::Gelu] {
        check(
            &[15, 15],
            |x| {
                let mut y = vec![0.0; 15];
                gate.forward(Team::ALONE, &x[0], &x[1], &mut y);
                y
            },
            |x, dy| {
                // Three rows of five.
                let mut both = vec![0.0; 30];
                gate.backward_rows(5, &x[0], &x[1], dy, &mut both);
                let half =
                    |first: usize| both.chunks(10).flat_map(|row| row[first..first + 5].to_vec()).collect();
                vec![half(0), half(5)]
            },
        );
    }
}

#[test]
fn the_gradient_of_attention_agrees_with_differences() {
    // Two sequences, four heads that share two key/value heads; the longer length is more than one tile.
    for length in [5, 37] {
        let rope = Rope::new(length, &[1.0, 0.3]);
        let attention = Attention {
            length,
            past: 0,
            heads: 4,
            kv_heads: 2,
            width: 4,
            scale: 0.5,
            window: usize::MAX,
            rope: &rope,
        };
        let (q, kv) = (2 * length * 16, 2 * length * 8);
        let run = |x: &[Vec<f32>]| {
            let (mut q, mut k) = (x[0].clone(), x[1].clone());
            attention.rotate(Team::ALONE, &mut q, &mut k);
            let (mut out, mut logs) = (vec![0.0; q.len()], vec![0.0; 2 * length * 4]);
            attention.forward(Team::ALONE, (&q, &k, &x[2]), &mut out, &mut logs).unwrap();
            (q, k, out, logs)
        };
        let backward = |x: &[Vec<f32>], dout: &[f32]| {
            let (q, k, _, logs) = run(x);
            let (mut dq, mut dk, mut dv) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; k.len()]);
            let outputs = (&mut dq[..], &mut dk[..], &mut dv[..]);
            attention.backward(Team::ALONE, (&q, &k, &x[2]), (&logs, dout), outputs).unwrap();
            attention.rotate_backward(Team::ALONE, &mut dq, &mut dk);
            vec![dq, dk, dv]
        };
        if length == 5 {
            check(&[q, kv, kv], |x| run(x).2, backward);
            continue;
        }
        // Too many elements to test each: one random direction per input.
        let x = [random(1, q), random(2, kv), random(3, kv)];
        let c = random(77, q);
        let value = |x: &[Vec<f32>]| -> f64 {
            run(x).2.iter().zip(&c).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
        };
        let gradients = backward(&x, &c);
        for (i, gradient) in gradients.iter().enumerate() {
            let way = random(50, gradient.len());
            let moved = |by: f32| {
                let mut x = x.clone();
                x[i].iter_mut().zip(&way).for_each(|(x, w)| *x += by * w);
                value(&x)
            };
            let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            let found: f64 = gradient.iter().zip(&way).map(|(g, w)| f64::from(g * w)).sum();
            assert!(
                (found - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                "input {i}: {found} {expected}"
            );
        }
    }
}

#[test]
fn attention_that_goes_on_is_attention_of_the_whole() {
    let (length, past) = (41, 33);
    let rope = Rope::new(length, &[1.0, 0.3]);
    let shape = |length, past| Attention {
        length,
        past,
        heads: 4,
        kv_heads: 2,
        width: 4,
        scale: 0.5,
        window: usize::MAX,
        rope: &rope,
    };
    let (mut q, mut k, v) = (random(1, length * 16), random(2, length * 8), random(3, length * 8));
    let (mut later_q, mut later_k) = (q[past * 16..].to_vec(), k[past * 8..].to_vec());
    let (mut out, mut logs) = (vec![0.0; q.len()], vec![0.0; length * 4]);
    shape(length, 0).rotate(Team::ALONE, &mut q, &mut k);
    shape(length, 0).forward(Team::ALONE, (&q, &k, &v), &mut out, &mut logs).unwrap();
    let later = shape(length - past, past);
    later.rotate(Team::ALONE, &mut later_q, &mut later_k);
    let keys: Vec<f32> = k[..past * 8].iter().chain(&later_k).copied().collect();
    let (mut rest, mut logs) = (vec![0.0; later_q.len()], vec![0.0; (length - past) * 4]);
    later.forward(Team::ALONE, (&later_q, &keys, &v), &mut rest, &mut logs).unwrap();
    for (x, y) in rest.iter().zip(&out[past * 16..]) {
        assert!((x - y).abs() < 1e-5, "{x} {y}");
    }
}

#[test]
fn the_gradient_of_the_loss_agrees_with_differences() {
    let (rows, vocab, hidden) = (4, 7, 5);
    let next = [3, 0, 6, 2];
    let run = |x: &[Vec<f32>], share: f32, backward: bool| {
        let head = Matrix::new(vocab, hidden, Numbers::F32(x[1].clone())).unwrap();
        let (mut dh, mut dw) = (vec![0.0; rows * hidden], vec![0.0; vocab * hidden]);
        let loss = if backward { Loss::Rows { share, dh: &mut dh, dw: Some(&mut dw) } } else { Loss::Alone };
        let memory = (&mut Scratch::default(), &mut Vec::new());
        let weight = Weight { matrix: &head, pairs: [None; 2] };
        let inputs = (x[0].as_slice(), &next[..]);
        let total = cross_entropy(Team::ALONE, Precision::F32, memory, weight, inputs, loss).unwrap();
        (total, dh, dw)
    };
    #[expect(clippy::cast_possible_truncation, reason = "a test's value")]
    check(
        &[rows * hidden, vocab * hidden],
        |x| vec![run(x, 0.0, false).0 as f32],
        |x, c| {
            let (_, dh, dw) = run(x, c[0], true);
            vec![dh, dw]
        },
    );
}

/// The large gradients of a row are multiplied in f32, the rest in 8 bits.
#[test]
fn the_gradient_of_even_and_of_peaked_losses_is_as_fine_in_integers() {
    let (rows, vocab, hidden) = (6, 3000, 96);
    let next = [3, 0, 2999, 17, 640, 1300];
    let head = Matrix::new(vocab, hidden, Numbers::F32(random(5, vocab * hidden))).unwrap();
    let weight = Weight { matrix: &head, pairs: [None; 2] };
    let long = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let mut likely = 0;
    // Values of similar size, then with a few far larger than the others.
    for (scale, most) in [(0.01, 1.0), (0.3, 1.0), (1.0, 1.0), (3.0, 1.0), (0.3, 10.0), (0.3, 30.0)] {
        let mut h: Vec<f32> = random(6, rows * hidden).into_iter().map(|x| scale * x).collect();
        h.iter_mut().skip(5).step_by(48).for_each(|x| *x *= most);
        let run = |precision| {
            let (mut dh, mut dw) = (vec![0.0; rows * hidden], vec![0.0; vocab * hidden]);
            let loss = Loss::Rows { share: 0.5, dh: &mut dh, dw: Some(&mut dw) };
            let mut logits = Vec::new();
            let memory = (&mut Scratch::default(), &mut logits);
            let total = cross_entropy(Team::ALONE, precision, memory, weight, (&h, &next), loss).unwrap();
            likely += logits.iter().filter(|x| **x > 0.5).count();
            (total, dh, dw)
        };
        let (single, short, byte) = [Precision::F32, Precision::fine(), Precision::fastest()].map(run).into();
        for found in [short, byte] {
            println!("{scale}, {most}: {} {}", single.0, found.0);
            assert!((single.0 / found.0 - 1.0).abs() < 1e-3, "{scale}, {most}: {} {}", single.0, found.0);
            for (single, found) in [(&single.1, &found.1), (&single.2, &found.2)] {
                let off: Vec<f32> = single.iter().zip(found).map(|(x, y)| x - y).collect();
                let relative = long(&off) / long(single);
                println!("{scale}, {most}: {relative:.1e}");
                assert!(relative < 5e-3, "{scale}, {most}: the gradient is off by {relative:.1e}");
            }
        }
    }
    assert!(likely > 8 * rows, "no row had more than one likely token: {likely}");
}

#[test]
fn the_exponential_is_right_to_two_units_in_the_last_place() {
    for i in -8600..8600i16 {
        let x = f32::from(i) / 100.0;
        let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
        assert!((found / expected - 1.0).abs() < 2.5e-7, "{x}: {found} {expected}");
    }
}

#[test]
fn sums_and_largest_numbers_have_no_lane_left_out() {
    for len in [0, 1, 15, 16, 17, 63] {
        let x: Vec<f32> = (0..len).map(|i| f32::from(u16::try_from(i).unwrap()) - 20.0).collect();
        assert!((sum([&x], |[x]| x) - x.iter().sum::<f32>()).abs() < 1e-4);
        let expected = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!(most(&x).to_bits() == expected.to_bits());
    }
}
