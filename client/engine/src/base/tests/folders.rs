//! Folders as people have them: whose files say more than their config, and which lack something. What transformers makes
//! of them is in `folders.json`, by `make_folders.py`.

use std::borrow::Cow;

use proto::adapter::{AdapterSpec, Factors, Method};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde_json::json;

use super::*;
use crate::lora::merge::write_merged;

/// A tensor in f32.
#[derive(Clone)]
struct Numbers32(Vec<usize>, Vec<u8>);

impl View for Numbers32 {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.1)
    }

    fn data_len(&self) -> usize {
        self.1.len()
    }
}

type Tensors = BTreeMap<String, Numbers32>;

fn weights() -> Tensors {
    let bytes = std::fs::read(reference().join("base/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, view)| (name, Numbers32(view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn config() -> serde_json::Map<String, Value> {
    serde_json::from_slice(&std::fs::read(reference().join("base/config.json")).unwrap()).unwrap()
}

/// A copy of the smallest base with this config and these weights.
fn folder(config: &serde_json::Map<String, Value>, tensors: &Tensors) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = reference().join("base/tokenizer.json");
    std::fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    std::fs::write(dir.path().join("config.json"), serde_json::to_vec(config).unwrap()).unwrap();
    let bytes = safetensors::serialize(tensors.clone(), None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

fn own_head(mut tensors: Tensors) -> Tensors {
    let shape = tensors["model.embed_tokens.weight"].0.clone();
    let number = |i: usize| ((37 * i + 11) % 101) as f32 / 256.0 - 50.0 / 256.0;
    let bytes = (0..shape[0] * shape[1]).flat_map(|i| number(i).to_le_bytes()).collect();
    tensors.insert("lm_head.weight".to_owned(), Numbers32(shape, bytes));
    tensors
}

fn same_head(mut tensors: Tensors) -> Tensors {
    tensors.insert("lm_head.weight".to_owned(), tensors["model.embed_tokens.weight"].clone());
    tensors
}

fn inner(tensors: Tensors) -> Tensors {
    let name = |name: String| name.strip_prefix("model.").map(str::to_owned).unwrap_or(name);
    tensors.into_iter().map(|(full, tensor)| (name(full), tensor)).collect()
}

/// The config without `rope_parameters`, with these keys, and without those that are to be left out.
fn changed(changes: &Value) -> serde_json::Map<String, Value> {
    let mut config = config();
    config.remove("rope_parameters");
    config.extend(changes.as_object().unwrap().clone());
    config.retain(|_, value| *value != "left out");
    config
}

/// The mean loss in nats a token, as transformers has it.
fn loss(base: Base) -> f64 {
    let compute = Compute { precision: Some(Precision::F32), ..Compute::default() };
    let vocab = base.config().vocab_size;
    let tokens: Vec<u32> = (0..20).map(|i| (i * i * 7 + 3) % 61 + 3).collect();
    let logits = Engine::new(Arc::new(base)).with_compute(compute).logits(&tokens).unwrap();
    let rows = logits.chunks_exact(vocab).zip(&tokens[1..]);
    let of = |(row, next): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        sum.ln() - f64::from(row[*next as usize])
    };
    rows.map(of).sum::<f64>() / (tokens.len() - 1) as f64
}

/// A scaling of Llama 3's kind with these settings too.
fn llama3(more: Value) -> Value {
    let mut map = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 10_000.0,
    });
    if let (Some(map), Value::Object(more)) = (map.as_object_mut(), more) {
        map.extend(more);
    }
    map
}

#[test]
fn what_the_files_say_counts_as_it_does_for_transformers() {
    let said: Value =
        serde_json::from_slice(&std::fs::read(reference().join("folders.json")).unwrap()).unwrap();
    let said = said["bases"].as_object().unwrap();
    let default = json!({"rope_type": "default", "rope_theta": 500_000.0});
    let linear = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 9000.0});
    let cases = [
        ("as it is", config(), weights()),
        ("tied with a head of its own", config(), own_head(weights())),
        ("tied with the embedding as its head", config(), same_head(weights())),
        ("theta in rope_scaling", changed(&json!({"rope_scaling": default})), weights()),
        (
            "theta in rope_scaling and outside",
            changed(&json!({"rope_scaling": default, "rope_theta": 10_000.0})),
            weights(),
        ),
        (
            "theta in both maps",
            changed(&json!({"rope_scaling": default, "rope_parameters": linear})),
            weights(),
        ),
        (
            "llama3 with positions within",
            changed(&json!({"rope_scaling": llama3(json!({"original_max_position_embeddings": 16}))})),
            weights(),
        ),
        (
            "llama3 with positions outside",
            changed(&json!({
                "rope_scaling": llama3(json!({"original_max_position_embeddings": 16})),
                "original_max_position_embeddings": 64,
            })),
            weights(),
        ),
        (
            "llama3 without positions",
            changed(&json!({"rope_scaling": llama3(json!({})), "max_position_embeddings": 24})),
            weights(),
        ),
        (
            "a window that a llama does not have",
            changed(&json!({"sliding_window": 4, "use_sliding_window": true})),
            weights(),
        ),
        (
            "a base of Mistral with the length of its window",
            changed(&json!({
                "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 20,
            })),
            weights(),
        ),
        ("without architectures", changed(&json!({"architectures": "left out"})), weights()),
        ("architectures null", changed(&json!({"architectures": null})), weights()),
        ("names without model.", changed(&json!({"architectures": ["LlamaModel"]})), inner(weights())),
        ("names without model. and a head", config(), inner(own_head(weights()))),
    ];
    assert_eq!(said.len(), cases.len());
    for (name, config, tensors) in cases {
        let dir = folder(&config, &tensors);
        let found = loss(Base::open(dir.path()).unwrap());
        let expected = said[name].as_f64().unwrap();
        assert!((found - expected).abs() < 2e-5, "{name}: {found} where transformers has {expected}");
    }
}

