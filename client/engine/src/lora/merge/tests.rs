//! A merged base, read again.

use std::sync::Arc;

use proto::adapter::{Factors, Method};

use std::path::{Path, PathBuf};

use super::*;
use crate::backend::executor::Executor;
use crate::engine::Engine;
use crate::kernels::pool::Team;
use crate::model::kv_cache::LogitsFor;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

fn spec(base: &Base, method: Method) -> AdapterSpec {
    let modules = base.modules(&[Projection::Q, Projection::K, Projection::Down]);
    AdapterSpec { method, rank: 3, alpha: 5.0, factors: Factors::Seeded(Digest([4; 32])), modules }
}

fn vectors(spec: &AdapterSpec) -> (Vec<f32>, Vec<f32>) {
    let trained = (0..spec.trained_len()).map(|i| 0.2 * (i as f32 * 1.7).sin()).collect();
    (spec.seeded_factors(&Digest([4; 32])), trained)
}

/// The logits with the adapter unmerged.
fn apart(
    base: &Arc<Base>,
    spec: &AdapterSpec,
    (frozen, trained): (&[f32], &[f32]),
    tokens: &[u32],
) -> Vec<f32> {
    let engine = Engine::new(Arc::clone(base));
    let places = AdapterLayout::new(base, spec).unwrap();
    let executor = Executor::new(engine.setup(), tokens.len());
    let deltas = places.deltas(frozen, trained).unwrap();
    let (mut space, mut cache) = Default::default();
    executor.decoder(&deltas, Team::ALONE).logits(&mut space, &mut cache, tokens, LogitsFor::All).unwrap()
}

fn far(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// Merges, reads the result, and returns the largest error of its logits, their largest distance from those of
/// the base, the merged base, and the names of the files.
fn merged(name: &str, method: Method, most: u64) -> (f32, f32, Base, Vec<String>) {
    let source = reference(name);
    let base = Arc::new(Base::open(&source).unwrap());
    let spec = spec(&base, method);
    let (frozen, trained) = vectors(&spec);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("merged");
    let written = write_merged(&out, &base, &source, (&spec, &frozen, &trained), most).unwrap();
    for (name, digest) in &written {
        assert_eq!(Digest::of(&std::fs::read(out.join(name)).unwrap()), *digest, "{name}");
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), written.len());
    let tokens: Vec<u32> = (0..12).map(|i| (i * i * 7 + 3) % 64).collect();
    let logits = |base: &Arc<Base>| Engine::new(Arc::clone(base)).logits(&tokens).unwrap();
    let again = Arc::new(Base::open(&out).unwrap());
    let together = logits(&again);
    let expected = apart(&base, &spec, (&frozen, &trained), &tokens);
    let found = (far(&together, &expected), far(&together, &logits(&base)));
    let names = written.into_iter().map(|(name, _)| name).collect();
    (found.0, found.1, Arc::into_inner(again).unwrap(), names)
}

#[test]
fn a_merged_folder_is_the_same_function_as_base_and_adapter() {
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let (off, moved, _, names) = merged("base", method, MOST_SHARD_BYTES);
        assert!(off < 1e-4 && moved > 1e-2, "{method:?}: off by {off}, moved by {moved}");
        assert_eq!(names, ["model.safetensors", "tokenizer.json", "config.json"]);
    }
}

#[test]
fn every_family_and_type_is_merged_within_its_rounding() {
    for (name, most) in [("llama", 1e-4), ("smollm2", 0.1), ("mistral", 0.1), ("qwen2", 0.02), ("qwen3", 0.1)]
    {
        let (off, moved, ..) = merged(&format!("families/{name}"), Method::Both, MOST_SHARD_BYTES);
        assert!(off < most && moved > 4.0 * most, "{name}: off by {off}, moved by {moved}");
    }
}

#[test]
fn shards_have_an_index_and_are_read_again() {
    let (off, moved, _, names) = merged("families/llama3", Method::Both, 20_000);
    assert!(off < 0.02 && moved > 0.1, "off by {off}, moved by {moved}");
    let count = names.iter().filter(|name| name.ends_with(".safetensors")).count();
    assert!(count > 1 && names[0] == format!("model-00001-of-{count:05}.safetensors"), "{names:?}");
    assert!(names.iter().any(|name| name == "model.safetensors.index.json"));
    assert!(names.last().is_some_and(|name| name == "config.json"));
}

