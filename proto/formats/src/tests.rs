//! Against what PEFT and the package `gguf` wrote, and against hostile files.

use std::path::{Path, PathBuf};

use aggregation::IdentityKey;
use proptest::prelude::*;
use proto::adapter::{AdapterSpec, Factors, Method, Module};
use proto::ids::{Digest, TaskId};
use safetensors::Dtype::{F32, F64, I32};
use safetensors::SafeTensors;

use super::*;

const LLAMA: Architecture = Architecture::Llama { heads: 4, kv_heads: 2 };

/// What `tests/reference/make_adapters.py` wrote.
fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

fn modules(layers: &[(&str, u32, u32)]) -> Vec<Module> {
    let block = |block: u32| {
        layers.iter().map(move |(layer, inputs, outputs)| Module {
            name: format!("model.layers.{block}.{layer}"),
            inputs: *inputs,
            outputs: *outputs,
        })
    };
    (0..2).flat_map(block).collect()
}

fn spec(method: Method) -> AdapterSpec {
    let modules = modules(&[
        ("mlp.down_proj", 24, 16),
        ("self_attn.k_proj", 16, 8),
        ("self_attn.q_proj", 16, 16),
        ("self_attn.v_proj", 16, 8),
    ]);
    AdapterSpec { method, rank: 3, alpha: 5.0, factors: Factors::Seeded(Digest([0; 32])), modules }
}

/// The numbers of `make_adapters.py`.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 256.0 - 50.0 / 256.0).collect()
}

#[test]
fn a_gguf_adapter_has_the_bytes_that_an_independent_writer_gives_it() {
    let spec = spec(Method::Both);
    let trained = numbers(spec.trained_len());
    for (name, architecture) in [("llama.gguf", LLAMA), ("qwen2.gguf", Architecture::Qwen2)] {
        let expected = std::fs::read(reference(name)).unwrap();
        assert!(gguf_adapter(&spec, &[], &trained, architecture).unwrap() == expected, "{name}");
    }
}

#[test]
fn a_gguf_adapter_is_of_layers_that_llama_cpp_has() {
    let made = |spec: &AdapterSpec, architecture| {
        gguf_adapter(spec, &[], &numbers(spec.trained_len()), architecture).map_err(|error| error.to_string())
    };
    let mut odd = spec(Method::Both);
    let error = made(&odd, Architecture::Llama { heads: 4, kv_heads: 3 }).unwrap_err();
    assert_eq!(error, "`model.layers.0.self_attn.k_proj` has 8 rows, which are not 3 heads of an even width");
    odd.modules[7].name = "model.layers.0.self_attn.v_proj".to_owned();
    assert_eq!(made(&odd, LLAMA).unwrap_err(), "the adapter names `model.layers.0.self_attn.v_proj` twice");
    for name in ["lm_head", "model.layers.1.self_attn.qkv_proj", "model.layers.01.mlp.up_proj"] {
        odd.modules[7].name = name.to_owned();
        let error = made(&odd, LLAMA).unwrap_err();
        assert!(error.starts_with(&format!("`{name}` has no name in a GGUF file")), "{error}");
    }
}

