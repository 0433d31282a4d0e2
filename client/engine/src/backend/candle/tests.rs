//! The decoder on candle's tensors against the one on our own kernels, on the CPU.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use proto::adapter::{AdapterSpec, Factors, Folded, Method, Slot};
use proto::ids::Digest;

use super::*;
use crate::backend::candle::memory::{GPU_ROWS, ROWS, gpu_rows};
use crate::backend::candle::weights::Held;
use crate::backend::compute::Compute;
use crate::backend::device::{Backend, CandleDevice};
use crate::backend::executor::Executor;
use crate::backend::partial_step::PartialStep;
use crate::base::{Base, Filled};
use crate::engine::Engine;
use crate::kernels::matmul::Precision;
use crate::lora::layout::AdapterLayout;
use crate::model::config::RopeScaling;
use crate::model::projection::Projection;

mod trainings;

const METHODS: [Method; 4] = [Method::FrozenA, Method::FrozenB, Method::Core, Method::Both];

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

/// Bases with biases, with QK norms, with a tied or untied LM head, with RoPE scaling, in every dtype of files.
fn bases() -> Vec<(String, Arc<Base>)> {
    let families = ["llama", "smollm2", "llama3", "linear", "mistral", "qwen2", "qwen3"];
    let families = families.map(|name| format!("families/{name}"));
    let files = ["q8_0", "q4_0", "k"].map(|name| format!("gguf/{name}.gguf"));
    let open = |name: String| (name.clone(), Arc::new(Base::open(&reference(&name)).unwrap()));
    families.into_iter().chain(files).map(open).collect()
}

/// Engines of the same base, with our own kernels in f32 and with candle's operations.
fn both_ways(base: &Arc<Base>, recompute: Recompute) -> [Engine; 2] {
    [Backend::Cpu, Backend::Candle(CandleDevice::Cpu)].map(|backend| {
        let compute = Compute { threads: 1, precision: Some(Precision::F32), recompute, backend };
        Engine::new(Arc::clone(base)).with_compute(compute)
    })
}

fn spec(base: &Base, method: Method, rank: u32, projections: &[Projection]) -> AdapterSpec {
    let modules = base.modules(projections);
    AdapterSpec { method, rank, alpha: 5.0, factors: Factors::Seeded(Digest([4; 32])), modules }
}

/// Frozen factors and a trained vector of which no part is zero.
fn vectors(spec: &AdapterSpec) -> (Vec<f32>, Vec<f32>) {
    let frozen = spec.seeded_factors(&Digest([4; 32]));
    let trained = (0..spec.trained_len()).map(|i| 0.2 * (i as f32 * 1.7).sin()).collect();
    (frozen, trained)
}

/// Sequences with loss masks: the first all targets, the second none, the others some.
fn batch(count: usize, length: usize, vocab: u32) -> Vec<(Vec<u32>, Vec<bool>)> {
    let sequence = |b: usize| {
        let token = |i: usize| u32::try_from((i * i * 7 + i / 3 + b * 5) % vocab as usize).unwrap();
        let learned = |i: usize| b == 0 || (b > 1 && (i + b).is_multiple_of(3));
        ((0..length).map(token).collect(), (0..length).map(learned).collect())
    };
    (0..count).map(sequence).collect()
}

fn gradient(
    engine: &Engine,
    spec: &AdapterSpec,
    (frozen, trained): (&[f32], &[f32]),
    batch: &[(Vec<u32>, Vec<bool>)],
) -> (f32, Vec<f32>) {
    let batch: Vec<_> = batch.iter().map(|(tokens, learned)| Sequence { tokens, learned }).collect();
    let places = AdapterLayout::new(engine.base(), spec).unwrap();
    let longest = batch.iter().map(|sequence| sequence.tokens.len()).max().unwrap();
    let mut executor = Executor::new(engine.setup(), longest);
    let deltas = executor.deltas(&places, frozen, trained).unwrap();
    let mut partial = PartialStep::default();
    let (loss, gradient) =
        executor.gradient(&deltas, trained.len(), &batch, &mut partial, |_, _| true).unwrap().unwrap();
    let targets: usize = batch.iter().map(Sequence::targets).sum();
    let alone = executor.loss(&deltas, &batch).unwrap() / targets.max(1) as f64;
    assert!((alone - f64::from(loss)).abs() <= 1e-5 * alone, "without a gradient {alone}, with one {loss}");
    (loss, gradient)
}

