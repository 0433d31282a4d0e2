use std::sync::{Arc, OnceLock};

use candle_core::{Device, Result, Tensor, Var};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

/// Numbers in −1 … 1.
fn random(seed: u8, len: usize) -> Vec<f32> {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    (0..len).map(|_| rng.next_u32() as f32 / 2_147_483_648.0 - 1.0).collect()
}

/// Compares the gradient of `Σ c · f(inputs)`, `c` random, with central differences, for every number of every input.
fn check(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let values = random(u8::try_from(i).unwrap() + 1, shape.iter().product());
            Var::from_vec(values, *shape, &Device::Cpu).unwrap()
        })
        .collect();
    let value = |tensors: &[Tensor]| {
        let y = f(tensors).unwrap();
        let c = Tensor::from_vec(random(77, y.elem_count()), y.shape(), &Device::Cpu).unwrap();
        (y * c).unwrap().sum_all().unwrap()
    };
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let gradients = value(&tensors).backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let numbers = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for at in 0..numbers.len() {
            let moved = |by: f32| {
                let (mut tensors, mut numbers) = (tensors.clone(), numbers.clone());
                numbers[at] += by;
                tensors[i] = Tensor::from_vec(numbers, var.shape(), &Device::Cpu).unwrap();
                f64::from(value(&tensors).to_scalar::<f32>().unwrap())
            };
            let expected = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            let found = f64::from(gradient[at]);
            assert!(
                (found - expected).abs() < 1e-3 * (1.0 + expected.abs()),
                "input {i} at {at}: {found}, by differences {expected}"
            );
        }
    }
}

#[test]
fn the_gradient_of_the_norm_agrees_with_differences() {
    check(&[&[3, 10], &[10]], |x| x[0].apply_op2(&x[1], RmsNorm { eps: 0.01 }));
}

#[test]
fn the_gradient_of_the_feed_forward_gate_agrees_with_differences() {
    check(&[&[3, 5], &[3, 5]], |x| x[0].apply_op2(&x[1], SwiGlu));
}

#[test]
fn the_gradient_of_a_linear_layer_agrees_with_differences() {
    let bias = Tensor::from_vec(random(9, 4), 4, &Device::Cpu).unwrap();
    check(&[&[3, 5], &[4, 5]], |x| x[0].apply_op2(&x[1], Linear { bias: Some(bias.clone()) }));
}

#[test]
fn the_gradient_of_a_changed_linear_layer_agrees_with_differences() {
    let weight = Tensor::from_vec(random(8, 20), (4, 5), &Device::Cpu).unwrap();
    let bias = Tensor::from_vec(random(9, 4), 4, &Device::Cpu).unwrap();
    check(&[&[3, 5], &[2, 5], &[4, 2]], |x| {
        let lora = LoraLinear {
            weight: weight.clone(),
            bias: Some(bias.clone()),
            scale: 2.5,
            changed: OnceLock::new(),
        };
        x[0].apply_op3(&x[1], &x[2], lora)
    });
}

#[test]
fn a_changed_linear_layer_is_the_sum_of_both_paths() {
    let tensor = |seed, shape: (usize, usize)| {
        Tensor::from_vec(random(seed, shape.0 * shape.1), shape, &Device::Cpu).unwrap()
    };
    let (x, w, a, b) = (tensor(1, (6, 5)), tensor(2, (4, 5)), tensor(3, (2, 5)), tensor(4, (4, 2)));
    let lora = LoraLinear { weight: w.clone(), bias: None, scale: 2.5, changed: OnceLock::new() };
    let together = x.apply_op3(&a, &b, lora).unwrap();
    let low = x.matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap();
    let apart = (x.matmul(&w.t().unwrap()).unwrap() + (low * 2.5).unwrap()).unwrap();
    let far = (together - apart).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(far < 1e-5, "{far}");
}

#[test]
fn the_gradient_of_the_embedding_agrees_with_differences() {
    check(&[&[5, 3]], |x| x[0].apply_op1(Embedding { tokens: vec![4, 0, 4, 2] }));
}

#[test]
fn frozen_inputs_get_no_gradient() {
    let x = Tensor::from_vec(random(1, 15), (3, 5), &Device::Cpu).unwrap();
    let a = Tensor::from_vec(random(2, 10), (2, 5), &Device::Cpu).unwrap();
    let b = Var::from_vec(random(3, 8), (4, 2), &Device::Cpu).unwrap();
    let weight = Tensor::from_vec(random(8, 20), (4, 5), &Device::Cpu).unwrap();
    let y = x
        .apply_op3(
            &a,
            &b,
            LoraLinear { weight: weight.clone(), bias: None, scale: 1.0, changed: OnceLock::new() },
        )
        .unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&b).is_some());
    assert!(gradients.get(&a).is_none() && gradients.get(&x).is_none() && gradients.get(&weight).is_none());
}