#[test]
fn the_architecture_is_what_the_base_s_config_says() {
    let of = |json: &str| Architecture::of_config(json.as_bytes()).map_err(|error| error.to_string());
    let config = |name: &str| format!(r#"{{"architectures": ["{name}"], "num_attention_heads": 6}}"#);
    assert_eq!(of(&config("MistralForCausalLM")).unwrap(), Architecture::Llama { heads: 6, kv_heads: 6 });
    assert_eq!(of(&config("Qwen3ForCausalLM")).unwrap(), Architecture::Qwen3);
    let error = of(&config("PhiForCausalLM")).unwrap_err();
    assert!(error.starts_with("unknown architecture `PhiForCausalLM`; known are "), "{error}");
    assert!(of("{}").unwrap_err().contains("num_attention_heads"));
}

#[test]
fn the_architecture_is_what_a_gguf_file_says_of_itself() {
    let of = |path: &Path| {
        let header = gguf::GgufHeader::read(path).unwrap();
        Architecture::of_gguf(&header.metadata).map_err(|error| error.to_string())
    };
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client/engine/tests/reference/gguf");
    let base = of(&engine.join("f16.gguf")).unwrap();
    assert!(matches!(base, Architecture::Llama { heads, kv_heads } if heads > 0 && kv_heads > 0), "{base:?}");
    // An adapter's file names the architecture alone.
    assert_eq!(of(&reference("qwen2.gguf")), Ok(Architecture::Qwen2));
    let error = of(&reference("llama.gguf")).unwrap_err();
    assert!(error.contains("llama.attention.head_count") && error.contains("is missing"), "{error}");
}

#[test]
fn what_peft_wrote_is_read_with_its_true_scale() {
    let expected = spec(Method::Both);
    for (name, alpha) in [("f32", 5.0), ("f16_rslora", 5.0 * 3f32.sqrt()), ("bf16_patterns", 5.0)] {
        let file = |file: &str| std::fs::read(reference("peft").join(name).join(file)).unwrap();
        let (spec, trained) = read_peft(&file(PEFT_CONFIG), &file(PEFT_TENSORS)).unwrap();
        assert!((spec.alpha - alpha).abs() < 1e-6, "{name}: {}", spec.alpha);
        assert_eq!(AdapterSpec { alpha: 5.0, ..spec }, expected, "{name}");
        assert!(trained == numbers(expected.trained_len()), "{name}");
    }
}

fn files(spec: &AdapterSpec, frozen: &[f32], trained: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let mut files = peft_files(spec, frozen, trained, "a-base").unwrap().into_iter();
    let ((config, first), (tensors, second)) = (files.next().unwrap(), files.next().unwrap());
    assert_eq!((config, tensors), (PEFT_CONFIG, PEFT_TENSORS));
    (first, second)
}

#[test]
fn what_was_written_is_read_back_as_the_same_products() {
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let spec = spec(method);
        let (frozen, trained) = (spec.seeded_factors(&Digest([3; 32])), numbers(spec.trained_len()));
        let (config, tensors) = files(&spec, &frozen, &trained);
        let (read, vector) = read_peft(&config, &tensors).unwrap();
        assert_eq!(read, AdapterSpec { method: Method::Both, factors: read.factors, ..spec.clone() });
        assert_eq!(read.pairs(&[], &vector).unwrap(), spec.pairs(&frozen, &trained).unwrap(), "{method:?}");
    }
}

#[test]
fn a_core_adapter_is_written_as_two_factors() {
    let modules = vec![Module { name: "model.layers.0.mlp.up_proj".into(), inputs: 5, outputs: 3 }];
    let spec = AdapterSpec { rank: 2, alpha: 6.0, modules, ..spec(Method::Core) };
    let frozen = spec.seeded_factors(&Digest([1; 32]));
    let (config, tensors) = files(&spec, &frozen, &[1.0, 2.0, 3.0, 4.0]);
    let file = SafeTensors::deserialize(&tensors).unwrap();
    let a = file.tensor("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight").unwrap();
    assert_eq!(a.shape(), [2, 5]);
    let first = f32::from_le_bytes(a.data()[..4].try_into().unwrap());
    assert!((first - (frozen[0] + 2.0 * frozen[5])).abs() < 1e-6);
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&2.into(), &6.0.into()));
    assert_eq!(config["target_modules"], serde_json::json!(["up_proj"]));
}

#[test]
fn an_adapter_of_some_blocks_names_them_whole() {
    let mut spec = spec(Method::Both);
    spec.modules.drain(..4);
    let (config, _) = files(&spec, &[], &numbers(spec.trained_len()));
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["target_modules"][0], "model.layers.1.mlp.down_proj");
}

