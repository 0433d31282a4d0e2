//! Folders written, read, damaged, and loaded by PEFT.

use std::process::Command;
use std::sync::Arc;

use formats::Personal;
use proto::adapter::{Factors, Folded, Method, State};
use proto::ids::TaskId;

use super::*;
use crate::store::DeviceStore;
use engine::{Compute, Engine, Precision, Projection};
use session::Work;

const FAMILIES: [&str; 2] = ["llama", "qwen2"];

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/reference").join(name)
}

fn base(family: &str) -> Arc<Base> {
    Arc::new(Base::open(&reference("families").join(family)).unwrap())
}

fn spec(base: &Base, method: Method) -> AdapterSpec {
    let modules = base.modules(&Projection::ALL);
    AdapterSpec { method, rank: 3, alpha: 5.0, factors: Factors::Seeded(Digest([4; 32])), modules }
}

/// The adapter of `client/engine/tests/reference/make_export.py`.
fn adapter(base: &Base) -> Adapter {
    let spec = spec(base, Method::Both);
    let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 256.0 - 50.0 / 256.0;
    let trained = (0..spec.trained_len()).map(number).collect();
    let origin = Origin::Personal(Personal { seed: 7, steps: 20, documents: 3, tokens: 456 });
    Adapter { spec, frozen: Vec::new(), trained, origin }
}

fn tokens() -> Vec<u32> {
    (0..20).map(|i| (i * i * 7 + 3) % 61 + 3).collect()
}

/// The logits after each token, in single precision.
fn logits(base: &Arc<Base>, adapter: Option<&Adapter>) -> Vec<f32> {
    let compute = Compute { precision: Some(Precision::F32), ..Compute::default() };
    let engine = Engine::new(Arc::clone(base)).with_compute(compute);
    let tokens = tokens();
    let mut seen = Vec::new();
    let mut rest = tokens[1..].iter().copied();
    let adapter = adapter.map(|it| (&it.spec, it.frozen.as_slice(), it.trained.as_slice()));
    let choose = |logits: &[f32]| {
        seen.extend_from_slice(logits);
        rest.next()
    };
    engine.generate(adapter, &tokens[..1], tokens.len(), choose).unwrap();
    seen
}