fn attention(batch: usize, length: usize, heads: usize, kv_heads: usize, width: usize) -> Attention {
    let rope = Arc::new(Rope::new(length, width, 100.0));
    Attention { batch, length, heads, kv_heads, width, rope, saved: OnceLock::new() }
}

#[test]
fn the_gradient_of_attention_with_shared_keys_agrees_with_differences() {
    check(&[&[2 * 5, 4 * 4], &[2 * 5, 2 * 4], &[2 * 5, 2 * 4]], |x| {
        x[0].apply_op3(&x[1], &x[2], attention(2, 5, 4, 2, 4))
    });
}

#[test]
fn the_gradient_of_attention_longer_than_one_tile_agrees_with_differences() {
    check(&[&[35, 2 * 2], &[35, 2], &[35, 2]], |x| x[0].apply_op3(&x[1], &x[2], attention(1, 35, 2, 1, 2)));
}

#[test]
fn attention_agrees_with_a_plain_loop() {
    // Longer than one tile of queries.
    let (batch, length, heads, kv_heads, width) = (2, 37, 6, 3, 4);
    let tensor = |seed, heads: usize| {
        let values = random(seed, batch * length * heads * width);
        Tensor::from_vec(values, (batch * length, heads * width), &Device::Cpu).unwrap()
    };
    let (q, k, v) = (tensor(1, heads), tensor(2, kv_heads), tensor(3, kv_heads));
    let found = q.apply_op3(&k, &v, attention(batch, length, heads, kv_heads, width)).unwrap();
    let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (q, k, v) = (numbers(&q), numbers(&k), numbers(&v));
    let turned = |x: &[f32], all: usize, b: usize, t: usize, h: usize| -> Vec<f64> {
        let row = &x[((b * length + t) * all + h) * width..][..width];
        let angle = |i: usize| t as f64 * 100f64.powf(-((2 * (i % 2)) as f64) / width as f64);
        let at = |i: usize| f64::from(row[i]);
        (0..width)
            .map(|i| {
                let other = if i < 2 { -at(i + 2) } else { at(i - 2) };
                at(i) * angle(i).cos() + other * angle(i).sin()
            })
            .collect()
    };
    for b in 0..batch {
        for h in 0..heads {
            for t in 0..length {
                let query = turned(&q, heads, b, t, h);
                let shared = h / (heads / kv_heads);
                let weights: Vec<f64> = (0..=t)
                    .map(|s| {
                        let key = turned(&k, kv_heads, b, s, shared);
                        (query.iter().zip(&key).map(|(x, y)| x * y).sum::<f64>() / 2.0).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for i in 0..width {
                    let value = |s: usize| f64::from(v[((b * length + s) * kv_heads + shared) * width + i]);
                    let expected: f64 = weights.iter().enumerate().map(|(s, w)| w / total * value(s)).sum();
                    let at = ((b * length + t) * heads + h) * width + i;
                    assert!((f64::from(found[at]) - expected).abs() < 1e-5, "{b} {h} {t} {i}");
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_the_loss_agrees_with_differences() {
    let sequences: [&[u32]; 2] = [&[3, 1, 6, 0], &[5, 5, 2, 4]];
    check(&[&[8, 3], &[7, 3]], |x| {
        let loss = CrossEntropy::new(&sequences, &x[0], &x[1]);
        (x[0].apply_op2(&x[1], loss)? * 10.0)?.reshape(1)
    });
}

#[test]
fn the_loss_of_equal_logits_is_the_logarithm_of_their_number() {
    let hidden = Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let weight = Tensor::from_vec(random(1, 22), (11, 2), &Device::Cpu).unwrap();
    let sequences: [&[u32]; 1] = [&[0, 10, 4]];
    let loss = hidden.apply_op2(&weight, CrossEntropy::new(&sequences, &hidden, &weight)).unwrap();
    assert!((loss.to_scalar::<f32>().unwrap() - 11f32.ln()).abs() < 1e-6);
}

#[test]
fn the_exponential_is_exact_to_two_units() {
    let mut x = -87.0f32;
    while x < 88.0 {
        let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
        assert!((found / expected - 1.0).abs() < 2.4e-7, "{x}: {found} {expected}");
        x += 0.0137;
    }
    assert!(exp(-1e9) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
}