#[test]
fn a_head_that_is_the_embedding_takes_no_memory_of_its_own_and_another_one_stays() {
    let open = |tensors: &Tensors| Base::open(folder(&config(), tensors).path()).unwrap();
    assert!(open(&same_head(weights())).weights().head.is_none());
    assert!(open(&same_head(weights())).config().tied);
    assert!(open(&own_head(weights())).weights().head.is_some());
    let mut untied = config();
    untied.insert("tie_word_embeddings".to_owned(), false.into());
    let dir = folder(&untied, &same_head(weights()));
    assert!(Base::open(dir.path()).unwrap().weights().head.is_some(), "its config says that it is not tied");
}

#[test]
fn a_merged_base_keeps_the_head_that_is_in_the_file() {
    let dir = folder(&config(), &own_head(weights()));
    let base = Base::open(dir.path()).unwrap();
    let (modules, seed) = (base.modules(&[Projection::Q]), Digest([1; 32]));
    let factors = Factors::Seeded(seed);
    let spec = AdapterSpec { method: Method::Both, rank: 1, alpha: 1.0, factors, modules };
    let (to, trained) = (tempfile::tempdir().unwrap(), spec.initial(&seed, None));
    write_merged(to.path(), &base, dir.path(), (&spec, &[], &trained), u64::MAX).unwrap();
    let merged = Base::open(to.path()).unwrap();
    assert!(merged.weights().head.is_some());
    assert!((loss(merged) - loss(base)).abs() < 1e-6, "the second factor is zero, so nothing was added");
    // What a program sees that believes the config.
    let said: Value = serde_json::from_slice(&std::fs::read(to.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(said["tie_word_embeddings"], false);
}

#[test]
fn tensors_of_a_folder_that_no_decoder_has_are_refused_by_name() {
    let with = |name: &str| {
        let mut tensors = weights();
        tensors.insert(name.to_owned(), Numbers32(vec![1], vec![0; 4]));
        let dir = folder(&config(), &tensors);
        Base::open(dir.path())
            .map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
    };
    for name in [
        "model.layers.0.self_attn.sinks",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.9.mlp.up_proj.weight",
        "score.weight",
    ] {
        let expected = format!(
            "model.safetensors: tensor `{name}` is not supported, and to leave it out would change the model"
        );
        assert_eq!(with(name).unwrap_err(), expected);
    }
    // What old files hold follows from the config.
    assert!(with("model.layers.0.self_attn.rotary_emb.inv_freq").is_ok());
}

#[test]
fn what_is_there_in_another_form_is_named_with_what_to_do() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a2f5\nsize 1044992\n";
    let complaint = |change: &dyn Fn(&Path)| {
        let dir = folder(&config(), &weights());
        change(dir.path());
        Base::open(dir.path()).unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let rename = |from: &'static str, to: &'static str| {
        move |dir: &Path| std::fs::rename(dir.join(from), dir.join(to)).unwrap()
    };
    for name in ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"] {
        let said = complaint(&|dir| std::fs::write(dir.join(name), pointer).unwrap());
        assert_eq!(
            said,
            format!(
                "{name} is a pointer of git-lfs and not the file itself: run `git lfs pull` in its folder"
            )
        );
    }
    for (to, expected) in [
        (
            "pytorch_model.bin",
            "model.safetensors is not there: there is `pytorch_model.bin`, which is not read because it may run code",
        ),
        (
            "model-00001-of-00002.safetensors",
            "model.safetensors is not there: there is `model-00001-of-00002.safetensors`, one of several files, but not their list; fetch model.safetensors.index.json",
        ),
        (
            "consolidated.safetensors",
            "model.safetensors is not there: there is `consolidated.safetensors`, which is no file of transformers'",
        ),
    ] {
        let said = complaint(&rename("model.safetensors", to));
        assert!(said.starts_with(expected), "{said}");
    }
    let said = complaint(&rename("tokenizer.json", "tokenizer.model"));
    assert!(said.starts_with("tokenizer.json is not there: there is `tokenizer.model` only"), "{said}");
    let said = complaint(&rename("config.json", "adapter_config.json"));
    assert_eq!(said, "config.json is not there: the folder has an adapter; name the folder of its base");
    // Nothing else is there: as the system says it.
    let said = complaint(&|dir| std::fs::remove_file(dir.join("model.safetensors")).unwrap());
    assert!(said.starts_with("cannot read model.safetensors: "), "{said}");
    let gguf = tempfile::tempdir().unwrap();
    let path = gguf.path().join("model.gguf");
    std::fs::write(&path, pointer).unwrap();
    assert!(Base::open(&path).unwrap_err().to_string().contains("is a pointer of git-lfs"));
}

#[test]
fn a_length_without_an_end_in_a_tokenizer_s_settings_is_read() {
    let dir = folder(&config(), &weights());
    let settings = r#"{"bos_token": "w7", "model_max_length": Infinity, "x": [NaN, -Infinity]}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), settings).unwrap();
    assert_eq!(Base::open(dir.path()).unwrap().bos(), 7);
}