fn far(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn an_adapter_does_what_peft_says_that_it_does() {
    let bytes = std::fs::read(reference("exports.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for family in FAMILIES {
        let expected = file.tensor(&format!("logits.{family}")).unwrap();
        let expected = vector_from_bytes(expected.data()).unwrap();
        let base = base(family);
        // By way of the folder, so that writing and reading are in it.
        let folder = tempfile::tempdir().unwrap();
        write_peft(folder.path(), &adapter(&base), base.digest(), "a-base").unwrap();
        let read = read_peft(folder.path(), &base).unwrap();
        let off = far(&logits(&base, Some(&read)), &expected);
        let moved = far(&logits(&base, None), &expected);
        assert!(off < 1e-4 && moved > 1.0, "{family}: off by {off}, moved by {moved}");
    }
}

/// The mean loss in nats a token, as transformers has it.
fn loss(logits: &[f32]) -> f64 {
    let tokens = tokens();
    let rows = logits.chunks_exact(logits.len() / tokens.len()).zip(&tokens[1..]);
    let of = |(row, next): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        sum.ln() - f64::from(row[*next as usize])
    };
    rows.map(of).sum::<f64>() / (tokens.len() - 1) as f64
}

/// The tensors of an adapter of `client/engine/tests/reference/make_folders.py`.
fn tensors(base: &Base, rank: usize, layers: &[&str]) -> Vec<u8> {
    let mut modules = base.modules(&Projection::ALL);
    modules.retain(|module| layers.iter().any(|layer| module.name.ends_with(layer)));
    modules.sort_by(|left, right| left.name.cmp(&right.name));
    let (mut at, mut tensors) = (0, Vec::new());
    for module in modules {
        let (inputs, outputs) = (module.inputs as usize, module.outputs as usize);
        for (factor, shape) in [("lora_A", vec![rank, inputs]), ("lora_B", vec![outputs, rank])] {
            let count = shape[0] * shape[1];
            let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 256.0 - 50.0 / 256.0;
            let bytes: Vec<u8> = (at..at + count).flat_map(|i| number(i).to_le_bytes()).collect();
            tensors.push((format!("base_model.model.{}.{factor}.weight", module.name), shape, bytes));
            at += count;
        }
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn unusual_ranks_patterns_and_targets_do_what_peft_says_that_they_do() {
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(reference("folders.json")).unwrap()).unwrap();
    let base = Arc::new(Base::open(&reference("base")).unwrap());
    let cases = said["adapters"].as_object().unwrap();
    assert_eq!(cases.len(), 8);
    let mut seen = Vec::new();
    for (name, case) in cases {
        let layers: Vec<&str> =
            case["layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap()).collect();
        let rank = usize::try_from(case["rank"].as_u64().unwrap()).unwrap();
        let mut config = case["config"].clone();
        config["peft_type"] = "LORA".into();
        config["bias"] = "none".into();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(PEFT_CONFIG), config.to_string()).unwrap();
        std::fs::write(folder.path().join(PEFT_TENSORS), tensors(&base, rank, &layers)).unwrap();
        let adapter = read_peft(folder.path(), &base).unwrap();
        let (found, expected) = (loss(&logits(&base, Some(&adapter))), case["loss"].as_f64().unwrap());
        assert!((found - expected).abs() < 2e-5, "{name}: {found} where PEFT has {expected}");
        seen.push(found);
        // What was read is written again, and does the same.
        let again = tempfile::tempdir().unwrap();
        write_peft(again.path(), &adapter, base.digest(), "base").unwrap();
        let again = loss(&logits(&base, Some(&read_peft(again.path(), &base).unwrap())));
        assert!((again - found).abs() < 1e-6, "{name}: {again} after it was written again");
    }
    assert!(
        seen.iter().all(|found| (found - loss(&logits(&base, None))).abs() > 1e-3),
        "each changes the base"
    );
}

#[test]
fn files_in_another_form_are_named_with_what_to_do() {
    let base = Base::open(&reference("base")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(PEFT_CONFIG), "{}").unwrap();
    std::fs::write(folder.path().join("adapter_model.bin"), "PK").unwrap();
    let error = read_peft(folder.path(), &base).unwrap_err().to_string();
    assert!(error.contains("has adapter_model.bin, which is not read because it may run code"), "{error}");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    std::fs::write(folder.path().join(PEFT_TENSORS), pointer).unwrap();
    let error = read_peft(folder.path(), &base).unwrap_err().to_string();
    assert!(error.contains("adapter_model.safetensors is a pointer of git-lfs"), "{error}");
}

#[test]
fn transformers_and_peft_load_what_is_written() {
    let Some(python) = std::env::var_os("NIGHTSHIFT_PYTHON") else {
        println!("not run: NIGHTSHIFT_PYTHON names no Python with torch, transformers and peft");
        return;
    };
    let says = |folders: &[&Path]| -> Vec<f32> {
        let script = reference("make_export.py");
        let output = Command::new(&python).arg(script).args(folders).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for family in FAMILIES {
        let (base, source) = (base(family), reference("families").join(family));
        let folder = tempfile::tempdir().unwrap();
        let (peft, whole) = (folder.path().join("peft"), folder.path().join("whole"));
        for method in [Method::FrozenA, Method::Core, Method::Both] {
            let mut adapter = adapter(&base);
            adapter.spec.method = method;
            adapter.frozen = adapter.spec.seeded_factors(&Digest([4; 32]));
            adapter.trained.truncate(adapter.spec.trained_len());
            write_peft(&peft, &adapter, base.digest(), "a-base").unwrap();
            let ours = logits(&base, Some(&adapter));
            let off = far(&says(&[&source, &peft]), &ours);
            assert!(off < 1e-4, "{family} {method:?}: off by {off}");
        }
        // The merged weights are rounded to the base's type, so both sides read the rounded ones.
        write_whole(&whole, &adapter(&base), &base, &source).unwrap();
        let off = far(&says(&[&whole]), &logits(&Arc::new(Base::open(&whole).unwrap()), None));
        assert!(off < 1e-4, "{family} merged: off by {off}");
    }
    // A folder of which everything but the weights was made from a GGUF file.
    let source = reference("gguf/qwen2.gguf");
    let base = Arc::new(Base::open(&source).unwrap());
    let folder = tempfile::tempdir().unwrap();
    write_whole(folder.path(), &adapter(&base), &base, &source).unwrap();
    let again = Arc::new(Base::open(folder.path()).unwrap());
    let off = far(&says(&[folder.path()]), &logits(&again, None));
    assert!(off < 1e-4, "merged from GGUF: off by {off}");
}

#[test]
fn a_folder_reads_back_with_where_it_came_from() {
    let base = base("qwen2");
    let adapter = adapter(&base);
    let folder = tempfile::tempdir().unwrap();
    write_peft(folder.path(), &adapter, base.digest(), "a-base").unwrap();
    let read = read_peft(folder.path(), &base).unwrap();
    assert_eq!(read.origin, adapter.origin);
    let products = |it: &Adapter| {
        let mut pairs: Vec<_> = it.spec.pairs(&it.frozen, &it.trained).unwrap();
        pairs.sort_by(|x, y| x.module.name.cmp(&y.module.name));
        pairs.into_iter().map(|pair| (pair.module.clone(), pair.a, pair.b)).collect::<Vec<_>>()
    };
    assert_eq!(products(&read), products(&adapter));
    assert!((read.spec.scale() - adapter.spec.scale()).abs() < 1e-7);
    std::fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
    assert_eq!(read_peft(folder.path(), &base).unwrap().origin, Origin::Unknown);
}

#[test]
fn a_folder_that_does_not_fit_is_refused_by_name() {
    let (llama, qwen2) = (base("llama"), base("qwen2"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let refused = |base: &Base| {
        let text = read_peft(path, base).unwrap_err().to_string();
        text.replace(path.to_str().unwrap(), "FOLDER").replace("FOLDER/", "")
    };
    assert!(refused(&llama).starts_with("cannot read adapter_config.json: "));
    write_peft(path, &adapter(&llama), llama.digest(), "a-base").unwrap();
    let expected = format!("FOLDER is for the base {}; this one is {}", llama.digest(), qwen2.digest());
    assert_eq!(refused(&qwen2), expected);

    let mut other = adapter(&llama);
    other.spec.modules[0].name = "model.layers.7.self_attn.q_proj".to_owned();
    write_peft(path, &other, llama.digest(), "a-base").unwrap();
    assert_eq!(
        refused(&llama),
        "FOLDER does not fit the base: the base has no layer `model.layers.7.self_attn.q_proj`"
    );
    let mut other = adapter(&llama);
    other.spec.modules.truncate(1);
    other.spec.modules[0].inputs += 2;
    other.trained.truncate(other.spec.trained_len());
    write_peft(path, &other, llama.digest(), "a-base").unwrap();
    assert_eq!(
        refused(&llama),
        "FOLDER does not fit the base: the base's `model.layers.0.self_attn.q_proj` is (32, 32) (outputs, inputs), \
         the adapter's (32, 34)"
    );

    write_peft(path, &adapter(&llama), llama.digest(), "a-base").unwrap();
    let tensors = path.join(PEFT_TENSORS);
    let mut bytes = std::fs::read(&tensors).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&tensors, &bytes).unwrap();
    let error = refused(&llama);
    assert!(error.starts_with("FOLDER: adapter_model.safetensors hashes to "), "{error}");
    std::fs::remove_file(path.join(MANIFEST_FILE)).unwrap();
    std::fs::write(&tensors, &bytes[..bytes.len() / 2]).unwrap();
    let error = refused(&llama);
    assert!(error.starts_with("FOLDER: adapter_model.safetensors is damaged: "), "{error}");
}

/// A state directory with an installed version, and the version as it is shipped.
fn installed(base: &Base, method: Method) -> (tempfile::TempDir, Adapter) {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(base, method);
    let plan =
        proto::plan::Plan { base: base.digest(), adapter: spec.clone(), ..proto::plan::Plan::example() };
    let mut trained = adapter(base).trained;
    trained.truncate(spec.trained_len());
    let bytes = proto::plan::vector_to_bytes(&trained);
    let published = Published {
        task: TaskId([1; 16]),
        version: 3,
        plan: Digest([2; 32]),
        adapter: Digest::of(&bytes),
        folded: None,
        clip_norm: 1.0,
    };
    let Published { task, version, plan: plan_digest, adapter: digest, .. } = published;
    let origin = Origin::Version(Version { task, version, plan: plan_digest, adapter: digest });
    let mechanism = proto::plan::Plan::example().mechanism().unwrap();
    let frozen = spec.seeded_factors(&Digest([4; 32]));
    let state = State::at(&spec, version, frozen, Folded::default(), &trained).unwrap();
    let (shipped, parameters) = state.shipped(plan.shipped_rank()).unwrap();
    let work = Work {
        published,
        plan,
        mechanism,
        state,
        adapter: trained,
        class: None,
        before: None,
        against: None,
    };
    DeviceStore::open(folder.path()).unwrap().install(&work).unwrap();
    (folder, Adapter { spec: shipped, frozen: Vec::new(), trained: parameters, origin })
}

#[test]
fn what_a_device_has_installed_is_an_adapter_like_any_other() {
    let base = base("qwen2");
    for method in [Method::FrozenA, Method::Core, Method::Both] {
        let (state, adapter) = installed(&base, method);
        let read = read_installed(state.path(), None, &base).unwrap();
        assert_eq!(read, adapter, "{method:?}");
        let out = state.path().join("out");
        write_gguf(&out, &read, &base).unwrap();
        let manifest = Manifest::parse(&std::fs::read(out.join(MANIFEST_FILE)).unwrap()).unwrap();
        assert_eq!((manifest.base, &manifest.origin), (base.digest(), &adapter.origin));
        let bytes = std::fs::read(out.join(GGUF_FILE)).unwrap();
        assert_eq!(manifest.files[GGUF_FILE], Digest::of(&bytes));
    }
}

#[test]
fn a_device_without_a_whole_version_says_so() {
    let base = base("qwen2");
    let empty = tempfile::tempdir().unwrap();
    let error = read_installed(empty.path(), None, &base).unwrap_err().to_string();
    assert!(error.starts_with("nothing is installed in ") && error.contains("--adapter"), "{error}");
    let (state, _) = installed(&base, Method::FrozenA);
    assert!(matches!(
        read_installed(state.path(), None, &self::base("llama")),
        Err(AdapterFileError::OtherBase { .. })
    ));
    for name in ["shipped", "adapter"] {
        std::fs::write(
            current_folder(state.path(), None).unwrap().unwrap().join(format!("{name}.f32")),
            [0; 8],
        )
        .unwrap();
        let error = read_installed(state.path(), None, &base).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}.f32 is damaged: its bytes do not hash to ")), "{error}");
    }
}

#[test]
fn another_form_in_the_same_folder_leaves_no_file_of_the_one_before() {
    let base = base("llama");
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(&base);
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    std::fs::write(folder.path().join("notes.md"), "mine").unwrap();
    write_peft(folder.path(), &adapter, base.digest(), "a-base").unwrap();
    write_gguf(folder.path(), &adapter, &base).unwrap();
    assert_eq!(names(), [GGUF_FILE, MANIFEST_FILE, "notes.md"]);
    write_peft(folder.path(), &adapter, base.digest(), "a-base").unwrap();
    assert_eq!(names(), [PEFT_CONFIG, PEFT_TENSORS, MANIFEST_FILE, "notes.md"]);
    // What its user changed is theirs.
    std::fs::write(folder.path().join(PEFT_CONFIG), "{}").unwrap();
    write_gguf(folder.path(), &adapter, &base).unwrap();
    assert_eq!(names(), [GGUF_FILE, PEFT_CONFIG, MANIFEST_FILE, "notes.md"]);
}