#[test]
fn parameters_of_another_adapter_are_refused() {
    let spec = spec(Method::FrozenA);
    let error = peft_files(&spec, &spec.seeded_factors(&Digest([1; 32])), &[0.0; 3], "b").unwrap_err();
    assert_eq!(error.to_string(), "the trained parameters of this adapter are 288 numbers, found 3");
}

#[test]
fn settings_that_change_the_function_are_refused_by_name() {
    let spec = spec(Method::Both);
    let (config, tensors) = files(&spec, &[], &numbers(spec.trained_len()));
    let with = |key: &str, value: serde_json::Value| {
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        config[key] = value;
        read_peft(&serde_json::to_vec(&config).unwrap(), &tensors).map_err(|error| error.to_string())
    };
    let unsupported =
        |what: &str| format!("{what} is not supported, and to leave it out would change the adapter");
    for (key, value, expected) in [
        ("use_dora", true.into(), unsupported("use_dora = true")),
        ("bias", "lora_only".into(), unsupported("bias = lora_only")),
        ("modules_to_save", serde_json::json!(["lm_head"]), unsupported(r#"modules_to_save = ["lm_head"]"#)),
        ("fan_in_fan_out", true.into(), unsupported("fan_in_fan_out = true")),
        ("use_what_is_new", true.into(), unsupported("use_what_is_new = true")),
        (
            "target_modules",
            serde_json::json!(["q_proj", "k_proj", "v_proj"]),
            "`model.layers.0.mlp.down_proj` is in the file, and PEFT leaves it out because of target_modules; take its \
             tensors out of the file, or change target_modules"
                .to_owned(),
        ),
        ("init_lora_weights", "pissa_niter_4".into(), unsupported("init_lora_weights = pissa_niter_4")),
        ("peft_type", "IA3".into(), "peft_type = IA3 is not supported; only LORA is".to_owned()),
        (
            "rank_pattern",
            serde_json::json!({"q_proj": 3, "k_proj": 4}),
            r#"rank_pattern gives modules different ranks: {"k_proj":4,"q_proj":3}; adapters here have one for all modules"#
                .to_owned(),
        ),
        (
            "alpha_pattern",
            serde_json::json!({"q_proj": 7}),
            r#"alpha_pattern gives modules different scales: {"q_proj":7.0}; adapters here have one for all modules"#
                .to_owned(),
        ),
        (
            "r",
            4.into(),
            "tensor `base_model.model.model.layers.0.mlp.down_proj.lora_A.weight` is [3, 24], which is not (rank, inputs) \
             for a rank of 4"
                .to_owned(),
        ),
        ("lora_alpha", 0.into(), "alpha must be a positive number, found 0".to_owned()),
    ] {
        assert_eq!(with(key, value).unwrap_err(), expected);
    }
    let all = serde_json::json!({"q_proj": 8, "k_proj": 8, "v_proj": 8, "mlp.down_proj": 8});
    let (spec, _) = with("alpha_pattern", all).unwrap();
    assert!((spec.alpha - 8.0).abs() < 1e-6);
    // One that matches nothing changes nothing; one that cannot be read is not guessed at.
    let (same, _) = with("alpha_pattern", serde_json::json!({"nothing": 8, "proj": 9})).unwrap();
    assert!((same.alpha - 5.0).abs() < 1e-6);
    let unread = with("alpha_pattern", serde_json::json!({"(?=q)q_proj": 8})).unwrap_err();
    assert!(unread.starts_with("alpha_pattern gives modules different scales"), "{unread}");
}

#[test]
fn tensors_that_are_no_factors_are_refused_by_name() {
    let spec = spec(Method::Both);
    let (config, _) = files(&spec, &[], &numbers(spec.trained_len()));
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["target_modules"] = serde_json::Value::Null;
    let config = serde_json::to_vec(&config).unwrap();
    let read = |tensors: &[(&str, safetensors::Dtype, &[usize])]| {
        let bytes = vec![0; 4096];
        let views = tensors.iter().map(|(name, dtype, shape)| {
            let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let view = safetensors::tensor::TensorView::new(*dtype, shape.to_vec(), &bytes[..len]).unwrap();
            (format!("base_model.model.{name}"), view)
        });
        let file = safetensors::serialize(views, None).unwrap();
        read_peft(&config, &file).unwrap_err().to_string()
    };
    let (a, b) = ("m.lora_A.weight", "m.lora_B.weight");
    assert_eq!(read(&[(a, F32, &[3, 8])]), "`m` has no tensor lora_B");
    assert_eq!(read(&[(b, F32, &[8, 3])]), "`m` has no tensor lora_A");
    for dtype in [F64, I32] {
        let error = read(&[(a, dtype, &[3, 8]), (b, F32, &[8, 3])]);
        let expected = format!("tensor `base_model.model.{a}` must be F32, F16 or BF16, found {dtype}");
        assert_eq!(error, expected);
    }
    let error = read(&[(a, F32, &[3, 8]), (b, F32, &[8, 2])]);
    assert!(error.ends_with("is [8, 2], which is not (outputs, rank) for a rank of 3"), "{error}");
    for name in ["m.lora_embedding_A", "m.lora_magnitude_vector", ".lora_A.weight", "lm_head.weight"] {
        let error = read(&[(a, F32, &[3, 8]), (b, F32, &[8, 3]), (name, F32, &[8])]);
        assert!(error.starts_with(&format!("tensor `base_model.model.{name}` is not supported")), "{error}");
    }
    assert_eq!(read(&[]), "the adapter names no module");
}

#[test]
fn a_header_longer_than_the_file_is_refused() {
    let spec = spec(Method::Both);
    let (config, mut tensors) = files(&spec, &[], &numbers(spec.trained_len()));
    tensors[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read_peft(&config, &tensors), Err(PeftError::Tensors(_))));
}

fn release() -> Release {
    Release {
        version: Version {
            task: TaskId([1; 16]),
            version: 4,
            plan: Digest([2; 32]),
            adapter: Digest([3; 32]),
        },
        parent: 3,
        round: 9,
        survivors: 40,
        epsilon: 0.1 + 0.2,
        delta: 1e-5,
    }
}

fn origins() -> Vec<Origin> {
    let key = IdentityKey::from_seed(&[5; 32]);
    let without_noise = Release { epsilon: f64::INFINITY, ..release() };
    vec![
        Origin::Unknown,
        Origin::Personal(Personal { seed: 7, steps: 20, documents: 3, tokens: 456 }),
        Origin::Version(release().version),
        Origin::Release(release().sign(&Digest([8; 32]), &key)),
        Origin::Release(without_noise.sign(&Digest([8; 32]), &key)),
    ]
}

fn manifest(origin: Origin) -> Manifest {
    Manifest::new(Digest([8; 32]), origin, [("a.bin".to_owned(), Digest::of(b"abc"))])
}

#[test]
fn a_manifest_reads_back_and_says_nothing_that_does_not_apply() {
    let words: Vec<String> = origins()
        .into_iter()
        .map(|origin| {
            let bytes = manifest(origin.clone()).to_bytes().unwrap();
            assert_eq!(Manifest::parse(&bytes).unwrap(), manifest(origin));
            let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
            value.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(words[0], "base files");
    assert_eq!(words[1], "base documents files personal seed steps tokens");
    assert_eq!(words[2], "adapter base files plan task version");
    let released =
        "adapter base delta epsilon files parent plan round signature signed_by survivors task version";
    assert_eq!(words[3], released);
    assert_eq!(words[4], released.replace("epsilon ", ""));
}

#[test]
fn a_signature_holds_for_what_it_covers_and_for_nothing_else() {
    let (base, key) = (Digest([8; 32]), IdentityKey::from_seed(&[5; 32]));
    let signed = release().sign(&base, &key);
    signed.verify(&base, &key.public()).unwrap();
    let other = IdentityKey::from_seed(&[6; 32]);
    assert!(matches!(signed.verify(&base, &other.public()), Err(ManifestError::Key { .. })));
    let version = release().version;
    for changed in [
        Release { version: Version { task: TaskId([2; 16]), ..version }, ..release() },
        Release { version: Version { version: 5, ..version }, ..release() },
        Release { version: Version { plan: Digest([9; 32]), ..version }, ..release() },
        Release { version: Version { adapter: Digest([9; 32]), ..version }, ..release() },
        Release { parent: 2, ..release() },
        Release { round: 10, ..release() },
        Release { survivors: 41, ..release() },
        Release { epsilon: 2.0, ..release() },
        Release { delta: 1e-6, ..release() },
    ] {
        let forged = SignedRelease { release: changed, ..signed };
        let origin = Origin::Release(forged);
        let error = Manifest::parse(&manifest(origin).to_bytes().unwrap()).unwrap_err();
        assert!(matches!(error, ManifestError::Signature { .. }), "{changed:?}");
    }
    assert!(matches!(signed.verify(&Digest([9; 32]), &key.public()), Err(ManifestError::Signature { .. })));
}

#[test]
fn a_manifest_with_half_of_something_is_refused() {
    for (origin, key) in origins().into_iter().skip(1).zip(["tokens", "adapter", "signature", "delta"]) {
        let bytes = manifest(origin).to_bytes().unwrap();
        let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        value.remove(key);
        let error = Manifest::parse(&serde_json::to_vec(&value).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` is missing")), "{error}");
        value.insert("verified".into(), true.into());
        let error = Manifest::parse(&serde_json::to_vec(&value).unwrap()).unwrap_err().to_string();
        assert!(error.contains("unknown field `verified`"), "{error}");
    }
}

#[test]
fn a_changed_file_is_noticed() {
    let manifest = manifest(Origin::Unknown);
    manifest.check_file("a.bin", b"abc").unwrap();
    manifest.check_file("another.bin", b"x").unwrap();
    let error = manifest.check_file("a.bin", b"abd").unwrap_err().to_string();
    assert!(
        error.starts_with("a.bin hashes to ") && error.ends_with("one of the two was changed"),
        "{error}"
    );
}

proptest! {
    /// Bytes are changed, cut and added; whatever comes, it is an adapter or an error.
    #[test]
    fn a_damaged_folder_is_an_adapter_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
        in_config in any::<bool>(),
    ) {
        let spec = spec(Method::Both);
        let (mut config, mut tensors) = files(&spec, &[], &numbers(spec.trained_len()));
        let target = if in_config { &mut config } else { &mut tensors };
        for (at, byte) in changes {
            let at = at.index(target.len());
            target[at] = byte;
        }
        if !whole {
            target.truncate(cut.index(target.len()));
        }
        if let Ok((spec, trained)) = read_peft(&config, &tensors) {
            prop_assert!(spec.check().is_ok() && spec.check_trained(&trained).is_ok());
        }
    }

    #[test]
    fn a_header_of_anything_is_an_adapter_or_an_error(header in "[ -~]{0,300}", data in prop::collection::vec(any::<u8>(), 0..64)) {
        let spec = spec(Method::Both);
        let (config, _) = files(&spec, &[], &numbers(spec.trained_len()));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        prop_assert!(read_peft(&config, &file).is_err());
        prop_assert!(read_peft(header.as_bytes(), &file).is_err());
        prop_assert!(Manifest::parse(header.as_bytes()).is_err());
    }

    #[test]
    fn a_damaged_manifest_is_no_release_of_another_kind(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0usize..5,
    ) {
        let origin = origins().swap_remove(kind);
        let mut bytes = manifest(origin.clone()).to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Manifest { origin: Origin::Release(read), .. }) = Manifest::parse(&bytes) {
            prop_assert_eq!(Origin::Release(read), origin);
        }
    }
}