fn long(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// Relative L2 error of `found`.
fn off(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f32> = found.iter().zip(expected).map(|(x, y)| x - y).collect();
    long(&difference) / long(expected)
}

/// Asserts that candle's loss and each trained factor's gradient are those of our own kernels.
fn assert_same(name: &str, engines: &[Engine; 2], spec: &AdapterSpec, batch: &[(Vec<u32>, Vec<bool>)]) {
    let (frozen, trained) = vectors(spec);
    let [own, candle] = engines.each_ref().map(|engine| gradient(engine, spec, (&frozen, &trained), batch));
    let name = format!("{name} {:?}", spec.method);
    assert!((candle.0 - own.0).abs() < 1e-4 * own.0, "{name}: {} {}", candle.0, own.0);
    for slots in spec.slots() {
        let trained = [slots.a, slots.b].into_iter().filter_map(|slot| match slot {
            Slot::Trained(range) => Some(range),
            Slot::Frozen(_) => None,
        });
        for range in trained.chain(slots.core) {
            let off = off(&candle.1[range.clone()], &own.1[range]);
            assert!(off < 1e-4, "{name} {}: off by {off:.1e}", slots.module.name);
        }
    }
}

#[test]
fn the_loss_and_every_gradient_are_those_of_our_own_kernels_for_every_family_and_method() {
    for (name, base) in bases() {
        let vocab = u32::try_from(base.config().vocab_size).unwrap();
        let batch = batch(5, 12, vocab);
        for recompute in [Recompute::Never, Recompute::Blocks] {
            let engines = both_ways(&base, recompute);
            for method in METHODS {
                assert_same(&name, &engines, &spec(&base, method, 2, &Projection::ALL), &batch);
            }
        }
    }
}

#[test]
fn a_part_of_an_adapter_has_the_same_gradient_as_with_our_own_kernels() {
    let base = Arc::new(Base::random(shape(), Filled::F32, 5).unwrap());
    let engines = both_ways(&base, Recompute::Never);
    let batch = batch(3, 20, 96);
    for projection in Projection::ALL {
        for rank in [1, 3] {
            let mut spec = spec(&base, Method::Both, rank, &[projection]);
            assert_same("one projection", &engines, &spec, &batch);
            // The top block alone.
            spec.modules.remove(0);
            assert_same("one layer", &engines, &spec, &batch);
        }
    }
}

#[test]
fn what_earlier_epochs_left_stands_under_the_training() {
    let base = Arc::new(Base::open(&reference("families/qwen2")).unwrap());
    let spec = spec(&base, Method::FrozenA, 2, &Projection::ALL);
    let (frozen, trained) = vectors(&spec);
    let pairs = spec.pairs(&frozen, &trained).unwrap();
    let folded = Folded::default().plus(&pairs, 2, 1.5, 8);
    let batch = batch(3, 12, u32::try_from(base.config().vocab_size).unwrap());
    let plain = both_ways(&base, Recompute::Never);
    let engines = plain.each_ref().map(|engine| engine.with_folded(&folded).unwrap());
    assert_same("folded", &engines, &spec, &batch);
    let loss = |engine: &Engine| gradient(engine, &spec, (&frozen, &trained), &batch).0;
    assert!((loss(&engines[1]) - loss(&plain[1])).abs() > 1e-2, "what was left changes nothing");
}

#[test]
fn sequences_longer_than_one_tile_of_queries_and_of_two_lengths_have_the_same_gradient() {
    let config = DecoderConfig { max_positions: 2 * attention::QUERIES + 100, ..shape() };
    let base = Arc::new(Base::random(config, Filled::F32, 5).unwrap());
    let engines = both_ways(&base, Recompute::Never);
    let mut both = batch(1, 2 * attention::QUERIES + 7, 96);
    both.extend(batch(3, 30, 96));
    assert_same("long", &engines, &spec(&base, Method::Both, 2, &Projection::ALL), &both);
}

#[test]
fn a_batch_of_which_nothing_is_learned_has_no_loss_and_no_gradient() {
    let base = Arc::new(Base::random(shape(), Filled::F32, 5).unwrap());
    let spec = spec(&base, Method::Both, 2, &Projection::ALL);
    let (frozen, trained) = vectors(&spec);
    let batch = vec![((0..12).collect(), vec![false; 12])];
    for engine in both_ways(&base, Recompute::Never) {
        let (loss, gradient) = gradient(&engine, &spec, (&frozen, &trained), &batch);
        assert!(loss.abs() < f32::MIN_POSITIVE && gradient.iter().all(|x| *x == 0.0), "{loss}");
        assert_eq!(gradient.len(), trained.len());
    }
}

#[test]
fn a_step_that_stops_before_anything_is_learned_goes_on_with_the_same_bits() {
    let base =
        Arc::new(Base::random(DecoderConfig { max_positions: 300, ..shape() }, Filled::F32, 5).unwrap());
    let spec = spec(&base, Method::Both, 2, &Projection::ALL);
    let (frozen, trained) = vectors(&spec);
    let batch: Vec<_> = batch(3, 300, 96).into_iter().skip(1).collect();
    let batch: Vec<_> = batch.iter().map(|(tokens, learned)| Sequence { tokens, learned }).collect();
    let [_, engine] = both_ways(&base, Recompute::Never);
    let places = AdapterLayout::new(engine.base(), &spec).unwrap();
    let mut executor = Executor::new(engine.setup(), 300);
    let deltas = executor.deltas(&places, &frozen, &trained).unwrap();
    let mut gradient = |partial: &mut PartialStep, go_on: bool| {
        executor.gradient(&deltas, trained.len(), &batch, partial, |_, _| go_on).unwrap()
    };
    let whole = gradient(&mut PartialStep::default(), true).unwrap();
    let mut partial = PartialStep::default();
    assert_eq!(gradient(&mut partial, false), None);
    assert_eq!((partial.micro_batches, partial.sequences, partial.gradient.len()), (1, 1, 0));
    assert_eq!(gradient(&mut partial, false), Some(whole));
}

/// bf16 weights as on a GPU, but on the CPU: candle's CPU widens bf16 for each product and rounds the result.
#[test]
fn weights_in_bf16_give_the_gradient_to_their_own_rounding() {
    let base = Arc::new(Base::random(shape(), Filled::Bf16, 5).unwrap());
    let spec = spec(&base, Method::Both, 2, &Projection::ALL);
    let (frozen, trained) = vectors(&spec);
    let places = AdapterLayout::new(&base, &spec).unwrap();
    let deltas = places.deltas(&frozen, &trained).unwrap();
    let batch = batch(3, 20, 96);
    let batch: Vec<_> = batch.iter().map(|(tokens, learned)| Sequence { tokens, learned }).collect();
    let [(loss, exact), (rounded_loss, rounded)] = [Held::F32, Held::Bf16].map(|held| {
        let loaded = Loaded::held(&base, Device::Cpu, held).unwrap();
        let decoder =
            Decoder::new(base.config(), &loaded, &FoldedDeltas::default(), Recompute::Never, 20).unwrap();
        let (adapter, mut sum) = (decoder.adapter(&deltas).unwrap(), decoder.gradients(&[]).unwrap());
        let loss = decoder.gradient(&adapter, &batch, 0.01, &mut sum).unwrap();
        (loss, sum.into_vec(trained.len()).unwrap())
    });
    let off = off(&rounded, &exact);
    assert!(
        (rounded_loss / loss - 1.0).abs() < 1e-2 && off < 2e-2,
        "{rounded_loss} {loss}, off by {off:.1e}"
    );
    assert!(off > 1e-5, "nothing was rounded");
}

#[test]
fn what_a_device_holds_follows_from_the_device_and_what_was_asked_for() {
    for device in [CandleDevice::Cuda(0), CandleDevice::Metal(0)] {
        assert_eq!(Held::on(device, None), Held::Bf16);
        assert_eq!(Held::on(device, Some(Precision::Int16)), Held::Bf16);
        assert_eq!(Held::on(device, Some(Precision::F32)), Held::F32);
    }
    assert_eq!(Held::on(CandleDevice::Cpu, Some(Precision::Int16)), Held::F32);
    let half = Base::random(shape(), Filled::Bf16, 5).unwrap();
    let compute = |backend, precision| Compute { precision, backend, ..Compute::default() };
    let gpu = Backend::Candle(CandleDevice::Cuda(0));
    assert_eq!(compute(gpu, None).precision_name(&half), "bf16");
    assert_eq!(compute(gpu, Some(Precision::F32)).precision_name(&half), "f32");
    assert_eq!(compute(gpu, None).precision_name(&Base::random(shape(), Filled::F32, 5).unwrap()), "f32");
    let cpu = compute(Backend::Candle(CandleDevice::Cpu), None).precision_name(&half);
    assert!(cpu.starts_with("f32"), "{cpu}");
}

#[test]
fn what_passes_take_is_bounded_and_known() {
    let base = Base::random(shape(), Filled::F32, 5).unwrap();
    let config = base.config();
    let backend = |device| Compute { backend: Backend::Candle(device), ..Compute::default() };
    let (cpu, gpu) = (backend(CandleDevice::Cpu), backend(CandleDevice::Cuda(0)));
    // All matrices and a few vectors; the largest matrix.
    let copied = cpu.copied_bytes(config);
    let matrices = 4 * base.parameters() as u64;
    assert!(copied > matrices && copied < matrices + matrices / 10, "{copied} {matrices}");
    assert_eq!(gpu.copied_bytes(config), 4 * 96 * 48);
    assert_eq!(Compute::default().copied_bytes(config), 0);
    let batch = |batch_size, sequence_len| BatchShape { batch_size, sequence_len };
    // More rows than those of a micro-batch take no more memory.
    assert_eq!(cpu.needed_bytes(&base, batch(ROWS, 4)), cpu.needed_bytes(&base, batch(ROWS / 4, 4)));
    assert!(cpu.needed_bytes(&base, batch(ROWS / 4, 4)) > cpu.needed_bytes(&base, batch(ROWS / 8, 4)));
    // But one sequence is never split.
    assert!(cpu.needed_bytes(&base, batch(1, 4 * ROWS)) > 3 * cpu.needed_bytes(&base, batch(1, ROWS)));
    assert_eq!(gpu.needed_bytes(&base, batch(ROWS, 4)), 0);
    assert_eq!(gpu_rows(config, Recompute::Never, 60), GPU_ROWS);
    let large = DecoderConfig {
        hidden_size: 4096,
        intermediate_size: 11_008,
        num_layers: 32,
        num_heads: 32,
        num_kv_heads: 32,
        head_dim: 128,
        ..shape()
    };
    let (never, blocks) =
        [Recompute::Never, Recompute::Blocks].map(|recompute| gpu_rows(&large, recompute, 2048)).into();
    assert!(never >= 256 && blocks > 2 * never && blocks <= GPU_ROWS, "{never} {blocks}");
    let wide = DecoderConfig { hidden_size: 1 << 28, ..large };
    assert_eq!(gpu_rows(&wide, Recompute::Never, 2048), 1);
}

#[test]
fn logits_and_what_is_written_are_those_of_our_own_kernels() {
    for (name, base) in bases() {
        let vocab = u32::try_from(base.config().vocab_size).unwrap();
        let [own, candle] = both_ways(&base, Recompute::Never);
        let tokens: Vec<u32> = (0..9).map(|i| (i * 11 + 5) % vocab).collect();
        let (expected, found) = (own.logits(&tokens).unwrap(), candle.logits(&tokens).unwrap());
        let distance = off(&found, &expected);
        assert!(distance < 1e-4, "{name}: off by {distance:.1e}");
        assert_eq!(candle.logits(&[]).unwrap(), Vec::<f32>::new());
        // Incremental decoding gives the logits of the whole sequence.
        let spec = spec(&base, Method::Both, 2, &Projection::ALL);
        let (frozen, trained) = vectors(&spec);
        let written = [&own, &candle].map(|engine| {
            let (mut seen, mut at) = (Vec::new(), 4);
            let adapter = Some((&spec, frozen.as_slice(), trained.as_slice()));
            let written = engine.generate(adapter, &tokens[..4], 5, |logits| {
                seen.extend_from_slice(logits);
                at += 1;
                tokens.get(at - 1).copied()
            });
            assert_eq!(written.unwrap(), tokens[4..]);
            seen
        });
        let distance = off(&written[1], &written[0]);
        assert!(distance < 1e-4, "{name}, read on: off by {distance:.1e}");
        assert!(
            off(&written[0][..found.len() / 9], &expected[3 * found.len() / 9..][..found.len() / 9]) > 1e-2
        );
    }
}

/// A small config with QK norms, three query heads for each key/value head, and an untied LM head.
fn shape() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 96,
        hidden_size: 48,
        intermediate_size: 80,
        num_layers: 2,
        num_heads: 6,
        num_kv_heads: 2,
        head_dim: 8,
        max_positions: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: false,
        qkv_bias: true,
        output_bias: true,
        qk_norm: true,
        gemma: None,
        bos: None,
        eos: Vec::new(),
    }
}