#[test]
fn tensors_that_the_adapter_leaves_alone_keep_their_bits() {
    let source = reference("families/qwen3");
    let base = Base::open(&source).unwrap();
    let spec = spec(&base, Method::Both);
    let (frozen, trained) = vectors(&spec);
    let folder = tempfile::tempdir().unwrap();
    write_merged(folder.path(), &base, &source, (&spec, &frozen, &trained), MOST_SHARD_BYTES).unwrap();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let merged = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (mut same, mut changed) = (0, 0);
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let bytes = std::fs::read(source.join(shard)).unwrap();
        for (name, before) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let after = merged.tensor(&name).unwrap();
            assert_eq!((before.dtype(), before.shape()), (after.dtype(), after.shape()), "{name}");
            let adapted = spec.modules.iter().any(|module| name == format!("{}.weight", module.name));
            assert_eq!(before.data() == after.data(), !adapted, "{name}");
            *(if adapted { &mut changed } else { &mut same }) += 1;
        }
    }
    assert_eq!((same + changed, changed), (merged.len(), 6));
}

#[test]
fn a_quantized_file_becomes_a_folder_in_bf16() {
    for (name, kept) in [("gguf/qwen2.gguf", 0.2), ("gguf/mixed.gguf", 0.2), ("gguf/f16.gguf", 0.05)] {
        let (off, moved, again, names) = merged(name, Method::Both, MOST_SHARD_BYTES);
        assert!(off < kept && moved > off, "{name}: off by {off}, moved by {moved}");
        assert_eq!(
            names,
            ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"],
            "{name}"
        );
        let before = Base::open(&reference(name)).unwrap();
        let text = "the owl flies at 12:45 o'clock";
        assert_eq!(again.encode(text).unwrap(), before.encode(text).unwrap(), "{name}");
        assert_eq!((again.bos(), again.eos()), (before.bos(), before.eos()), "{name}");
        assert_eq!(again.chat_template(), before.chat_template(), "{name}");
    }
}

#[test]
fn what_cannot_be_merged_is_refused_before_anything_is_written() {
    let source = reference("gguf/q8_0.gguf");
    let base = Base::open(&source).unwrap();
    let spec = spec(&base, Method::Both);
    let (frozen, trained) = vectors(&spec);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let adapter = (&spec, frozen.as_slice(), trained.as_slice());
    let error = write_merged(&out, &base, &source, adapter, MOST_SHARD_BYTES).unwrap_err().to_string();
    assert!(error.starts_with("rope_freqs.weight of this GGUF base has no place"), "{error}");
    assert!(!out.exists());

    let source = reference("base");
    let base = Base::open(&source).unwrap();
    let error = write_merged(&out, &base, &source, adapter, MOST_SHARD_BYTES).unwrap_err().to_string();
    assert!(error.starts_with("the base's `model.layers.0.self_attn.q_proj` is (16, 16)"), "{error}");
    assert!(!out.exists());

    let spec = self::spec(&base, Method::Both);
    let (frozen, trained) = vectors(&spec);
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("model.safetensors"), b"older").unwrap();
    let error = write_merged(&out, &base, &source, (&spec, &frozen, &trained), MOST_SHARD_BYTES).unwrap_err();
    assert!(error.to_string().ends_with("out is not empty; a merged base needs a folder of its own"));
}

#[test]
fn a_number_too_large_for_the_base_s_type_is_refused_by_name() {
    let source = reference("families/qwen2");
    let base = Base::open(&source).unwrap();
    let spec = spec(&base, Method::Both);
    let trained = vec![200.0; spec.trained_len()];
    let folder = tempfile::tempdir().unwrap();
    let error =
        write_merged(folder.path(), &base, &source, (&spec, &[], &trained), MOST_SHARD_BYTES).unwrap_err();
    let expected = "`model.layers.0.self_attn.q_proj.weight` with the adapter has a number that does not fit F16; hold \
                    the base as f32 or bf16";
    assert_eq!(error.to_string(), expected);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
