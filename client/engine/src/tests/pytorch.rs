//! Comparison with values computed by PyTorch and PEFT.

use super::*;

#[test]
fn loss_and_gradients_agree_with_pytorch_and_peft() {
    let engine = engine();
    let tensors =
        candle_core::safetensors::load(reference().join("reference.safetensors"), &Device::Cpu).unwrap();
    let spec = spec(engine.base(), Method::Both, 3, 5.0);
    let mut trained = vec![0.0; spec.trained_len()];
    let mut expected: Vec<(String, std::ops::Range<usize>, Vec<f32>)> = Vec::new();
    for slots in spec.slots() {
        for (factor, slot) in [("a", slots.a), ("b", slots.b)] {
            let Slot::Trained(range) = slot else { panic!("both factors are trained") };
            let name = format!("{factor}.{}", slots.module.name);
            trained[range.clone()].copy_from_slice(&numbers(&tensors[&name]));
            let gradient = numbers(&tensors[&format!("d{name}")]);
            expected.push((name, range, gradient));
        }
    }
    let tokens: Vec<Vec<f32>> = tensors["tokens"].to_vec2().unwrap();
    let batch: Vec<Vec<u32>> = tokens
        .iter()
        .map(|row| {
            row.iter().map(|x| (0..64).find(|&id| f64::from(id) + 0.5 > f64::from(*x)).unwrap()).collect()
        })
        .collect();
    let (loss, gradient) = gradient(&engine, &spec, (&[], &trained), &batch);
    let peft = tensors["loss"].to_scalar::<f32>().unwrap();
    assert!((loss - peft).abs() < 1e-5, "{loss}, PEFT {peft}");
    assert_eq!(expected.len(), 28);
    for (name, range, expected) in expected {
        let length = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let off: Vec<f32> = gradient[range].iter().zip(&expected).map(|(x, y)| x - y).collect();
        let relative = length(&off) / length(&expected);
        assert!(relative < 1e-4, "{name}: off by {relative:.1e}");
    }
}

/// PyTorch's 200 training steps on the base with its weights in bf16 (`make_curve.py`).
#[test]
fn two_hundred_steps_on_a_base_in_bf16_follow_pytorch_in_every_arithmetic() {
    let options = BaseOptions { dtype: WeightDtype::Bf16 };
    let base = Arc::new(Base::open_with(&reference().join("base"), options).unwrap());
    let load = |name: &str| candle_core::safetensors::load(reference().join(name), &Device::Cpu).unwrap();
    let (curve, given) = (load("curve.safetensors"), load("reference.safetensors"));
    let spec = spec(&base, Method::Both, 3, 5.0);
    let mut start = vec![0.0; spec.trained_len()];
    let mut first = start.clone();
    for slots in spec.slots() {
        for (factor, slot) in [("a", slots.a), ("b", slots.b)] {
            let Slot::Trained(range) = slot else { panic!("both factors are trained") };
            let name = format!("{factor}.{}", slots.module.name);
            start[range.clone()].copy_from_slice(&numbers(&given[&name]));
            first[range].copy_from_slice(&numbers(&curve[&format!("d{name}")]));
        }
    }
    let whole = |x: f32| (0..64).find(|&id| f64::from(id) + 0.5 > f64::from(x)).unwrap();
    let batches: Vec<Vec<Vec<f32>>> = curve["tokens"].to_vec3().unwrap();
    let batches: Vec<Vec<Vec<u32>>> = batches
        .into_iter()
        .map(|batch| batch.into_iter().map(|row| row.into_iter().map(whole).collect()).collect())
        .collect();
    let expected: Vec<f32> = curve["losses"].to_vec1().unwrap();
    let plan = TrainingPlan { local_steps: 200, learning_rate: 2e-3, warmup_steps: 0, ..plan() };
    let long = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for precision in [Precision::F32, Precision::fine(), Precision::fastest()] {
        let compute = Compute { precision: Some(precision), ..Compute::default() };
        let engine = Engine::new(Arc::clone(&base)).with_compute(compute);
        let mut optimizer = Optimizer::new(&plan, start.len());
        let mut trained = start.clone();
        let mut off_by = Vec::new();
        for (step, expected) in expected.iter().enumerate() {
            let (loss, mut gradient) = gradient(&engine, &spec, (&[], &trained), &batches[step % 4]);
            if step == 0 {
                let off: Vec<f32> = gradient.iter().zip(&first).map(|(x, y)| x - y).collect();
                let relative = long(&off) / long(&first);
                println!("{precision:?}: {relative:.1e}");
                let allowed = allowed(precision, 1e-4);
                assert!(relative < allowed, "{precision:?}: the gradient is off by {relative:.1e}");
            }
            off_by.push((loss / expected - 1.0).abs());
            optimizer.step(&mut trained, &mut gradient).unwrap();
        }
        // Rounding errors grow from step to step: Adam divides the smallest gradients by their own size.
        let early = off_by[..50].iter().copied().fold(0.0, f32::max);
        let mean = off_by.iter().sum::<f32>() / off_by.len() as f32;
        println!("{precision:?}: at most {early:.1e} off in the first 50 steps, {mean:.1e} on average");
        assert!(early < 0.01 && mean < 0.01, "{precision:?}: {early} {mean}");
    }
}
